# ruff: noqa: INP001  # a module of llama_cpp in the finished wheel for Windows, not of the pipeline
"""Loads the DLLs that this wheel contains, before llama.cpp's libraries ask for them by name.

Those libraries are loaded with Windows' old search order (upstream passes ``winmode=0``; ggml calls ``LoadLibraryW``),
which ignores folders that were added by ``os.add_dll_directory``. A DLL that the process has loaded is
found by its name, whatever the order. Standard library only; works on Python 3.8 and later.
"""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "llama_cpp_python.libs"

_log = logging.getLogger("llama-cpp-python")


def load(folder: Path, loader: Any) -> tuple[Any, ...]:
    """Load every DLL of a folder; one that needs another is tried again after it. Never raises."""
    loaded: list[Any] = []
    waiting = sorted(folder.glob("*.dll"))
    while waiting:
        failed = {}
        for path in waiting:
            try:
                loaded.append(loader(str(path)))
            except OSError as error:
                failed[path] = error
        if len(failed) == len(waiting):
            for path, reason in failed.items():
                _log.warning("%s, which is part of llama-cpp-python, cannot be loaded: %s", path.name, reason)
            break
        waiting = sorted(failed)
    return tuple(loaded)


LOADED = load(FOLDER, getattr(ctypes, "WinDLL", ctypes.CDLL))
