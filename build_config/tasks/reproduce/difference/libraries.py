"""Compares two shared libraries: sections, functions, the fat binaries, the kernels and variables of cubins, PTX.

The compilers leave causes in the device code: ptxas writes its options into every cubin, nvcc hashes into names.
"""

from __future__ import annotations

import collections
import itertools
import re
from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference import elf, extraction, hashes
from build_config.tasks.reproduce.difference.result import DifferenceKind, Finding, listed, one_sided, place
from build_config.tasks.reproduce.difference.text import compare_lines, compare_strings
from check_gpu import device_code
from check_gpu.elf import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.tasks.reproduce.difference.extraction import Code
    from build_config.tasks.reproduce.difference.result import Tools

MAGIC = b"\x7fELF"
_STRINGS = (".rodata", ".data", ".strtab", ".debug_str", ".debug_line_str")
_FACTS = (".comment", ".note.gnu.build-id")
_FOLLOWS = re.compile(
    r"\.(dynamic|dynstr|dynsym|eh_frame(_hdr)?|(init|fini)(_array)?|gcc_except_table|(gnu\.)?hash|gnu\.version(_r)?"
    r"|got(\.plt)?|plt(\.got|\.sec)?|rela\.(dyn|plt)|nvFatBinSegment|shstrtab|symtab)"
)
"""Sections of addresses and of names: they change with the code, the data and the symbols that they are about."""
INSTRUCTION = 16
"""Bytes of an instruction on every architecture since 7.0."""
_CODE = ".text."
_DATA = (".nv.global", ".nv.constant", ".nv.shared", ".nv.info")


def compare(first: bytes, second: bytes, tools: Tools) -> Iterator[Finding]:
    """Everything that differs between two libraries of other bytes. Raises ``check_gpu.elf.UnreadableError``."""
    image, other = elf.read(first), elf.read(second)
    moved = any(name in other.parts and part.address != other.parts[name].address for name, part in image.parts.items())
    found = [*elf.compare_facts(image, other)]
    sections = ((", ".join(only), where) for only, where in one_sided(image.parts, other.parts))
    found += [(DifferenceKind.SECTION, f"has the sections {only} only {where}") for only, where in sections]
    found += [(DifferenceKind.SYMBOL, f"has the symbols {only}") for only in elf.one_sided_symbols(image, other, tools)]
    sizes = {symbol.name: symbol.size for symbol in other.symbols}
    if resized := [symbol.name for symbol in image.symbols if sizes.get(symbol.name, symbol.size) != symbol.size]:
        found.append((DifferenceKind.FUNCTION, f"has functions or variables of another size: {tools.listed(resized)}"))
    followers = {}
    for name, contents in elf.differing(image, other):
        where = f"{name} {image.place(name, contents, tools)}"
        if name in device_code.SECTIONS:
            found += _compare_device_code(name, *contents, tools)
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


def _compare_device_code(section: str, first: bytes, second: bytes, tools: Tools) -> Iterator[Finding]:
    try:
        codes, others = extraction.read(first), extraction.read(second)
    except UnreadableError as error:
        yield DifferenceKind.SECTION, f"the device code in {section} differs, and one of the two is damaged: {error}"
        return
    left, left_there = collections.Counter(codes), collections.Counter(others)
    only, only_there = [*(left - left_there).elements()], [*(left_there - left).elements()]
    if codes == others:
        yield DifferenceKind.SECTION, f"{section} differs, but none of the device code in it"
    elif not only and not only_there:
        why = "the linker was given the object files in another order"
        yield DifferenceKind.ORDER, f"has the same fat binaries in another order: {why}"
    counts, counts_there = (collections.Counter(code.arch for code in side) for side in (codes, others))
    for arch in sorted(counts.keys() | counts_there.keys()):
        if counts[arch] != counts_there[arch]:
            detail = f"holds {counts[arch]} pieces of device code for {arch}, in the other {counts_there[arch]}"
            compiled = "" if counts[arch] and counts_there[arch] else ": it was compiled for other architectures"
            yield DifferenceKind.ARCHITECTURE, f"{detail}{compiled}"
        if counts[arch] and counts_there[arch]:
            pieces, pieces_there = ([code for code in side if code.arch == arch] for side in (only, only_there))
            for code, other in itertools.zip_longest(pieces, pieces_there):  # object files are linked in one order
                if code and other:
                    yield from _pair(code, other, tools)
                else:
                    about = _about(code or other, extraction.unpack(code or other, tools), tools)
                    yield DifferenceKind.KERNEL, f"{about} is only {'here' if code else 'in the other'}"


def _pair(code: Code, other: Code, tools: Tools) -> Iterator[Finding]:
    """The differences between two entries that are not the same bytes."""
    first, second = extraction.unpack(code, tools), extraction.unpack(other, tools)
    same = code.stored == other.stored or (first is not None and first == second)
    about = _about(code, first or second, tools)
    if code.options != other.options:
        yield DifferenceKind.OPTIONS, f"{about} was made with the options {code.options}, in the other {other.options}"
    elif same:
        yield DifferenceKind.COMPRESSION, f"{about} is the same, but compressed differently, or with another header"
    if same:
        return
    if first is None or second is None:
        why = ", compressed; cuobjdump, which would unpack it, is missing"
        if tools.cuobjdump is not None:
            damaged = [name for name, content in (("this one", first), ("the other", second)) if content is None]
            why = f"; cuobjdump cannot unpack {' and '.join(damaged)}: it is damaged"
        yield DifferenceKind.KERNEL, f"{about} {place(code.stored, other.stored)}{why}"
        return
    try:
        yield from _ptx(about, first, second) if code.suffix == "ptx" else _cubins(about, first, second, tools)
    except UnreadableError as error:
        yield DifferenceKind.KERNEL, f"{about} {place(first, second)}; one of the two is damaged: {error}"


def _ptx(label: str, first: bytes, second: bytes) -> Iterator[Finding]:
    text, other = first.decode("latin-1"), second.decode("latin-1")  # whatever the bytes are
    yield from (hashed := [*hashes.compare(label, [text], [other])])
    if not hashed or hashes.without_hashes(text) != hashes.without_hashes(other):
        yield DifferenceKind.KERNEL, f"{label}: {compare_lines(text, other)}"


def _cubins(label: str, first: bytes, second: bytes, tools: Tools) -> Iterator[Finding]:
    image, other = elf.read(first), elf.read(second)
    found = [(kind, f"{label} {detail}") for kind, detail in elf.compare_facts(image, other)]
    found += hashes.compare(label, *([symbol.name for symbol in each.symbols] for each in (image, other)))
    found += ((DifferenceKind.KERNEL, f"{label}: {only}") for only in elf.one_sided_symbols(image, other, tools))
    sections = elf.differing(image, other)
    kernels = [name.removeprefix(_CODE) for name, _ in sections if name.startswith(_CODE)]
    readable = dict(zip(kernels, tools.demangle(kernels), strict=True))
    for name, contents in sections:
        if name.startswith(_CODE):
            kernel, where = readable[name.removeprefix(_CODE)], place(*contents, "its instruction", INSTRUCTION)
            found.append((DifferenceKind.KERNEL, f"{label}: the code of {kernel} {where}"))
        elif name.startswith(_DATA) and not name.endswith(tuple(kernels)):
            found.append((DifferenceKind.KERNEL, f"{label}: {name} {image.place(name, contents, tools)}"))
    names = listed([name for name, _ in sections] + sorted(image.parts.keys() ^ other.parts.keys()))
    rest = f"{label} {place(first, second)}, but not its code: {names or 'nothing but headers'}"
    yield from found or [(DifferenceKind.SECTION, rest)]


def _about(code: Code, content: bytes | None, tools: Tools) -> str:
    """The label and, for a cubin that can be read, the source file if a name holds it, and the kernels."""
    try:
        image = elf.read(content or b"")
    except UnreadableError:
        return code.label
    modules = hashes.module_ids(symbol.name for symbol in image.symbols)
    kernels = [name.removeprefix(_CODE) for name in image.parts if name.startswith(_CODE)]
    parts = [*(f"of {each.source}" for each in modules[:1]), *([f"with {tools.listed(kernels, 1)}"] if kernels else [])]
    return f"{code.label} ({' '.join(parts)})" if parts else code.label
