"""What came of upstream's tests, as ``recorder.py`` wrote it and as a report keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A test by its id, and what is to be said of it."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Every collected test is in exactly one list.

    ``left_out`` are those that download a model, ``skipped`` those that upstream skips.
    """

    passed: tuple[str, ...]
    failed: tuple[Noted, ...]
    skipped: tuple[Noted, ...]
    left_out: tuple[Noted, ...]

    @property
    def collected(self) -> int:
        """How many there are."""
        return len(self.passed) + len(self.failed) + len(self.skipped) + len(self.left_out)

    @property
    def good(self) -> bool:
        """Something ran, and nothing of it failed."""
        return bool(self.passed) and not self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Outcomes):
    """What the recorder wrote. ``package`` is ``llama_cpp.__file__``, or ``None`` if no test got that far.

    ``uncollected`` are files that pytest could not read, each with the reason.
    """

    package: Path | None
    uncollected: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTestReport(Outcomes):
    """Upstream's tests with one wheel.

    ``upstream`` is the version of the sources that the tests are from. ``package`` is the ``llama_cpp`` they imported,
    relative to the environment, or ``None`` when none ran. ``seconds`` is wall time, environment included.
    """

    wheel_sha256: str
    upstream: str
    package: str | None
    seconds: float
