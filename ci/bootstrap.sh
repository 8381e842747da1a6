#!/usr/bin/env bash
# Makes a virtual environment with nox, on a machine that has only Python 3.11 or later.
#   ci/bootstrap.sh FOLDER
# PYTHON selects another interpreter than python3.
set -euo pipefail

folder=${1:?usage: ci/bootstrap.sh FOLDER}
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "$("$python" --version) is too old: install Python 3.11 or later, or select it (PYTHON=python3.11 $0 $folder)" >&2
  exit 1
}
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check nox
