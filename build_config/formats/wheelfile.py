"""Read and write wheel files: the facts in the name, RECORD, and a form in which equal contents give equal bytes."""

from __future__ import annotations

import base64
import calendar
import csv
import hashlib
import io
import re
import stat
import zipfile
import zlib
from typing import TYPE_CHECKING

from packaging.utils import InvalidWheelFilename

from build_config.errors import PackagingError
from build_config.formats import variants
from build_config.model import Wheel
from build_config.system.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from packaging.version import Version

TIMESTAMP = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold. ``SOURCE_DATE_EPOCH`` is ignored: the same inputs must give the same
bytes in every environment."""
SOURCE_DATE_EPOCH = str(calendar.timegm(TIMESTAMP))
"""The same time for programs that use the variable."""
MODE = 0o644
"""Of every member: shared libraries need no execute bit."""
COMPRESSION_LEVEL = 9
UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
"""Files of ``.dist-info`` that cannot, or need not, be in RECORD."""
DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, IndexError)
"""Errors when reading a damaged or foreign archive."""
MOST_MEMBERS = 10_000
MOST_BYTES = 4_000_000_000
"""What a wheel may contain: it is read into memory, and a few bytes can become any number."""
SECURE_HASHES = ("sha256", "sha384", "sha512")
_DIST_INFO = re.compile(r"[^/]+\.dist-info")


def read(path: Path) -> Wheel:
    """Name, digest and size of a wheel file; the archive is not opened.

    Raises ``PackagingError``, also for a variant wheel: pip cannot install it.
    """
    if variants.label(path.name) is not None:
        message = f"{path.name} is a variant wheel, which pip cannot install"
        raise PackagingError(message, remedy="name the wheel that it was made of: variant_of in its record")
    return read_any(path)


def read_any(path: Path) -> Wheel:
    """The same as ``read`` for an ordinary wheel or a variant wheel."""
    try:
        name = variants.parse(path.name)
        digest = file_sha256(path)
        size = path.stat().st_size
    except InvalidWheelFilename as error:
        raise PackagingError(f"{path.name} is not the name of a wheel: {error}") from error
    except OSError as error:
        raise PackagingError(f"{path.name} cannot be read: {error.strerror}") from error
    return Wheel(path=path, version=name.version, tags=name.tags, sha256=digest, size=size)


def dist_info(names: Iterable[str]) -> str:
    """The one ``.dist-info`` folder among the member names. Raises ``PackagingError`` for none or several."""
    folders = sorted({top for name in names if _DIST_INFO.fullmatch(top := name.split("/", 1)[0])})
    if len(folders) != 1:
        raise PackagingError(f"expected one .dist-info folder, found {', '.join(folders) or 'none'}")
    return folders[0]


def digest_entry(data: bytes) -> str:
    """A digest as RECORD writes it: ``sha256=<base64 without padding>``."""
    return "sha256=" + _unpadded(hashlib.sha256(data).digest())


def record_problems(contents: Mapping[str, bytes]) -> tuple[str, ...]:
    """The errors of RECORD, one sentence each. ``contents`` maps every member's name to its bytes.

    Every member is listed, with its digest and size, and nothing else; RECORD itself and its signatures are exempt.
    Raises ``PackagingError`` unless there is exactly one ``.dist-info`` folder.
    """
    folder = dist_info(contents)
    exempt = {f"{folder}/{name}" for name in UNRECORDED}
    try:
        text = contents[f"{folder}/RECORD"].decode("utf-8")
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        return (f"RECORD is missing or unreadable: {error}",)

    problems = []
    listed: set[str] = set()
    for row in rows:
        if len(row) != len(("name", "digest", "size")):
            problems.append(f"RECORD has a malformed line: {','.join(row)}")
            continue
        name, digest, size = row
        if name in listed:
            problems.append(f"RECORD lists {name} twice")
        listed.add(name)
        if name in exempt:
            continue
        if name not in contents:
            problems.append(f"RECORD lists {name}, which is missing")
        else:
            problems += _row_problems(name, digest, size, contents[name])
    problems += [f"RECORD does not list {name}" for name in sorted(set(contents) - listed - exempt)]
    return tuple(problems)


def write_normalised(
    source: Path, target: Path, *, extra: Mapping[str, bytes] | None = None, version: Version | None = None
) -> Wheel:
    """Write the wheel ``source`` again as ``target``, so that equal contents give equal bytes.

    Sorted members with ``.dist-info`` last and a new RECORD at the very end; no folder entries; one timestamp, one
    mode, one compression level. Another version of zlib may compress to other bytes. ``extra`` are members to add or to
    replace, by their names below ``.dist-info``. With ``version``, that folder gets the name for it. Raises
    ``PackagingError`` if the source is not a wheel or the target's name is not that of a wheel.
    """
    contents = read_contents(source)
    folder = dist_info(contents)
    if version is not None:
        old, folder = folder, f"{folder.partition('-')[0]}-{version}.dist-info"
        contents = {re.sub(f"^{re.escape(old)}/", f"{folder}/", name): data for name, data in contents.items()}
    record = f"{folder}/RECORD"
    for name in UNRECORDED:  # a signature would be of the old RECORD
        contents.pop(f"{folder}/{name}", None)
    contents |= {f"{folder}/{name}": data for name, data in (extra or {}).items()}
    names = sorted(contents, key=lambda name: (name.startswith(f"{folder}/"), name))
    contents[record] = _record(contents, names, record)
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for name in (*names, record):
            archive.writestr(_member(name), contents[name], zipfile.ZIP_DEFLATED, COMPRESSION_LEVEL)
    return read_any(target)


def read_contents(path: Path) -> dict[str, bytes]:
    """Every member's bytes by name, without folder entries.

    Raises ``PackagingError`` if the archive is damaged, too large to be read, or contains two members of one name, of
    which installers could take different ones, or a link.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            if problem := _refusal(members, path.stat().st_size):
                raise PackagingError(f"{path.name} is not a sound archive: {problem}")
            return {member_name(info): archive.read(info) for info in members}
    except DAMAGE as error:
        raise PackagingError(f"{path.name} is not a sound archive: {error}") from error


def _refusal(members: list[zipfile.ZipInfo], size: int) -> str | None:
    if len(members) > MOST_MEMBERS:
        return f"it contains {len(members)} files, more than {MOST_MEMBERS}"
    total = sum(info.file_size for info in members)  # zipfile unpacks no more of a member than this
    if total > MOST_BYTES:
        return f"its files have {total} bytes, more than {MOST_BYTES}"
    names: set[str] = set()
    for info in members:
        name = member_name(info)
        if name in names:
            return f"it contains {name} twice"
        if info.compress_size > size:  # Python would provide memory for all of it
            return f"{name} has {info.compress_size} bytes there, the whole archive {size}"
        if stat.S_ISLNK(info.external_attr >> 16):
            return f"{name} is a symbolic link"
        names.add(name)
    return None


def member_name(info: zipfile.ZipInfo) -> str:
    """A member's name in the archive. On Windows zipfile itself replaces the backslashes in it by slashes."""
    return info.orig_filename.partition("\0")[0]


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, TIMESTAMP)
    info.create_system = 3  # Unix, wherever this runs: the mode below is Unix's
    info.external_attr = (stat.S_IFREG | MODE) << 16
    return info


def _record(contents: Mapping[str, bytes], names: Iterable[str], record: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for name in names:
        writer.writerow((name, digest_entry(contents[name]), len(contents[name])))
    writer.writerow((record, "", ""))
    return text.getvalue().encode("utf-8")


def _row_problems(name: str, digest: str, size: str, data: bytes) -> list[str]:
    algorithm, _, expected = digest.partition("=")
    if algorithm not in SECURE_HASHES:
        return [f"RECORD gives no secure digest for {name}"]
    problems = []
    if _unpadded(hashlib.new(algorithm, data).digest()) != expected:
        problems.append(f"{name} is not the file whose digest RECORD gives")
    if size != str(len(data)):
        problems.append(f"{name} has {len(data)} bytes, RECORD says {size or 'nothing'}")
    return problems


def _unpadded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
