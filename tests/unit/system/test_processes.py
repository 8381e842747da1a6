"""What the runner makes of a command and of a failed program, without running one."""

from pathlib import Path

import psutil
import pytest

from build_config.errors import CommandError, DiskFullError, PipelineError
from build_config.system import processes
from build_config.system.processes import Command, Completed
from tests.support import systems


def failed(output: str, log: Path | None = None) -> Completed:
    return Completed(command=Command(argv=("cc1plus", "a.cpp"), log=log), returncode=1, output=output, seconds=1.0)


def test_changes_are_applied_on_top_of_our_environment_or_of_the_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("REMOVED", "1")
    ours = Command(argv=("true",), changes={"REMOVED": None, "ADDED": "2", "KEPT": "3"}).full_environment()
    assert (ours["KEPT"], ours["ADDED"], "REMOVED" in ours, "PATH" in ours) == ("3", "2", False, True)
    given = Command(argv=("true",), environment={"PATH": "/bin"}, changes={"CC": "gcc", "PATH": None})
    assert given.full_environment() == {"CC": "gcc"}


@pytest.mark.parametrize("error", [psutil.NoSuchProcess(2), OSError(22, "Invalid parameter")])
def test_a_child_that_ends_while_it_is_looked_at_is_left_out(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, psutil passes some errors of the system on as they are."""

    class Child:
        def __init__(self, arguments: list[str] | None) -> None:
            self.arguments = arguments

        def cmdline(self) -> list[str]:
            if self.arguments is None:
                raise error
            return self.arguments

    class Parent:
        def __init__(self, _pid: int) -> None:
            pass

        def children(self) -> list[Child]:
            return [Child(None), Child(["cl", "a.cpp"])]

    monkeypatch.setattr(psutil, "Process", Parent)
    assert list(processes.running_arguments(1)) == [("cl", "a.cpp")]


def test_a_call_is_shown_so_that_it_can_be_typed() -> None:
    command = Command(argv=("g++", "a b.cpp", "-DX='1'"), changes={"LC_ALL": "C", "FLAGS": "-O2 -g", "HOME": None})
    for_sh = """LC_ALL=C FLAGS='-O2 -g' g++ 'a b.cpp' '-DX='"'"'1'"'"''"""
    for_cmd = """set "LC_ALL=C" && set "FLAGS=-O2 -g" && g++ "a b.cpp" -DX='1'"""

    assert str(command) == (for_cmd if systems.ON_WINDOWS else for_sh)


@pytest.mark.parametrize(
    "line",
    [
        "cc1.s: fatal error: No space left on device",
        "ld: final link failed: no space left on device",
        "OSError: [Errno 122] Disk quota exceeded",
    ],
)
def test_a_full_disk_is_recognised(line: str) -> None:
    with pytest.raises(DiskFullError) as caught:
        processes.raise_for(failed(f"[12/40] cc1plus\n{line}\nninja: build stopped", log=Path("build.log")))

    assert "build.log" in str(caught.value)


def test_the_reason_is_at_the_end_of_a_long_output() -> None:
    output = "\n".join(f"line {number}" for number in range(1000)) + "\n\na.cpp:3: error: no such thing\n"

    with pytest.raises(CommandError) as caught:
        processes.raise_for(failed(output))

    assert "error: no such thing" in str(caught.value)
    assert "line 900" not in str(caught.value)
    assert "cc1plus a.cpp ended with status 1" in str(caught.value)


def test_message_remedy_and_log_stand_on_lines_of_their_own() -> None:
    error = PipelineError("It failed.", remedy="do this", log=Path("x.log"))

    assert str(error).splitlines() == ["It failed.", "To fix it: do this", "Complete log: x.log"]


def test_a_folder_that_a_process_works_in_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not processes.is_in_use(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert processes.is_in_use(tmp_path)
