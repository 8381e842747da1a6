from pathlib import Path

import pytest

from build_config.errors import LockError
from build_config.steps.toolchain.windows import import_libraries
from tests.support.windows_machine import windows_path


def test_the_definition_names_the_dll_and_every_export() -> None:
    assert import_libraries.definition("cublas64_13.dll", ("cublasCreate_v2", "cublasDestroy_v2")) == (
        "LIBRARY cublas64_13.dll\nEXPORTS\n    cublasCreate_v2\n    cublasDestroy_v2\n"
    )


def test_the_call_of_lib() -> None:
    program, definition, library = r"C:\VC\bin\lib.exe", r"C:\t\cublas64_13.def", r"C:\k\lib\x64\cublas.lib"
    argv = import_libraries.arguments(*map(windows_path, (program, definition, library)))
    assert argv == (program, "/nologo", f"/def:{definition}", "/machine:x64", f"/out:{library}")


def test_a_toolkit_without_the_dll_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"bin/x86_64/cublas64_13\.dll"):
        import_libraries.make(tmp_path, "13", lambda *_: ("lib.exe",))


@pytest.mark.parametrize("data", [b"", b"MZ" + bytes(100), b"\x7fELF" + bytes(100)])
def test_what_is_not_a_dll_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cublas64_13.dll").write_bytes(data)
    with pytest.raises(LockError, match=r"exports of cublas64_13\.dll cannot be read"):
        import_libraries.exports(tmp_path / "cublas64_13.dll")
