"""Where two texts differ: members of a wheel, device code as PTX, and the strings inside of libraries."""

from __future__ import annotations

import collections
import csv
import difflib
import re
from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference import causes, hashes
from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind, excerpts

if TYPE_CHECKING:
    from collections.abc import Iterator

STRINGS_SHOWN = 5
# Between zeros: the end of a table of numbers in front of a string may look like a part of it.
_STRING = re.compile(rb"(?:(?<=\0)|\A)[\t\n\x20-\x7e]{5,}(?=\0)")
_PAIRED = 0.6
"""From which likeness on two strings are taken for two versions of one."""
_PAIRED_AMONG = 40
"""How many strings are held against all others; above that only what they look like by themselves is said."""


def decoded(data: bytes) -> str | None:
    """The text, or ``None`` where it is none: not UTF-8, or with a zero in it."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def compare_lines(first: str, second: str, *, counted: bool = True) -> str:
    """What differs first between two texts that do: the line, both versions, and why, where that shows.

    Without ``counted`` the number of the line is left out.
    """
    lines, others = first.splitlines(keepends=True), second.splitlines(keepends=True)
    if lines != others and sorted(lines) == sorted(others):
        return "has the same lines in another order"
    for number, (line, other) in enumerate(zip(lines, others, strict=False), start=1):
        if line != other:
            shown, shown_other = excerpts(line, other)
            which = f"line {number}" if counted else "a line"
            return f"{which} is {shown}, in the other {shown_other}{_because(causes.cause(line, other))}"
    longer, where = (lines, "here") if len(lines) > len(others) else (others, "in the other")
    number = min(len(lines), len(others))
    shown, _ = excerpts(longer[number], "")
    which = f"line {number + 1}" if counted else "a line"
    return f"{which}, {shown}, is only {where}"


def compare_record(member: str, first: str, second: str, changed: frozenset[str]) -> Difference:
    """What differs between two RECORDs beside the lines of the members that differ themselves."""
    rest, other_rest = (
        "".join(line for line in record.splitlines(keepends=True) if _recorded(line) not in changed)
        for record in (first, second)
    )
    if rest == other_rest:
        detail = "has other digests: those of the members that differ"
        return Difference(member=member, kind=DifferenceKind.CONSEQUENCE, detail=detail)
    detail = compare_lines(rest, other_rest, counted=False)
    return Difference(member=member, kind=DifferenceKind.TEXT, detail=detail)


def compare_strings(member: str, section: str, first: bytes, second: bytes) -> Iterator[Difference]:
    """Strings of a section that the other has not, wherever they stand; those that look alike are one difference.

    Names in which nothing but nvcc's hashes differ are told as one difference for each source file.
    """
    ours, theirs = _STRING.findall(first), _STRING.findall(second)
    known, known_there = set(ours), set(theirs)
    only = [each.decode() for each in dict.fromkeys(ours) if each not in known_there]
    only_there = [each.decode() for each in dict.fromkeys(theirs) if each not in known]
    by_name = {hashes.without_hashes(string): string for string in only_there}
    hashed = {string: there for string in only if (there := by_name.get(hashes.without_hashes(string))) is not None}
    yield from hashes.compare(member, section, hashed.keys(), hashed.values())
    paired = {*hashed.values()}
    only_there = [string for string in only_there if string not in paired]
    details = list(_told([string for string in only if string not in hashed], only_there))
    details.sort(key=lambda detail: ": that " not in detail)  # what has a known cause first
    for detail in details[:STRINGS_SHOWN]:
        yield Difference(member=member, kind=DifferenceKind.STRING, detail=f"{section} has {detail}")
    rest = len(details) - STRINGS_SHOWN
    if rest > 0:
        more = f"{section} has {rest} more strings that differ"
        yield Difference(member=member, kind=DifferenceKind.STRING, detail=more)


def _told(only: list[str], only_there: list[str]) -> Iterator[str]:
    partners = _partners(only, only_there)
    for string in only:
        shown, _ = excerpts(string, "")
        if string not in partners:
            yield f"the string {shown}, the other has not{_because(causes.suspect(string))}"
        else:
            shown, shown_there = excerpts(string, partners[string])
            yield f"the string {shown}, in the other {shown_there}{_because(causes.cause(string, partners[string]))}"
    paired = {*partners.values()}
    for string in only_there:
        if string not in paired:
            shown, _ = excerpts(string, "")
            yield f"not the string {shown} of the other{_because(causes.suspect(string))}"


def _partners(only: list[str], only_there: list[str]) -> dict[str, str]:
    """Which string is a version of which: those that differ for a known reason, then, of few, those much alike."""
    waiting: dict[tuple[str, str], collections.deque[str]] = collections.defaultdict(collections.deque)
    for string in only_there:
        for key in causes.masked(string):
            waiting[key].append(string)
    partners: dict[str, str] = {}
    taken: set[str] = set()
    for string in only:
        for queue in [waiting[key] for key in causes.masked(string) if key in waiting]:
            while queue and queue[0] in taken:
                queue.popleft()
            if queue and string not in partners:
                partners[string] = queue.popleft()
                taken.add(partners[string])
    rest = [string for string in only if string not in partners]
    left = [string for string in only_there if string not in taken]
    if max(len(rest), len(left)) <= _PAIRED_AMONG:
        for string in rest:
            alike = difflib.get_close_matches(string, left, n=1, cutoff=_PAIRED)
            if alike:
                partners[string] = alike[0]
                left.remove(alike[0])
    return partners


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _recorded(line: str) -> str:
    """The member that a line of RECORD speaks of."""
    return next(iter(next(csv.reader([line]), [])), "")
