"""The results of upstream's tests, as ``recorder.py`` writes them and as a report contains them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A test by its id, with the reason of its outcome."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The outcomes of all collected tests; each is in exactly one list.

    ``left_out`` are tests that download a model, ``skipped`` those that upstream skips.
    """

    passed: tuple[str, ...]
    failed: tuple[Noted, ...]
    skipped: tuple[Noted, ...]
    left_out: tuple[Noted, ...]

    @property
    def collected(self) -> int:
        """The number of all tests."""
        return len(self.passed) + len(self.failed) + len(self.skipped) + len(self.left_out)

    @property
    def good(self) -> bool:
        """Whether a test passed and none failed."""
        return bool(self.passed) and not self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Outcomes):
    """The result of the recorder. ``package`` is ``llama_cpp.__file__``, or ``None`` if no test imported it.

    ``uncollected`` are files that pytest could not read, each with the reason.
    """

    package: Path | None
    uncollected: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTestReport(Outcomes):
    """Upstream's tests with one wheel.

    ``upstream`` is the version of the sources with the tests. ``package`` is the ``llama_cpp`` that they imported,
    relative to the environment, or ``None`` if none ran. ``seconds`` is wall time, including the environment.
    """

    wheel_sha256: str
    upstream: str
    package: str | None
    seconds: float
