"""Fetches locked files: progress, resumption, and a digest that is checked before anything else touches the file."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests
from pypi_simple import NoSuchProjectError, PyPISimple

from build_config import jsonio
from build_config.errors import DigestMismatchError, DiskFullError, NetworkError, StepResultError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from build_config.console import Console
    from build_config.model import LockedFile

ATTEMPTS = 4
PAUSE = 1.0
"""Seconds before the second attempt; doubled for each further one."""
TIMEOUT = 60.0
"""Seconds without a byte before a connection counts as lost."""
CHUNK = 1 << 20
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416
VERIFIED = "verified.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """That a file had this digest when it looked like this: spares hashing half a gigabyte on every run."""

    sha256: str
    size: int
    modified_ns: int
    inode: int


def fetch(files: tuple[LockedFile, ...], folder: Path, console: Console) -> tuple[Path, ...]:
    """Every file is in ``folder`` afterwards, under its own name, with the locked digest and size.

    A partial download is kept and resumed. Raises ``DigestMismatchError`` (the file is moved to ``rejected/`` below the
    folder), ``NetworkError``, or ``DiskFullError``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = _read_verified(folder)
    missing = []
    for file in files:
        path = folder / file.filename
        if not path.is_file():
            missing.append(file)
        elif known.get(file.filename) != _look(path, file.sha256):
            _verify(path, file)
            known[file.filename] = _look(path, file.sha256)
    if missing:
        with PyPISimple(os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple/") as index:
            for file in missing:
                path = _fetch_one(file, folder, index, console)
                known[file.filename] = _look(path, file.sha256)
                jsonio.write(folder / VERIFIED, known)
    else:
        jsonio.write(folder / VERIFIED, known)
    return tuple(folder / file.filename for file in files)


def _fetch_one(file: LockedFile, folder: Path, index: PyPISimple, console: Console) -> Path:
    part = folder / f"{file.filename}.part"
    with console.progress(f"fetching {file.name} {file.version}", file.size) as bar:
        for attempt in range(ATTEMPTS):
            try:
                url = _url(file, index)
                _download(url, part, file, bar.update)
                break
            except (requests.RequestException, ConnectionError, TimeoutError) as error:
                if attempt == ATTEMPTS - 1 or not _worth_another(error):
                    raise NetworkError(
                        f"{file.filename} is not in the downloads and cannot be fetched: {_reason(error)}",
                        remedy=f"connect to the network and run again, or put the file into {folder} by hand",
                    ) from error
                time.sleep(PAUSE * 2**attempt)
            except NoSuchProjectError as error:
                raise NetworkError(
                    f"the package index has no project {file.name}", remedy="check PIP_INDEX_URL"
                ) from error
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise DiskFullError(
                        f"the disk is full: {file.filename} needs {file.size / 1e6:.0f} MB",
                        remedy="free some space, then run the same command again: what was fetched is kept",
                    ) from error
                raise
    return _accept(part, file, folder)


def _url(file: LockedFile, index: PyPISimple) -> str:
    for package in index.get_project_page(file.name, timeout=TIMEOUT).packages:
        if package.filename == file.filename:
            return package.url
    raise NetworkError(
        f"the package index no longer has {file.filename}",
        remedy=f"nox -s lock -- --upgrade {file.name}, or put the file into the downloads folder by hand",
    )


def _download(url: str, part: Path, file: LockedFile, report: Callable[[float], None]) -> None:
    """Append what is missing to the partial file; start again where the server does not resume."""
    have = part.stat().st_size if part.is_file() else 0
    if have > file.size:
        part.unlink()
        have = 0
    if have == file.size:
        return
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise ConnectionError("the server does not hold as many bytes as were fetched before")
        answer.raise_for_status()
        resumed = answer.status_code == PARTIAL_CONTENT
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as target:
            for chunk in answer.iter_content(CHUNK):
                target.write(chunk)
                done += len(chunk)
                report(done)
                if done > file.size:
                    break  # it cannot be the locked file; the digest check says so
    if done < file.size:
        raise ConnectionError(f"the connection ended after {done} of {file.size} bytes")


def _accept(part: Path, file: LockedFile, folder: Path) -> Path:
    path = folder / file.filename
    _verify(part, file)
    part.replace(path)
    return path


def _verify(path: Path, file: LockedFile) -> None:
    """Move a file aside and raise ``DigestMismatchError`` unless it is the locked one."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest == file.sha256 and path.stat().st_size == file.size:
        return
    rejected = path.parent / "rejected"
    rejected.mkdir(exist_ok=True)
    path.replace(rejected / file.filename)
    raise DigestMismatchError(
        f"{file.filename} is not the locked file: SHA-256 {digest}, locked {file.sha256}. Nothing was unpacked; "
        f"the file is now {rejected / file.filename}",
        remedy="run again to fetch it anew; if it comes back like this, the index serves another file than was locked",
    )


def _worth_another(error: BaseException) -> bool:
    """A refusal (404, 403) is final; everything else may pass."""
    response = getattr(error, "response", None)
    return response is None or response.status_code >= requests.codes.internal_server_error


def _reason(error: BaseException) -> str:
    """The innermost cause in a line: requests wraps what happened three times."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return str(cause) or type(cause).__name__


def _look(path: Path, sha256: str) -> Verified:
    status = path.stat()
    return Verified(sha256=sha256, size=status.st_size, modified_ns=status.st_mtime_ns, inode=status.st_ino)


def _read_verified(folder: Path) -> dict[str, Verified]:
    try:
        return jsonio.read(folder / VERIFIED, dict[str, Verified])
    except StepResultError:
        return {}
