"""What inspection says of a wheel for Windows; DLLs made for real are in the integration tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from build_config.formats.elf import ElfLibrary
from build_config.formats.pe import Dll
from build_config.model import Wheel
from build_config.steps.inspection import CHECKS, libraries
from build_config.steps.inspection.contents import Subject
from build_config.steps.wheel import repair
from build_config.system.platforms.windows import WINDOWS
from tests.support import factories, wheels, windows_machine

if TYPE_CHECKING:
    from collections.abc import Mapping


pytestmark = pytest.mark.unit
LIB = "llama_cpp/lib"
ELF = ElfLibrary(soname=None, needed=(), search_paths=(), versions=(), leftovers=(), has_build_id=False)
MODULE = ("ggml_backend_init", "ggml_backend_score")


def dll(name: str, *needed: str, **changes: Any) -> Dll:
    facts: dict[str, Any] = {
        "name": name,
        "needed": needed,
        "exports": MODULE,
        "reproducible": True,
        "debug_file": None,
    }
    return Dll(**(facts | changes))


def sound() -> dict[str, Dll]:
    return {
        f"{LIB}/ggml-base.dll": dll("ggml-base.dll", "kernel32.dll", "vcruntime140.dll", "api-ms-win-crt-x-l1-1-0.dll"),
        f"{LIB}/ggml.dll": dll("ggml.dll", "ggml-base.dll"),
        f"{LIB}/llama.dll": dll("llama.dll", "ggml.dll", "msvcp140-0123456789abcdef0123456789abcdef.dll"),
        f"{LIB}/mtmd.dll": dll("mtmd.dll", "llama.dll"),
        f"{LIB}/ggml-cpu-x64.dll": dll("ggml-cpu-x64.dll", "ggml-base.dll"),
        f"{LIB}/ggml-cpu-haswell.dll": dll("ggml-cpu-haswell.dll", "ggml-base.dll"),
        f"{LIB}/ggml-cuda-sm89.dll": dll("ggml-cuda-sm89.dll", "ggml-base.dll", "cublas64_13.dll"),
        "llama_cpp_python.libs/msvcp140-0123456789abcdef0123456789abcdef.dll": dll("MSVCP140.dll", "kernel32.dll"),
    }


def subject(found: Mapping[str, Dll | ElfLibrary], *, tag: str = "py3-none-win_amd64") -> Subject:
    contents = wheels.contents({}, "win_amd64") | {name: name.encode() for name in found}
    wheel = Wheel(path=Path("x.whl"), version=Version("0.3.36"), tags=(tag,), sha256="0" * 64, size=1)
    return Subject(
        wheel=wheel,
        platform=WINDOWS,
        declaration=wheels.declaration(factories.SM89),
        policy=wheels.policy("win-amd64"),
        contents=contents,
        libraries=found,
        cuobjdump=None,
        objdump="",
        folder=Path(),
    )


def codes(checked: Subject) -> list[str]:
    """Of the checks of libraries; those of the archive are the same on every platform."""
    checks = (check for check in CHECKS["win-amd64"].values() if check.__module__ == libraries.__name__)
    return [finding.code for check in checks for finding in check(checked)]


def test_a_sound_wheel_has_no_findings() -> None:
    assert codes(subject(sound())) == []


@pytest.mark.parametrize(
    ("name", "library", "code"),
    [
        (f"{LIB}/ggml-cuda.dll", dll("ggml-cuda.dll"), "shard-bare"),
        (f"{LIB}/ggml-cuda-sm75.dll", dll("ggml-cuda-sm75.dll"), "shard-undeclared"),
        (f"{LIB}/ggml-cpu-zen4.dll", dll("ggml-cpu-zen4.dll"), "variant-not-windows"),
        (f"{LIB}/helper.dll", dll("helper.dll"), "library-unexpected"),
        (f"{LIB}/libllama.so", ELF, "library-unexpected"),
        ("llama_cpp/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll"), "library-unexpected"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("libggml-cpu-sse42.dll"), "name-mismatch"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll", exports=("ggml_backend_init",)), "backend-exports"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll", "libgomp-1.dll"), "needed-unknown"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll", reproducible=False), "not-reproducible"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll", debug_file=r"C:\b\x.pdb"), "debug-file"),
        ("llama_cpp_python.libs/cublas64_13.dll", dll("cublas64_13.dll"), "external-bundled"),
        ("llama_cpp_python.libs/libgomp-1.dll", dll("libgomp-1.dll"), "vendored-unexpected"),
        ("llama_cpp_python.libs/vcomp140.dll", dll("vcomp140.dll"), None),
    ],
)
def test_one_more_library(name: str, library: Dll | ElfLibrary, code: str | None) -> None:
    found = codes(subject(sound() | {name: library}))
    assert (code in found) if code else (found == [])


@pytest.mark.parametrize("name", [*map(WINDOWS.library, libraries.CORE), "ggml-cuda-sm89.dll"])
def test_one_library_less(name: str) -> None:
    libraries = sound()
    del libraries[f"{LIB}/{name}"]
    found = codes(subject(libraries))
    assert ("shard-missing" if "cuda" in name else "library-missing") in found


def test_a_tag_of_another_platform() -> None:
    assert codes(subject(sound(), tag="py3-none-win32")) == ["tag-not-windows"]


def test_names_are_the_same_in_any_case() -> None:
    libraries = sound()
    libraries[f"{LIB}/ggml-cuda-sm89.dll"] = dll("GGML-CUDA-sm89.dll", "cublaslt64_13.dll", "kernel32.dll")
    assert codes(subject(libraries)) == []


def test_the_whole_call_of_delvewheel() -> None:
    argv = repair.windows_arguments(
        windows_machine.windows_path(r"C:\llama-cuda-wheels\assembly\dist\x-py3-none-win_amd64.whl"),
        windows_machine.windows_path(r"C:\Temp\repair-1"),
        wheels.policy("win-amd64"),
        (
            windows_machine.windows_path(r"C:\VC\Redist\MSVC\14.44.35112\x64\Microsoft.VC143.CRT"),
            windows_machine.windows_path(r"C:\VC\Redist\MSVC\14.44.35112\x64\Microsoft.VC143.OpenMP"),
        ),
        ";",
    )
    assert argv[1:] == (
        "-m",
        "delvewheel",
        "repair",
        "--analyze-existing",
        "--ignore-existing",
        "--with-mangle",
        "--exclude=nvcuda.dll;nvcudart_hybrid64.dll;cudart64_*.dll;cublas64_*.dll;cublasLt64_*.dll",
        (
            r"--add-path=C:\VC\Redist\MSVC\14.44.35112\x64\Microsoft.VC143.CRT"
            r";C:\VC\Redist\MSVC\14.44.35112\x64\Microsoft.VC143.OpenMP"
        ),
        r"--wheel-dir=C:\Temp\repair-1",
        r"C:\llama-cuda-wheels\assembly\dist\x-py3-none-win_amd64.whl",
    )
    assert repair.windows_environment() == {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "315532800"}
