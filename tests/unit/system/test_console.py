"""What people see: readable times and sizes, progress that reaches a log file, text that is not taken for markup."""

import io
import json
import sys

import pytest

from build_config.system import console
from build_config.system.console import Console, duration, megabytes


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (12.4, "12 s"),
        (59.6, "1 min 00 s"),
        (75, "1 min 15 s"),
        (3599.7, "1 h 00 min"),
        (3720, "1 h 02 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_are_in_millions_of_bytes() -> None:
    assert megabytes(29_449_999) == "29.4 MB"


def test_text_is_printed_as_it_is_and_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    command = "python -m pip install --find-links " + "folder/" * 60 + " llama-cpp-python"
    shown = Console(terminal=False)
    shown.note("units[core] of [bold]x[/bold]")
    shown.note(command)
    shown.warn("[red]")
    shown.error("gcc said: [-Wreturn-type]")
    shown.table("t", (("name", "[/]"),))
    printed = capsys.readouterr().out
    for text in ("units[core] of [bold]x[/bold]", command, "[red]", "[-Wreturn-type]", "[/]"):
        assert text in printed


def test_a_table_in_a_log_folds_no_text_of_a_hundred_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    Console(terminal=False).table("", (("Work root", "ok", "x" * 100),))
    assert "x" * 100 in capsys.readouterr().out


def test_json_for_programs_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "[bold]:smile: 1234" + "x" * 300}
    Console(terminal=False).raw(json.dumps(value))

    assert json.loads(capsys.readouterr().out) == value


def test_raw_text_keeps_its_tabs_and_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    Console(terminal=True).raw("a\tb  \n\n [bold] ")

    assert capsys.readouterr().out == "a\tb  \n\n [bold] \n"


def test_raw_text_that_the_stream_cannot_encode_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))

    shown = Console(terminal=False)
    for _ in range(2):
        with pytest.raises(UnicodeEncodeError, match="PYTHONIOENCODING"):
            shown.raw("caf\N{LATIN SMALL LETTER E WITH ACUTE}")
        assert written.getvalue() == b""
        assert shown._rich is not None, "it lets all other lines pass"


def test_a_line_that_a_log_file_of_windows_cannot_hold_is_shown_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirected output has the code page there; what a program printed in another one becomes U+FFFD."""
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", screen := io.TextIOWrapper(written, encoding="cp1252"))
    Console(terminal=False).error("cl: Datei \ufffdffnen in C:\\Users\\家\\J\xf6rg")
    screen.flush()
    assert rb"error: cl: Datei \ufffdffnen in C:\Users\\u5bb6\J" + "ö".encode("cp1252") + b"rg" in written.getvalue()


def test_a_step_prints_its_title_first_and_is_timed_also_if_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Console(terminal=False)
    with shown.step("sources", "Fetching sources"):
        shown.note("inside")
    first, inside, last = capsys.readouterr().out.splitlines()
    assert "Fetching sources" in first
    assert "inside" in inside
    assert "sources: 0 s" in last
    with pytest.raises(KeyError), shown.step("build", "Building"):
        raise KeyError
    assert [timing.step for timing in shown.timings] == ["sources", "build"]


def test_without_a_terminal_progress_is_a_line_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(terminal=False).progress("shard sm89", total=100) as bar:
        for second in range(10, 71, 10):
            bar.started -= 10  # ten seconds pass
            bar.last_line -= 10
            bar.update(second, note=f"file{second}.cu [{second}]")

    lines = capsys.readouterr().out.splitlines()
    told = ["shard sm89: 30 %, ETA 1 min 10 s, file30.cu [30]", "shard sm89: 60 %, ETA 40 s, file60.cu [60]"]
    assert [line.strip() for line in lines] == told


@pytest.mark.parametrize("terminal", [False, True])
def test_without_a_total_and_in_a_terminal_that_cannot_move_its_cursor_there_are_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.0)
    with Console(terminal=terminal).progress("fetching", total=0) as bar:
        bar.update(0)
        bar.update(5, total=10, eta=90)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["fetching: 0 %, ETA ?", "fetching: 50 %, ETA 1 min 30 s"]


def test_in_a_terminal_the_bar_moves_and_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    with Console(terminal=True).progress("shard [sm89]", total=4) as bar:
        bar.update(1, note="mmq[1].cu", eta=90)
        assert bar.rich is not None
        bar.rich.refresh()

    printed = capsys.readouterr().out
    assert "shard [sm89]" in printed
    assert "mmq[1].cu" in printed
    assert "25 %" in printed
    assert "ETA 1 min 30 s" in printed
    assert printed.rstrip().endswith("\x1b[2K")  # the line is cleared at the end


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "agreed"), [("y\n", True), ("Yes \n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_a_yes_is_agreement(monkeypatch: pytest.MonkeyPatch, typed: str, *, agreed: bool) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stdout", screen)
    assert Console().confirm("Free [all]?") is agreed
    assert "Free [all]? [y/N]" in screen.getvalue()


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert Console().confirm("Free?") is None
