"""Logs with their diagnoses, a file for each kind of fault; the lines are those that the named sources print."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

KINDS = "ABCDEFJ"  # G to I are not about the lines of a log


@dataclass(frozen=True)
class Case:
    """A log, the code that is expected, and parts of the sentence and of the command. ``given``: as it was reported."""

    kind: str
    name: str
    log: str
    expected: str
    says: tuple[str, ...]
    fix: str
    given: bool


def read(kind: str) -> list[Case]:
    """The cases of one kind."""
    data = tomllib.loads((Path(__file__).parent / f"{kind}.toml").read_text(encoding="utf-8"))
    return [
        Case(
            kind=kind,
            name=case["name"],
            log=case["log"],
            expected=case["expected"],
            says=tuple(case["says"]),
            fix=case["fix"],
            given=case.get("given", False),
        )
        for case in data["case"]
    ]


CASES = [case for kind in KINDS for case in read(kind)]
