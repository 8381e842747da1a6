"""Logs that no llama.cpp wrote as they are: redacted, hostile, or unreadable. None of them ends in a traceback."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from typing import TYPE_CHECKING

import pytest

from check_gpu import __main__ as command_line
from check_gpu import log, log_file
from tests.support import systems

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "line",
    [
        "load_tensors: CUDA0 model buffer size = .... MiB",
        "load_tensors: CUDA0 model buffer size = 12.34.56 MiB",
        f"load_tensors: CUDA0 model buffer size = {'9' * 400} MiB",
        f"load_tensors: layer {'9' * 5000} assigned to device CUDA0",
        "load_tensors: offloaded 5/99999999999999 layers to GPU",
    ],
    ids=lambda line: line[:50],
)
def test_a_number_that_is_none_is_no_evidence(line: str) -> None:
    assert log.read([line]) == log.Signs()


def test_a_long_line_without_spaces_takes_no_time() -> None:
    started = time.monotonic()
    for text in ("x" * 20000 + "buffer size", "exit" * 5000 + "code 139x"):
        log.read([text])
    assert time.monotonic() - started < 1


def test_json_that_is_too_deep_is_plain_text() -> None:
    line = '{"log":' + "[" * 100_000
    assert log_file.unwrap(line) == [line]


@pytest.mark.parametrize("file", ["a" * 5000, pytest.param("/proc/self/mem", marks=systems.proc)])
def test_a_log_that_cannot_be_read_is_a_wrong_option(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--log", file])
    assert ended.value.code == 2
    # A name may be too long to be one: Windows finds no such file, Linux says why.
    assert re.search(r"cannot be read|there is no file", capsys.readouterr().err)


@pytest.mark.parametrize("said", ["错误", "\ud800"], ids=["Chinese", "half a character"])
def test_a_terminal_that_cannot_print_a_message(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.log"
    file.write_text(json.dumps({"log": f"CUDA error: {said}"}), encoding="utf-8")
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert command_line.main(["--log", str(file)]) == 1
    screen.flush()
    assert b"CUDA error" in screen.buffer.getvalue() or b"CUDA failed" in screen.buffer.getvalue()
