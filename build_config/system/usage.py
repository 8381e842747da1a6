"""Count how often the store and the object cache had what was asked for; ``nox -s doctor -- --disk`` shows it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from build_config.errors import StepResultError
from build_config.system import jsonio

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.system.layout import Layout

DAYS_KEPT = 90
UNIT_STORE = "unit store"
OBJECT_CACHE = "object cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """How often something was asked for, and how often it was there."""

    hits: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The uses of a store or cache since a day, ``2026-11-29``."""

    what: str
    since: str
    hits: int
    asked: int


def count(layout: Layout, what: str, uses: Uses) -> None:
    """Add to the numbers of today. The caller has claimed the work root. A full disk only loses the numbers."""
    if not uses.asked:
        return
    days = _read(layout)
    today = datetime.now(UTC).date().isoformat()
    known = days.setdefault(today, {})
    before = known.get(what, Uses(hits=0, asked=0))
    known[what] = Uses(hits=before.hits + uses.hits, asked=before.asked + uses.asked)
    kept = sorted(days)[-DAYS_KEPT:]
    with contextlib.suppress(OSError):
        jsonio.write(_file(layout), {day: days[day] for day in kept})


def summary(layout: Layout) -> tuple[Usage, ...]:
    """The sums of the days that are kept."""
    days = _read(layout)
    made = []
    for what in sorted({name for day in days.values() for name in day}):
        found = {day: uses[what] for day, uses in days.items() if what in uses}
        hits, asked = (sum(getattr(uses, name) for uses in found.values()) for name in ("hits", "asked"))
        made.append(Usage(what=what, since=min(found), hits=hits, asked=asked))
    return tuple(made)


def _file(layout: Layout) -> Path:
    return layout.state / "usage.json"


def _read(layout: Layout) -> dict[str, dict[str, Uses]]:
    try:
        return jsonio.read(_file(layout), dict[str, dict[str, Uses]])
    except StepResultError:
        return {}
