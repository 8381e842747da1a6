"""The command line: as users start it, and the same without the second that a new process takes to import it."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys

import pytest

from build_config import __main__ as command_line
from build_config.system.layout import PACKAGE


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m build_config`` with these arguments."""
    command = [sys.executable, "-m", "build_config", *map(str, arguments)]
    return subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)


def call_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the same in this process: what is printed and the exit code are those of ``call``. For quick commands only.

    An error that the command line does not turn into an exit code passes through.
    """
    out, err = io.StringIO(), io.StringIO()
    argv = ["build_config", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", argv)
        patch.setattr(signal, "signal", lambda *_: None)  # what ends this process stays pytest's
        patch.chdir(PACKAGE.parent)
        with pytest.raises(SystemExit) as end:
            command_line.main()
    assert isinstance(end.value.code, int)
    return subprocess.CompletedProcess(argv, end.value.code, out.getvalue(), err.getvalue())
