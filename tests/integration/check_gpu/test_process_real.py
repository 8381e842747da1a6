"""The processes of the check when it is interrupted, at any time: none is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from check_gpu import process

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.integration, pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")]

ROOT = Path(process.__file__).parents[1]


@pytest.fixture(autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """Not even if the tests run under nohup, or behind the shell of a script: their processes inherit it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def interpreter(tmp_path: Path) -> Iterator[Path]:
    """An interpreter that never ends, and writes its number into a file next to it."""
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/number\nexec sleep 600\n")
    file.chmod(0o755)
    yield file
    number = tmp_path / "number"
    if number.exists() and runs(int(number.read_text())):
        os.kill(int(number.read_text()), signal.SIGKILL)


def runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{number}/stat").read_text().split() if sys.platform == "linux" else True


def started(interpreter: Path) -> int:
    number = interpreter.with_name("number")
    until = time.monotonic() + 20
    while not number.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    return int(number.read_text())


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_check_that_is_asked_to_end_leaves_nothing(interpreter: Path, name: str, status: int) -> None:
    command = [sys.executable, "-m", "check_gpu", "--python", str(interpreter), "--model", __file__]
    place = interpreter.parent
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(place)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as check:
        number = started(interpreter)
        check.send_signal(getattr(signal, name))
        assert check.wait(20) == status
        assert check.stdout is not None
        assert b"Traceback" not in check.stdout.read()
    assert not runs(number)
    assert not [*place.glob("check-gpu-*")], "its temporary folder"


@pytest.mark.parametrize("moment", ["start", "end"])
def test_ctrl_c_while_a_process_is_started_or_ended(
    interpreter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    really = subprocess.Popen
    end = process._end  # the moment before it kills

    def start(*arguments: object, **named: object) -> subprocess.Popen[bytes]:
        child = really(*arguments, **named)  # type: ignore[call-overload]
        if moment == "start":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        started(interpreter)
        return child  # type: ignore[no-any-return]

    def interrupted(child: subprocess.Popen[bytes]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        end(child)

    monkeypatch.setattr(subprocess, "Popen", start)
    if moment == "end":
        monkeypatch.setattr(process, "_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.run(str(interpreter), "find", (), tmp_path, timeout=0.5)
    assert not runs(started(interpreter))


def test_a_signal_that_is_ignored_stays_ignored(interpreter: Path, tmp_path: Path) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGHUP))
        timer.start()
        ended = process.run(str(interpreter), "find", (), tmp_path, timeout=1)
        timer.join()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended.how == "no answer within 1 seconds"


def test_a_process_in_another_thread_ends_as_in_the_first(interpreter: Path, tmp_path: Path) -> None:
    ended: list[process.EndedProcess] = []
    thread = threading.Thread(
        target=lambda: ended.append(process.run(str(interpreter), "find", (), tmp_path, timeout=0.5))
    )
    thread.start()
    thread.join(20)
    assert ended[0].how == "no answer within 0 seconds"
    assert not runs(started(interpreter))
