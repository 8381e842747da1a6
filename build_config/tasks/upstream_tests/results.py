"""What came of upstream's tests, read from pytest's result file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from build_config.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOT_RUN = "pytest did not run it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A test by its id, and what is to be said of it."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTestReport:
    """Upstream's tests with one wheel: every collected test is in exactly one of the four lists.

    ``upstream`` is the version of the sources that the tests are from. ``package`` is the ``llama_cpp`` they imported,
    relative to the environment, or ``None`` when none ran. ``left_out`` are those that download a model, ``skipped``
    those that upstream skips. ``seconds`` is wall time, environment included.
    """

    wheel_sha256: str
    upstream: str
    package: str | None
    passed: tuple[str, ...]
    failed: tuple[Noted, ...]
    skipped: tuple[Noted, ...]
    left_out: tuple[Noted, ...]
    seconds: float

    @property
    def collected(self) -> int:
        """How many there are."""
        return len(self.passed) + len(self.failed) + len(self.skipped) + len(self.left_out)

    @property
    def good(self) -> bool:
        """Something ran, and nothing of it failed."""
        return bool(self.passed) and not self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What pytest wrote. ``package`` is ``llama_cpp.__file__``, or ``None`` when no test came so far."""

    package: Path | None
    passed: tuple[str, ...]
    failed: tuple[Noted, ...]
    skipped: tuple[Noted, ...]


def collected(output: str) -> tuple[str, ...]:
    """The ids in the output of ``pytest --collect-only --quiet``."""
    return tuple(line for line in output.splitlines() if re.match(r"\S+\.py::\S", line))


def read(path: Path, selected: Sequence[str]) -> Outcomes:
    """Read pytest's JUnit file and find each of the ``selected`` ids in it; one that is not there has failed.

    Raises ``ValidationError`` when there is no such file.
    """
    try:
        root = ET.parse(path).getroot()  # noqa: S314  # written by the pytest that we started
    except (OSError, ET.ParseError) as error:
        raise ValidationError(f"pytest left no result: {error}") from error
    cases: dict[tuple[str, str], list[ET.Element]] = {}
    for case in root.iter("testcase"):  # a test whose teardown failed, too, has two
        cases.setdefault((case.get("classname", ""), case.get("name", "")), []).append(case)
    passed, failed, skipped = [], [], []
    for test in selected:
        found = cases.get(_names(test), [])
        bad = [mark for case in found for kind in ("failure", "error") for mark in case.iter(kind)]
        passed_over = [mark for case in found for mark in case.iter("skipped")]
        if bad or not found:
            failed.append(Noted(id=test, reason=_message(bad[0]) if bad else NOT_RUN))
        elif passed_over:
            skipped.append(Noted(id=test, reason=_message(passed_over[0])))
        else:
            passed.append(test)
    places = [one.get("value", "") for one in root.iter("property") if one.get("name") == "llama_cpp"]
    return Outcomes(
        package=Path(places[0]) if places else None,
        passed=tuple(passed),
        failed=tuple(failed),
        skipped=tuple(skipped),
    )


def noted(reasons: Mapping[str, str]) -> tuple[Noted, ...]:
    """Reasons by id, as a report holds them."""
    return tuple(Noted(id=test, reason=reason) for test, reason in reasons.items())


def _names(test: str) -> tuple[str, str]:
    """How pytest writes an id to its JUnit file: the class name is the dotted path of what encloses the test."""
    address, bracket, parameters = test.partition("[")
    file, *inside = address.split("::")
    *classes, function = inside
    return ".".join([file.removesuffix(".py").replace("/", "."), *classes]), function + bracket + parameters


def _message(mark: ET.Element) -> str:
    """The first line of what pytest says of a failure."""
    lines = (mark.get("message") or mark.text or mark.tag).strip().splitlines()
    return lines[0] if lines else mark.tag
