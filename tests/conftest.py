"""Rules for all tests: unit tests start no process; a required GPU or wheel that is missing is a failure."""

from __future__ import annotations

import signal
import subprocess
from typing import Any, NoReturn

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-gpu", action="store_true", help="a gpu test that cannot run is a failure")
    parser.addoption("--require-wheel", action="store_true", help="a wheel test that finds no wheel is a failure")


def pytest_configure() -> None:
    # A shell starts its background jobs with Ctrl-C ignored; the tests of interruption would wait forever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("unit") is None:
        return

    def forbidden(*args: Any, **_: Any) -> NoReturn:
        pytest.fail(f"a unit test started a process: {args}")

    monkeypatch.setattr(subprocess.Popen, "__init__", forbidden)


@pytest.fixture(name="no_programs")
def _no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide c++filt and diffoscope: every result comes from the bytes."""
    monkeypatch.setenv("PATH", "")
