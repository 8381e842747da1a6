"""Find the programs other than the compilers: CMake and Ninja from their Python packages, the launcher, cuobjdump."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.version import Version

from build_config.errors import CommandError, LockError, SettingsError
from build_config.model import Program
from build_config.system import platforms, processes
from build_config.system.files import file_sha256, rename

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_config.system.layout import Layout

Launcher = Literal["auto", "sccache", "ccache", "none"]

CCACHE_MINIMUM = Version("4.6")
"""The first ccache that caches nvcc's output with every option that ggml passes."""

_VERSION = re.compile(r"\b[0-9]+\.[0-9]+(?:\.[0-9]+)*\b")
_INSTALL = "run the step through its nox session, which installs the locked programs"


def find_cmake() -> Program:
    """CMake of this Python environment. Raises ``LockError`` if it is missing."""
    import cmake  # noqa: PLC0415  # its import searches all its files, and `doctor` needs none of them

    return _packaged("cmake", Path(cmake.CMAKE_BIN_DIR) / platforms.HERE.program("cmake"))


def find_ninja() -> Program:
    """Ninja of this Python environment. Raises ``LockError`` if it is missing."""
    import ninja  # noqa: PLC0415  # as above

    return _packaged("ninja", Path(ninja.BIN_DIR) / platforms.HERE.program("ninja"))


def find_cuobjdump(cuda_root: Path, elsewhere: tuple[Path, ...] = ()) -> Program | None:
    """Find the program that lists the code in a finished library; ``None`` if the toolkit has none.

    ``elsewhere`` are the toolkit's programs outside its root.
    """
    name = platforms.HERE.program("cuobjdump")
    places = (cuda_root / "bin" / name, *(path for path in elsewhere if path.name == name))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    release = re.search(r"\bV([0-9.]+)", processes.capture(str(path), "--version").output)
    return Program(path=path, version=release[1] if release else "unknown", found_via="CUDA toolkit")


def find_ccache(environ: Mapping[str, str]) -> Program | None:
    """The ccache on PATH, of any version."""
    found = shutil.which("ccache", path=environ.get("PATH", ""))
    return _asked(Path(found), "PATH") if found else None


def find_sccache() -> Program | None:
    """The sccache of this Python environment."""
    path = Path(sysconfig.get_path("scripts"), platforms.HERE.program("sccache"))
    return _asked(path, "Python package sccache") if path.is_file() else None


def find_launcher(choice: Launcher, environ: Mapping[str, str], layout: Layout) -> Program | None:
    """The compiler launcher, at a path that is the same for every checkout; ``None`` for ``none``.

    ``auto`` selects the machine's ccache if it is new enough (a hit takes milliseconds, with sccache a second), else
    the locked sccache. Raises ``SettingsError`` if ccache was requested and is missing or too old, and ``LockError``
    if sccache is not installed.
    """
    if choice == "none":
        return None
    ccache = None if choice == "sccache" else find_ccache(environ)
    if ccache is not None and usable(ccache):
        return settle(ccache, layout)
    if choice == "ccache":
        have = f"ccache {ccache.version} is too old" if ccache else "there is no ccache on PATH"
        message = f"--launcher ccache: {have}; {CCACHE_MINIMUM} or later is needed"
        remedy = "install it (package ccache), or leave --launcher out for the locked sccache"
        raise SettingsError(message, remedy=remedy)
    sccache = find_sccache()
    if sccache is None:
        message = f"sccache is not installed next to {sys.executable}"
        raise LockError(message, remedy=f"{_INSTALL}, or pass --launcher none")
    return settle(sccache, layout)


def usable(ccache: Program) -> bool:
    """Whether this ccache is new enough."""
    return Version(ccache.version) >= CCACHE_MINIMUM


def settle(program: Program, layout: Layout) -> Program:
    """Copy a launcher to its place under the work root, unless the same bytes are there already.

    Its path is part of every compile command. Paths in virtual environments differ between checkouts, and each checkout
    would compile everything again.
    """
    target = layout.tools / f"{program.path.name}-{program.version}" / program.path.name
    if not (target.is_file() and file_sha256(target) == file_sha256(program.path)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            copy = Path(folder) / target.name
            shutil.copyfile(program.path, copy)
            copy.chmod(0o755)
            rename(copy, target)  # not written in place: a server may be running from the old file
    return Program(path=target, version=program.version, found_via=program.found_via)


def _packaged(name: str, path: Path) -> Program:
    if not path.is_file():
        raise LockError(f"the Python package {name} has no program at {path}", remedy=_INSTALL)
    return Program(path=path, version=metadata.version(name), found_via=f"Python package {name}")


def _asked(path: Path, found_via: str) -> Program | None:
    """A program with the version that it prints; ``None`` if it does not run."""
    try:
        completed = processes.capture(str(path), "--version")
    except CommandError:
        return None
    version = _VERSION.search(completed.output)
    if completed.returncode != 0 or version is None:
        return None
    return Program(path=path.resolve(), version=version[0], found_via=found_via)
