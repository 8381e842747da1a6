from pathlib import Path

import pytest

from build_config.errors import ToolkitMissingError
from build_config.steps.toolchain import installed_cuda

ROOT = "/usr/local/cuda-13.0"
DRY_RUN = """\
#$ _NVVM_BRANCH_=nvvm
#$ _HERE_=/usr/local/cuda-13.0/bin
#$ TOP=/usr/local/cuda-13.0/bin/..
#$ CICC_PATH=/usr/local/cuda-13.0/bin/../nvvm/bin
#$ LD_LIBRARY_PATH=/usr/local/cuda-13.0/bin/../lib:
#$ PATH=/usr/local/cuda-13.0/bin/../nvvm/bin:/usr/local/cuda-13.0/bin:/usr/bin
#$ gcc -E "/dev/null"
"""


DEBIAN = "/usr/lib/nvidia-cuda-toolkit"
DEBIAN_DRY_RUN = """\
#$ _NVVM_BRANCH_=nvvm
#$ _SPACE_=
#$ _CUDART_=cudart
#$ _HERE_=/usr/lib/nvidia-cuda-toolkit/bin
#$ _THERE_=/usr/lib/nvidia-cuda-toolkit/bin
#$ _TARGET_SIZE_=
#$ _TARGET_DIR_=
#$ _TARGET_SIZE_=64
#$ NVVMIR_LIBRARY_DIR=/usr/lib/nvidia-cuda-toolkit/libdevice
#$ PATH=/usr/lib/nvidia-cuda-toolkit/bin:/usr/local/bin:/usr/bin:/bin
#$ LIBRARIES=  -L/usr/lib/x86_64-linux-gnu/stubs -L/usr/lib/x86_64-linux-gnu
#$ gcc -D__CUDA_ARCH__=520 -D__CUDA_ARCH_LIST__=520 -E -x c++  "/dev/null"
"""
"""What nvcc 11.8.89 of Debian 12 (nvidia-cuda-toolkit) prints. 12.4.131 of Debian 13 differs in no line read."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DRY_RUN, (f"{ROOT}/bin", f"{ROOT}/bin/..", f"{ROOT}/bin/../nvvm/bin:{ROOT}/bin:/usr/bin")),
        # Its programs are called by name, and /usr/local/bin may have another toolkit's.
        (DEBIAN_DRY_RUN, (f"{DEBIAN}/bin", DEBIAN, f"{DEBIAN}/bin:/usr/local/bin:/usr/bin:/bin")),
        (f"#$ _HERE_={DEBIAN}/bin\n", (f"{DEBIAN}/bin", DEBIAN, f"{DEBIAN}/bin")),
        ("nvcc fatal: no compiler\n", None),
    ],
    ids=["NVIDIA's", "Debian's", "without top", "not one"],
)
def test_the_installation_is_read_from_a_dry_run(text: str, expected: tuple[str, str, str] | None) -> None:
    found = installed_cuda.parse_dry_run(text)
    read = found and (found.here.as_posix(), found.top.as_posix(), found.search_path.replace("\\", "/"))
    assert read == expected


def headers(folder: Path, version: int) -> Path:
    for name in installed_cuda.HEADERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"#define CUDART_VERSION  {version}\n", encoding="utf-8")
    return folder


def test_headers_of_this_release_are_below_the_root_or_where_the_distribution_puts_them(tmp_path: Path) -> None:
    top, scattered = tmp_path / "toolkit", headers(tmp_path / "usr" / "include", 12040)
    assert installed_cuda.header_folder(top, "12.4", scattered) == scattered
    assert installed_cuda.header_folder(top, "13.0", scattered) is None
    own = headers(top / "targets" / "x86_64-linux" / "include", 12040)
    assert installed_cuda.header_folder(top, "12.4", scattered) == own
    for folder in (own, scattered):
        (folder / "crt" / "host_config.h").unlink()
    assert installed_cuda.header_folder(top, "12.4", scattered) is None


def test_the_version_is_the_compilers_full_one() -> None:
    printed = "Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0\n"
    assert installed_cuda.nvcc_version(printed) == "13.0.88"
    assert installed_cuda.nvcc_version("12.4") is None


def test_a_failure_lists_everything_that_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_cuda, "WELL_KNOWN", (("/usr/local/cuda", tmp_path / "cuda" / "bin" / "nvcc"),))
    with pytest.raises(ToolkitMissingError) as caught:
        installed_cuda.find({"PATH": str(tmp_path), "CUDA_PATH": str(tmp_path / "a"), "CUDA_HOME": str(tmp_path / "b")})
    for line in ("CUDA_PATH=", "CUDA_HOME=", "nvcc on PATH: there is no", "/usr/local/cuda: there is no"):
        assert line in caught.value.message
    assert caught.value.exit_code == 20
    assert "leave out --cuda" in str(caught.value.remedy)
    with pytest.raises(ToolkitMissingError, match=r"CUDA 12\.4 was not found") as named:
        installed_cuda.find({"PATH": str(tmp_path)}, "12.4")
    assert f"{Path('/usr/local/cuda-12.4')}: there is no" in named.value.message
    assert "install CUDA 12.4" in str(named.value.remedy)
