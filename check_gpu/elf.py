"""Reads the needed libraries and the sections of a shared library: 64-bit little-endian ELF only."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import Union

Data = Union[bytes, mmap.mmap]
ORIGIN = "$ORIGIN"
"""The folder of the library itself."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")
_STRINGS, _DYNAMIC_SECTION, _NO_BITS = 3, 6, 8
_LONGEST = 1 << 14
"""Bytes of a name: tens of thousands of sections could share one that is as long as the file."""
_NEEDED, _SONAME, _RPATH, _RUNPATH = 1, 14, 15, 29


class UnreadableError(Exception):
    """Raised for a file that is not a readable library; the text says in plain words what it is instead."""


@dataclass(frozen=True)
class Section:
    """A named part of the file."""

    name: str
    kind: int
    address: int
    offset: int
    size: int
    link: int


@dataclass(frozen=True)
class SharedLibrary:
    """The entries that the loader reads. ``search``: the folders of RUNPATH or RPATH, ``ORIGIN`` not yet replaced."""

    soname: str | None
    needed: tuple[str, ...]
    search: tuple[str, ...]
    sections: tuple[Section, ...]


def read(data: Data) -> SharedLibrary:
    """Read a whole file. Raises ``UnreadableError``."""
    try:
        sections = _sections(data)
        soname, needed, search = _dynamic(data, sections)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise UnreadableError(f"cannot read it: damaged ELF file ({error})") from error
    return SharedLibrary(soname=soname, needed=needed, search=search, sections=sections)


def _sections(data: Data) -> tuple[Section, ...]:
    ident = bytes(data[:6])
    if ident[:4] != b"\x7fELF":
        raise UnreadableError("cannot read it: not an ELF file")
    if ident[4:6] != b"\x02\x01":
        raise UnreadableError("cannot read it: not 64-bit little-endian ELF")
    header = _HEADER.unpack_from(data)
    table, entry_size, count, names = header[6], header[11], header[12], header[13]
    if not table or not count:
        raise UnreadableError("cannot read it: its section table was stripped")
    if entry_size < _SECTION.size:
        raise ValueError("its section table overlaps")
    raw = [_SECTION.unpack_from(data, table + index * entry_size) for index in range(count)]
    strings = _part(data, raw[names][4], raw[names][5])
    return tuple(
        Section(
            name=_text(strings, name),
            kind=kind,
            address=address,
            offset=offset,
            size=0 if kind == _NO_BITS else size,
            link=link,
        )
        for name, kind, _flags, address, offset, size, link, _info, _align, _entry in raw
    )


def _dynamic(data: Data, sections: tuple[Section, ...]) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    soname, needed, search = None, [], ""
    for section in sections:
        if section.kind != _DYNAMIC_SECTION:
            continue
        names = sections[section.link]
        if names.kind != _STRINGS:
            raise ValueError("its dynamic section has no names")
        strings = _part(data, names.offset, names.size)
        for tag, value in _DYNAMIC.iter_unpack(_whole_entries(_part(data, section.offset, section.size))):
            if tag == 0:
                break
            if tag == _NEEDED:
                needed.append(_text(strings, value))
            elif tag == _SONAME:
                soname = _text(strings, value)
            elif tag == _RUNPATH or (tag == _RPATH and not search):
                search = _text(strings, value)
        break  # the loader reads one
    return soname, tuple(needed), tuple(folder for folder in search.split(":") if folder)


def _part(data: Data, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ValueError("it is cut short")
    return bytes(data[offset : offset + size])


def _whole_entries(data: bytes) -> bytes:
    return data[: len(data) // _DYNAMIC.size * _DYNAMIC.size]


def _text(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset, offset + _LONGEST)].decode("utf-8", "replace")
