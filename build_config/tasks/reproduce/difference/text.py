"""Finds where two texts differ, and the usual causes: members of a wheel, PTX, the strings inside libraries."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference import hashes
from build_config.tasks.reproduce.difference.result import DifferenceKind, Finding, excerpts

if TYPE_CHECKING:
    from collections.abc import Iterator

# Between zeros: the end of a table of numbers in front of a string may look like a part of it.
_STRING = re.compile(rb"(?:(?<=\0)|\A)[\t\n\x20-\x7e]{5,}(?=\0)")
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_CLOCK = r"(?<!\d)\d\d:\d\d(?::\d\d)?(?!\d)"
_PART = r"(?:/[\w.+@~-]+)+"
_DAY = rf"\b(?:{_MONTHS}) [ 0-3]?\d \d{{4}}\b|\b\d{{4}}-\d\d-\d\d(?!\d)|\b\d{{8}}T\d{{6}}Z?\b"
_NVCC = r"tmpxft_[0-9a-f]+_[0-9a-f]+(?:-\d+)?"
_REMEDY_PATH = "build at the canonical path, or map it with -ffile-prefix-map"
_CAUSES = {
    rf"(?:{_DAY})(?:[ T]{_CLOCK})?|{_CLOCK}": "that looks like the time of the build, as __DATE__ and __TIME__ give it",
    rf"(?<![\w./])/(?:home|Users|root){_PART}": f"that is a path in a user's folder: {_REMEDY_PATH}",
    _NVCC: "that is a temporary file of nvcc, named after its process: link with -Wl,-s",
    rf"(?<![\w./])/[\w.+@~-]+{_PART}": f"that is an absolute path: {_REMEDY_PATH}",
}
"""Texts that usually differ from build to build, and the meaning of each."""


def cause(first: str, second: str | None = None) -> str | None:
    """Why these two differ, if nothing but times, paths and temporary names does; of one text: what may change."""
    if second is not None and _masked(first) != _masked(second):
        return None
    found = (meaning for each, meaning in _CAUSES.items() if re.findall(each, first) != re.findall(each, second or ""))
    return next(found, None)


def decoded(data: bytes) -> str | None:
    """The text, or ``None`` for bytes that are not UTF-8 or hold a zero."""
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def compare_lines(first: str, second: str) -> str:
    """The first difference between two texts that are not equal: the line, both versions, and the cause if it shows."""
    lines, others = first.splitlines(keepends=True), second.splitlines(keepends=True)
    if sorted(lines) == sorted(others):
        return "has the same lines in another order"
    pairs = enumerate(itertools.zip_longest(lines, others), start=1)
    number, (line, other) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    shown, shown_other = excerpts(line or "", other or "")
    if not line or not other:
        return f"line {number}, " + (f"{shown}, is only here" if line else f"{shown_other}, is only in the other")
    return f"line {number} is {shown}, in the other {shown_other}{_because(cause(line, other))}"


def compare_record(first: str, second: str, changed: frozenset[str]) -> Finding:
    """The difference between two RECORDs apart from the lines of the members that differ themselves."""
    rest, other = (
        "".join(line for line in record.splitlines(keepends=True) if line.rsplit(",", 2)[0].strip('"') not in changed)
        for record in (first, second)
    )
    if rest == other:
        return DifferenceKind.CONSEQUENCE, "has other digests: those of the members that differ"
    return DifferenceKind.TEXT, f"without the members that differ: {compare_lines(rest, other)}"


def compare_strings(section: str, first: bytes, second: bytes) -> Iterator[Finding]:
    """Strings that only one of two sections has, in pairs if there are as many; for nvcc's hashes, the source files."""
    strings, others = ([each.decode() for each in dict.fromkeys(_STRING.findall(data))] for data in (first, second))
    known = {*strings} & {*others}
    strings, others = ([each for each in side if each not in known] for side in (strings, others))
    yield from hashes.compare(section, strings, others)
    plain = hashes.without_hashes
    known = {*map(plain, strings)} & {*map(plain, others)}
    strings, others = ([each for each in side if plain(each) not in known] for side in (strings, others))
    if len(strings) == len(others):
        pairs = zip(strings, others, strict=True)
        told = [(cause(*pair), "the string {}, in the other {}".format(*excerpts(*pair))) for pair in pairs]
    else:
        sides = ((strings, "here"), (others, "in the other"))
        each = ((string, where) for side, where in sides for string in side)
        told = [(cause(string), f"the string {excerpts(string, '')[0]} only {where}") for string, where in each]
    for why, detail in sorted(told, key=lambda each: each[0] is None):  # known causes first
        yield DifferenceKind.STRING, f"{section} has {detail}{_because(why)}"


def _masked(text: str) -> str:
    for pattern in _CAUSES:
        text = re.sub(pattern, "\0", text)
    return text


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""
