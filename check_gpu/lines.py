"""The form of a kind of line in a log, for the tables of ``grammar``."""

from __future__ import annotations

import re
from dataclasses import dataclass

CUDA_2023 = "0.1.65 to 0.2.24"
ALL = "0.1.65 to 0.3.36"


@dataclass(frozen=True)
class Line:
    """A kind of line. One of its ``words`` is in every such line, so that most lines need no pattern."""

    kind: str
    versions: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]


def line(kind: str, versions: str, words: str, pattern: str) -> Line:
    """Return a kind of line; ``words`` are separated by bars."""
    return Line(kind, versions, tuple(words.split("|")), re.compile(pattern))
