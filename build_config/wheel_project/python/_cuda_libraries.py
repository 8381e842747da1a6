# ruff: noqa: INP001  # a module of llama_cpp in the finished wheel, not of the pipeline
"""Finds and loads CUDA's own libraries: they are not part of this wheel, and each installer puts them elsewhere.

Standard library only, and cuda.pathfinder if it is installed; works on Python 3.8 and later.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST_WITHOUT_SUFFIX = 13  # nvidia-cublas; before, it was nvidia-cublas-cu12

_log = logging.getLogger("llama_cpp.cuda")


@dataclass(frozen=True)
class Library:
    """A CUDA library that the wheel needs. ``error`` is dlopen's message, and ``None`` if the library is loaded."""

    soname: str
    path: str | None
    error: str | None


def load_library(soname: str) -> Library:
    """Load a library such as ``libcudart.so.13``: conda's own, or one of NVIDIA's wheels, or the system's.

    A shard that needs it then gets this copy. The last step decides: cuda.pathfinder may find another major version,
    does not know CUDA 11, and in conda searches the activated environment, which need not be this interpreter's.
    """
    folder = conda_folder()
    if folder is not None and (folder / soname).is_file():
        try:
            library = ctypes.CDLL(str(folder / soname))
        except OSError as error:
            _log.debug("%s does not load: %s", folder / soname, error)
        else:
            return Library(soname, _path_of(library, soname), None)
    name = re.sub(r"^lib|\W.*$|64_.*$", "", soname)  # cudart, from libcudart.so.13 or cudart64_13.dll
    for path in _in_wheels(name, soname):
        with contextlib.suppress(OSError):  # the system may still have one that loads
            ctypes.CDLL(str(path))
            break
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415

        load_nvidia_dynamic_lib(name)
    except Exception as error:  # noqa: BLE001  # absent or failed, the system may still have the library
        _log.debug("cuda.pathfinder did not load %s: %s", name, error)
    try:
        library = ctypes.CDLL(soname)
    except OSError as error:
        return Library(soname, None, why(error))
    return Library(soname, _path_of(library, soname), None)


def why(error: OSError) -> str:
    """Why a library does not load, without the hint for programmers that ctypes adds on Windows."""
    return str(error).partition(". Try using the full path")[0]


def conda_folder() -> Path | None:
    """The library folder of this interpreter's conda environment; ``None`` outside conda."""
    prefix = Path(sys.prefix)
    folder = prefix / "Library" / "bin" if sys.platform == "win32" else prefix / "lib"
    return folder if (prefix / "conda-meta").is_dir() else None


def _in_wheels(name: str, soname: str) -> Iterator[Path]:
    """A library in NVIDIA's wheels before CUDA 13, by its exact soname: each wheel has a folder of its own.

    One environment may have several major versions, for other packages.
    """
    folder = {"cudart": "cuda_runtime", "cublas": "cublas", "cublasLt": "cublas"}.get(name)
    nvidia = importlib.util.find_spec("nvidia")
    if folder is None or nvidia is None:
        return
    for place in nvidia.submodule_search_locations or ():
        path = Path(place, folder, "bin" if sys.platform == "win32" else "lib", soname)
        if path.is_file():
            yield path


def _path_of(library: ctypes.CDLL, soname: str) -> str | None:
    """The file of a loaded library."""
    if sys.platform == "win32":
        return windows_path(library._handle)  # noqa: SLF001  # ctypes has no public name for it
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    match = re.search(rf"/.*/{re.escape(soname)}.*$", maps, re.MULTILINE)
    return match[0] if match else None


def search_installed_toolkit() -> None:
    """Windows: let the system find the DLLs of an installed CUDA 13; upstream adds the folder of earlier ones."""
    if sys.platform == "win32" and "CUDA_PATH" in os.environ:
        folder = Path(os.environ["CUDA_PATH"], "bin", "x64")
        if folder.is_dir():
            os.add_dll_directory(str(folder))


def install_command(major: int) -> str:
    """The command that installs cudart and cuBLAS of a major version into this environment."""
    quote = '"' if sys.platform == "win32" else "'"  # cmd knows no others
    if conda_folder() is not None:
        return f"conda install -c conda-forge {quote}libcublas={major}{quote} {quote}cuda-cudart={major}{quote}"
    suffix = f"-cu{major}" if major < _FIRST_WITHOUT_SUFFIX else ""
    names = ("nvidia-cublas", "nvidia-cuda-runtime")
    wanted = " ".join(f"{quote}{name}{suffix}=={major}.*{quote}" for name in names)
    return f"pip install {wanted} cuda-pathfinder"


def windows_path(module: int | None) -> str | None:
    """The file of a loaded DLL."""
    buffer = ctypes.create_unicode_buffer(32768)
    length = ctypes.windll.kernel32.GetModuleFileNameW(ctypes.c_void_p(module), buffer, len(buffer))  # type: ignore[attr-defined,unused-ignore]
    return buffer.value if length else None
