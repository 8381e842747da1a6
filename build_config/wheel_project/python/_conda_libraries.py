# ruff: noqa: INP001  # a module of llama_cpp in the finished wheel, not of the pipeline
"""Where conda installed this package, its C++ library comes from that environment. Imported before anything else.

A process holds one libstdc++. This package's libraries search no folder of an environment, so they would bring the
system's in, and whatever is imported later from a conda environment (scipy, pyarrow) and needs a newer one would fail.
The conda package depends on a libstdc++ that is new enough for both. Elsewhere nothing happens here: an environment
that pip installed into may have an older one than this wheel needs.
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
