"""What differs between two cubins: the assembler and its options, nvcc's hashes, kernels, variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference import demangle, elf, extraction, hashes
from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind, first_difference, listed
from check_gpu.elf import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.tasks.reproduce.difference.result import Tools

KERNELS_SHOWN = 3
SECTIONS_SHOWN = 6
INSTRUCTION = 16
"""Bytes of an instruction on every architecture since 7.0."""
_CODE = ".text."
_DATA = (".nv.global", ".nv.constant", ".nv.shared", ".nv.info")


def about(cubin: bytes | None, tools: Tools) -> str:
    """In brackets, what the code is of: the source file where names tell it, and kernels. Empty when unknown."""
    try:
        image = elf.read(cubin or b"")
    except UnreadableError:
        return ""
    return _about(image, tools)


def compare(member: str, label: str, first: bytes, second: bytes, tools: Tools) -> Iterator[Difference]:
    """Everything that differs between two cubins. Raises ``check_gpu.elf.UnreadableError``."""
    ours, theirs = elf.read(first), elf.read(second)
    about_it = f"{label}{_about(ours, tools)}"
    found = [
        *_assembler(member, about_it, ours, theirs),
        *hashes.compare(
            member,
            about_it,
            (symbol.name for symbol in ours.symbols),
            (symbol.name for symbol in theirs.symbols),
        ),
    ]
    source = _source(ours)
    place = f"{label} (of {source})" if source else label
    found += _one_sided(member, place, ours, theirs, tools)
    code = _differing(ours, theirs, (_CODE,))
    if code:
        found += _kernels(member, place, code, ours, theirs, (first, second), tools)
    for name, other in _differing(ours, theirs, _DATA):
        if not any(name.endswith(kernel.removeprefix(_CODE)) for kernel, _ in code):
            found.append(_data(member, about_it, ours.parts[name], theirs.parts[other], ours, tools))
    yield from found
    if not found:
        sections = [name for name, _ in _differing(ours, theirs, ("",))]
        detail = (
            f"{about_it} differs, but not in its code: in {listed(tuple(sections[:SECTIONS_SHOWN]), len(sections))}"
        )
        if not sections:
            at = first_difference(first, second)
            detail = f"{about_it} differs from byte {at} on, outside of every section"
        yield Difference(member=member, kind=DifferenceKind.SECTION, detail=detail)


def _assembler(member: str, label: str, ours: elf.Image, theirs: elf.Image) -> Iterator[Difference]:
    if ours.assembler is None or theirs.assembler is None or ours.assembler == theirs.assembler:
        return
    (version, options), (other_version, other_options) = ours.assembler, theirs.assembler
    if version != other_version:
        detail = f"{label} was assembled by ptxas of {version}, in the other of {other_version}"
        yield Difference(member=member, kind=DifferenceKind.COMPILER, detail=detail)
    if options != other_options:
        detail = f"{label} was assembled by ptxas with {options!r}, in the other with {other_options!r}: other flags"
        yield Difference(member=member, kind=DifferenceKind.OPTIONS, detail=detail)


def _one_sided(member: str, label: str, ours: elf.Image, theirs: elf.Image, tools: Tools) -> Iterator[Difference]:
    mine, other = (
        {hashes.without_hashes(symbol.name): symbol.name for symbol in image.symbols} for image in (ours, theirs)
    )
    for only, whole, where in (
        (mine.keys() - other.keys(), mine, "here"),
        (other.keys() - mine.keys(), other, "in the other"),
    ):
        if only:
            shown = demangle.readable([whole[name] for name in sorted(only)][:KERNELS_SHOWN], tools.demangler)
            detail = f"{label}: {listed(shown, len(only))} only {where}"
            yield Difference(member=member, kind=DifferenceKind.KERNEL, detail=detail)


def _differing(ours: elf.Image, theirs: elf.Image, prefixes: tuple[str, ...]) -> list[tuple[str, str]]:
    """The sections of both that are not the same: each by its name here and its name there."""
    there = {hashes.without_hashes(name): name for name in theirs.parts}
    pairs = ((name, there.get(hashes.without_hashes(name))) for name in ours.parts if name.startswith(prefixes))
    return [
        (name, other)
        for name, other in pairs
        if other is not None and ours.parts[name].content != theirs.parts[other].content
    ]


def _kernels(
    member: str,
    label: str,
    code: list[tuple[str, str]],
    ours: elf.Image,
    theirs: elf.Image,
    cubins: tuple[bytes, bytes],
    tools: Tools,
) -> Iterator[Difference]:
    used, used_there = (extraction.registers(cubin, tools) for cubin in cubins)
    shown = code[:KERNELS_SHOWN]
    readable = demangle.readable([name.removeprefix(_CODE) for name, _ in shown], tools.demangler)
    for (name, other), kernel in zip(shown, readable, strict=True):
        first, second = ours.parts[name].content, theirs.parts[other].content
        sizes = f"{len(first)} bytes" + ("" if len(first) == len(second) else f", in the other {len(second)}")
        instruction = (first_difference(first, second) or 0) // INSTRUCTION + 1
        count, count_there = used.get(name.removeprefix(_CODE)), used_there.get(other.removeprefix(_CODE))
        registers = "" if count == count_there else f"; it takes {count} registers, in the other {count_there}"
        detail = f"{label}: the code of {kernel} ({sizes}) differs from its instruction {instruction} on{registers}"
        yield Difference(member=member, kind=DifferenceKind.KERNEL, detail=detail)
    if len(code) > len(shown):
        detail = f"{label}: the code of {len(code) - len(shown)} more kernels differs"
        yield Difference(member=member, kind=DifferenceKind.KERNEL, detail=detail)


def _data(member: str, label: str, first: elf.Part, second: elf.Part, ours: elf.Image, tools: Tools) -> Difference:
    offset = first_difference(first.content, second.content) or 0
    found = ours.symbol_at(first.name, offset)
    of = ""
    if found is not None and found[1]:
        (variable,) = demangle.readable([found[0].name], tools.demangler)
        of = f", in {variable}"
    section, _, kernel = first.name.partition("._")
    if kernel:
        (readable,) = demangle.readable([f"_{kernel}"], tools.demangler)
        section = f"{section} of {readable}"
    detail = f"{label}: {section} differs from its byte {offset} on{of}"
    return Difference(member=member, kind=DifferenceKind.KERNEL, detail=detail)


def _about(image: elf.Image, tools: Tools) -> str:
    source = _source(image)
    kernels = [name.removeprefix(_CODE) for name in image.parts if name.startswith(_CODE)]
    parts = [f"of {source}"] if source else []
    if kernels:
        parts.append(f"with {listed(demangle.readable(kernels[:1], tools.demangler), len(kernels))}")
    return f" ({' '.join(parts)})" if parts else ""


def _source(image: elf.Image) -> str | None:
    modules = hashes.module_ids(symbol.name for symbol in image.symbols)
    return modules[0].source if modules else None
