"""Loads a DLL of this package, with the search order that upstream asks for."""

import ctypes
import os
import sys
from pathlib import Path


def load_shared_library(name: str, folder: Path) -> ctypes.CDLL:
    if sys.platform == "win32":
        os.add_dll_directory(str(folder))
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return ctypes.CDLL(str(folder / f"{name}.dll"), winmode=0)
