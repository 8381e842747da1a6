"""Record the outcome of each of upstream's tests, and the ``llama_cpp`` that they used. Copied as ``conftest.py``.

The Hub is offline here, so a test that needs a model from it ends with huggingface_hub's own error and is left out.
No other test is. Runs in the clean environment: standard library, pytest and ``llama_cpp`` only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

RESULT = Path(__file__).with_name("result.json")
OFFLINE_ERRORS = frozenset({"OfflineModeIsEnabled", "LocalEntryNotFoundError"})
"""Errors of huggingface_hub: the first for each request, the second ``from`` it if there is no local copy."""
OUTCOMES = ("passed", "skipped", "left_out", "failed")
"""In rising order: the outcome of a test is the highest one of its phases (setup, call, teardown)."""

_package: list[str] = []
_uncollected: list[str] = []
_tests: dict[str, tuple[str, str]] = {}


@pytest.fixture(scope="session", autouse=True)
def _tested_package() -> None:
    import llama_cpp  # noqa: PLC0415  # if it cannot be imported, upstream's tests must say so

    _package.append(llama_cpp.__file__)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a file that cannot be collected, with the last line of pytest's reason."""
    if report.failed:
        _uncollected.append(f"{report.nodeid}: {report.longreprtext.splitlines()[-1].removeprefix('E').strip()}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record the outcome of a phase; if a model is missing, report the test to pytest as skipped."""
    report = yield
    outcome: str = report.outcome
    reason = _reason(report, call)
    if report.failed and report.when != "teardown" and call.excinfo is not None:
        refused = _refused_download(call.excinfo.value)
        if refused is not None:
            outcome, reason = "left_out", refused
            report.outcome = "skipped"
            report.longrepr = (str(item.path), (item.location[1] or 0) + 1, f"left out: {reason}")
    if item.nodeid not in _tests or OUTCOMES.index(outcome) > OUTCOMES.index(_tests[item.nodeid][0]):
        _tests[item.nodeid] = (outcome, reason)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write everything that was recorded. A test that pytest collected but did not run has failed."""
    result: dict[str, Any] = {"package": next(iter(_package), None), "uncollected": _uncollected}
    result |= {outcome: [] for outcome in OUTCOMES}
    for item in session.items:
        outcome, reason = _tests.get(item.nodeid, ("failed", "pytest did not run it"))
        result[outcome].append(item.nodeid if outcome == "passed" else {"id": item.nodeid, "reason": reason})
    RESULT.write_text(json.dumps(result), encoding="utf-8")


def _refused_download(error: BaseException | None) -> str | None:
    """The request to the Hub, if ``error`` was raised because it is offline; else ``None``.

    Only the error and its causes (``raise ... from``) count. An error that was raised while another one was handled
    (``__context__``) is a failure of its own, such as an assertion in an ``except`` block.
    """
    asked = None
    while error is not None:
        names = {cls.__name__ for cls in type(error).__mro__ if cls.__module__.partition(".")[0] == "huggingface_hub"}
        if names & OFFLINE_ERRORS:
            asked = str(error).partition("\n")[0].partition(": ")[0]  # the first cause names the address
        error = error.__cause__
    return asked


def _reason(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    """The first line of pytest's message about a phase; empty if it passed."""
    said = getattr(report, "wasxfail", "") or (call.excinfo.exconly() if call.excinfo else report.longreprtext)
    return said.removeprefix("Skipped: ").partition("\n")[0]
