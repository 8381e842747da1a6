"""Marks for tests that one system cannot run, each with its reason, and the answers of Windows' own programs."""

import os
import sys
from pathlib import Path

import pytest

from build_config.system import platforms, processes
from build_config.system.platforms.windows import WINDOWS

ON_WINDOWS = sys.platform == "win32"
ME = "S-1-5-21-1004336348-1177238915-682003330-1001"
OURS = f"D:PAI(A;OICI;FA;;;{ME})(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
"""The access list of a folder that only ``ME`` and administrators may change."""


def linux_only(reason: str) -> pytest.MarkDecorator:
    """Of code that Windows never runs: ``reason`` says which."""
    return pytest.mark.skipif(ON_WINDOWS, reason=reason)


modes = linux_only("Windows has no modes: access lists decide there (test_access.py)")
links = linux_only("only administrators make symbolic links on Windows")
proc = linux_only("only Linux has /proc, from which check_gpu --pid reads")
second_builds = linux_only("a second build needs Linux's namespaces")
root_only = pytest.mark.skipif(ON_WINDOWS or os.getuid() != 0, reason="only root can give a folder away")


def mode(number: int) -> int:
    """What ``stat`` says of a file that was given this mode: on Windows only whether anybody may write it."""
    return number if not ON_WINDOWS else 0o666 if number & 0o200 else 0o444


def answer_as_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``icacls`` and ``whoami`` answer that a folder is this user's alone; no process is started."""

    def run(command: processes.Command, **_: object) -> processes.Completed:
        if "/save" in command.argv:
            text = f"{Path(command.argv[1]).name}\r\n{OURS}\r\n"
            Path(command.argv[3]).write_bytes(text.encode("utf-16-le"))
        output = f'"machine\\user","{ME}"\r\n' if command.argv[0] == "whoami" else ""
        return processes.Completed(command=command, returncode=0, output=output, seconds=0.0)

    monkeypatch.setattr(platforms, "HERE", WINDOWS)
    monkeypatch.setattr(processes, "run", run)
