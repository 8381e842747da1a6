"""Finds CUDA's libraries in the way that the installed package does.

python libraries.py RESULT REQUEST

REQUEST is JSON: ``needed`` are the names to find, ``folders`` those of RUNPATH and of the copies in the wheel,
``pathfinder`` the names that a wheel of llama-cuda-wheels loads with ``cuda.pathfinder`` first, ``backend`` the library
with the CUDA code or null.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

HINT = ". Try using the full path"
"""On Windows ctypes ends its errors with a hint for who wrote the program."""


def main(result_file: str, request: str) -> None:
    """Write an object for each library, then one for the backend."""
    wanted = json.loads(request)
    if sys.platform == "win32":
        installed = os.environ.get("CUDA_PATH")  # as llama_cpp does
        parts = (Path(installed, part) for part in ("bin", "bin/x64")) if installed else ()
        for folder in filter(Path.is_dir, [*parts, *map(Path, wanted["folders"])]):
            os.add_dll_directory(str(folder))
    for soname in wanted["pathfinder"]:
        _preload(soname)
    with Path(result_file).open("a", encoding="utf-8") as file:
        for soname in wanted["needed"]:
            file.write(json.dumps(_load(soname, wanted["folders"])) + "\n")
            file.flush()
        if wanted["backend"]:
            file.write(json.dumps({"backend_error": _error(wanted["backend"])}) + "\n")


def _preload(soname: str) -> None:
    """Load a library as the loader in the wheel does: from then on, its name alone finds it."""
    name = re.sub(r"^lib|\W.*$|64_.*$", "", soname)
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415

        load_nvidia_dynamic_lib(name)
    except Exception:  # noqa: BLE001, S110  # if absent or failed: the system may still have the library
        pass


def _load(soname: str, folders: list[str]) -> dict[str, Any]:
    """Try the folders of RUNPATH first, then let the loader find the name."""
    for folder in folders:
        path = Path(folder, soname)
        if path.is_file() and _error(str(path)) is None:
            return {"soname": soname, "path": str(path), "error": None}
    error = _error(soname)
    return {"soname": soname, "path": None if error else _path(soname), "error": error}


def _error(library: str) -> str | None:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        if sys.platform == "win32":  # as llama_cpp and ggml do: by the old search order, which has PATH
            with contextlib.suppress(OSError):
                ctypes.CDLL(library, winmode=0)
                return None
        return str(error).partition(HINT)[0]
    return None


def _path(soname: str) -> str | None:
    """Return the file of a loaded library, on Linux only."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    text = maps.read_text(encoding="utf-8", errors="surrogateescape")
    match = re.search(rf"/.*/{re.escape(soname)}.*$", text, re.MULTILINE)
    return match[0] if match else None


if __name__ == "__main__":
    main(*sys.argv[1:])
