"""Files in storage that others share: S3, Google's and Azure's through obstore, a folder, a web server to read from.

Credentials come from the environment alone, as the service's own programs take them: ``AWS_ACCESS_KEY_ID``,
``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT_KEY``, ... An address with a password in it is refused, and
no message contains what follows a question mark.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import tempfile
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import requests

from build_config.errors import NetworkError, SettingsError
from build_config.system import files, network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from obstore import PutMode, UpdateVersion
    from obstore.store import ObjectStore

T = TypeVar("T")

WEB = ("http", "https")
SCHEMES = ("s3", "gs", "az", *WEB)
FORMS = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://CONTAINER/FOLDER"
PATIENCE = timedelta(seconds=60)
"""From the first attempt to the last one."""
TRANSFER = timedelta(minutes=20)
"""For one file: three hundred megabytes over two megabits a second."""
CHUNK = 1 << 20
IMMUTABLE = "public, max-age=31536000, immutable"
"""How long caches may keep a file whose name never gets other bytes."""
ANYTHING = "application/octet-stream"
"""The type of a file that only this project reads."""


class Reader(Protocol):
    """Storage that files are read from. ``url`` is its address, for messages and records."""

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""

    def read(self, name: str) -> bytes | None:
        """The content of a small file; ``None`` if it is missing. Raises ``NetworkError``."""

    def fetch(self, name: str, target: Path, *, limit: int | None = None) -> str | None:
        """Write a file to ``target``; returns its SHA-256, ``None`` if it is missing. Raises ``NetworkError``.

        More than ``limit`` bytes are not received: the rest of a file that is too long cannot make it the right one.
        """


def is_address(place: str) -> bool:
    """Whether this names storage and not a folder."""
    return "://" in place


def place(name: str) -> str | Path:
    """An address as it is, anything else as a folder."""
    return name if is_address(name) else Path(name)


def reader(place: str | Path) -> Reader:
    """Open a place to read from: a folder, or an address. Raises ``SettingsError``."""
    if isinstance(place, Path):
        if not place.is_dir():
            raise SettingsError(f"there is no folder {place}")
        return writer(place)
    return Website(place) if _scheme(place) in WEB else writer(place)


def writer(place: str | Path) -> Bucket:
    """Open a place to read from and write to. Raises ``SettingsError`` for an address that nobody can write to."""
    if isinstance(place, Path):
        from obstore.store import LocalStore  # noqa: PLC0415  # a build that uses no storage need not load it

        return Bucket(str(place), LocalStore(place.absolute(), mkdir=True))
    if _scheme(place) in WEB:
        raise SettingsError(f"{place}: a web server is only read from", remedy=f"a folder, or {FORMS}")
    from obstore.store import from_url  # noqa: PLC0415

    try:
        store = from_url(
            place,
            client_options={"timeout": TRANSFER, "allow_http": _http_is_allowed()},
            retry_config={"max_retries": network.ATTEMPTS - 1, "retry_timeout": PATIENCE},
        )
    except Exception as error:  # obstore's errors have no common base for what is wrong with an address
        raise SettingsError(f"{place} cannot be used: {_reason(error)}", remedy=f"a folder, or {FORMS}") from error
    return Bucket(place.rstrip("/"), store)


def _http_is_allowed() -> bool:
    """Whether the service may be asked without encryption: obstore reads this only if it is given no other option."""
    settings = (os.environ.get(f"{service}_ALLOW_HTTP", "") for service in ("AWS", "AZURE", "GOOGLE"))
    return any(setting.lower() in {"1", "true"} for setting in settings)


def _scheme(place: str) -> str:
    """The scheme of an address. Raises ``SettingsError`` for one that is not known, or that holds a secret."""
    parts = urlsplit(place)
    if parts.username is not None or parts.query or parts.fragment:
        message = f"{_public(place)}: an address must not contain credentials or options"
        raise SettingsError(message, remedy="pass credentials in the environment, as the service's own programs do")
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise SettingsError(f"{place}: not an address of storage", remedy=f"a folder, or {FORMS}")
    return parts.scheme


class Bucket:
    """Storage of a service, or a folder: every file is complete from its first moment on."""

    def __init__(self, url: str, store: ObjectStore) -> None:
        self.url = url
        self._store = store

    def read(self, name: str) -> bytes | None:
        """The content of a small file; ``None`` if it is missing. Raises ``NetworkError``."""
        return self.read_version(name)[0]

    def read_version(self, name: str) -> tuple[bytes | None, UpdateVersion | None]:
        """The content of a file and its version, for ``replace``."""
        import obstore  # noqa: PLC0415

        def attempt() -> tuple[bytes, UpdateVersion]:
            found = obstore.get(self._store, name)
            version: UpdateVersion = {}
            for part in ("e_tag", "version"):
                if value := found.meta[part]:
                    version[part] = value
            return bytes(found.bytes()), version

        return self._done("read", name, lambda: _unless_missing(attempt)) or (None, None)

    def fetch(self, name: str, target: Path, *, limit: int | None = None) -> str | None:
        """Write a file to ``target``; returns its SHA-256, ``None`` if it is missing. Raises ``NetworkError``."""
        import obstore  # noqa: PLC0415

        def attempt() -> str:
            chunks = obstore.get(self._store, name).stream(CHUNK)
            return _write(target, map(bytes, chunks), limit)

        return self._done("read", name, lambda: _unless_missing(attempt))

    def sha256(self, name: str) -> str | None:
        """The SHA-256 of a file; ``None`` if it is missing. Raises ``NetworkError``."""
        with tempfile.TemporaryDirectory() as folder:
            return self.fetch(name, Path(folder, "there"))

    def create(self, name: str, source: Path | bytes, attributes: Mapping[str, str]) -> bool:
        """Write a file that is not there yet; ``False`` if there is one of that name. Raises ``NetworkError``."""
        from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415

        try:
            self._put(name, source, attributes, "create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, name: str, content: bytes, attributes: Mapping[str, str], version: UpdateVersion | None) -> bool:
        """Write a file unless somebody else has written it since ``version`` was read. Raises ``NetworkError``."""
        from obstore.exceptions import PreconditionError  # noqa: PLC0415

        if version is None:
            return self.create(name, content, attributes)
        try:
            self._put(name, content, attributes, version)
        except PreconditionError:
            return False
        return True

    def write(self, name: str, content: bytes, attributes: Mapping[str, str]) -> None:
        """Write a file, in the place of one of that name. Raises ``NetworkError``."""
        self._put(name, content, attributes, "overwrite")

    def names(self, folder: str) -> list[str]:
        """The files of a folder and all below it, sorted. Raises ``NetworkError``."""
        import obstore  # noqa: PLC0415

        found = self._done("list", folder, lambda: list(obstore.list(self._store, folder or None)))
        return sorted(each["path"] for batch in found for each in batch)

    def folders(self) -> list[str]:
        """The folders at the top. Raises ``NetworkError``."""
        import obstore  # noqa: PLC0415

        found = self._done("list", "", lambda: obstore.list_with_delimiter(self._store))
        return sorted(each.rstrip("/") for each in found["common_prefixes"])

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is missing is no error. Raises ``NetworkError``."""
        import obstore  # noqa: PLC0415

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                obstore.delete(self._store, name)

        for name in names:
            self._done("remove", name, functools.partial(remove, name))

    def _put(self, name: str, source: Path | bytes, attributes: Mapping[str, str], mode: PutMode) -> None:
        import obstore  # noqa: PLC0415
        from obstore.store import LocalStore  # noqa: PLC0415

        kept: Any = {} if isinstance(self._store, LocalStore) else dict(attributes)  # a file system has none
        self._done(
            "write",
            name,
            lambda: obstore.put(self._store, name, source, attributes=kept, mode=mode, use_multipart=False),
        )

    def _done(self, what: str, name: str, attempt: Callable[[], T]) -> T:
        from obstore import exceptions  # noqa: PLC0415

        try:
            return attempt()
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            message = f"{self.url}: no right to {what} {name}: {_reason(error)}"
            raise SettingsError(message, remedy="pass credentials that may, in the environment") from error
        except (exceptions.BaseError, OSError) as error:
            if files.is_disk_full(error):
                raise
            raise NetworkError(
                f"{self.url}: cannot {what} {name}: {_reason(error)}",
                remedy="check the address, the network and the credentials in the environment, then run it again",
            ) from error


class Website:
    """A web server that files are read from. Names are written in addresses as pages of an index write them."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()

    def read(self, name: str) -> bytes | None:
        """The content of a small file; ``None`` if it is missing. Raises ``NetworkError``."""
        return self._received(name, b"".join)

    def fetch(self, name: str, target: Path, *, limit: int | None = None) -> str | None:
        """Write a file to ``target``; returns its SHA-256, ``None`` if it is missing. Raises ``NetworkError``."""
        return self._received(name, lambda chunks: _write(target, chunks, limit))

    def _received(self, name: str, take: Callable[[Iterator[bytes]], T]) -> T | None:
        try:
            return network.persistently(lambda: self._attempt(name, take))
        except requests.RequestException as error:
            message = f"{self.url}: cannot read {name}: {_reason(error)}"
            raise NetworkError(message, remedy="check the address and the network, then run it again") from error

    def _attempt(self, name: str, take: Callable[[Iterator[bytes]], T]) -> T | None:
        headers = {"Accept-Encoding": "identity", "Cache-Control": "no-cache"}  # what is there now, not 600 seconds ago
        address = f"{self.url}/{quote(name)}"
        with self._session.get(address, headers=headers, stream=True, timeout=network.TIMEOUT) as answer:
            if answer.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                return None
            answer.raise_for_status()
            return take(answer.iter_content(CHUNK))  # urllib3 compares with Content-Length


def _unless_missing(attempt: Callable[[], T]) -> T | None:
    try:
        return attempt()
    except FileNotFoundError:
        return None


def _write(target: Path, chunks: Iterable[bytes], limit: int | None) -> str:
    digest, size = hashlib.sha256(), 0
    with files.disk_full_is_said(target.parent, "files"), target.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if limit is not None and size > limit:
                break
    return digest.hexdigest()


def _reason(error: BaseException) -> str:
    """The first line of an error, without the server's own text and without what may be secret in an address."""
    line = str(error).partition("\n")[0].partition("<")[0].strip(" :")
    return _public(line) or type(error).__name__


def _public(text: str) -> str:
    return re.sub(r"[?#][^\s'\"]*", "", network.without_password(text))
