"""What two zip archives say about their members beside the contents: order, times, modes, how they are compressed."""

from __future__ import annotations

import stat
import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.errors import PackagingError
from build_config.formats import wheelfile
from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind, first_difference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_DIGEST_AT, _NAME_AT = 14, 26
"""Digest and sizes stand between these two offsets of a local header; they follow from the contents."""
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate", zipfile.ZIP_BZIP2: "bzip2"}
_SYSTEMS = {0: "DOS", 3: "Unix"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member as the archive has it: what is said of it, its bytes as they are stored, and its contents.

    ``name`` has a number behind it where the archive has several of that name.
    """

    name: str
    info: zipfile.ZipInfo
    local_header: bytes
    stored: bytes
    content: bytes


def read(path: Path) -> tuple[tuple[Member, ...], bytes]:
    """All members in their order, and the comment of the archive. Raises ``PackagingError`` when it is damaged."""
    members: list[Member] = []
    seen: dict[str, int] = {}
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                seen[info.filename] = count = seen.get(info.filename, 0) + 1
                start = info.header_offset
                header = _LOCAL_HEADER.unpack_from(data, start)
                body = start + _LOCAL_HEADER.size + header[-2] + header[-1]
                members.append(
                    Member(
                        name=info.filename if count == 1 else f"{info.filename} ({count})",
                        info=info,
                        local_header=data[start:body],
                        stored=data[body : body + info.compress_size],
                        content=archive.read(info),
                    )
                )
            return tuple(members), archive.comment
    except (*wheelfile.DAMAGE, struct.error) as error:
        raise PackagingError(f"{path.name} is not a sound archive: {error}") from error


def compare_order(first: tuple[Member, ...], second: tuple[Member, ...]) -> Iterator[Difference]:
    """The members that both have stand in the same order; else the first that does not."""
    names, others = [member.name for member in first], [member.name for member in second]
    common = set(names) & set(others)
    names, others = [name for name in names if name in common], [name for name in others if name in common]
    for position, (name, other) in enumerate(zip(names, others, strict=True)):
        if name != other:
            before = f"behind {names[position - 1]}" if position else "first"
            detail = f"the members are in another order: this one comes {before}, in the other {other} does"
            yield Difference(member=name, kind=DifferenceKind.ORDER, detail=detail)
            return


def compare_headers(first: Member, second: Member) -> Iterator[Difference]:
    """What the archives say of one member, but for sizes and digests, which follow from its contents."""
    name, ours, theirs = first.name, first.info, second.info
    if ours.date_time != theirs.date_time:
        detail = f"has the time {_time(ours)}, in the other {_time(theirs)}"
        yield Difference(member=name, kind=DifferenceKind.TIME, detail=detail)
    if ours.external_attr != theirs.external_attr:
        detail = f"has the mode {_mode(ours)}, in the other {_mode(theirs)}"
        yield Difference(member=name, kind=DifferenceKind.MODE, detail=detail)
    if ours.compress_type != theirs.compress_type:
        detail = f"is compressed by the method {_method(ours)}, in the other {_method(theirs)}"
        yield Difference(member=name, kind=DifferenceKind.COMPRESSION, detail=detail)
    elif first.content == second.content and first.stored != second.stored:
        how = f"{len(first.stored)} bytes, in the other {len(second.stored)}"
        if len(first.stored) == len(second.stored):
            how = f"other bytes, from byte {first_difference(first.stored, second.stored)} on"
        detail = f"has the same contents compressed to {how}: another level, or another version of zlib"
        yield Difference(member=name, kind=DifferenceKind.COMPRESSION, detail=detail)
    for what, value, other in (
        ("the comment", _quoted(ours.comment), _quoted(theirs.comment)),
        ("the extra fields", ours.extra.hex(" "), theirs.extra.hex(" ")),
        ("the system", _system(ours), _system(theirs)),
        ("the flags", f"{ours.flag_bits:#06x}", f"{theirs.flag_bits:#06x}"),
        ("the version of the format", _versions(ours), _versions(theirs)),
        ("the internal attributes", ours.internal_attr, theirs.internal_attr),
    ):
        if value != other:
            detail = f"has {what} {value or 'none'}, in the other {other or 'none'}"
            yield Difference(member=name, kind=DifferenceKind.CONTAINER, detail=detail)


def compare_local_headers(first: Member, second: Member) -> Iterator[Difference]:
    """The headers in front of the contents, which few programs read: for members of which nothing else was said."""
    ours, theirs = (header[:_DIGEST_AT] + header[_NAME_AT:] for header in (first.local_header, second.local_header))
    if ours != theirs:
        detail = f"has the local header {ours.hex(' ')}, in the other {theirs.hex(' ')}"
        yield Difference(member=first.name, kind=DifferenceKind.CONTAINER, detail=detail)


def _quoted(comment: bytes) -> str:
    return repr(comment.decode("utf-8", "replace")) if comment else ""


def _time(info: zipfile.ZipInfo) -> str:
    year, month, day, hour, minute, second = info.date_time
    return f"{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"


def _mode(info: zipfile.ZipInfo) -> str:
    mode, low = info.external_attr >> 16, info.external_attr & 0xFFFF
    return f"{mode:06o} ({stat.filemode(mode)})" + (f" and the DOS attributes {low:#x}" if low else "")


def _method(info: zipfile.ZipInfo) -> str:
    return _METHODS.get(info.compress_type, str(info.compress_type))


def _system(info: zipfile.ZipInfo) -> str:
    return _SYSTEMS.get(info.create_system, str(info.create_system))


def _versions(info: zipfile.ZipInfo) -> str:
    return f"{info.create_version}/{info.extract_version}"
