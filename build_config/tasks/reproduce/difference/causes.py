"""Recognises in two texts that differ what usually makes them differ: a time, a path, a temporary name."""

from __future__ import annotations

import re

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_CLOCK = r"(?<!\d)\d\d:\d\d(?::\d\d)?(?!\d)"
_DAY = rf"\b(?:{_MONTHS}) [ 0-3]?\d \d{{4}}\b|\b\d{{4}}-\d\d-\d\d(?!\d)|\b\d{{8}}T\d{{6}}Z?\b"
_CAUSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(rf"(?:{_DAY})(?:[ T]{_CLOCK})?|{_CLOCK}"),
        "that looks like the time of the build, as __DATE__ and __TIME__ give it",
    ),
    (
        re.compile(r"(?<![\w./])/(?:home|Users|root)(?:/[\w.+@~-]+)+"),
        "that is a path in a user's folder: build at the canonical path, or map it with -ffile-prefix-map",
    ),
    (
        re.compile(r"tmpxft_[0-9a-f]+_[0-9a-f]+(?:-\d+)?"),
        "that is a temporary file of nvcc, named after its process: link with -Wl,-s",
    ),
    (
        re.compile(r"(?<![\w./])/[\w.+@~-]+(?:/[\w.+@~-]+)+"),
        "that is an absolute path: build at the canonical path, or map it with -ffile-prefix-map",
    ),
)


def cause(first: str, second: str) -> str | None:
    """Why these two differ, if it shows: they are the same but for texts of one kind."""
    others = masked(second)
    return next((each[0] for each in masked(first) if each in others), None)


def suspect(text: str) -> str | None:
    """What is in this text that usually differs from build to build."""
    return next((meaning for meaning, _ in masked(text)), None)


def masked(text: str) -> tuple[tuple[str, str], ...]:
    """For each kind of text that is in this one: what it means, and this text without it.

    Two texts that have one of these in common differ for that reason.
    """
    found = ((meaning, pattern.subn("\0", text)) for pattern, meaning in _CAUSES)
    return tuple((meaning, rest) for meaning, (rest, count) in found if count)
