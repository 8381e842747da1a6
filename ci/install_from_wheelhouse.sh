#!/usr/bin/env bash
# Uses a finished wheel as a user does: installs it into a new environment outside the checkout, loads a model,
# generates. The environment of the build is needed, because it writes the tiny model of the validation.
#   ci/install_from_wheelhouse.sh [WHEELHOUSE]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheelhouse=$(cd "${1:-$root/wheelhouse}" && pwd)
builder=$root/.nox/build_cuda_wheel/bin/python
[ -x "$builder" ] || { echo "$builder is missing: run nox -s build_cuda_wheel first" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

(cd "$root" && "$builder" - "$scratch/model.gguf") <<'PYTHON'
import sys
from pathlib import Path
from build_config.testbed import synthetic_model
synthetic_model.write(Path(sys.argv[1]))
PYTHON

cd "$scratch"
python3 -m venv environment
python=$scratch/environment/bin/python
"$python" -m pip install --disable-pip-version-check --find-links "$wheelhouse" \
  --only-binary llama-cpp-python llama-cpp-python
"$python" - <<'PYTHON'
from importlib.metadata import version
installed = version("llama-cpp-python")
assert "+cu" in installed, f"pip installed llama-cpp-python {installed}, which is not from the wheelhouse"
print("installed: llama-cpp-python", installed)
PYTHON
"$python" - <<'PYTHON'
from llama_cpp import Llama, cuda_status

print(cuda_status())
llm = Llama("model.gguf", n_gpu_layers=-1, verbose=False)
print(llm("Hello", max_tokens=8)["choices"][0]["text"])
PYTHON
echo "installed from $(basename "$wheelhouse"), loaded a model, generated"
