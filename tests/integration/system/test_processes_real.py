"""The runner with real programs: logs, limits, a full disk, and a Ctrl-C that leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from build_config.errors import CommandError, DiskFullError, InterruptedRunError
from build_config.system import processes
from build_config.system.layout import PACKAGE
from build_config.system.processes import Command
from build_config.tasks.reproduce import second_build

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="uses Linux devices and tools")

# Runs one command as the pipeline does, and ends with the exit code that an interruption has.
RUN_ONE = """
import sys
from pathlib import Path
from build_config.system import processes
from build_config.errors import InterruptedRunError
try:
    command = processes.Command(argv=tuple(sys.argv[2:]), log=Path(sys.argv[1]))
    processes.run(command, on_line=lambda line: print(line, flush=True))
except InterruptedRunError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def interrupt(tmp_path: Path, script: str) -> tuple[float, int, str, list[int]]:
    """Start ``script`` (bash) under the runner and press Ctrl-C once it has printed the ids of its processes.

    Returns the seconds until it was over, its status, what it printed last, and which of those processes are left.
    """
    argv = [sys.executable, "-c", RUN_ONE, str(tmp_path / "log.txt"), "bash", "-c", script]
    with subprocess.Popen(argv, cwd=PACKAGE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
        status = process.wait(timeout=10)
        seconds = time.monotonic() - start
    left = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    return seconds, status, output, left


@linux_only
def test_ctrl_c_stops_what_is_being_started_at_that_moment(tmp_path: Path) -> None:
    script = "echo $$; while :; do sleep 300.25 & done"
    _, status, _, left = interrupt(tmp_path, script)

    assert left == []
    assert status == InterruptedRunError.exit_code
    assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "300.25"]]


@linux_only
@pytest.mark.parametrize(
    "script",
    [
        "setsid sleep 300 & one=$!; sleep 300 & echo $$ $one $!; wait",
        "trap '' INT TERM; (trap '' INT TERM; while :; do sleep 0.2; done) & echo $$ $!; while :; do sleep 0.2; done",
    ],
    ids=["grandchildren in their own sessions", "a program that ignores signals"],
)
def test_ctrl_c_stops_a_command_in_time(tmp_path: Path, script: str) -> None:
    seconds, status, output, left = interrupt(tmp_path, script)

    assert left == []
    assert status == InterruptedRunError.exit_code
    assert seconds < 2.0
    assert "Finished files are kept" in output
    assert str(tmp_path / "log.txt") in output


def test_log_holds_the_call_with_its_changes_and_everything_printed(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "step.log"
    seen: list[str] = []
    code = "import os, sys; print(os.environ['FLAVOUR']); print('to stderr', file=sys.stderr)"
    command = Command(argv=(sys.executable, "-u", "-c", code), changes={"FLAVOUR": "plain", "HOME": None}, log=log)

    completed = processes.run(command, on_line=seen.append)

    assert seen == ["plain", "to stderr"]
    assert completed.returncode == 0
    assert completed.output == "plain\nto stderr"
    assert completed.seconds > 0
    first, *rest = log.read_text(encoding="utf-8").splitlines()
    assert first.startswith("$ FLAVOUR=plain ")
    assert rest == ["plain", "to stderr"]


def test_log_of_a_second_call_follows_the_first(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    for word in ("one", "two"):
        processes.run(Command(argv=(sys.executable, "-c", f"print('{word}')"), log=log))

    assert [line for line in log.read_text(encoding="utf-8").splitlines() if line[0] != "$"] == ["one", "two"]


def test_bytes_that_are_no_text_do_not_stop_a_build() -> None:
    code = "import sys; sys.stdout.buffer.write(b'caf\\xe9\\n')"

    assert processes.run(Command(argv=(sys.executable, "-c", code))).output == "caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "argv",
    [("sleep", "60"), pytest.param(("bash", "-c", "exec >&- 2>&-; sleep 60"), marks=linux_only)],
    ids=["silent", "closed its output"],
)
def test_a_timeout_stops_a_program(tmp_path: Path, argv: tuple[str, ...]) -> None:
    start = time.monotonic()
    with pytest.raises(CommandError, match="did not end within 1 s"):
        processes.run(Command(argv=argv, log=tmp_path / "log"), timeout=1)
    assert time.monotonic() - start < 4


@linux_only
def test_a_server_that_keeps_the_output_open_does_not_hold_up_the_run() -> None:
    start = time.monotonic()
    completed = processes.run(Command(argv=("bash", "-c", "setsid sleep 30 & echo $!")))
    try:
        assert time.monotonic() - start < 5
    finally:
        os.kill(int(completed.output), signal.SIGKILL)


def test_a_failure_shows_the_call_its_status_and_its_last_lines(tmp_path: Path) -> None:
    code = "print('first'); print('the reason'); raise SystemExit(7)"
    with pytest.raises(CommandError) as caught:
        processes.run(Command(argv=(sys.executable, "-c", code), log=tmp_path / "log"))

    assert "ended with status 7" in str(caught.value)
    assert "the reason" in str(caught.value)
    assert caught.value.log == tmp_path / "log"


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandError, match=r"no-such-program could not be started: No such file"):
        processes.run(Command(argv=("no-such-program",)))


@linux_only
def test_a_full_disk_is_told_from_a_compile_error(tmp_path: Path) -> None:
    source = tmp_path / "a.cpp"
    source.write_text("int main() { return 0; }\n", encoding="utf-8")

    with pytest.raises(DiskFullError, match="The disk is full") as caught:
        processes.run(Command(argv=("g++", str(source), "-o", "/dev/full"), log=tmp_path / "log"))
    assert "nox -s doctor" in str(caught.value)

    source.write_text("int main() { return nothing; }\n", encoding="utf-8")
    with pytest.raises(CommandError, match="nothing"):
        processes.run(Command(argv=("g++", str(source), "-o", str(tmp_path / "a"))))


def test_on_tick_sees_what_a_build_tool_is_busy_with() -> None:
    busy: list[tuple[str, ...]] = []

    def tick(pid: int) -> None:
        busy.extend(processes.running_arguments(pid))

    processes.run(Command(argv=("bash", "-c", "sleep 1.3; true")), on_tick=tick)

    assert ("sleep", "1.3") in busy


@linux_only
def test_strays_of_a_killed_build_are_stopped_and_others_are_left_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "build" / "shard", tmp_path / "elsewhere"
    inside.mkdir(parents=True)
    outside.mkdir()
    with (
        subprocess.Popen(["sleep", "300"], cwd=inside, start_new_session=True) as stray,
        subprocess.Popen(["sleep", "300"], cwd=outside) as other,
    ):
        try:
            assert processes.stop_strays(tmp_path / "build") == 1
            assert stray.wait(timeout=5) == -signal.SIGKILL
            assert other.poll() is None
        finally:
            stray.kill()
            other.kill()


@linux_only
def test_a_process_that_has_other_files_at_the_same_paths_is_left_alone(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        shutil.copy2("/bin/sleep", folder / "sleep")
    script = f"mount --bind {theirs} {ours} && cd {ours} && exec {ours}/sleep 300"
    with (
        subprocess.Popen([*second_build.namespaces(), "sh", "-c", script]) as elsewhere,
        subprocess.Popen([ours / "sleep", "300"], cwd=ours) as here,
    ):
        try:
            deadline = time.monotonic() + 10
            while psutil.Process(elsewhere.pid).exe() != str(ours / "sleep"):
                assert time.monotonic() < deadline, "the path tells them apart already"
                time.sleep(0.05)
            assert psutil.Process(elsewhere.pid).cwd() == str(ours)
            assert processes.stop_program(ours / "sleep") == 1
            assert processes.stop_strays(ours) == 0
            assert here.wait(timeout=5) == -signal.SIGKILL
            assert elsewhere.poll() is None
        finally:
            elsewhere.kill()
            here.kill()
