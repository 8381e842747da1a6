"""The types of a comparison, its lines for a reader, and the helpers that its parts share."""

from __future__ import annotations

import collections
import contextlib
import itertools
import operator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, AnyStr

from build_config.errors import CommandError
from build_config.model import Program
from build_config.system import processes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

BLOCK = 1 << 16
SHOWN = 90
"""How many characters of a text are shown."""
LONGEST_NAME = 120
NAMED = 3
LINES = 24
LINES_OF_A_KIND = 5


class DifferenceKind(StrEnum):
    """Kinds in the order in which they are told: causes, then their effect on code, the archive, the rest."""

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


Finding = tuple[DifferenceKind, str]
"""A kind and a sentence about the member that is compared."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same. ``detail`` is a sentence about ``member``, with both values in it."""

    member: str
    kind: DifferenceKind
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """cuobjdump, c++filt and a folder for files: without a program the sentences say less, and nothing fails."""

    cuobjdump: Program | None
    demangler: str | None
    folder: Path

    def demangle(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names without parameters; as they are if c++filt is missing or fails. Long ones are cut."""
        if self.demangler is not None and names:
            with contextlib.suppress(CommandError):
                done = processes.capture(self.demangler, "--no-params", *names)
                lines = done.output.splitlines()
                names = lines if done.returncode == 0 and len(lines) == len(names) else names
        return tuple(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in names)

    def listed(self, names: Sequence[str], shown: int = NAMED) -> str:
        """The first names, demangled, and how many more there are."""
        return listed([*self.demangle(names[:shown]), *names[shown:]], shown)


def explain(differences: Sequence[Difference], lines: int = LINES) -> tuple[str, ...]:
    """At most ``lines`` lines, the most telling first, one that counts the rest, and diffoscope's report."""
    members: dict[Finding, list[str]] = {}
    for each in sorted(differences, key=lambda each: list(DifferenceKind).index(each.kind)):
        members.setdefault((each.kind, each.detail), []).append(each.member)
    findings = [finding for finding in members if finding[0] is not DifferenceKind.DIFFOSCOPE]
    of_a_kind = itertools.groupby(findings, operator.itemgetter(0))
    shown = [finding for _, same in of_a_kind for finding in [*same][:LINES_OF_A_KIND]][:lines]
    told = [f"{listed(members[each])}: {each[1]}" for each in shown]
    if left := collections.Counter(each[0] for each in findings if each not in shown):
        told.append(f"and {left.total()} more: " + ", ".join(f"{count} of kind {kind}" for kind, count in left.items()))
    return (*told, *(detail for kind, detail in members if kind is DifferenceKind.DIFFOSCOPE))


def first_difference(first: AnyStr, second: AnyStr) -> int:
    """The offset of the first byte or letter that differs; the length of the shorter if the other begins with it."""
    end = min(len(first), len(second))  # whole blocks first, which takes as long as reading the memory
    start = next((at for at in range(0, end, BLOCK) if first[at : at + BLOCK] != second[at : at + BLOCK]), end)
    pairs = enumerate(zip(first[start : start + BLOCK], second[start : start + BLOCK], strict=False), start)
    return next((at for at, (one, other) in pairs if one != other), end)


def place(first: bytes, second: bytes, unit: str = "byte", size: int = 1) -> str:
    """The sizes, and where the first difference is, counted in units of so many bytes."""
    sizes = f"{len(first)} bytes" + ("" if len(first) == len(second) else f", in the other {len(second)}")
    return f"({sizes}) differs from {unit} {first_difference(first, second) // size + (size > 1)} on"


def one_sided(first: Iterable[str], second: Iterable[str]) -> Iterator[tuple[list[str], str]]:
    """The names that only one of the two has, sorted, with the words for which one that is."""
    names, others = frozenset(first), frozenset(second)
    sides = ((names - others, "here"), (others - names, "in the other"))
    yield from ((sorted(only), where) for only, where in sides if only)


def listed(names: Sequence[str], shown: int = NAMED) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def excerpts(first: str, second: str) -> tuple[str, str]:
    """Both texts as they are shown: quoted, and of long ones the part around the first difference."""
    start = max(0, first_difference(first, second) - SHOWN // 3) if max(len(first), len(second)) > SHOWN else 0
    before, end = "…" if start else "", start + SHOWN
    first, second = (before + repr(text[start:end]) + ("…" if len(text) > end else "") for text in (first, second))
    return first, second
