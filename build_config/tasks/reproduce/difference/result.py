"""What a comparison says: the frozen types, and what all of its parts need."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from build_config.model import Program

BLOCK = 1 << 16
SHOWN = 90
"""How many characters of a text are shown."""


class DifferenceKind(StrEnum):
    """What differs, the most telling first: causes, then what they do to code, then the container, then the rest."""

    MEMBER = "member"
    OPTIONS = "options"
    COMPILER = "compiler"
    SOURCE_PATH = "source-path"
    RANDOM_SEED = "random-seed"
    ARCHITECTURE = "architecture"
    STRING = "string"
    TEXT = "text"
    DEPENDENCY = "dependency"
    SYMBOL = "symbol"
    KERNEL = "kernel"
    FUNCTION = "function"
    ORDER = "order"
    TIME = "time"
    MODE = "mode"
    COMPRESSION = "compression"
    CONTAINER = "container"
    BUILD_ID = "build-id"
    SECTION = "section"
    BYTES = "bytes"
    CONSEQUENCE = "consequence"
    UNEXPLAINED = "unexplained"
    DIFFOSCOPE = "diffoscope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not the same. ``detail`` is a sentence about ``member``, both values in it."""

    member: str
    kind: DifferenceKind
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Programs that say more than the bytes do; without one of them less is said, and nothing fails.

    ``demangler`` is c++filt. ``folder`` is where files for these programs are put.
    """

    cuobjdump: Program | None
    demangler: str | None
    folder: Path


def first_difference(first: bytes, second: bytes) -> int | None:
    """The offset of the first byte that differs; where one is the beginning of the other, the length of that one.

    ``None`` when both are equal. Whole blocks are compared, so this takes as long as reading the memory.
    """
    if first == second:
        return None
    start, end = 0, min(len(first), len(second))
    while start < end and first[start : start + BLOCK] == second[start : start + BLOCK]:
        start += BLOCK
    if start >= end:
        return end
    size = min(BLOCK, end - start)
    while size > 1:
        half = size // 2
        if first[start : start + half] == second[start : start + half]:
            start, size = start + half, size - half
        else:
            size = half
    return start if first[start : start + 1] != second[start : start + 1] else end


def excerpts(first: str, second: str) -> tuple[str, str]:
    """Both texts as they are shown: quoted, and of long ones the part around the first difference."""
    common = first_difference(first.encode("utf-32-le"), second.encode("utf-32-le"))
    start = max(0, (common or 0) // 4 - SHOWN // 3)
    if max(len(first), len(second)) <= SHOWN:
        start = 0
    return _excerpt(first, start), _excerpt(second, start)


def _excerpt(text: str, start: int) -> str:
    part = repr(text[start : start + SHOWN])
    return ("…" if start else "") + part + ("…" if len(text) > start + SHOWN else "")


def listed(names: tuple[str, ...], count: int) -> str:
    """These names, which are the first of ``count``, and how many more there are."""
    rest = count - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest > 0 else "")
