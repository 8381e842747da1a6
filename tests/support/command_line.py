"""Call the command line as users do, and also without the second that a new process needs for imports."""

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
    """Run the same in this process, with the output and exit code of ``call``. For quick commands only.

    An error that the command line does not convert to an exit code is raised.
    """
    out, err = io.StringIO(), io.StringIO()
    argv = ["build_config", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", argv)
        patch.setattr(signal, "signal", lambda *_: None)  # keep pytest's signal handlers
        patch.chdir(PACKAGE.parent)
        with pytest.raises(SystemExit) as end:
            command_line.main()
    assert isinstance(end.value.code, int)
    return subprocess.CompletedProcess(argv, end.value.code, out.getvalue(), err.getvalue())
