"""Debian's packages of Wine and its compilers: the lock, the download, the tree that they are unpacked into.

Nothing is installed on the machine, and no script of a package runs. Every file is compared with its SHA-256 before it
is opened. A lock can only be made from Debian's signed index.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import re
import shutil
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import requests
import tomli_w

from build_config.errors import CommandError, DigestMismatchError, LockError, NetworkError
from build_config.system import jsonio, processes, tomlio
from build_config.system.files import disk_full_is_said, file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.system.console import Console

FOLDER = Path(__file__).parent
NAMES = FOLDER / "packages.in"
LOCK = FOLDER / "packages.toml"
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
ARCHIVE = "https://snapshot.debian.org/archive/debian"
"""Keeps every version; mirrors drop the older ones."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources")
TIMEOUT = 60.0
ATTEMPTS = 3
AT_ONCE = 4
LEFT_OUT = re.compile(r"usr/share/(?:doc|doc-base|info|lintian|locale|man)/")
"""Never read here."""
BUILTIN = b"Wine builtin DLL".ljust(32, b"\0")
"""The mark of Wine's own DLLs, after the first 64 bytes."""
WINE_DLLS = "usr/lib/x86_64-linux-gnu/wine/x86_64-windows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package: ``path`` is its place on a mirror, ``size`` in bytes."""

    name: str
    version: str
    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageLock:
    """All packages, and the time (``20261121T091544Z``) of the index that they are from."""

    suite: str
    snapshot: str
    packages: tuple[Package, ...]


def read_lock() -> PackageLock:
    """The lock. Raises ``LockError`` if it is malformed, or is for other packages than those of ``packages.in``."""
    lock = _present_lock()
    if [one.name for one in lock.packages] != _names():
        raise LockError(f"{LOCK.name} is not for the packages of {NAMES.name}", remedy="nox -s lock-wine")
    return lock


def refresh(console: Console) -> None:
    """Make the lock again from the newest index. Raises ``NetworkError`` or ``LockError``."""
    lock = _newest(_mirrors()[0])
    before = {one.name: one.version for one in _present_lock().packages} if LOCK.is_file() else {}
    for one in lock.packages:
        if before.get(one.name) != one.version:
            console.note(f"{one.name} {before.get(one.name, '(new)')} -> {one.version}")
    header = f"# Made from {NAMES.name} by `nox -s lock-wine`; not to be edited.\n"
    jsonio.write_text(LOCK, header + tomli_w.dumps(jsonio.to_data(lock)))


def fetch(lock: PackageLock, folder: Path, console: Console) -> tuple[Path, ...]:
    """Provide every package in ``folder``, with its locked digest.

    A mirror drops a package when Debian corrects it. If Debian's archive of old versions cannot be reached either, the
    present version is taken from the signed index instead, with a warning. Raises ``NetworkError``,
    ``DigestMismatchError`` or ``DiskFullError``.
    """
    mirrors = (*_mirrors(), f"{ARCHIVE}/{lock.snapshot}")
    with disk_full_is_said(folder, "Debian's packages"):
        folder.mkdir(parents=True, exist_ok=True)
        missing = [one for one in lock.packages if not _is_there(folder, one)]
        gone = []
        if missing:
            total = sum(one.size for one in missing)
            console.note(f"fetching {len(missing)} packages of Debian {lock.suite}, {total / 1e6:.0f} MB")
            with console.progress("packages", total) as progress, ThreadPoolExecutor(AT_ONCE) as pool:
                for one, found in zip(
                    missing, pool.map(lambda one: _fetch(one, folder, mirrors), missing), strict=True
                ):
                    progress.update(progress.completed + one.size)
                    gone += [] if found else [one]
        paths = {one.name: _file(folder, one) for one in lock.packages}
        if gone:
            newest = {one.name: one for one in _newest(mirrors[0]).packages}
            for one in gone:
                present = newest[one.name]
                console.warn(f"{one.name} {one.version} is on no server; {present.version} is used: nox -s lock-wine")
                if not _is_there(folder, present) and not _fetch(present, folder, mirrors[:1]):
                    raise NetworkError(f"{present.path} is in the index of {mirrors[0]}, but not on it")
                paths[one.name] = _file(folder, present)
    return tuple(paths.values())


def unpack(files: tuple[Path, ...], tree: Path) -> None:
    """Unpack packages into a new folder, and do there what their installation scripts would do for Wine."""
    with disk_full_is_said(tree, "Debian's packages"):
        tree.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the largest first: decompression is what takes time
            for _ in pool.map(lambda file: _unpack(file, tree), sorted(files, key=lambda file: -file.stat().st_size)):
                pass
        (zlib,) = (tree / "usr/x86_64-w64-mingw32/lib").glob("zlib*.dll")
        content = zlib.read_bytes()
        (tree / WINE_DLLS / zlib.name).write_bytes(content[:64] + BUILTIN + content[64 + len(BUILTIN) :])


# --------------------------------------------------------------------------------------------------------- fetching


def _is_there(folder: Path, package: Package) -> bool:
    path = _file(folder, package)
    return path.is_file() and path.stat().st_size == package.size and file_sha256(path) == package.sha256


def _file(folder: Path, package: Package) -> Path:
    return folder / package.path.rpartition("/")[2]


def _fetch(package: Package, folder: Path, mirrors: tuple[str, ...]) -> bool:
    """Download a package from the first server that has it; false if none has."""
    target = _file(folder, package)
    part = target.with_name(f"{target.name}.part")
    answers, reason = 0, ""
    for mirror in mirrors:
        try:
            content = _get(f"{mirror}/{quote(package.path)}")
        except requests.RequestException as error:
            reason = _reason(error)
            continue
        answers += 1
        if content is None:
            continue
        digest = hashlib.sha256(content).hexdigest()
        if digest != package.sha256:
            message = f"{package.path} of {mirror} has the SHA-256 {digest}; the lock says {package.sha256}"
            raise DigestMismatchError(message, remedy="nothing was unpacked; try another mirror")
        part.write_bytes(content)
        part.replace(target)
        return True
    if not answers:
        raise NetworkError(f"Debian's packages cannot be fetched from {', '.join(mirrors)}: {reason}")
    return False


def _get(url: str) -> bytes | None:
    """The content at an address, ``None`` if the server does not have it. Raises ``requests.RequestException``."""
    for attempt in range(ATTEMPTS):
        try:
            answer = requests.get(url, timeout=TIMEOUT)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if attempt == ATTEMPTS - 1:
                raise
            continue
        if answer.status_code == requests.codes.not_found:
            return None
        answer.raise_for_status()
        return answer.content
    raise AssertionError


def _mirrors() -> tuple[str, ...]:
    """The Debian mirrors of this machine's own settings, then Debian's own."""
    files = (file for pattern in SOURCES for file in sorted(Path("/").glob(pattern[1:])))
    lines = (line for file in files for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    found = [url for line in lines if not line.lstrip().startswith("#") for url in _debian(line)]
    return tuple(dict.fromkeys([*found, MIRROR]))


def _debian(line: str) -> Iterator[str]:
    yield from (url.rstrip("/") for url in re.findall(r"https?://[^\s\]]+/debian/?(?=\s|$)", line))


def _reason(error: BaseException) -> str:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error).partition("\n")[0]


# ------------------------------------------------------------------------------------------------------------ index


def _present_lock() -> PackageLock:
    return tomlio.read(LOCK, PackageLock, error=LockError)


def _names() -> list[str]:
    lines = NAMES.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _newest(mirror: str) -> PackageLock:
    """A lock of the present versions, from the index, which Debian signs. Raises ``NetworkError`` or ``LockError``."""
    place = f"{mirror}/dists/{SUITE}"
    signed = _required(f"{place}/InRelease")
    release = _verified(signed)
    index = "main/binary-amd64/Packages.xz"
    digests = re.findall(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(index)}$", release, re.MULTILINE)
    dates = re.findall(r"^Date: \w+, (.+) UTC$", release, re.MULTILINE)
    content = _required(f"{place}/{index}")
    if [hashlib.sha256(content).hexdigest()] != digests or len(dates) != 1:
        raise LockError(f"{place}/{index} is not the file that Debian has signed", remedy="run the same command again")
    known = dict(_entries(lzma.decompress(content).decode("utf-8")))
    if unknown := [name for name in _names() if name not in known]:
        raise LockError(f"Debian {SUITE} has no package {', '.join(unknown)}", remedy=f"correct {NAMES}")
    date = datetime.strptime(dates[0], "%d %b %Y %H:%M:%S")  # noqa: DTZ007  # UTC, as the line says
    packages = tuple(known[name] for name in _names())
    return PackageLock(suite=SUITE, snapshot=f"{date:%Y%m%dT%H%M%SZ}", packages=packages)


def _required(url: str) -> bytes:
    try:
        content = _get(url)
    except requests.RequestException as error:
        raise NetworkError(f"{url} cannot be read: {_reason(error)}") from error
    if content is None:
        raise NetworkError(f"{url} does not exist")
    return content


def _verified(signed: bytes) -> str:
    """The text of a signed index, without anything that is not signed. Raises ``LockError``."""
    remedy = "sudo apt install gpgv debian-archive-keyring"
    if not KEYRING.is_file() or shutil.which("gpgv") is None:
        raise LockError("Debian's signature cannot be checked without gpgv and Debian's keys", remedy=remedy)
    with tempfile.TemporaryDirectory() as temporary:
        source, text = Path(temporary, "InRelease"), Path(temporary, "Release")
        source.write_bytes(signed)
        try:
            argv = ("gpgv", "--keyring", str(KEYRING), "--output", str(text), str(source))
            processes.run(processes.Command(argv=argv))
        except CommandError as error:
            raise LockError(f"Debian's signature is not valid: {error.message}", remedy=remedy) from error
        return text.read_text(encoding="utf-8")


def _entries(index: str) -> Iterator[tuple[str, Package]]:
    for entry in index.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Filename|SHA256|Size): (.*)$", entry, re.MULTILINE))
        if fields:
            name, version, path = fields["Package"], fields["Version"], fields["Filename"]
            package = Package(name=name, version=version, path=path, sha256=fields["SHA256"], size=int(fields["Size"]))
            yield name, package


# -------------------------------------------------------------------------------------------------------- unpacking


def _unpack(file: Path, tree: Path) -> None:
    with tarfile.open(fileobj=_data(file)) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name.startswith("usr/") and not LEFT_OUT.match(name):
                _extract(tar, member, tree / name)


def _data(file: Path) -> io.BytesIO:
    """The packed files of a package: the member ``data.tar.xz`` of an ``ar`` archive. Raises ``LockError``."""
    content = file.read_bytes()
    place = 8  # after "!<arch>\n"; a header of 60 bytes begins with the name and ends with the size
    while place < len(content):
        name, size = content[place : place + 16].strip(), int(content[place + 48 : place + 58])
        if name.rstrip(b"/") == b"data.tar.xz":
            return io.BytesIO(content[place + 60 : place + 60 + size])
        place += 60 + size + size % 2
    raise LockError(f"{file.name} is not a package as Debian {SUITE} makes them")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Unpack one member, with this user's ownership."""
    if ".." in target.parts:
        raise LockError(f"{member.name!r} leads to a path outside")
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif packed := tar.extractfile(member):  # of a hard link, the file that it leads to
        with packed, target.open("xb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
        target.chmod(0o755 if member.mode & 0o111 else 0o644)
