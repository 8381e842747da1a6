"""Read from NVIDIA's ``cudart.lib`` of CUDA 13 the number by which it asks for each function of the runtime.

That library is no list of imports. It contains code that fetches a pointer for each number from the driver's runtime
when it is first used, keeps the pointers in tables, and gives each function of the runtime a body that jumps to its
pointer. The numbers are nowhere documented. They follow from the relocations of two kinds of objects: one stores the
pointer of a number at a place in a table, the other jumps to that place.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ARCHIVE = b"!<arch>\n"
_MEMBER = 60
"""Bytes of the header of an archive's member."""
_OBJECT = 20
_SECTION = struct.Struct("<8s6I2HI")
_RELOCATION = struct.Struct("<IIH")
_SYMBOL = struct.Struct("<8sIhHBB")
_RELATIVE = 4
"""``IMAGE_REL_AMD64_REL32``: the place is counted from the end of the four bytes."""
_ASK = "getFunction"
_CALL, _TAKE_NUMBER, _STORE, _LOAD = b"\xe8", b"\xb9", b"\x48\x89\x05", b"\x48\x8b\x05"
"""Machine code: ``call``; ``mov ecx, NUMBER``; ``mov [rip+PLACE], rax``; ``mov rax, [rip+PLACE]``."""
_LOADS = (_LOAD, b"\x4c\x8b\x15", b"\x4c\x8b\x1d")
"""The last two with ``r10`` and ``r11``, where ``rax`` is in use."""

Place = tuple[str, int]
"""A place in a table: its symbol and the offset."""


@dataclass(frozen=True, slots=True)
class _Code:
    """A section of code: its bytes, the function at its begin, and the symbol of each relocation by its offset."""

    name: str
    content: bytes
    symbols: tuple[tuple[int, str], ...]

    def place(self, at: int, symbol: str) -> Place:
        return symbol, int.from_bytes(self.content[at : at + 4], "little")


def read(library: bytes) -> dict[str, int]:
    """The number of each function. Raises ``ValidationError`` for a library of another form."""
    numbers: dict[Place, int] = {}
    places: dict[str, Place] = {}
    for code in _sections(library):
        if any(symbol == _ASK for _, symbol in code.symbols):
            numbers.update(_stored(code))
        else:
            places.update(_loaded(code))
    found = {name: numbers[place] for name, place in places.items() if place in numbers}
    # Those that register device code are called through a second table; the name of the first one says it all.
    found.update((symbol.removesuffix("_ptr"), number) for (symbol, _), number in numbers.items() if symbol[:2] == "__")
    if not found:
        raise ValidationError("cudart.lib has another form than that of CUDA 13.0: no function has a number there")
    return found


def _stored(code: _Code) -> Iterator[tuple[Place, int]]:
    """Each place and the number of its pointer: the next number is taken before the pointer is stored."""
    asked = None
    for at, symbol in code.symbols:
        if symbol == _ASK and code.content[at - 1 : at] == _CALL:
            ends = (at - 1, at - 1 - len(_STORE) - 4)
            asked = next((_number(code, end) for end in ends if code.content[end - 5 : end - 4] == _TAKE_NUMBER), None)
        elif asked is not None and code.content[at - 3 : at] == _STORE:
            yield code.place(at, symbol), asked


def _number(code: _Code, end: int) -> int:
    return int.from_bytes(code.content[end - 4 : end], "little")


def _loaded(code: _Code) -> Iterator[tuple[str, Place]]:
    for at, symbol in code.symbols:
        if code.content[at - 3 : at] in _LOADS:
            yield code.name, code.place(at, symbol)


def _sections(library: bytes) -> Iterator[_Code]:
    if not library.startswith(_ARCHIVE):
        raise ValidationError("cudart.lib is not a library")
    at = len(_ARCHIVE)
    while at < len(library):
        size = int(library[at + 48 : at + 58])
        content = library[at + _MEMBER : at + _MEMBER + size]
        if content[:2] == b"\x64\x86":  # IMAGE_FILE_MACHINE_AMD64; the archive has other members
            yield from _of_object(content)
        at += _MEMBER + size + size % 2


def _of_object(content: bytes) -> Iterator[_Code]:
    sections, _, table, count, _, _ = struct.unpack_from("<HIIIHH", content, 2)
    strings = content[table + count * _SYMBOL.size :]
    names: dict[int, str] = {}
    begins: dict[int, str] = {}
    index = 0
    while index < count:
        raw, value, section, _, storage, more = _SYMBOL.unpack_from(content, table + index * _SYMBOL.size)
        names[index] = _name(raw, strings)
        if value == 0 and section > 0 and storage in {2, 3} and not more:  # a function, and not the section itself
            begins.setdefault(section, names[index])
        index += 1 + more
    for number in range(sections):
        header = _SECTION.unpack_from(content, _OBJECT + number * _SECTION.size)
        _, _, _, size, raw_at, relocations, _, amount, _, _ = header
        found = (_RELOCATION.unpack_from(content, relocations + each * _RELOCATION.size) for each in range(amount))
        symbols = tuple((at, names[symbol]) for at, symbol, kind in found if kind == _RELATIVE)
        if symbols and number + 1 in begins:
            yield _Code(begins[number + 1], content[raw_at : raw_at + size], symbols)


def _name(raw: bytes, strings: bytes) -> str:
    if raw[:4] == bytes(4):
        at = int.from_bytes(raw[4:], "little")
        raw = strings[at : strings.index(b"\0", at)]
    return raw.rstrip(b"\0").decode()
