"""Where the loader looks for CUDA's libraries; what comes of loading them is in the integration tests."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from build_config.wheel_project.python import _cuda_libraries

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_a_library_in_nvidias_wheels_is_taken_by_its_very_soname(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded from nvidia-cuda-runtime-cu11 11.8.89 and nvidia-cublas-cu12 12.9.3.13."""
    wheels = {
        "cuda_runtime": ("libcudart.so.11.0", "libOpenCL.so.1"),
        "cublas": ("libcublas.so.12", "libcublasLt.so.12"),
    }
    for folder, files in wheels.items():
        (tmp_path / "nvidia" / folder / "lib").mkdir(parents=True)
        for file in files:
            (tmp_path / "nvidia" / folder / "lib" / file).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)

    def found(name: str, soname: str) -> list[str]:
        return [path.name for path in _cuda_libraries._in_wheels(name, soname)]

    assert found("cudart", "libcudart.so.11.0") == ["libcudart.so.11.0"]
    assert found("cudart", "libcudart.so.12") == []
    assert found("cublas", "libcublas.so.12") == ["libcublas.so.12"]
    assert found("cublas", "libcublas.so.13") == []
    monkeypatch.setattr(sys, "path", [])
    assert found("cublas", "libcublas.so.12") == []


def test_on_windows_the_libraries_of_wheels_and_conda_lie_where_programs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cublas64_12.dll", "cublasLt64_12.dll"):
        file = tmp_path / "nvidia" / "cublas" / "bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "conda-meta").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert [path.name for path in _cuda_libraries._in_wheels("cublasLt", "cublasLt64_12.dll")] == ["cublasLt64_12.dll"]
    assert _cuda_libraries.conda_folder() == tmp_path / "Library" / "bin"


@pytest.mark.parametrize(
    ("dll", "name"),
    [("cudart64_12.dll", "cudart"), ("cublasLt64_13.dll", "cublasLt"), ("cublas64_13.dll", "cublas")],
)
def test_cuda_pathfinder_is_asked_by_its_own_names(monkeypatch: pytest.MonkeyPatch, dll: str, name: str) -> None:
    asked: list[str] = []
    pathfinder = ModuleType("cuda.pathfinder")
    pathfinder.load_nvidia_dynamic_lib = asked.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
    library = _cuda_libraries.load_library(dll)
    assert asked == [name]
    assert library.soname == dll
    assert library.error, "there is no such library here"
