# ruff: noqa: INP001  # a module of llama_cpp in the finished wheel, not of the pipeline
"""Loads the C++ library of the conda environment, if conda installed this package. Imported before anything else.

A process has one libstdc++. This package's libraries search no folder of an environment, so they would load the
system's, and a package that is imported later from the conda environment (scipy, pyarrow) and needs a newer one would
fail. The conda package depends on a libstdc++ that is new enough for both. Without conda nothing is loaded here: an
environment of pip may have an older one than this wheel needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

LIBRARIES = ("libgcc_s.so.1", "libstdc++.so.6")


def _load() -> None:
    prefix = Path(sys.prefix)
    if next((prefix / "conda-meta").glob("llama-cpp-python-*.json"), None) is None:
        return
    for name in LIBRARIES:
        with contextlib.suppress(OSError):  # then the system's, as without conda
            ctypes.CDLL(str(prefix / "lib" / name))


_load()
