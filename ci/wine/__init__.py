"""Windows programs on Linux: Wine, CPython for Windows and the locked requirements, made once and kept in a cache.

    nox -s wine -- python -V
    nox -s tests-wine

What runs there runs *under Wine*; what that shows of Windows, and what it cannot show: docs/windows.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import sys
import time
from typing import TYPE_CHECKING

import filelock

from build_config.errors import InterruptedRunError, NetworkError, WorkRootError
from build_config.steps.locks import download
from build_config.system import workroot
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE
from ci.wine import packages, tree, windows
from ci.wine.tree import Tree
from ci.wine.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.system.console import Console

HERE = packages.FOLDER
CACHE = CANONICAL_WORK_ROOT / "wine"
REQUIREMENTS = PACKAGE / "data" / "locks" / "test.txt"
POLL = 0.2
KEPT_SECONDS = 7 * 24 * 3600.0
"""What other locks made is deleted after this time without use."""


class UnavailableError(Exception):
    """This machine cannot have Wine; the text says why."""


def provide(cache: Path, console: Console) -> Windows:
    """The finished template in ``cache``, which is made if it is missing.

    Raises ``UnavailableError`` if this is not Linux on x86-64, gives no namespaces, or reaches no Debian mirror or no
    package index; ``WorkRootError`` if others can change ``cache``; ``DiskFullError``; errors of failed programs.
    """
    way = _way()
    _create(cache)
    with _locked(cache, console):
        found = _named(cache, way)
        try:
            if not found.tree.folder.is_dir():
                with console.step("tree", f"Unpacking Wine of Debian {packages.SUITE}"):
                    _make_tree(found.tree.folder, cache, console)
            if not found.folder.is_dir():
                with console.step("windows", "Making a Windows with CPython under Wine"):
                    _make_windows(found, cache, console)
        except NetworkError as error:
            raise UnavailableError(error.message) from error
        _delete_unused(cache, (found.folder, found.tree.folder))
        return found


def find(cache: Path) -> Windows | None:
    """The finished template in ``cache``, if it is there and can run."""
    try:
        found = _named(cache, _way())
    except UnavailableError:
        return None
    return found if found.folder.is_dir() and found.tree.folder.is_dir() else None


def _way() -> tuple[str, ...]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnavailableError(f"Wine needs Linux on x86-64, this is {platform.system()} on {platform.machine()}")
    way = tree.way_in()
    if way is None:
        tried = " and ".join(f"unshare {' '.join(options)}" for options in tree.WAYS)
        raise UnavailableError(f"Wine needs a mount namespace, which this system gives to nobody here: tried {tried}")
    return way


def _named(cache: Path, way: tuple[str, ...]) -> Windows:
    """The paths of what the present locks and code make; the digests of both are in the names."""
    unpacked = _digest(packages.LOCK, HERE / "packages.py")
    made = _digest(windows.PYTHON_LOCK, REQUIREMENTS, HERE / "windows.py", HERE / "numpy_shim.py", extra=unpacked)
    folder = Tree(folder=cache / f"tree-{unpacked}", root=cache / "root", way=way)
    return Windows(folder=cache / f"windows-{made}", tree=folder)


def _digest(*files: Path, extra: str = "") -> str:
    total = hashlib.sha256(extra.encode())
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def _create(cache: Path) -> None:
    """Make the folder, which only this user may change: programs are started from it."""
    workroot.check(cache)
    for folder in (*reversed(cache.parents), cache, cache / "root"):
        if not folder.exists():
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
    workroot.check(cache)


@contextlib.contextmanager
def _locked(cache: Path, console: Console) -> Iterator[None]:
    """Let one process at a time make something in the cache."""
    lock = filelock.FileLock(cache / "lock", fallback_to_soft=False)
    announced = False
    try:
        while True:
            try:
                lock.acquire(blocking=False)
                break
            except filelock.Timeout:
                if not announced:
                    console.note(f"Waiting for another process that uses {cache}. Ctrl-C stops.")
                announced = True
                time.sleep(POLL)
    except KeyboardInterrupt as interrupt:
        raise InterruptedRunError("Stopped while waiting for another process.") from interrupt
    except OSError as error:
        raise WorkRootError(f"{cache} cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _make_tree(folder: Path, cache: Path, console: Console) -> None:
    files = packages.fetch(packages.read_lock(), cache / "downloads", console)
    with _aside(folder) as part:
        packages.unpack(files, part)


def _make_windows(found: Windows, cache: Path, console: Console) -> None:
    (sdist,) = download.fetch((windows.read_lock(),), cache / "downloads", console)
    with _aside(found.folder) as part:
        windows.make(part, found.tree, sdist, REQUIREMENTS, console)


def _delete_unused(cache: Path, used: tuple[Path, ...]) -> None:
    for folder in used:
        os.utime(folder)
    for folder in (*cache.glob("tree-*"), *cache.glob("windows-*")):
        if time.time() - folder.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A path for what becomes ``folder`` when it is complete; nothing is left of an interrupted one."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
