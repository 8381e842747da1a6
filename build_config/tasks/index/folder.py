"""An index as a folder: readers see it whole at every moment, and publishers change it one after the other.

New files are written aside, flushed and renamed before any page names them. A publisher that is killed leaves files
that no page names; the next one removes or lists them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import SettingsError, StepResultError
from build_config.system import files, jsonio, platforms
from build_config.tasks.index.catalogue import CATALOGUE, FILES, Catalogue, is_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from build_config.system.console import Console

LOCK = ".lock"
"""In the index; it is never published, as all names that begin with a dot."""
_PART = ".part"
PATIENCE = 5.0
"""Seconds until a publisher says that it waits for another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file for ``files/``: a copy of ``source``, or these bytes. ``sha256`` is what a copy must have."""

    name: str
    source: Path | bytes
    sha256: str | None = None


@contextlib.contextmanager
def locked(folder: Path, console: Console) -> Iterator[None]:
    """Keep other publishers of this index out during the block; the kernel ends that with the process.

    Removes what a killed publisher left half written. Raises ``SettingsError`` if the folder cannot be written to.
    """
    import filelock  # noqa: PLC0415  # a reader needs no lock

    try:
        (folder / FILES).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK, fallback_to_soft=False)
        try:
            lock.acquire(timeout=PATIENCE)
        except filelock.Timeout:
            console.note(f"another publisher is changing {folder}: waiting until it ends. Ctrl-C stops.")
            lock.acquire()
    except OSError as error:
        message = f"{folder} cannot be used as an index: {error.strerror or error}"
        raise SettingsError(message, remedy="name a folder on a local disk that you can write to") from error
    try:
        for leftover in tuple(folder.rglob(f".*{_PART}")):
            _discard(leftover)
        yield
    finally:
        lock.release()


def read(folder: Path) -> Catalogue | None:
    """The catalogue of an index; ``None`` if it is missing or cannot be read: it can be made again from the files."""
    try:
        return jsonio.read(folder / CATALOGUE, Catalogue)
    except StepResultError:
        return None


def place(folder: Path, new: Iterable[NewFile]) -> None:
    """Put files into ``files/``, in this order, each complete from its first moment on.

    Raises ``StepResultError`` if a copy is not what was read before, ``DiskFullError`` if the disk is full.
    """
    with files.disk_full_is_said(folder, "files of the index"):
        _put((folder / FILES / file.name, file) for file in new)


def write_pages(folder: Path, pages: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write those pages that have changed, in this order; returns their names.

    Each is whole: the old one or the new one. A page that is the same is not touched, so caches keep it. A new index
    appears with all its pages: of a folder without them, some servers would send a list of files.
    """
    changed = tuple(name for name, content in pages.items() if _content(folder / name) != content)
    with files.disk_full_is_said(folder, "pages of the index"):
        _put(_by_folder(folder, {name: pages[name] for name in changed}))
    return changed


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files that no page names any more; one that is missing is no error."""
    for name in names:
        (folder / FILES / name).unlink(missing_ok=True)


def remove_pages(folder: Path, known: Iterable[str]) -> None:
    """Remove the folders of indexes that have no wheel any more; other folders are not ours."""
    for page in list(folder.glob("*/")):
        if is_folder(page.name) and page.name not in known:
            shutil.rmtree(page.replace(_part(page)))


# ------------------------------------------------------------------------------------------------------- details


def _by_folder(folder: Path, pages: Mapping[str, bytes]) -> Iterator[tuple[Path, NewFile | Mapping[str, bytes]]]:
    """The paths of pages with their content; an index that is not there yet is one folder."""
    for top, names in groupby(pages, key=lambda name: name.rpartition("/")[0].partition("/")[0]):
        if top and not (folder / top).is_dir():
            yield folder / top, {name.removeprefix(f"{top}/"): pages[name] for name in names}
        else:
            yield from ((folder / name, NewFile(name=name, source=pages[name])) for name in names)


def _put(new: Iterable[tuple[Path, NewFile | Mapping[str, bytes]]]) -> None:
    """Write files and folders aside, then give them these paths, in this order; an error leaves none half written."""
    parts: list[tuple[Path, Path]] = []
    try:
        for path, content in new:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, NewFile):
                parts.append((_aside(path, content), path))
            else:
                parts.append((_part(path), path))
                _fill(_part(path), content)
        # All are written before the first is flushed: the file system then flushes many at once.
        for part, _ in parts:
            for written in (part, *part.rglob("*")):
                flush = _flush_folder if written.is_dir() else _flush
                flush(written)
        for part, path in parts:
            part.replace(path)
    finally:
        for part, _ in parts:
            _discard(part)
    for folder in {path.parent for _, path in parts}:
        _flush_folder(folder)


def _part(folder: Path) -> Path:
    """The name of a folder while it is not whole; one publisher at a time has it."""
    return folder.with_name(f".{folder.name}{_PART}")


def _fill(folder: Path, pages: Mapping[str, bytes]) -> None:
    for name, content in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)


def _discard(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)


def _aside(path: Path, file: NewFile) -> Path:
    """Write a file under a name that no reader asks for. A wheel is copied: a link would change with its source."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=_PART)
    part = Path(temporary)
    try:
        with os.fdopen(handle, "wb") as target:
            if isinstance(file.source, bytes):
                target.write(file.source)
            else:
                with file.source.open("rb") as source:
                    shutil.copyfileobj(source, target, 1 << 20)
        part.chmod(0o644)
        _compare(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def _compare(part: Path, file: NewFile) -> None:
    if file.sha256 is not None and files.file_sha256(part) != file.sha256:
        message = f"{file.name} changed while it was published: SHA-256 {file.sha256} was read before"
        raise StepResultError(message, remedy="run the same command again")


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make renames outlast a power failure; Windows has no such call for a folder."""
    if not platforms.HERE.has_modes:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
