"""Download locked files with progress and resumption; the digest is checked before anything else opens the file."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING

from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, ProjectPage, PyPISimple

from build_config.errors import DigestMismatchError, NetworkError, StepResultError
from build_config.system import jsonio, network, platforms
from build_config.system.files import Verified, disk_full_is_said, file_sha256, is_disk_full, look, rename

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests

    from build_config.model import LockedFile
    from build_config.system.console import Console

CHUNK = 1 << 16
"""Bytes written at a time. A broken connection loses less than that."""
VERIFIED = "verified.json"


def index_url() -> str:
    """The package index: pip's ``PIP_INDEX_URL``, or PyPI."""
    return os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT


def project_page(index: PyPISimple, project: str) -> ProjectPage:
    """The page of a project on a package index. Raises ``NetworkError``."""
    try:
        return network.persistently(lambda: index.get_project_page(project, timeout=network.TIMEOUT))
    except (OSError, NoSuchProjectError, ValueError) as error:  # ValueError: the page is not one of an index
        message = f"the package index cannot be read for {project}: {_reason(error)}"
        raise NetworkError(message, remedy="connect to the network, check PIP_INDEX_URL, and run again") from error


def fetch(files: tuple[LockedFile, ...], folder: Path, console: Console) -> tuple[Path, ...]:
    """Provide every file in ``folder`` under its own name, with the locked digest and size; return the paths.

    A partial download is kept and resumed. Raises ``DigestMismatchError`` (the file is moved to ``rejected/`` below the
    folder), ``NetworkError``, or ``DiskFullError``.
    """
    with disk_full_is_said(folder, "downloads"):
        folder.mkdir(parents=True, exist_ok=True)
        known = _read_verified(folder) if platforms.HERE.has_change_times else {}
        seen = dict(known)
        missing = []
        for file in files:
            path = folder / file.filename
            if not path.is_file():
                missing.append(file)
            elif known.get(file.filename) != look(path, file.sha256):
                _verify(path, path, file)
                seen[file.filename] = look(path, file.sha256)
        if seen != known:
            jsonio.write(folder / VERIFIED, seen)
        for file in _download_all(missing, folder, console):
            seen[file.filename] = look(folder / file.filename, file.sha256)
            jsonio.write(folder / VERIFIED, seen)
    return tuple(folder / file.filename for file in files)


def _download_all(files: list[LockedFile], folder: Path, console: Console) -> Iterator[LockedFile]:
    """Download and verify the files one after another, under one bar; yield each that is in its place."""
    if not files:
        return
    total = sum(file.size for file in files)
    done = 0
    console.note(f"fetching {len(files)} {'file' if len(files) == 1 else 'files'}, {total / 1e6:.0f} MB")
    with PyPISimple(index_url()) as index, console.progress("fetching", total) as bar:
        for file in files:

            def report(received: int, file: LockedFile = file, before: int = done) -> None:
                bar.update(before + received, note=f"{file.name} {file.version}")

            part = folder / f"{file.filename}.part"
            try:
                _download(file, part, index, report)
            except (OSError, NetworkError) as error:
                if is_disk_full(error):
                    raise
                message = f"{file.filename} is not in {folder} and cannot be fetched: {_reason(error)}"
                remedy = f"connect to the network and run again, or put the file into {folder} by hand"
                raise NetworkError(message, remedy=remedy) from error
            _verify(part, folder / file.filename, file)
            rename(part, folder / file.filename)
            yield file
            done += file.size


def _download(file: LockedFile, part: Path, index: PyPISimple, report: Callable[[int], None]) -> None:
    """Download the rest of ``part``, from where an earlier call stopped."""
    if part.is_file() and part.stat().st_size == file.size:
        return
    pages = project_page(index, file.name).packages
    urls = [package.url for package in pages if package.filename == file.filename]
    if not urls:
        raise NetworkError(f"the package index does not have it (any more), but {len(pages)} others of {file.name}")
    network.persistently(lambda: _receive(urls[0], file, part, index.s, report))


def _receive(url: str, file: LockedFile, part: Path, session: requests.Session, report: Callable[[int], None]) -> None:
    """Append what is missing to the partial file; start again if the server cannot resume."""
    have = part.stat().st_size if part.is_file() else 0
    if have > file.size:
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=network.TIMEOUT) as answer:
        if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise ConnectionError("the server has fewer bytes than were downloaded before")
        answer.raise_for_status()
        resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        received = have if resumed else 0
        with part.open("ab" if resumed else "wb") as target:
            for chunk in answer.iter_content(CHUNK):
                target.write(chunk)
                received += len(chunk)
                report(received)
                if received > file.size:
                    return  # it cannot be the locked file; the digest check reports it
        if received < file.size and "Content-Length" not in answer.headers:
            raise ConnectionError(f"the connection ended after {received} of {file.size} bytes")


# ------------------------------------------------------------------------------------------------------ verifying


def _verify(path: Path, name: Path, file: LockedFile) -> None:
    """Move a file aside and raise ``DigestMismatchError`` unless it is the locked one.

    ``path`` is its present path, ``name`` its final one.
    """
    digest, size = file_sha256(path), path.stat().st_size
    if (digest, size) == (file.sha256, file.size):
        return
    aside = name.parent / "rejected" / name.name
    aside.parent.mkdir(exist_ok=True)
    rename(path, aside)
    raise DigestMismatchError(
        f"{file.filename} is not the locked file: SHA-256 {digest}, {size} bytes; "
        f"the lock says {file.sha256}, {file.size} bytes. Nothing was unpacked; the file is now {aside}",
        remedy="run the same command again; if the error remains, the index serves another file than the locked one, "
        "and only `nox -s lock` would accept it",
    )


def _read_verified(folder: Path) -> dict[str, Verified]:
    """The files that earlier runs of this user verified; a list that another user wrote is ignored."""
    path = folder / VERIFIED
    try:
        if path.stat().st_uid != folder.stat().st_uid:
            return {}
        return jsonio.read(path, dict[str, Verified])
    except (OSError, StepResultError):
        return {}


# ------------------------------------------------------------------------------------------------------- failing


def _reason(error: BaseException) -> str:
    """The innermost cause in one line, without a password: requests wraps an error three times."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    line = str(error).partition("\n")[0] or type(error).__name__
    return network.without_password(line)
