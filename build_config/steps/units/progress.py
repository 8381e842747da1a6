"""Pure functions that estimate the progress of a build, from Ninja's lines and the seconds of earlier builds."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_WEIGHT = 2.0
"""Seconds assumed for a step that was never timed."""
_LINE = re.compile(r"^\[\d+/\d+\] (?P<what>.+)$")
_OUTPUT = re.compile(r"(?:Building|Linking) \S+ (?:object|shared library|shared module|static library) (?P<path>\S+)$")
_MILLISECONDS = re.compile(r"[0-9]{1,12}")
_SOURCES = (".cu", ".cpp", ".c", ".cc", ".cxx")


def parse_line(line: str) -> str | None:
    """``path/to/fattn.cu.o`` of ``[3/156] Building CUDA object path/to/fattn.cu.o``; ``None`` for any other line.

    If the description does not name an output, the complete description.
    """
    match = _LINE.match(line.strip())
    if match is None:
        return None
    output = _OUTPUT.search(match["what"])
    return output["path"] if output else match["what"]


def parse_ninja_log(text: str) -> dict[str, float]:
    """Seconds of each step, from Ninja's own log (version 5 to 7: start and end in milliseconds, then the output)."""
    seconds = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) >= 4 and all(map(_MILLISECONDS.fullmatch, fields[:2])):  # noqa: PLR2004  # it has 4 or 5
            seconds[fields[3]] = (int(fields[1]) - int(fields[0])) / 1000
    return seconds


def source_of(arguments: Iterable[str]) -> str | None:
    """The name of the file that a compiler call compiles, without folders; ``None`` for other calls.

    Ninja may use a shell, which has the whole call as one argument: so words are examined, not arguments.
    """
    for argument in reversed(" ".join(arguments).split()):
        if argument.endswith(_SOURCES):
            return PurePosixPath(argument.replace("\\", "/")).name
    return None


def weight_of(output: str, weights: Mapping[str, float]) -> float:
    """Expected seconds of a step: by its whole output path, then by its file name, then the default."""
    exact = weights.get(output)
    if exact is not None:
        return exact
    return weights.get(PurePosixPath(output).name, DEFAULT_WEIGHT)


@dataclass(slots=True)
class Estimate:
    """Compares the finished steps with those that were pending at the start.

    ``pending`` are the outputs still to be made, ``weights`` expected seconds of work for each, ``jobs`` how many run
    at once. ``started`` is in seconds of the monotonic clock.
    """

    pending: tuple[str, ...]
    weights: Mapping[str, float]
    jobs: int
    started: float = field(default_factory=time.monotonic)
    finished: float = 0.0

    @property
    def total(self) -> float:
        """Expected seconds of work in total."""
        return sum(weight_of(output, self.weights) for output in self.pending)

    def finish(self, output: str) -> None:
        """Count a finished step."""
        self.finished += weight_of(output, self.weights)

    def eta(self, now: float) -> float:
        """The remaining seconds.

        At first only the weights count. With the share of finished work, the measured pace counts more.
        """
        remaining = max(0.0, self.total - self.finished)
        expected = remaining / self.jobs
        if self.finished <= 0 or self.total <= 0:
            return expected
        measured = remaining * (now - self.started) / self.finished
        trust = min(1.0, 5 * self.finished / self.total)
        return (1 - trust) * expected + trust * measured
