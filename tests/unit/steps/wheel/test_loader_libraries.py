"""Where the loader looks for CUDA's libraries; what comes of loading them is in the integration tests."""

import ctypes
import sys
from pathlib import Path
from types import ModuleType

import pytest

from build_config.wheel_project.python import _cuda_libraries, _vendored_dlls


@pytest.mark.parametrize(
    ("platform", "name", "soname", "there"),
    [
        ("linux", "cudart", "libcudart.so.11.0", True),
        ("linux", "cudart", "libcudart.so.12", False),
        ("linux", "cublas", "libcublas.so.12", True),
        ("linux", "cublas", "libcublas.so.13", False),
        ("win32", "cublasLt", "cublasLt64_12.dll", True),
    ],
)
def test_a_library_in_nvidias_wheels_is_taken_by_its_very_soname_and_conda_has_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, name: str, soname: str, *, there: bool
) -> None:
    """Recorded from nvidia-cuda-runtime-cu11 11.8.89 and nvidia-cublas-cu12 12.9.3.13."""
    for file in (
        *("cuda_runtime/lib/libcudart.so.11.0", "cuda_runtime/lib/libOpenCL.so.1"),
        *("cublas/lib/libcublas.so.12", "cublas/lib/libcublasLt.so.12"),
        *("cublas/bin/cublas64_12.dll", "cublas/bin/cublasLt64_12.dll"),
    ):
        (tmp_path / "nvidia" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "nvidia" / file).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert [path.name for path in _cuda_libraries._in_wheels(name, soname)] == ([soname] if there else [])
    assert _cuda_libraries.conda_folder() is None
    (tmp_path / "conda-meta").mkdir()
    assert _cuda_libraries.conda_folder() == tmp_path / ("Library/bin" if platform == "win32" else "lib")
    monkeypatch.setattr(sys, "path", [])
    assert not [*_cuda_libraries._in_wheels(name, soname)]


@pytest.mark.parametrize(
    ("dll", "name"), [("cudart64_12.dll", "cudart"), ("cublasLt64_13.dll", "cublasLt"), ("cublas64_13.dll", "cublas")]
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


def test_a_dll_that_needs_another_is_loaded_after_it(tmp_path: Path) -> None:
    for name in ("a-needs-b.dll", "b.dll", "c.txt"):
        (tmp_path / name).touch()
    loaded: list[str] = []

    def loader(path: str) -> str:
        name = Path(path).name
        if name.startswith("a") and "b.dll" not in loaded:
            raise OSError("the specified module could not be found")
        loaded.append(name)
        return name

    assert _vendored_dlls.load(tmp_path, loader) == ("b.dll", "a-needs-b.dll")


def test_a_dll_that_cannot_be_loaded_is_told_and_keeps_nobody_from_importing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "vcomp140-1234.dll").write_bytes(b"not a library")
    assert _vendored_dlls.load(tmp_path, ctypes.CDLL) == ()
    assert "vcomp140-1234.dll" in caplog.text
