"""The only module that prints: headings, notes, progress with an ETA, timings, the closing summary.

Colours and a moving bar in a terminal; plain lines, one every 30 seconds on long work, everywhere else.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from build_config.reports import Finding, ScenarioResult, Severity, StepTiming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID  # noqa: TC004  # jsonio never reads a ProgressBar

PLAIN_INTERVAL = 30.0
"""Seconds between lines of progress without a terminal."""

PLAIN_WIDTH = 120
"""Columns of a table without a terminal: 80, the usual assumption, folds a path into three lines."""


def duration(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``; below a minute ``12 s``; hours as ``1 h 02 min``."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def escape(text: str) -> str:
    """Escape text so that it is not taken for markup."""
    from rich import markup  # noqa: PLC0415  # see Console._rich

    return markup.escape(text)


def megabytes(size: float) -> str:
    """Format bytes as megabytes of a million bytes."""
    return f"{size / 1e6:.1f} MB"


@dataclass(slots=True)
class ProgressBar:
    """One long task. ``total`` and ``completed`` are in a unit of the caller's choice; ``eta`` is in seconds."""

    description: str
    total: float
    emit: Callable[[str], None]
    rich: Progress | None = None
    task: TaskID | None = None
    started: float = field(default_factory=time.monotonic)
    completed: float = 0.0
    last_line: float = field(default_factory=time.monotonic)

    def update(self, completed: float, *, total: float | None = None, note: str = "", eta: float | None = None) -> None:
        """Set the progress. Without ``eta`` the remaining time is projected from the pace so far."""
        self.completed = completed
        if total is not None:
            self.total = total
        if eta is None:
            eta = self._projected()
        remaining = f"ETA {duration(eta)}" if eta is not None else "ETA ?"
        if self.rich is not None and self.task is not None:
            self.rich.update(
                self.task, completed=completed, total=self.total or None, eta=remaining, note=escape(note)[:60]
            )
        elif time.monotonic() - self.last_line >= PLAIN_INTERVAL:
            self.last_line = time.monotonic()
            share = 100 * completed / self.total if self.total else 0.0
            text = f"  {self.description}: {share:.0f} %, {remaining}"
            self.emit(f"{text}, {note}" if note else text)

    def _projected(self) -> float | None:
        elapsed = time.monotonic() - self.started
        if self.completed <= 0 or elapsed < 1.0:
            return None
        return max(0.0, (self.total - self.completed) * elapsed / self.completed)


class Console:
    """All output to the user. ``terminal`` forces or forbids the moving bar; by default the stream decides."""

    def __init__(self, *, terminal: bool | None = None) -> None:
        self._file = sys.stdout
        self._terminal = terminal
        self._timings: list[StepTiming] = []

    @functools.cached_property
    def _rich(self) -> RichConsole:
        from rich import console  # noqa: PLC0415  # slow to import, and a command that prints JSON needs none of it

        # On Windows a log file or a pipe has the system's code page. A path, or what a program said, may not fit.
        if isinstance(self._file, io.TextIOWrapper) and self._file.errors == "strict":
            self._file.reconfigure(errors="backslashreplace")
        terminal = self._file.isatty() if self._terminal is None else self._terminal
        width = None if terminal or "COLUMNS" in os.environ else PLAIN_WIDTH
        return console.Console(
            file=self._file, force_terminal=self._terminal, width=width, highlight=False, soft_wrap=True, emoji=False
        )

    @property
    def timings(self) -> tuple[StepTiming, ...]:
        """The finished steps, in order."""
        return tuple(self._timings)

    @contextlib.contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """Print a heading, then the wall time of the block, which ``timings`` keeps under ``name``."""
        self._rich.print(f"[bold cyan]==>[/] [bold]{escape(title)}[/]")
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - start
            self._timings.append(StepTiming(step=name, seconds=round(seconds, 3)))
        self._rich.print(f"    [dim]{escape(name)}: {duration(seconds)}[/]")

    def note(self, text: str) -> None:
        """Print a line of information."""
        self._rich.print(f"    {escape(text)}")

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._rich.print(f"[bold yellow]warning:[/] {escape(text)}")

    def error(self, text: str) -> None:
        """Print the last message of a failed run."""
        self._rich.print(f"[bold red]error:[/] {escape(text)}")

    def confirm(self, question: str) -> bool | None:
        """Ask a question in the terminal; ``None`` if there is none."""
        if not (sys.stdin.isatty() and self._file.isatty()):
            return None
        try:
            return self._rich.input(f"{escape(question)} \\[y/N] ").strip().lower() in {"y", "yes"}
        except EOFError:
            return False

    def findings(self, findings: tuple[Finding, ...]) -> None:
        """Print one line for each finding, with its severity in colour."""
        colours = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
        for finding in findings:
            colour = colours[finding.severity]
            self._rich.print(f"    [{colour}]{finding.severity}[/] {escape(finding.code)}: {escape(finding.message)}")

    def scenarios(self, results: tuple[ScenarioResult, ...]) -> None:
        """Print one line for each scenario, and below it the message that a user would see."""
        width = max((len(result.name) for result in results), default=0)
        said = None
        for result in results:
            colour, word = ("green", "passed") if result.passed else ("bold red", "FAILED")
            self._rich.print(f"    [{colour}]{word}[/] {escape(result.name):<{width}}  {escape(result.shows)}")
            if result.said and result.said != said:
                self._rich.print(f"           [dim]{escape(result.said)}[/]")
                said = result.said
            self.findings(result.findings)

    def placements(self, result: ScenarioResult) -> None:
        """Print where each layer and its cache are, and how much memory they use."""
        rows = tuple((str(layer.layer), layer.weights or "?", layer.kv_cache or "-") for layer in result.placements)
        self.table("", rows, header=("layer", "weights on", "KV cache on"))
        sizes = ", ".join(f"{buffer.name} {buffer.purpose} {megabytes(buffer.size)}" for buffer in result.buffers)
        self.note(f"buffers: {sizes or 'none in the log'}")

    def raw(self, text: str) -> None:
        """Print text for another program (JSON, a list) without changes, or raise ``UnicodeEncodeError``."""
        try:
            text.encode(self._file.encoding or "utf-8", "surrogateescape")  # ``_rich`` may have let the stream replace
            self._file.write(f"{text}\n")
            self._file.flush()
        except UnicodeEncodeError as error:
            error.reason += "; set PYTHONIOENCODING=utf-8"
            raise
        except BrokenPipeError:
            self._rich.print(text, markup=False)  # fails again, and ends the way every other line does

    @contextlib.contextmanager
    def progress(self, description: str, total: float) -> Iterator[ProgressBar]:
        """Show a bar with an ETA in a terminal, else plain lines."""
        if not self._rich.is_terminal or self._rich.is_dumb_terminal:
            yield ProgressBar(description, total, self.note)
            return
        from rich import progress  # noqa: PLC0415  # see _rich

        columns = (
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.percentage:>3.0f} %"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[eta]}"),
            progress.TextColumn("[dim]{task.fields[note]}[/]"),
        )
        with progress.Progress(*columns, console=self._rich, transient=True, refresh_per_second=4) as rich:
            task = rich.add_task(escape(description), total=total or None, eta="", note="")
            yield ProgressBar(description, total, self.note, rich, task)

    def summary(self, title: str, rows: tuple[tuple[str, str], ...]) -> None:
        """Print names and values, one pair on each line, never folded, so that a value can be copied."""
        width = max(len(name) for name, _ in rows) + 2
        self._rich.print(f"[bold green]{escape(title)}[/]")
        for name, value in rows:
            self._rich.print(f"  {escape(name):<{width}}{escape(value)}")

    def table(self, title: str, rows: tuple[tuple[str, ...], ...], header: tuple[str, ...] = ()) -> None:
        """Print rows of text in columns."""
        from rich.table import Table  # noqa: PLC0415  # see _rich

        table = Table(title=title, title_justify="left", show_header=bool(header), box=None, pad_edge=False)
        for column in header or ("",) * max((len(row) for row in rows), default=0):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._rich.print(table)
