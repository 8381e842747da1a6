"""Lists the CUDA code in a shared library: the architectures of its machine code (cubins) and PTX.

nvcc puts this code into separate sections as fat binaries: a header, then entries, one for each architecture. Contents
may be compressed, the headers of the entries never are. NVIDIA does not document the format; the tests compare this
reader with its cuobjdump.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Iterator

from check_gpu import coverage, elf

SECTIONS = (".nv_fatbin", "__nv_relfatbin")
_NAMES = frozenset({*SECTIONS, *(name[:8] for name in SECTIONS)})
"""A DLL has eight characters for the name of a section."""

_MAGIC = b"\x50\xed\x55\xba"
_HEADER = struct.Struct("<IHHQ")  # magic, version, size of this header, size of all entries
_ENTRY = struct.Struct("<HHIQIIHHIIIQ")  # kind, version, header size, payload size, ..., [8] architecture, ..., flags
_PTX, _CUBIN = 1, 2
_KINDS = {_PTX: "virtual", _CUBIN: "real"}
_ARCHITECTURE_ONLY, _FAMILY_ONLY = 1 << 20, 1 << 21  # the suffixes "a" and "f"


@dataclass(frozen=True)
class Entry:
    """Code for one architecture, like ``89-real``.

    ``binary`` counts the fat binaries of the section from 0. ``offset`` and ``size`` locate the contents in the
    section; ``header`` is directly before them.
    """

    architecture: str
    binary: int
    header: bytes
    offset: int
    size: int


def architectures(data: elf.Data, library: elf.SharedLibrary) -> tuple[str, ...]:
    """Return the architectures in a library, like ``89-real`` and ``90-virtual``, each once, ordered by number.

    Raises ``elf.UnreadableError`` if a fat binary is not in the known format.
    """
    found: set[str] = set()
    for section in library.sections:
        if section.name in _NAMES:
            # One copy: a view into a mapped file would keep that file open.
            found.update(entries(data[section.offset : section.offset + section.size]))
    return tuple(sorted(found, key=coverage.order))


def entries(section: bytes) -> Iterator[str]:
    """Yield the architecture of each entry of a section, in file order. Raises ``elf.UnreadableError``."""
    return (entry.architecture for entry in read(section))


def read(section: bytes) -> Iterator[Entry]:
    """Yield the entries of a section, in file order. Raises ``elf.UnreadableError``."""
    try:
        position, binary = 0, 0
        while (position := _next_header(section, position)) >= 0:
            _magic, _version, header_size, size = _HEADER.unpack_from(section, position)
            position += header_size
            end = position + size
            if end > len(section) or header_size < _HEADER.size:
                raise elf.UnreadableError("cannot read its CUDA code: a fat binary is longer than its section")
            while position < end:
                entry = _ENTRY.unpack_from(section, position)
                kind, entry_header, payload, number, flags = entry[0], entry[2], entry[3], entry[8], entry[11]
                if entry_header < _ENTRY.size:
                    raise elf.UnreadableError("cannot read its CUDA code: a fat binary has an unknown format")
                start = position + entry_header
                if kind in _KINDS:
                    suffix = "a" if flags & _ARCHITECTURE_ONLY else "f" if flags & _FAMILY_ONLY else ""
                    yield Entry(
                        architecture=f"{number}{suffix}-{_KINDS[kind]}",
                        binary=binary,
                        header=section[position:start],
                        offset=start,
                        size=payload,
                    )
                position = start + payload
            binary += 1
    except struct.error as error:
        raise elf.UnreadableError("cannot read its CUDA code: a fat binary is cut short") from error


def _next_header(section: bytes, position: int) -> int:
    """Find the next fat binary, or return -1. They start at multiples of eight, with zeros between them."""
    position += -position % 8
    while position + _HEADER.size <= len(section):
        if section[position : position + 4] == _MAGIC:
            return position
        position += 8
    return -1
