import ctypes
import json
from pathlib import Path
from typing import Any

import pytest

from check_gpu import collect, process
from check_gpu.children import driver, libraries
from check_gpu.facts import CudaLibrary, Installation, OwnBuild

pytestmark = pytest.mark.unit

BLAS = ("cublasLt64_13.dll", "cublas64_13.dll")
OWN = OwnBuild("13.0", "580", BLAS, "nox -s build_cuda_wheel -- --arch {arch}")


@pytest.mark.parametrize(("own", "asked"), [(OWN, [*BLAS]), (None, [])], ids=["this project's", "another's"])
def test_a_wheel_whose_dlls_cannot_be_read_says_itself_which_libraries_to_try(
    own: OwnBuild | None, asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def run(_python: str, _script: str, arguments: tuple[str, ...], *_: Any, **__: Any) -> process.EndedProcess:
        seen.append(json.loads(arguments[0]))
        return process.EndedProcess(({"soname": BLAS[1], "path": None, "error": "not found"},), None, None, ())

    monkeypatch.setattr(process, "run", run)
    shard = CudaLibrary("ggml-cuda-sm89.dll", problem="cannot read it: a Windows library")
    found = collect.try_libraries(Installation(python="python", own=own, cuda=(shard,)), (), tmp_path)
    assert seen[0]["needed"] == asked
    assert [library.error for library in found.needed] == ["not found"]


def test_a_missing_dll_is_said_without_the_hint_for_programmers(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Could not find module 'nvcuda.dll' (or one of its dependencies)"

    def missing(_name: str) -> None:
        raise FileNotFoundError(f"{said}. Try using the full path with constructor syntax.")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert driver.ask_cuda() == {"problem": said}
    assert libraries._load("nvcuda.dll", [])["error"] == said
