"""Lists the CUDA code in a shared library: for which architectures it holds machine code (cubins) and PTX.

nvcc puts it into sections of its own as fat binaries: a header, then entries, one for each architecture. Contents may
be compressed, the headers of the entries never are. NVIDIA does not document the form; the tests hold this reader
against its cuobjdump.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Iterator

from check_gpu import coverage, elf

SECTIONS = (".nv_fatbin", "__nv_relfatbin")

_MAGIC = b"\x50\xed\x55\xba"
_HEADER = struct.Struct("<IHHQ")  # magic, version, size of this header, size of all entries
_ENTRY = struct.Struct("<HHIQIIHHIIIQ")  # kind, version, header size, payload size, ..., [8] architecture, ..., flags
_PTX, _CUBIN = 1, 2
_KINDS = {_PTX: "virtual", _CUBIN: "real"}
_ARCHITECTURE_ONLY, _FAMILY_ONLY = 1 << 20, 1 << 21  # the suffixes "a" and "f"


@dataclass(frozen=True)
class Entry:
    """Code for one architecture, like ``89-real``.

    ``binary`` counts the fat binaries of the section from 0. ``offset`` and ``size`` are those of the contents in the
    section; ``header`` stands right before them.
    """

    architecture: str
    binary: int
    header: bytes
    offset: int
    size: int


def architectures(data: elf.Data, library: elf.SharedLibrary) -> tuple[str, ...]:
    """The architectures in a library, like ``89-real`` and ``90-virtual``, each once, in the order of their numbers.

    Raises ``elf.UnreadableError`` when a fat binary is not of the form that is known.
    """
    found: set[str] = set()
    for section in library.sections:
        if section.name in SECTIONS:
            # A copy, once: a view into a mapped file would keep it from being closed.
            found.update(entries(data[section.offset : section.offset + section.size]))
    return tuple(sorted(found, key=coverage.order))


def entries(section: bytes) -> Iterator[str]:
    """The architecture of each entry of a section, in its order. Raises ``elf.UnreadableError``."""
    return (entry.architecture for entry in read(section))


def read(section: bytes) -> Iterator[Entry]:
    """The entries of a section, in its order. Raises ``elf.UnreadableError``."""
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
                    raise elf.UnreadableError("cannot read its CUDA code: a fat binary of an unknown form")
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
    """Fat binaries start at multiples of eight, with zeros between them."""
    position += -position % 8
    while position + _HEADER.size <= len(section):
        if section[position : position + 4] == _MAGIC:
            return position
        position += 8
    return -1
