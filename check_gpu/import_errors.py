"""The errors with which ``import llama_cpp`` fails, on every system: what each means and what fixes it.

The live check and ``--log`` use this one table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from check_gpu.result import Code


@dataclass(frozen=True)
class ImportFailure:
    """One kind of error. ``{install}`` and ``{module}`` in ``fix`` are filled in; ``None``: install it again."""

    pattern: re.Pattern[str]
    meaning: str
    fix: str | None = None
    code: Code = Code.IMPORT_FAILED


def _failure(pattern: str, meaning: str, fix: str | None = None, code: Code = Code.IMPORT_FAILED) -> ImportFailure:
    return ImportFailure(re.compile(pattern), meaning, fix, code)


FAILURES = (
    _failure(
        r"(?:libcuda\.so|nvcuda\.dll)", "the NVIDIA driver is missing", "install the NVIDIA driver", Code.DRIVER_MISSING
    ),
    _failure(
        r"(?:lib)?(?:cudart|cublas|cublasLt|nccl)(?:64_\d+)?\.(?:so|dll)",
        "a library of CUDA is missing",
        "install the libraries of the CUDA version of the build",
        Code.CUDA_LIBRARY_MISSING,
    ),
    _failure(
        r"GLIBC_[\d.]+",
        "this build is for a newer system",
        "this build is for a newer system: install one made on this system or on an older one",
    ),
    _failure(
        r"GLIBCXX_[\d.]+|CXXABI_[\d.]+",
        "this build needs a newer libstdc++",
        "this build needs a newer libstdc++: inside conda, conda install -c conda-forge libstdcxx-ng",
    ),
    _failure(r"libgomp\.so", "OpenMP is missing", "sudo apt install libgomp1  # Fedora: sudo dnf install libgomp"),
    _failure(
        r"libc\.musl|ld-linux|Error relocating|Error loading shared library",
        "this build is for another C library: musl and glibc do not mix",
        "install a build for this system's C library: on Alpine one for musl, on others one for manylinux",
    ),
    _failure(
        r"No module named '?llama_cpp'?$",
        "this interpreter has no package llama_cpp",
        "{install} llama-cpp-python  # or run the interpreter that has it",
        Code.NOT_INSTALLED,
    ),
    _failure(r"No module named", "a module is missing", "install what is missing: {install} {module}"),
    _failure(r"undefined symbol|symbol not found|WinError 127", "its libraries are of different versions"),
    _failure(r"with base name", "the package has no library of llama.cpp: it was installed incompletely"),
    _failure(
        r"WinError 193|invalid ELF header|wrong ELF class|file too short|incompatible architecture|0x[cC]000007[bB]"
        r"|3221225595|1073741701",
        "a library is damaged or for another processor",
    ),
    _failure(
        r"WinError [23]\].*CUDA",
        "CUDA_PATH names a folder that does not exist",
        "install the CUDA toolkit of the build's version, or remove CUDA_PATH from the environment",
    ),
    _failure(
        r"from (?:partially initialized module )?'llama_cpp|'llama_cpp' has no attribute",
        "another file or folder of that name hides the package",
        "rename llama_cpp.py, or start Python in another folder than a checkout of llama-cpp-python",
    ),
    _failure(
        r"Could not find module|DLL load failed|WinError 126|WinError 1114|0x[cC]0000135|3221225781|1073741515",
        "a DLL, or one that it needs, is missing: of CUDA, of the driver or of Visual C++",
        "install the CUDA toolkit of the build's version and the Visual C++ redistributable, and set CUDA_PATH",
    ),
    _failure(r"Library not loaded", "a library is missing"),
    _failure(
        r"executable stack|failed to map segment",
        "the system does not allow a library to be mapped as it asks",
        "install into a folder that is not mounted with noexec, or a build without an executable stack",
    ),
    _failure(r"", "a library that it needs is missing"),
)
"""In the order in which they are tried; the last is every other error."""


_PACKAGE = re.compile(r"(?:site|dist)-packages[/\\\\]+([\w.-]+)")
_OURS = re.compile(r"llama|ggml|nvidia", re.IGNORECASE)
_OTHERS = re.compile(
    r"Could not load dynamic library|dso_loader|stream_executor|LD_PRELOAD|onnxruntime|bitsandbytes|xformers"
    r"|\blib(?:torch|cudnn|cusparse|cusolver|cufft|curand|nvinfer|c10|av\w+|sox|jemalloc|tcmalloc)\w*[.-]",
    re.IGNORECASE,
)
"""Packages that go on without their part for GPUs, and libraries that llama.cpp does not use."""


def of_another_package(line: str) -> bool:
    """Whether a line says that another package than ``llama_cpp`` did not find one of its libraries."""
    packages = _PACKAGE.findall(line)
    if any(map(_OURS.search, packages)) or re.search(r"lib(?:llama|ggml|mtmd|llava)", line):
        return False
    return bool(packages) or _OTHERS.search(line) is not None


def classify(error: str) -> ImportFailure:
    """Return the kind of an error."""
    return next(failure for failure in FAILURES if failure.pattern.search(error))


def fix(error: str, install: str) -> str | None:
    """Return what fixes an error; ``None``: a new installation. ``install`` is the command that installs a package."""
    module = error.rpartition("named ")[2].strip("'\"").split(".")[0]
    known = classify(error).fix
    return known.format(install=install, module=module) if known else None
