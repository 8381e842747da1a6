"""Unpack a verified archive. Even so, nothing may be written outside the target folder."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from build_config.errors import LockError

if TYPE_CHECKING:
    from pathlib import Path


def extract_tar(archive: Path, target: Path) -> None:
    """Unpack a tar file of plain files and folders, with this user's ownership and ordinary modes.

    Raises ``LockError`` for an absolute name, a path outside (``..``), a link or a device; ``target`` stays incomplete.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _check(member, target)
                path = target / member.name
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                packed = tar.extractfile(member)
                assert packed is not None  # noqa: S101  # for the type checker: it is a plain file
                with packed, path.open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:  # the last two: a name, a size
        raise LockError(f"{archive.name} cannot be unpacked: {error}") from error


def _check(member: tarfile.TarInfo, target: Path) -> None:
    """Refuse a member that is not a plain file or folder below ``target``.

    tarfile's own ``data`` filter checks the same and more, but Python has it only since 3.11.4.
    """
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in name.parts[0]:
        raise tarfile.ReadError(f"{member.name!r} leads to a path outside")
    if not (member.isfile() or member.isdir()):
        raise tarfile.ReadError(f"{member.name!r} is not a plain file")
    data_filter = getattr(tarfile, "data_filter", None)
    if data_filter is not None:
        data_filter(member, str(target))
