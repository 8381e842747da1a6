"""diffoscope's own account, where it is installed: longer than ours, and for those who want to see every byte."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.system import processes
from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPORT = "diffoscope.txt"
SECONDS_ALLOWED = 300.0
_DIFFERENT = 1


def compare(first: Path, second: Path, folder: Path, seconds_allowed: float = SECONDS_ALLOWED) -> Iterator[Difference]:
    """Where its text is, or why there is none; nothing where diffoscope is not installed."""
    program = find()
    if program is None:
        return
    report = folder / REPORT
    folder.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = processes.Command(argv=(program, "--text", str(report), str(first), str(second)))
    try:
        done = processes.run(command, check=False, timeout=seconds_allowed)
    except CommandError as error:
        detail = f"diffoscope says nothing: {error.message}"
    else:
        detail = f"what diffoscope says is in {report}"
        if done.returncode not in (0, _DIFFERENT) or not report.is_file():
            detail = f"diffoscope says nothing: it {done.ending}: {done.last_words}"
    yield Difference(member=first.name, kind=DifferenceKind.DIFFOSCOPE, detail=detail)


def find() -> str | None:
    """Its path, or ``None``."""
    return shutil.which("diffoscope")
