"""Choose what to free: by age and by size, never what is needed. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

UNITS_OF_AGE = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
UNITS_OF_SIZE = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is freed as a whole, or not at all. ``kind`` is a plural noun, ``size`` the bytes that it takes on the disk.

    ``used`` is when it was last used, in seconds since 1970. ``needed_by`` names those who need it: wheels of the
    wheelhouse, or this checkout.
    """

    kind: str
    path: Path
    size: int
    used: float
    needed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may stay: nothing that was last used more than ``older_than`` seconds ago, and ``keep_below`` bytes in all.

    Without either, everything stays.
    """

    older_than: float | None = None
    keep_below: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The items of one kind, in numbers. ``oldest`` is the last use of the item that was not used for longest."""

    kind: str
    number: int
    size: int
    oldest: float
    freed: int
    freed_size: int
    needed_by: tuple[str, ...]


def choose(items: Iterable[Item], limits: Limits, now: float) -> tuple[Item, ...]:
    """The items to free. Those that were not used for longest go first, until the rest is below the limit.

    A needed item is never among them, so the rest can be above the limit.
    """
    everything = tuple(items)
    free = sorted((item for item in everything if not item.needed_by), key=lambda item: (item.used, str(item.path)))
    chosen: list[Item] = []
    left = sum(item.size for item in everything)
    for item in free:
        is_old = limits.older_than is not None and now - item.used > limits.older_than
        is_too_much = limits.keep_below is not None and left > limits.keep_below
        if is_old or is_too_much:
            chosen.append(item)
            left -= item.size
    return tuple(chosen)


def rows(items: Iterable[Item], chosen: Iterable[Item]) -> tuple[Row, ...]:
    """One row for each kind, the largest first."""
    freed = frozenset(item.path for item in chosen)
    kinds: dict[str, list[Item]] = {}
    for item in items:
        kinds.setdefault(item.kind, []).append(item)
    made = (
        Row(
            kind=kind,
            number=len(each),
            size=sum(item.size for item in each),
            oldest=min(item.used for item in each),
            freed=sum(item.path in freed for item in each),
            freed_size=sum(item.size for item in each if item.path in freed),
            needed_by=tuple(sorted({name for item in each for name in item.needed_by})),
        )
        for kind, each in kinds.items()
    )
    return tuple(sorted(made, key=lambda row: (-row.size, row.kind)))


def parse_age(text: str) -> float:
    """``30d`` in seconds; also hours (``12h``) and weeks (``4w``). Raises ``SettingsError``."""
    match = re.fullmatch(r"([0-9]+)([hdw])", text)
    if match is None:
        raise SettingsError(f"--older-than {text}: not an age", remedy="pass a number of days (30d), 12h or 4w")
    return int(match[1]) * UNITS_OF_AGE[match[2]]


def parse_size(text: str) -> int:
    """``20GB`` in bytes; the unit is one of ``UNITS_OF_SIZE``. Raises ``SettingsError``."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]+)", text)
    unit = next((name for name in UNITS_OF_SIZE if match is not None and name.lower() == match[2].lower()), None)
    if match is None or unit is None:
        raise SettingsError(f"--keep-below {text}: not a size", remedy="pass a size with its unit: 20GB, 500MB or 8GiB")
    return int(float(match[1]) * UNITS_OF_SIZE[unit])
