"""Reads libraries and cubins for a comparison: sections with their bytes, symbols, notes of the compilers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from build_config.tasks.reproduce.difference import hashes
from build_config.tasks.reproduce.difference.result import DifferenceKind, Finding, first_difference, one_sided, place
from check_gpu.elf import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elftools.elf.sections import Section

    from build_config.tasks.reproduce.difference.result import Tools

_DAMAGE = (ELFError, ConstructError, ValueError, LookupError, AttributeError, AssertionError, OverflowError, TypeError)
"""pyelftools promises ELFError, but meets a cut or scrambled file with any of the others too."""
_DEFINED = ("STT_OBJECT", "STT_FUNC", "STT_LOOS")  # the last is IFUNC: the loader chooses the function
_BUILD_ID_AT = 16
_TOOL_TEXTS = 4
_FACTS = {
    "compilers": (DifferenceKind.COMPILER, "was compiled by {}, in the other by {} (.comment)"),
    "version": (DifferenceKind.COMPILER, "was assembled by ptxas of {}, in the other of {}"),
    "options": (DifferenceKind.OPTIONS, "was assembled by ptxas with '{}', in the other with '{}': other flags"),
    "build-id": (
        DifferenceKind.BUILD_ID,
        "has the build-id {}, in the other {}: a hash of what was linked before a strip; link with -Wl,--build-id=none",
    ),
    "SONAME": (DifferenceKind.DEPENDENCY, "calls itself (SONAME) {}, in the other {}"),
    "NEEDED": (DifferenceKind.DEPENDENCY, "needs (NEEDED) {}, in the other {}"),
    "RPATH": (DifferenceKind.DEPENDENCY, "looks for libraries in (RPATH) {}, in the other {}"),
    "RUNPATH": (DifferenceKind.DEPENDENCY, "looks for libraries in (RUNPATH) {}, in the other {}"),
}


class Part(NamedTuple):
    """A section."""

    address: int
    content: bytes


class Symbol(NamedTuple):
    """A function or a variable, with the name of its section."""

    name: str
    section: str
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """An ELF file. ``symbols`` are those that it defines and exports or, if it was not stripped, all of its own."""

    facts: Mapping[str, str]
    parts: Mapping[str, Part]
    symbols: tuple[Symbol, ...]

    def place(self, section: str, contents: tuple[bytes, bytes], tools: Tools) -> str:
        """The place of the first difference in a section, with the last symbol that begins before it."""
        at = self.parts[section].address + first_difference(*contents)
        before = (symbol for symbol in self.symbols if symbol.section == section and symbol.value <= at)
        nearest = max(before, key=lambda symbol: (symbol.value, symbol.size), default=None)
        if nearest is None:
            return place(*contents)
        where = "in" if at < nearest.value + nearest.size else "somewhere after"
        return f"{place(*contents)}, {where} {tools.listed([nearest.name])}"


def read(data: bytes) -> Image:
    """Read a whole file. Raises ``check_gpu.elf.UnreadableError``."""
    try:
        sections = tuple(ELFFile(io.BytesIO(data)).iter_sections())
        symbols = dict.fromkeys(symbol for section in sections for symbol in _symbols(section, sections))
        dynamic = {name: text for section in sections for name, text in _dynamic(section)}
    except _DAMAGE as error:
        raise UnreadableError(str(error) or type(error).__name__) from error
    if not sections:
        raise UnreadableError("its section table was stripped")
    parts = {}
    for section in sections[1:]:  # section.data() would unpack the bytes, and trust the size
        end = section["sh_offset"] + (section["sh_size"] if section["sh_type"] != "SHT_NOBITS" else 0)
        parts[section.name] = Part(section["sh_addr"], data[section["sh_offset"] : end])
    return Image(_notes(parts) | dynamic, parts, tuple(symbols))


def compare_facts(first: Image, second: Image) -> Iterator[Finding]:
    """The facts that differ: compilers and their options, build-id, needed libraries."""
    for name, (kind, words) in _FACTS.items():
        value, other = first.facts.get(name, "none"), second.facts.get(name, "none")
        if value != other:
            yield kind, words.format(value, other)


def differing(first: Image, second: Image) -> list[tuple[str, tuple[bytes, bytes]]]:
    """The sections of both that are not the same, whatever nvcc's hashes in their names are; each by its name here."""
    there = {hashes.without_hashes(name): part.content for name, part in second.parts.items()}
    pairs = ((name, part.content, there.get(hashes.without_hashes(name))) for name, part in first.parts.items())
    return [(name, (content, other)) for name, content, other in pairs if other is not None and content != other]


def one_sided_symbols(first: Image, second: Image, tools: Tools) -> Iterator[str]:
    """The symbols that only one of the two has, whatever nvcc's hashes in their names are."""
    sides = [{hashes.without_hashes(symbol.name): symbol.name for symbol in image.symbols} for image in (first, second)]
    names = sides[0] | sides[1]
    yield from (f"{tools.listed([names[each] for each in only])} only {where}" for only, where in one_sided(*sides))


def _symbols(section: Section, sections: tuple[Section, ...]) -> Iterator[Symbol]:
    if not isinstance(section, SymbolTableSection):
        return
    if section["sh_entsize"] != section.structs.Elf_Sym.sizeof():  # of one byte each there would be millions
        raise UnreadableError(f"{section.name} has entries of {section['sh_entsize']} bytes")
    for symbol in section.iter_symbols():
        index = symbol["st_shndx"]
        if symbol["st_info"]["type"] in _DEFINED and isinstance(index, int) and 0 < index < len(sections):
            yield Symbol(symbol.name, sections[index].name, symbol["st_value"], symbol["st_size"])


def _dynamic(section: Section) -> Iterator[tuple[str, str]]:
    tags = list(section.iter_tags()) if isinstance(section, DynamicSection) else []
    for name in ("soname", "needed", "rpath", "runpath"):  # pyelftools gives a tag with a text an attribute of its name
        texts = [getattr(tag, name) for tag in tags if hasattr(tag, name)]
        if texts:
            yield name.upper(), ", ".join(texts)


def _notes(parts: Mapping[str, Part]) -> dict[str, str]:
    comment, build_id, tool = (parts.get(f".{name}") for name in ("comment", "note.gnu.build-id", "note.nv.tkinfo"))
    notes = {"build-id": build_id.content[_BUILD_ID_AT:].hex()} if build_id else {}
    if comment:
        notes["compilers"] = comment.content.decode("utf-8", "replace").strip("\0").replace("\0", ", ")
    # In a cubin: the owner's name, a table of offsets, then the program, its version, its build, its options.
    texts = tool.content.decode("utf-8", "replace").rstrip("\0").split("\0") if tool else []
    if len(texts) >= _TOOL_TEXTS:
        version, build, options = map(str.strip, texts[-3:])
        notes |= {"version": f"{version}, {build}", "options": options}
    return notes
