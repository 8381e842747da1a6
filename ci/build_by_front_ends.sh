#!/usr/bin/env bash
# Builds the wheel with pip and with build, in a copy of the checkout, and compares its SHA-256 with that in the wheelhouse.
#   ci/build_by_front_ends.sh [ARCH]
# Needs a finished `nox -s build_cuda_wheel -- --arch ARCH` here. Its units are taken from the store; the wheel is packed
# again for each front end.
set -euo pipefail

arch=${1:-auto}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
store=${WORK_ROOT:-/var/tmp/llama-cuda-wheels}/store
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir "$scratch/clone"
tar -C "$root" --exclude=./.git --exclude=./.nox --exclude=./.build-environment --exclude=./vendor --exclude=./wheelhouse \
  -cf - . | tar -C "$scratch/clone" -xf -
python3 -m venv "$scratch/environment"
python=$scratch/environment/bin/python
"$python" -m pip install --quiet --disable-pip-version-check build
cd "$scratch/clone"
for front_end in pip build; do
  rm -rf "$store/wheel"
  echo "== $front_end"
  case $front_end in
    pip) "$python" -m pip wheel --disable-pip-version-check --no-deps -C "arch=$arch" -w "$scratch/pip" . ;;
    build) "$python" -m build --wheel -C "arch=$arch" -o "$scratch/build" ;;
  esac
done
name=$(cd "$scratch/pip" && echo *.whl)
digests=$(sha256sum "$scratch/pip/$name" "$scratch/build/$name" "$root/wheelhouse/$name")
echo "$digests" >&2 # not by tee: /dev/stderr may be a log file, which tee would begin again
[ "$(cut -d ' ' -f 1 <<<"$digests" | sort -u | wc -l)" = 1 ] || { echo "the wheels differ" >&2; exit 1; }
echo "pip, build and nox give the same wheel"
