"""Digests of files, and a clear error for a full disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.errors import DiskFullError
from build_config.system import platforms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


RENAMING = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before each further attempt to rename what another program has open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The digest of a file with the file's state at that time: saves hashing half a gigabyte on every run.

    Where no program can set a file's change time back, a file that was touched in any way is hashed again. Elsewhere
    every run hashes every file.
    """

    sha256: str
    size: int
    inode: int
    modified_ns: int
    changed_ns: int


def look(path: Path, sha256: str) -> Verified:
    """The state of a file whose digest is known. Raises ``OSError``."""
    status = path.stat()
    return Verified(
        sha256=sha256,
        size=status.st_size,
        inode=status.st_ino,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
    )


def rename(source: Path, target: Path) -> Path:
    """Rename a file or a folder, over a file of that name if there is one; the new path.

    Windows refuses this while another program has the file, or one in the folder, open. A virus scanner does so with
    every new file for a moment. Raises ``OSError``.
    """
    for pause in RENAMING if platforms.HERE.locks_open_files else ():
        with contextlib.suppress(PermissionError):
            return source.replace(target)
        time.sleep(pause)
    return source.replace(target)


def touch(folder: Path) -> None:
    """Note that a folder was used now: ``nox -s clean`` frees first what was not used for longest."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def file_sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, which is read in blocks. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing_sha256(listing: Iterable[tuple[str, str]]) -> str:
    """The hexadecimal SHA-256 over names and digests of files, in the order given."""
    total = hashlib.sha256()
    for name, digest in listing:
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk is full, or the user's quota."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


@contextlib.contextmanager
def disk_full_is_said(place: Path, what: str) -> Iterator[None]:
    """Raise ``DiskFullError`` if the disk fills up while ``what`` (a plural) is written to ``place``."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        message = f"the disk is full: {what} could not be written to {place}"
        remedy = "free some space, then run the same command again: finished files are kept"
        raise DiskFullError(message, remedy=remedy) from error
