"""What differs between two shared libraries: section by section, and what each difference belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference import demangle, device, elf
from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind, first_difference, listed
from build_config.tasks.reproduce.difference.text import compare_strings
from check_gpu import device_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.tasks.reproduce.difference.result import Tools

MAGIC = b"\x7fELF"
SHOWN = 3
"""How many symbols are named."""
NEAR = 1 << 14
"""How many bytes behind a symbol something may be to be told by it: in a stripped library the next one is often far."""
_CODE = (".text", ".text.unlikely", ".text.hot", ".text.startup")
_STRINGS = (".rodata", ".data", ".strtab", ".debug_str", ".debug_line_str")
_TOLD_BY_NAME = (".comment", ".note.gnu.build-id")
_FOLLOWS = (
    ".dynamic",
    ".dynstr",
    ".dynsym",
    ".eh_frame",
    ".eh_frame_hdr",
    ".fini",
    ".fini_array",
    ".gcc_except_table",
    ".gnu.hash",
    ".gnu.version",
    ".gnu.version_r",
    ".got",
    ".got.plt",
    ".hash",
    ".init",
    ".init_array",
    ".nvFatBinSegment",
    ".plt",
    ".plt.got",
    ".plt.sec",
    ".rela.dyn",
    ".rela.plt",
    ".shstrtab",
    ".symtab",
)
"""Sections of addresses and of names: they change with the code, the data and the symbols that they speak of."""


def compare(member: str, first: bytes, second: bytes, tools: Tools) -> Iterator[Difference]:
    """Everything that differs between two libraries that are not the same bytes.

    Raises ``check_gpu.elf.UnreadableError`` when one of them cannot be read.
    """
    ours, theirs = elf.read(first), elf.read(second)
    differing = tuple(
        name for name, part in ours.parts.items() if name in theirs.parts and part.content != theirs.parts[name].content
    )
    causes = [
        *_sections_on_one_side(member, ours, theirs),
        *_compilers(member, ours, theirs),
        *_build_id(member, ours, theirs),
        *_dependencies(member, ours, theirs),
        *_symbols(member, ours, theirs, tools),
    ]
    # Pointers to what is in other sections, and constants.
    follows = (*_FOLLOWS, ".data.rel.ro") if _moved(ours, theirs) else _FOLLOWS
    for name in differing:
        if name not in (*_TOLD_BY_NAME, *follows):
            if name in device_code.SECTIONS:
                causes += device.compare(member, name, ours.parts[name].content, theirs.parts[name].content, tools)
            else:
                causes += _section(member, name, ours, theirs)
    yield from causes
    followers = tuple(name for name in differing if name in follows)
    if followers and causes:
        detail = f"{', '.join(followers)} differ too: they hold addresses and names of what differs"
        yield Difference(member=member, kind=DifferenceKind.CONSEQUENCE, detail=detail)
    elif followers:
        for name in followers:
            yield _plain(member, name, ours, theirs)
    elif not causes:
        where = f"byte {first_difference(first, second)} of the file, outside of every section"
        detail = f"differs from {where} on: in the headers, or between two sections"
        yield Difference(member=member, kind=DifferenceKind.BYTES, detail=detail)


def _sections_on_one_side(member: str, ours: elf.Image, theirs: elf.Image) -> Iterator[Difference]:
    for only, others, where in ((ours, theirs, "only here"), (theirs, ours, "only in the other")):
        for name, part in only.parts.items():
            if name not in others.parts:
                detail = f"the section {name} ({len(part.content)} bytes) is {where}"
                yield Difference(member=member, kind=DifferenceKind.SECTION, detail=detail)


def _compilers(member: str, ours: elf.Image, theirs: elf.Image) -> Iterator[Difference]:
    if ours.compilers != theirs.compilers:
        detail = f"was compiled by {_or_none(ours.compilers)}, in the other by {_or_none(theirs.compilers)} (.comment)"
        yield Difference(member=member, kind=DifferenceKind.COMPILER, detail=detail)


def _build_id(member: str, ours: elf.Image, theirs: elf.Image) -> Iterator[Difference]:
    if ours.build_id != theirs.build_id:
        detail = f"has the build-id {ours.build_id or 'none'}, in the other {theirs.build_id or 'none'}"
        # It is a hash of the linked file before a strip: the only thing left of what was stripped away.
        detail += ": a hash of what was linked, with symbols and debugging information; link with -Wl,--build-id=none"
        yield Difference(member=member, kind=DifferenceKind.BUILD_ID, detail=detail)


def _dependencies(member: str, ours: elf.Image, theirs: elf.Image) -> Iterator[Difference]:
    for what, value, other in (
        ("calls itself (SONAME)", ours.soname or "nothing", theirs.soname or "nothing"),
        ("needs (NEEDED)", _or_none(ours.needed), _or_none(theirs.needed)),
        ("looks for libraries in (RUNPATH)", _or_none(ours.search), _or_none(theirs.search)),
    ):
        if value != other:
            detail = f"{what} {value}, in the other {other}"
            yield Difference(member=member, kind=DifferenceKind.DEPENDENCY, detail=detail)


def _symbols(member: str, ours: elf.Image, theirs: elf.Image, tools: Tools) -> Iterator[Difference]:
    mine, others = ({symbol.name: symbol for symbol in image.symbols} for image in (ours, theirs))
    for only, where in ((mine.keys() - others.keys(), "here"), (others.keys() - mine.keys(), "in the other")):
        if only:
            shown = demangle.readable(sorted(only)[:SHOWN], tools.demangler)
            detail = f"has the symbols {listed(shown, len(only))} only {where}"
            yield Difference(member=member, kind=DifferenceKind.SYMBOL, detail=detail)
    resized = [name for name in mine if name in others and mine[name].size != others[name].size]
    if resized:
        shown = tuple(
            f"{readable} ({mine[name].size} bytes, in the other {others[name].size})"
            for name, readable in zip(resized, demangle.readable(resized[:SHOWN], tools.demangler), strict=False)
        )
        detail = f"of another size are {listed(shown, len(resized))}"
        yield Difference(member=member, kind=DifferenceKind.FUNCTION, detail=detail)


def _section(member: str, name: str, ours: elf.Image, theirs: elf.Image) -> Iterator[Difference]:
    if name in _CODE:
        yield Difference(member=member, kind=DifferenceKind.FUNCTION, detail=_code(name, ours, theirs))
    else:
        told: tuple[Difference, ...] = ()
        if name.startswith(_STRINGS):
            told = tuple(compare_strings(member, name, ours.parts[name].content, theirs.parts[name].content))
        yield from told
        if not told:
            yield _plain(member, name, ours, theirs)


def _plain(member: str, name: str, ours: elf.Image, theirs: elf.Image) -> Difference:
    return Difference(member=member, kind=DifferenceKind.SECTION, detail=_where(name, ours, theirs))


def _code(name: str, ours: elf.Image, theirs: elf.Image) -> str:
    detail = _where(name, ours, theirs)
    if len(ours.parts[name].content) == len(theirs.parts[name].content) and _moved(ours, theirs):
        detail += "; other sections moved, so this may be nothing but addresses"
    return detail


def _where(name: str, ours: elf.Image, theirs: elf.Image) -> str:
    first, second = ours.parts[name].content, theirs.parts[name].content
    offset = first_difference(first, second) or 0
    sizes = f"{len(first)} bytes" + ("" if len(first) == len(second) else f", in the other {len(second)}")
    found = ours.symbol_at(name, offset)
    belongs = ""
    if found is not None:
        symbol, inside = found
        distance = offset - (symbol.value - ours.parts[name].address)
        if inside:
            belongs = f", in {symbol.name}"
        elif distance < NEAR:
            belongs = f", {distance} bytes behind the start of {symbol.name}, the nearest known symbol"
    return f"{name} ({sizes}) differs from byte {offset} on{belongs}"


def _moved(ours: elf.Image, theirs: elf.Image) -> bool:
    return any(name in theirs.parts and part.address != theirs.parts[name].address for name, part in ours.parts.items())


def _or_none(values: tuple[str, ...]) -> str:
    return ", ".join(values) or "nothing"
