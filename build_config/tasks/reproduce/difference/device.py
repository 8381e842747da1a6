"""Which fat binaries of two libraries differ, for which architecture, and of which source file and kernel they are."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference import cubins, extraction, hashes
from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind, first_difference
from build_config.tasks.reproduce.difference.text import compare_lines
from check_gpu.elf import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from build_config.tasks.reproduce.difference.extraction import Code
    from build_config.tasks.reproduce.difference.result import Tools


def compare(member: str, section: str, first: bytes, second: bytes, tools: Tools) -> Iterator[Difference]:
    """What differs between the device code in a section of two libraries, entry by entry."""
    try:
        codes, others = extraction.read(first), extraction.read(second)
    except UnreadableError as error:
        detail = f"the device code in {section} differs, and one of the two is damaged: {error}"
        yield Difference(member=member, kind=DifferenceKind.SECTION, detail=detail)
        return
    yield from _architectures(member, codes, others)
    only, only_there = _missing(codes, others), _missing(others, codes)
    if not only and not only_there:
        yield _order(member, section, codes, others)
        return
    pairs, only, only_there = _pair(only, only_there)
    for code, other in pairs:
        yield from _pair_differs(member, code, other, tools)
    on_both = {code.entry.architecture for code in codes} & {code.entry.architecture for code in others}
    for alone, where in ((only, "here"), (only_there, "in the other")):
        for code in alone:
            if code.entry.architecture not in on_both:
                continue  # told as an architecture, once
            about = cubins.about(extraction.unpack(code, tools), tools)
            yield Difference(member=member, kind=DifferenceKind.KERNEL, detail=f"{code}{about} is only {where}")


def _architectures(member: str, codes: Sequence[Code], others: Sequence[Code]) -> Iterator[Difference]:
    ours, theirs = (collections.Counter(code.arch for code in side) for side in (codes, others))
    for arch in sorted(ours.keys() | theirs.keys()):
        if ours[arch] != theirs[arch]:
            detail = f"holds {ours[arch]} pieces of device code for {arch}, in the other {theirs[arch]}"
            if not (ours[arch] and theirs[arch]):
                detail += ": it was compiled for other architectures"
            yield Difference(member=member, kind=DifferenceKind.ARCHITECTURE, detail=detail)


def _missing(codes: Sequence[Code], others: Sequence[Code]) -> list[Code]:
    """Those of which the others have no equal."""
    there = collections.Counter(map(_identity, others))
    missing = []
    for code in codes:
        if there[_identity(code)]:
            there[_identity(code)] -= 1
        else:
            missing.append(code)
    return missing


def _identity(code: Code) -> tuple[str, bytes, bytes]:
    return code.entry.architecture, code.entry.header, code.stored


def _order(member: str, section: str, codes: Sequence[Code], others: Sequence[Code]) -> Difference:
    """Nothing is missing on either side."""
    for position, (code, other) in enumerate(zip(codes, others, strict=True)):
        if _identity(code) != _identity(other):
            there = next(n for n, each in enumerate(others) if _identity(each) == _identity(code))
            detail = (
                f"the same fat binaries in another order: piece {position + 1} is piece {there + 1} in the other; "
                "the linker was given the object files in another order"
            )
            return Difference(member=member, kind=DifferenceKind.ORDER, detail=detail)
    detail = f"{section} differs, but none of the device code in it"
    return Difference(member=member, kind=DifferenceKind.SECTION, detail=detail)


def _pair(codes: list[Code], others: list[Code]) -> tuple[list[tuple[Code, Code]], list[Code], list[Code]]:
    """Those of one architecture in their order, since object files are linked in one. The rest is alone."""
    waiting: dict[str, collections.deque[Code]] = collections.defaultdict(collections.deque)
    for other in others:
        waiting[other.entry.architecture].append(other)
    pairs, alone = [], []
    for code in codes:
        if waiting[code.entry.architecture]:
            pairs.append((code, waiting[code.entry.architecture].popleft()))
        else:
            alone.append(code)
    return pairs, alone, [other for queue in waiting.values() for other in queue]


def _pair_differs(member: str, code: Code, other: Code, tools: Tools) -> Iterator[Difference]:
    if code.options != other.options:
        detail = f"{code} was made with the options {code.options or 'none'}, in the other {other.options or 'none'}"
        yield Difference(member=member, kind=DifferenceKind.OPTIONS, detail=detail)
    if code.stored == other.stored:
        if code.options == other.options:
            detail = f"{code} is the same, but the header in front of it differs"
            yield Difference(member=member, kind=DifferenceKind.SECTION, detail=detail)
        return
    content, content_there = extraction.unpack(code, tools), extraction.unpack(other, tools)
    if content is None or content_there is None:
        yield _not_unpacked(member, code, other, (content, content_there), tools)
    elif content == content_there:
        detail = f"{code} is the same, but compressed to other bytes"
        yield Difference(member=member, kind=DifferenceKind.COMPRESSION, detail=detail)
    elif code.suffix == "cubin":
        try:
            yield from cubins.compare(member, str(code), content, content_there, tools)
        except UnreadableError as error:
            yield _at_byte(member, code, content, content_there, f"; one of the two is damaged: {error}")
    else:
        yield from _ptx(member, code, content.decode("utf-8", "replace"), content_there.decode("utf-8", "replace"))


def _ptx(member: str, code: Code, first: str, second: str) -> Iterator[Difference]:
    yield from hashes.compare(member, str(code), hashes.names_in(first), hashes.names_in(second))
    if hashes.without_hashes(first) != hashes.without_hashes(second):
        detail = f"{code}: {compare_lines(first, second)}"
        yield Difference(member=member, kind=DifferenceKind.KERNEL, detail=detail)


def _not_unpacked(
    member: str, code: Code, other: Code, contents: tuple[bytes | None, bytes | None], tools: Tools
) -> Difference:
    about = next((cubins.about(content, tools) for content in contents if content is not None), "")
    if tools.cuobjdump is None:
        reason = ", compressed; cuobjdump, which would unpack it, is not there"
    else:
        which = [name for name, content in zip(("this one", "the other"), contents, strict=True) if content is None]
        reason = f"; cuobjdump cannot unpack {' and '.join(which)}: it is damaged"
    return _at_byte(member, code, code.stored, other.stored, reason, about)


def _at_byte(member: str, code: Code, first: bytes, second: bytes, reason: str, about: str = "") -> Difference:
    sizes = f"{len(first)} bytes" + ("" if len(first) == len(second) else f", in the other {len(second)}")
    detail = f"{code}{about} ({sizes}) differs from its byte {first_difference(first, second)} on{reason}"
    return Difference(member=member, kind=DifferenceKind.KERNEL, detail=detail)
