"""The rule of ``shard_score.cpp``, compiled: which GPU runs which code, and which code it runs best."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config.model import CudaArch
from build_config.system.layout import PACKAGE
from check_gpu import coverage
from tests.support import pairs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = pytest.mark.integration

GGML = "#define GGML_BACKEND_DL_SCORE_IMPL(score) int (*const score_of_the_shard)() = score;\n"
CUDART = """\
enum cudaError_t { cudaSuccess };
struct cudaDeviceProp { unsigned long totalGlobalMem; int major; int minor; };
static cudaError_t cudaGetLastError() { return cudaSuccess; }
extern cudaDeviceProp machine[];
static cudaError_t cudaGetDeviceProperties(cudaDeviceProp * found, int id) { return *found = machine[id], cudaSuccess; }
"""
"""As much of CUDA's header as it takes."""
MAIN = """\
#include "shard_score.cpp"

#include <cstdio>
#include <cstdlib>

cudaDeviceProp machine[16];
std::vector<int> devices;

const std::vector<int> & shown_devices() { return devices; }

// Pairs of compute capability and GiB: the score on this machine. None: the fit of each code on each GPU.
int main(int count, char ** arguments) {
    if (count > 1) {
        for (int i = 1; i < count; i += 2) {
            const int capability = atoi(arguments[i]);
            const double bytes      = atof(arguments[i + 1]) * (1 << 30);
            machine[devices.size()] = {(unsigned long) bytes, capability / 10, capability % 10};
            devices.push_back((int) devices.size());
        }
        printf("%d", score_of_the_shard());
        return 0;
    }
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


def compile_score(folder: Path, codes: Iterable[CudaArch]) -> Path:
    """The program above with the score of a shard that has this code."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to compile shard_score.cpp")
    project = PACKAGE / "wheel_project"
    table = (project / "shard_archs.h.in").read_text(encoding="utf-8")
    table = table.replace("@LCW_SHARD_ROWS@", "".join(map(row, codes)))
    files = {"shard_archs.h": table, "ggml-backend-impl.h": GGML, "cuda_runtime_api.h": CUDART, "main.cpp": MAIN}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    flags = ["-std=c++17", f"-I{folder}", f"-I{project}", f"-DFIRST={pairs.GPUS[0]}", f"-DLAST={pairs.GPUS[-1]}"]
    subprocess.run(["g++", *flags, str(folder / "main.cpp"), "-o", str(folder / "main")], check=True)
    return folder / "main"


def numbers(program: Path, *arguments: str) -> list[int]:
    """What it prints."""
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=True)
    return [*map(int, done.stdout.split())]


@pytest.fixture(name="scores", scope="module")
def _scores(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[CudaArch, int], int]:
    """For code and GPU, the fit."""
    keys = [(arch, number) for arch in pairs.CODE for number in pairs.GPUS]
    return dict(zip(keys, numbers(compile_score(tmp_path_factory.mktemp("score"), pairs.CODE)), strict=True))


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


def test_memory_decides_first_then_the_worst_fit_then_the_newest_gpu(tmp_path: Path) -> None:
    """The same machine has another score in each shard; validation has the same rule (scenarios.reach)."""
    program = compile_score(tmp_path, [CudaArch.parse("86-real"), CudaArch.parse("80-virtual")])

    def score(*machine: tuple[int, float]) -> int:
        (found,) = numbers(program, *(str(number) for gpu in machine for number in gpu))
        return found

    ranked = [
        score((86, 300), (86, 300), (86, 300), (86, 300)),  # no overflow
        score((86, 24), (86, 24)),
        score((86, 25)),
        score((86, 24.9)),  # whole GiB
        score((86, 12), (89, 12)),  # as much memory, and the worse of two fits
        score((90, 24)),  # by PTX
        score((86, 10.9)),
    ]
    assert ranked == sorted(ranked, reverse=True)
    assert len({*ranked}) == len(ranked)
    other = compile_score(tmp_path, [CudaArch.parse("90-real")])
    assert numbers(other, "90", "24")[0] > ranked[3], "all else equal, the newest GPU decides"
