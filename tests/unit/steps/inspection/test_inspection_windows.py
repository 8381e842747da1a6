"""What inspection says of a wheel for Windows; DLLs made for real are in the integration tests."""

from typing import Any

import pytest

from build_config.formats.elf import ElfLibrary
from build_config.formats.pe import Dll
from build_config.steps.inspection import CHECKS, libraries
from build_config.system.platforms.windows import WINDOWS
from tests.support import wheels

LIB = "llama_cpp/lib"
MODULE = ("ggml_backend_init", "ggml_backend_score")


def dll(name: str, *needed: str, **changes: Any) -> Dll:
    facts = {"name": name, "needed": needed, "exports": MODULE, "reproducible": True, "debug_file": None}
    return Dll(**{**facts, **changes})


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


def codes(name: str, library: Dll | ElfLibrary | None, tag: str = "py3-none-win_amd64") -> list[str]:
    """The findings of the checks of libraries in the sound wheel after one library was added, replaced or removed."""
    found = {each: one for each, one in {**sound(), name: library}.items() if one is not None}
    contents = wheels.contents({}, "win_amd64") | {each: each.encode() for each in found}
    policy = wheels.policy("win-amd64")
    subject = wheels.subject(tags=(tag,), platform=WINDOWS, policy=policy, contents=contents, libraries=found)
    checks = [check for check in CHECKS["win-amd64"].values() if check.__module__ == libraries.__name__]
    return [finding.code for check in checks for finding in check(subject)]


@pytest.mark.parametrize(
    ("name", "library", "code"),
    [
        (f"{LIB}/ggml-cuda.dll", dll("ggml-cuda.dll"), "shard-bare"),
        (f"{LIB}/ggml-cuda-sm75.dll", dll("ggml-cuda-sm75.dll"), "shard-undeclared"),
        (f"{LIB}/ggml-cpu-zen4.dll", dll("ggml-cpu-zen4.dll"), "variant-not-windows"),
        (f"{LIB}/helper.dll", dll("helper.dll"), "library-unexpected"),
        (f"{LIB}/libllama.so", wheels.library(), "library-unexpected"),
        ("llama_cpp/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll"), "library-unexpected"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("libggml-cpu-sse42.dll"), "name-mismatch"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll", exports=("ggml_backend_init",)), "backend-exports"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll", "libgomp-1.dll"), "needed-unknown"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll", reproducible=False), "not-reproducible"),
        (f"{LIB}/ggml-cpu-sse42.dll", dll("ggml-cpu-sse42.dll", debug_file=r"C:\b\x.pdb"), "debug-file"),
        ("llama_cpp_python.libs/cublas64_13.dll", dll("cublas64_13.dll"), "external-bundled"),
        ("llama_cpp_python.libs/libgomp-1.dll", dll("libgomp-1.dll"), "vendored-unexpected"),
        *((f"{LIB}/{name}", None, "library-missing") for name in map(WINDOWS.library, libraries.CORE)),
        (f"{LIB}/ggml-cuda-sm89.dll", None, "shard-missing"),
    ],
)
def test_each_library_that_is_wrong_unexpected_or_missing_is_found(
    name: str, library: Dll | ElfLibrary | None, code: str
) -> None:
    assert code in codes(name, library)


def test_a_sound_wheel_has_no_findings_whatever_the_case_of_its_names() -> None:
    assert codes("llama_cpp_python.libs/vcomp140.dll", dll("vcomp140.dll")) == []
    renamed = dll("GGML-CUDA-sm89.dll", "cublaslt64_13.dll", "kernel32.dll")
    assert codes(f"{LIB}/ggml-cuda-sm89.dll", renamed) == []
    assert codes(f"{LIB}/ggml-cuda-sm89.dll", renamed, "py3-none-win32") == ["tag-not-windows"]
