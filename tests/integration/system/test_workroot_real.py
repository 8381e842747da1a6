from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from build_config.errors import InterruptedRunError
from build_config.system import workroot
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

HOLD = """
import sys
from pathlib import Path
from build_config.system import workroot
from build_config.system.console import Console
from build_config.system.layout import Layout

layout = Layout(checkout=Path("/some/checkout"), work_root=Path(sys.argv[1]))
with workroot.claim(layout, purpose="build --arch 120", console=Console(terminal=False)):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_build(layout: Layout) -> Iterator[subprocess.Popen[str]]:
    """A process that has the work root until its input is closed."""
    argv = [sys.executable, "-c", HOLD, str(layout.work_root)]
    with subprocess.Popen(
        argv, cwd=PACKAGE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def let_go(process: subprocess.Popen[str], after: float) -> None:
    time.sleep(after)
    assert process.stdin is not None
    process.stdin.close()


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    return Layout(checkout=tmp_path, work_root=tmp_path / "work")


def claim(layout: Layout) -> None:
    with workroot.claim(layout, purpose="test", console=Console(terminal=False)):
        assert (layout.work_root / "lock.holder").is_file()


def test_the_second_build_says_for_whom_it_waits_and_goes_on_when_that_ends(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workroot, "REPORT_INTERVAL", 0.5)
    with another_build(layout) as process:
        thread = threading.Thread(target=let_go, args=(process, 1.2))
        thread.start()
        start = time.monotonic()
        claim(layout)
        assert time.monotonic() - start > 1.0
        thread.join()
    lines = [line for line in capsys.readouterr().out.splitlines() if "Waiting" in line]
    assert len(lines) >= 2, "it is said again from time to time"
    for line in lines:
        assert f"build --arch 120 (process {process.pid} of " in line
        assert "in /some/checkout" in line


def test_a_killed_build_leaves_no_lock_behind(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    with another_build(layout) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (layout.work_root / "lock.holder").is_file()
        claim(layout)
    assert "Waiting" not in capsys.readouterr().out


def test_control_c_ends_the_wait(layout: Layout) -> None:
    with another_build(layout):
        timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(InterruptedRunError, match=r"waiting for another build: build --arch 120"):
            claim(layout)
        timer.join()
