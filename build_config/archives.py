"""Unpacks verified archives; even so, nothing may land outside the folder that it is unpacked into."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from build_config.errors import DigestMismatchError

if TYPE_CHECKING:
    from pathlib import Path


def extract_tar(archive: Path, target: Path) -> None:
    """Unpack a tar file with the ``data`` filter: no absolute paths, no way out, no devices, no links outside.

    Raises ``DigestMismatchError`` for a member that the filter refuses; the folder then holds only part.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    except tarfile.FilterError as error:
        raise DigestMismatchError(f"{archive.name} holds a member that would leave its folder: {error}") from error


def extract_zip(archive: Path, target: Path) -> None:
    """Unpack the plain files of a zip. Raises ``DigestMismatchError`` for a member that would leave the folder."""
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            name = PurePosixPath(member.filename)
            link = stat.S_ISLNK(member.external_attr >> 16)
            if name.is_absolute() or ".." in name.parts or "\\" in member.filename or link:
                raise DigestMismatchError(f"{archive.name} holds a member that would leave its folder: {name}")
            if member.is_dir():
                continue
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
