import ctypes
import os
import shutil
import sys
from pathlib import Path

import pytest

from check_gpu.children import driver, libraries
from tests.support import systems

pytestmark = pytest.mark.unit


def test_a_missing_dll_is_said_without_the_hint_for_programmers(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Could not find module 'nvcuda.dll' (or one of its dependencies)"

    def missing(_name: str, **_options: object) -> None:
        raise FileNotFoundError(f"{said}. Try using the full path with constructor syntax.")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert driver.ask_cuda() == {"problem": said}
    assert libraries._load("nvcuda.dll", [])["error"] == said


@pytest.mark.skipif(not systems.ON_WINDOWS, reason="Linux has no DLLs")
def test_a_dll_is_found_in_the_folders_of_the_library_and_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """llama_cpp and ggml load by the old search order of Windows, which has PATH."""
    names = ("cublas64_98.dll", "cublas64_99.dll")
    for name in names:
        shutil.copy(Path(sys.base_prefix, "vcruntime140.dll"), tmp_path / name)
        assert name in libraries._load(name, [])["error"]
    assert libraries._load(names[0], [str(tmp_path)])["error"] is None
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert libraries._load(names[1], [])["error"] is None
