"""Small Windows libraries (DLLs), written byte by byte."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

X64 = 0x8664
START = 0x80
"""Where the PE header begins."""
SIZE_OF_OPTIONAL_HEADER = 112 + 16 * 8
CONTENTS = 0x400
"""Where the contents of the sections begin in the file; they are at a thousand more in memory."""
SHIFT = 0x1000


def dll_file(
    sections: Mapping[str, bytes], *, needed: tuple[str, ...] = (), delayed: tuple[str, ...] = (), machine: int = X64
) -> bytes:
    """Return a library with these sections, padded to full blocks, and with tables of the libraries that it needs."""
    position = CONTENTS
    tables = b""
    directories = [(0, 0)] * 16
    for number, names, entry, field in ((1, needed, 20, 12), (13, delayed, 32, 4)):
        if names:
            directories[number] = (position + len(tables) + SHIFT, (len(names) + 1) * entry)
            tables += _table(names, position + len(tables) + SHIFT, entry, field)
    headers, contents = b"", b""
    everything = {".idata": tables, **sections}
    for name, content in everything.items():
        in_file = -(-len(content) // 512) * 512
        offset = position + len(contents)
        numbers = (len(content), offset + SHIFT, in_file, offset, 0, 0, 0, 0, 0x40000040)
        headers += struct.pack("<8sIIIIIIHHI", name.encode()[:8], *numbers)
        contents += content.ljust(in_file, b"\0")
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", START)
    file_header = struct.pack(
        "<4sHHIIIHH", b"PE\0\0", machine, len(everything), 0, 0, 0, SIZE_OF_OPTIONAL_HEADER, 0x2022
    )
    optional = struct.pack("<H", 0x20B).ljust(108, b"\0") + struct.pack("<I", 16)
    optional += b"".join(struct.pack("<II", *one) for one in directories)
    return (dos.ljust(START, b"\0") + file_header + optional + headers).ljust(CONTENTS, b"\0") + contents


def _table(names: tuple[str, ...], address: int, entry: int, field: int) -> bytes:
    """Entries with the address of a name each, one of zeros, and the names."""
    at = address + (len(names) + 1) * entry
    table, texts = b"", b""
    for name in names:
        table += (bytes(field) + struct.pack("<I", at + len(texts))).ljust(entry, b"\0")
        texts += name.encode() + b"\0"
    return table + bytes(entry) + texts
