from __future__ import annotations

from pathlib import Path

import pytest

from build_config.errors import ToolkitMissingError
from build_config.toolchain import cuda_system

pytestmark = pytest.mark.unit

DRY_RUN = """\
#$ _NVVM_BRANCH_=nvvm
#$ _HERE_=/usr/local/cuda-13.0/bin
#$ TOP=/usr/local/cuda-13.0/bin/..
#$ CICC_PATH=/usr/local/cuda-13.0/bin/../nvvm/bin
#$ LD_LIBRARY_PATH=/usr/local/cuda-13.0/bin/../lib:
#$ PATH=/usr/local/cuda-13.0/bin/../nvvm/bin:/usr/local/cuda-13.0/bin:/usr/bin
#$ gcc -E "/dev/null"
"""


def test_the_installation_is_read_from_a_dry_run() -> None:
    found = cuda_system.parse_dry_run(DRY_RUN)
    assert found is not None
    assert found.here == Path("/usr/local/cuda-13.0/bin")
    assert found.top == Path("/usr/local/cuda-13.0/bin/..")
    assert found.search_path == "/usr/local/cuda-13.0/bin/../nvvm/bin:/usr/local/cuda-13.0/bin:/usr/bin"


def test_a_profile_without_top_still_gives_a_root() -> None:
    found = cuda_system.parse_dry_run("#$ _HERE_=/usr/lib/nvidia-cuda-toolkit/bin\n")
    assert found is not None
    assert found.top == Path("/usr/lib/nvidia-cuda-toolkit")
    assert cuda_system.parse_dry_run("nvcc fatal: no compiler\n") is None


def test_the_version_is_the_compilers_full_one() -> None:
    assert (
        cuda_system.nvcc_version("Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0\n") == "13.0.88"
    )
    assert cuda_system.nvcc_version("12.4") is None


def test_a_failure_lists_everything_that_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_system, "WELL_KNOWN", (("/usr/local/cuda", tmp_path / "cuda" / "bin" / "nvcc"),))
    with pytest.raises(ToolkitMissingError) as caught:
        cuda_system.find({"PATH": str(tmp_path), "CUDA_PATH": str(tmp_path / "a"), "CUDA_HOME": str(tmp_path / "b")})
    for line in ("CUDA_PATH=", "CUDA_HOME=", "nvcc on PATH: there is no", "/usr/local/cuda: there is no"):
        assert line in caught.value.message
    assert caught.value.exit_code == 20
    assert "leave out --cuda" in str(caught.value.remedy)
