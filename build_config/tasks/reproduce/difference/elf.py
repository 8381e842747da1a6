"""Reads libraries and cubins for a comparison: sections with their bytes, symbols, what the compilers left behind."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from check_gpu import elf

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYMBOL = struct.Struct("<IBBHQQ")
_NOTE = struct.Struct("<III")
_SYMBOL_TABLES = (2, 11)
_OBJECT, _FUNCTIONS = 1, (2, 10)  # 10: chosen when it is loaded (IFUNC)
_TOOL_STRINGS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section. ``name`` has a number behind it where there are several of that name."""

    name: str
    address: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """A function or a variable. ``section`` is the name of the one it is in."""

    name: str
    is_function: bool
    section: str
    value: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An ELF file. ``symbols`` are those defined in it that are exported or, where it was not stripped, all."""

    soname: str | None
    needed: tuple[str, ...]
    search: tuple[str, ...]
    parts: dict[str, Part]
    symbols: tuple[Symbol, ...]

    @property
    def build_id(self) -> str | None:
        """The GNU build-id in hexadecimal digits."""
        part = self.parts.get(".note.gnu.build-id")
        return None if part is None else part.content[_NOTE.size + len(b"GNU\0") :].hex()

    @property
    def compilers(self) -> tuple[str, ...]:
        """What compilers and linkers call themselves in ``.comment``."""
        part = self.parts.get(".comment")
        texts = b"" if part is None else part.content
        return tuple(text.decode("utf-8", "replace") for text in texts.split(b"\0") if text)

    @property
    def assembler(self) -> tuple[str, str] | None:
        """In a cubin: the version of ptxas, and the options that it was called with."""
        part = self.parts.get(".note.nv.tkinfo")
        if part is None:
            return None
        # After the owner's name and a table of offsets: the program, its version, its build, its options.
        texts = part.content.rstrip(b"\0").split(b"\0")[-_TOOL_STRINGS:]
        if len(texts) < _TOOL_STRINGS:
            return None
        _, version, build, options = (text.decode("utf-8", "replace").strip() for text in texts)
        return f"{version}, {build}", options

    def symbol_at(self, section: str, offset: int) -> tuple[Symbol, bool] | None:
        """The symbol that holds this offset of a section (and ``True``), else the nearest one before it."""
        part = self.parts[section]
        before = [s for s in self.symbols if s.section == section and s.value - part.address <= offset]
        if not before:
            return None
        nearest = max(before, key=lambda symbol: (symbol.value, symbol.size))
        return nearest, offset < nearest.value - part.address + nearest.size


def read(data: bytes) -> Image:
    """Read a whole file. Raises ``check_gpu.elf.UnreadableError``."""
    library = elf.read(data)
    parts: dict[str, Part] = {}
    names = []
    counts: dict[str, int] = {}
    for section in library.sections:
        counts[section.name] = count = counts.get(section.name, 0) + 1
        name = section.name if count == 1 else f"{section.name} ({count})"
        names.append(name)
        content = data[section.offset : section.offset + section.size]
        parts[name] = Part(name=name, address=section.address, content=content)
    symbols = {
        (symbol.name, symbol.section): symbol
        for section, name in zip(library.sections, names, strict=True)
        if section.kind in _SYMBOL_TABLES and section.link < len(names)
        for symbol in _symbols(parts[name].content, parts[names[section.link]].content, names)
    }
    del parts[names[0]]  # the table of sections begins with one that is none
    return Image(
        soname=library.soname,
        needed=library.needed,
        search=library.search,
        parts=parts,
        symbols=tuple(symbols.values()),
    )


def _symbols(table: bytes, strings: bytes, sections: list[str]) -> Iterator[Symbol]:
    for name, info, _other, index, value, size in _SYMBOL.iter_unpack(
        table[: len(table) // _SYMBOL.size * _SYMBOL.size]
    ):
        kind = info & 0xF
        if kind in {_OBJECT, *_FUNCTIONS} and 0 < index < len(sections):
            end = strings.find(b"\0", name)
            text = strings[name:end].decode("utf-8", "replace")
            yield Symbol(name=text, is_function=kind != _OBJECT, section=sections[index], value=value, size=size)
