"""Feed one parser: how many inputs, how long, how much memory, and what ended otherwise than by its own errors."""

from __future__ import annotations

import hashlib
import random
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from measurements.fuzz import mutate

if TYPE_CHECKING:
    from types import FrameType

    from measurements.fuzz.targets import Target

SECONDS_ALLOWED = 5.0
"""For one input of at most ``mutate.LARGEST`` bytes: more is a hang."""
MEMORY_ALLOWED = 1 << 30
"""Bytes that a process may use on top of what it has: a parser of 64 kB needs a small part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """An input that ended otherwise. ``name`` identifies the place in the source."""

    name: str
    what: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The run of one parser. ``refused`` inputs ended by an error of its own, the others were read."""

    target: str
    inputs: int
    refused: int
    seconds: float
    slowest: float
    finds: tuple[Find, ...]


class HangError(BaseException):
    """An input takes too long. No parser can catch it by accident."""


def fuzz(target: Target, seed: int, *, seconds: float | None = None, inputs: int | None = None) -> Outcome:
    """Feed ``target`` for some seconds, or with a number of inputs; the same seed gives the same inputs.

    Sound inputs come first, and must be read or refused, too.
    """
    chance = random.Random(f"{target.name} {seed}")  # noqa: S311  # for a repeatable run, not for a secret
    seeds = target.seeds()
    start = time.monotonic()
    count = refused = 0
    slowest = 0.0
    finds: dict[str, Find] = {}
    while (inputs is None or count < inputs) and (seconds is None or time.monotonic() - start < seconds):
        data = seeds[count] if count < len(seeds) else mutate.damaged(seeds, chance)
        before = time.perf_counter()
        ended, found = feed(target, data)
        slowest = max(slowest, time.perf_counter() - before)
        count += 1
        refused += ended
        if found is not None:
            finds.setdefault(found.name, found)
    return Outcome(
        target=target.name,
        inputs=count,
        refused=refused,
        seconds=round(time.monotonic() - start, 2),
        slowest=round(slowest, 4),
        finds=tuple(finds.values()),
    )


def feed(target: Target, data: bytes) -> tuple[bool, Find | None]:
    """Whether one input was refused, and the find if it ended otherwise."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _hang)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_ALLOWED)
    try:
        target.run(data)
    except target.allowed:
        return True, None
    except (Exception, HangError) as error:  # noqa: BLE001  # that is the question
        return False, _find(error, data)
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
    return False, None


def limit_memory() -> None:
    """Let an input that needs too much memory end with ``MemoryError``; not on Windows."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  # Windows has none

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # one line
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_ALLOWED, resource.RLIM_INFINITY))


def _hang(_: int, __: FrameType | None) -> None:
    raise HangError


def _find(error: BaseException, data: bytes) -> Find:
    """The find, named by its last place in this project."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    own = [frame for frame in frames if "/measurements/" not in frame.filename] or frames
    place = own[0] if isinstance(error, (HangError, RecursionError)) else own[-1]
    where = f"{place.filename.rpartition('/')[2]}:{place.name}"
    name = hashlib.sha256(f"{type(error).__name__} {where}".encode()).hexdigest()[:12]
    return Find(name=name, what=f"{type(error).__name__} in {where}: {str(error)[:120]}", data=data)
