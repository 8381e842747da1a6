"""Compares two shared libraries section by section, and names the function or the device code that differs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference import device, elf
from build_config.tasks.reproduce.difference.result import DifferenceKind, Finding, one_sided, place
from build_config.tasks.reproduce.difference.text import compare_strings
from check_gpu import device_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.tasks.reproduce.difference.result import Tools

MAGIC = b"\x7fELF"
_STRINGS = (".rodata", ".data", ".strtab", ".debug_str", ".debug_line_str")
_FACTS = (".comment", ".note.gnu.build-id")
_FOLLOWS = re.compile(
    r"\.(dynamic|dynstr|dynsym|eh_frame(_hdr)?|(init|fini)(_array)?|gcc_except_table|(gnu\.)?hash|gnu\.version(_r)?"
    r"|got(\.plt)?|plt(\.got|\.sec)?|rela\.(dyn|plt)|nvFatBinSegment|shstrtab|symtab)"
)
"""Sections of addresses and of names: they change with the code, the data and the symbols that they are about."""


def compare(first: bytes, second: bytes, tools: Tools) -> Iterator[Finding]:
    """Everything that differs between two libraries that are not the same bytes.

    Raises ``check_gpu.elf.UnreadableError`` when one of them cannot be read.
    """
    image, other = elf.read(first), elf.read(second)
    moved = any(name in other.parts and part.address != other.parts[name].address for name, part in image.parts.items())
    found = [*elf.compare_facts(image, other)]
    for only, where in one_sided(image.parts, other.parts):
        found.append((DifferenceKind.SECTION, f"has the sections {', '.join(only)} only {where}"))
    found += [(DifferenceKind.SYMBOL, f"has the symbols {only}") for only in elf.one_sided_symbols(image, other, tools)]
    sizes = {symbol.name: symbol.size for symbol in other.symbols}
    if resized := [symbol.name for symbol in image.symbols if sizes.get(symbol.name, symbol.size) != symbol.size]:
        found.append((DifferenceKind.FUNCTION, f"has functions or variables of another size: {tools.listed(resized)}"))
    followers = {}
    for name, contents in elf.differing(image, other):
        where = f"{name} {image.place(name, contents, tools)}"
        if name in device_code.SECTIONS:
            found += device.compare(name, *contents, tools)
        elif _FOLLOWS.fullmatch(name) or (moved and name == ".data.rel.ro"):  # of pointers and constants
            followers[name] = where
        elif name.startswith(".text"):
            if moved and len(contents[0]) == len(contents[1]):
                where += "; other sections moved, so this may be nothing but addresses"
            found.append((DifferenceKind.FUNCTION, where))
        elif name not in _FACTS:
            strings = compare_strings(name, *contents) if name.startswith(_STRINGS) else ()
            found += [*strings] or [(DifferenceKind.SECTION, where)]
    if followers and found:
        detail = f"{', '.join(followers)} differ too: they hold addresses and names of what differs"
        found.append((DifferenceKind.CONSEQUENCE, detail))
    else:
        found += [(DifferenceKind.SECTION, where) for where in followers.values()]
    yield from found or [(DifferenceKind.BYTES, f"{place(first, second)}: in headers, notes or between sections")]
