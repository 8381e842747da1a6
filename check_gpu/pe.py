"""Reads the needed libraries and the sections of a Windows library (DLL): 64-bit PE only."""

from __future__ import annotations

import struct

from check_gpu import elf
from check_gpu.elf import Data, Section, SharedLibrary, UnreadableError

MAGIC = b"MZ"

_PE_OFFSET = struct.Struct("<I")
_PE_POINTER = 60
_FILE_HEADER = struct.Struct("<4sHHIIIHH")  # signature, machine, sections, ..., [6] size of the optional header
_SIGNATURE, _X64 = b"PE\0\0", 0x8664
_DIRECTORIES = 112
"""Where the optional header of a 64-bit file has its table of directories; their number is before it."""
_DIRECTORY = struct.Struct("<II")  # address, size
_IMPORTS, _DELAYED_IMPORTS = 1, 13
_IMPORT = struct.Struct("<IIIII")  # ..., [3] address of the name
_DELAYED_IMPORT = struct.Struct("<IIIIIIII")  # attributes, address of the name, ...
_SECTION = struct.Struct("<8sIIIIIIHHI")  # name, size in memory, address, size in the file, offset, ...
_MOST_SECTIONS, _MOST_LIBRARIES = 96, 10_000
"""Windows loads no file with more sections."""
_LONGEST_NAME = 260


def read(data: Data) -> SharedLibrary:
    """Read a whole file. Raises ``UnreadableError``.

    The needed libraries are in lower case, as Windows ignores case, and are searched next to the file first.
    """
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise UnreadableError(f"cannot read it: damaged Windows library ({error})") from error


def _read(data: Data) -> SharedLibrary:
    (start,) = _PE_OFFSET.unpack_from(data, _PE_POINTER)
    signature, machine, count, *_, optional_size, _flags = _FILE_HEADER.unpack_from(data, start)
    if signature != _SIGNATURE:
        raise ValueError("it has no PE header")
    if machine != _X64:
        raise UnreadableError("cannot read it: a Windows library for another processor than x86-64")
    if count > _MOST_SECTIONS:
        raise ValueError("it has too many sections")
    optional = start + _FILE_HEADER.size
    table = optional + optional_size
    sections = tuple(_section(data, table + index * _SECTION.size) for index in range(count))
    needed = [
        *_names(data, sections, _directory(data, optional, _IMPORTS), _IMPORT, 3),
        *_names(data, sections, _directory(data, optional, _DELAYED_IMPORTS), _DELAYED_IMPORT, 1),
    ]
    return SharedLibrary(soname=None, needed=tuple(dict.fromkeys(needed)), search=(elf.ORIGIN,), sections=sections)


def _section(data: Data, offset: int) -> Section:
    name, in_memory, address, in_file, start, *_ = _SECTION.unpack_from(data, offset)
    # The file has zeros after the contents, up to a full block; what it does not have is zero in memory.
    size = min(in_memory or in_file, in_file)
    if start + size > len(data):
        raise ValueError("it is cut short")
    text = name.rstrip(b"\0").decode("utf-8", "replace")
    return Section(name=text, kind=0, address=address, offset=start, size=size, link=0)


def _directory(data: Data, optional: int, number: int) -> int:
    """Return the address of a directory, 0 if there is none."""
    (count,) = _PE_OFFSET.unpack_from(data, optional + _DIRECTORIES - _PE_OFFSET.size)
    if number >= count:
        return 0
    address, _size = _DIRECTORY.unpack_from(data, optional + _DIRECTORIES + number * _DIRECTORY.size)
    return int(address)


def _names(data: Data, sections: tuple[Section, ...], table: int, entry: struct.Struct, field: int) -> list[str]:
    """Return the names in a table of imports, which an entry of zeros ends."""
    found: list[str] = []
    while table and len(found) < _MOST_LIBRARIES:
        address = entry.unpack_from(data, _offset(sections, table + len(found) * entry.size))[field]
        if not address:
            return found
        start = _offset(sections, address)
        name = bytes(data[start : start + _LONGEST_NAME])
        found.append(name[: name.index(b"\0")].decode("utf-8", "replace").lower())
    return found


def _offset(sections: tuple[Section, ...], address: int) -> int:
    for section in sections:
        if section.address <= address < section.address + section.size:
            return section.offset + address - section.address
    raise ValueError("an address is in none of its sections")
