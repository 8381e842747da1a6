#!/usr/bin/env bash
# Builds a baseline for comparisons: what `pip install llama-cpp-python` builds, with upstream's project and settings, from
# the same locked sources and with the same toolkit as ours.
#   ci/build_stock_wheel.sh FOLDER cpu          for the instruction set of this machine, as upstream does
#   ci/build_stock_wheel.sh FOLDER cuda ARCH    ARCH is a compute capability without its dot: 89
# Needs a finished `nox -s build_cuda_wheel` here (the toolkit) and `nox -s vendor` (the sources).
set -euo pipefail

folder=${1:?usage: ci/build_stock_wheel.sh FOLDER cpu|cuda [ARCH]}
kind=${2:?usage: ci/build_stock_wheel.sh FOLDER cpu|cuda [ARCH]}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work_root=${WORK_ROOT:-/var/tmp/llama-cuda-wheels}
[ -f "$root/vendor/llama-cpp-python/pyproject.toml" ] || { echo "no sources: run nox -s vendor" >&2; exit 1; }

arguments=()
case $kind in
  cpu) ;;
  cuda)
    arch=${3:?pass the architecture: ci/build_stock_wheel.sh FOLDER cuda 89}
    toolkit=$(find "$work_root/toolkit" -maxdepth 1 -name 'cuda-*' | sort | tail -n 1)
    [ -n "$toolkit" ] || { echo "no toolkit in $work_root: run nox -s build_cuda_wheel" >&2; exit 1; }
    arguments=(-DGGML_CUDA=on "-DCMAKE_CUDA_ARCHITECTURES=$arch" "-DCMAKE_CUDA_COMPILER=$toolkit/bin/nvcc"
      "-DCUDAToolkit_ROOT=$toolkit")
    ;;
  *)
    echo "pass cpu or cuda, not $kind" >&2
    exit 2
    ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -R "$root/vendor/llama-cpp-python" "$scratch/project"
mkdir -p "$scratch/project/vendor"
cp -R "$root/vendor/llama.cpp" "$scratch/project/vendor/"
"${PYTHON:-python3}" -m venv "$scratch/environment"
CMAKE_ARGS="${arguments[*]-}" CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)} \
  "$scratch/environment/bin/python" -m pip wheel --disable-pip-version-check --no-deps --wheel-dir "$folder" \
  "$scratch/project"
