"""The rule of ``shard_score.cpp``, compiled: which GPU runs which code, and which code it runs best."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config.system.layout import PACKAGE
from check_gpu import coverage
from tests.support import pairs

if TYPE_CHECKING:
    from build_config.model import CudaArch

pytestmark = pytest.mark.integration

GGML = "#define GGML_BACKEND_DL_SCORE_IMPL(score) extern int (*const score_of_the_shard)() = score;\n"
CUDART = """\
enum cudaError_t { cudaSuccess };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
static cudaError_t cudaGetLastError() { return cudaSuccess; }
static cudaError_t cudaGetDeviceCount(int * count) { return *count = 0, cudaSuccess; }
static cudaError_t cudaDeviceGetAttribute(int * value, cudaDeviceAttr, int) { return *value = 0, cudaSuccess; }
"""
"""As much of CUDA's header as it takes to compile: of the device nothing is asked here."""
MAIN = """\
#include "shard_score.cpp"

#include <cstdio>

int main() {
    for (const shard_arch & arch : SHARD_ARCHS) {
        for (int device = FIRST; device <= LAST; device++) {
            printf("%d ", fit(arch, device));
        }
    }
}
"""


def row(arch: CudaArch) -> str:
    """As cmake/cuda.cmake writes it."""
    suffix = f"'{arch.suffix}'" if arch.suffix else "0"
    return f"    {{{arch.number}, {str(arch.kind == 'virtual').lower()}, {suffix}}},\n"


@pytest.fixture(name="scores", scope="module")
def _scores(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[CudaArch, int], int]:
    """For code and GPU, the score."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to compile shard_score.cpp")
    project, folder = PACKAGE / "wheel_project", tmp_path_factory.mktemp("score")
    rows = "".join(map(row, pairs.CODE))
    table = (project / "shard_archs.h.in").read_text(encoding="utf-8").replace("@LCW_SHARD_ROWS@", rows)
    files = {"shard_archs.h": table, "ggml-backend-impl.h": GGML, "cuda_runtime_api.h": CUDART, "main.cpp": MAIN}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    flags = ["-std=c++17", f"-I{folder}", f"-I{project}", f"-DFIRST={pairs.GPUS[0]}", f"-DLAST={pairs.GPUS[-1]}"]
    subprocess.run(["g++", *flags, str(folder / "main.cpp"), "-o", str(folder / "main")], check=True)
    printed = subprocess.run([str(folder / "main")], capture_output=True, text=True, check=True).stdout.split()
    keys = [(arch, number) for arch in pairs.CODE for number in pairs.GPUS]
    return dict(zip(keys, map(int, printed), strict=True))


def test_a_shard_scores_on_exactly_the_gpus_that_the_pipeline_says_run_its_code(
    scores: dict[tuple[CudaArch, int], int],
) -> None:
    disagree = [
        (str(arch), number)
        for (arch, number), score in scores.items()
        if (score > 0) != coverage.runs_on(str(arch), pairs.capability(number))
    ]
    assert not disagree


def test_machine_code_scores_above_ptx_and_the_nearest_above_older_code(
    scores: dict[tuple[CudaArch, int], int],
) -> None:
    for number in pairs.GPUS:
        fitting = [arch for arch in pairs.CODE if scores[arch, number] > 0]
        expected = sorted(fitting, key=lambda arch: (arch.kind == "real", arch.number))
        assert sorted(fitting, key=lambda arch: scores[arch, number]) == expected
