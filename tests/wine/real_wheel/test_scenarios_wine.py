"""Validation's own scenarios with the wheel of the real core, under Wine: on the CPU and on the simulated GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config.reports import ValidationReport, Verdict
from build_config.steps.validation import scenarios
from build_config.system import jsonio
from tests.support import factories
from tests.wine.real_wheel.conftest import CHECKOUT, MINUTES, QUIET

if TYPE_CHECKING:
    from tests.wine.real_wheel.conftest import Installed

pytestmark = [pytest.mark.wine, pytest.mark.long]

FACTS = factories.build_facts("89")
BY_NAME = {one.name: one for one in scenarios.on_simulated_devices(FACTS, None)}


@pytest.fixture(name="report", scope="module")
def _report(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> ValidationReport:
    target = tmp_path_factory.mktemp("report") / "validation.json"
    paths = (installed.products, installed.wheel.path, installed.environment / "Scripts" / "python.exe", target)
    module = "tests.support.windows.mingw.run_scenarios"
    command = ("python", "-m", module, *map(installed.path, paths))
    installed.prefix.run(*command, folder=CHECKOUT, changes=QUIET, timeout=30 * MINUTES)
    return jsonio.read(target, ValidationReport)


def test_every_scenario_passes(report: ValidationReport) -> None:
    wrong = {one.name: [found.message for found in one.findings] for one in report.scenarios if not one.passed}
    assert wrong == {}
    assert report.verdict is Verdict.SIMULATED_DEVICE_VERIFIED


def test_no_scenario_is_left_out(report: ValidationReport) -> None:
    """Those that compile libraries are there: planted libraries and simulated GPUs."""
    names = {one.name for one in report.scenarios}
    assert {*BY_NAME, "as it is", "planted library", "hidden GPUs", "two different GPUs"} <= names


def test_kernels_were_launched_where_a_gpu_has_code(report: ValidationReport) -> None:
    launched = {one.name for one in report.scenarios if one.launches}
    # A model that does not fit has its layers on the GPU, too, and computes nothing.
    on_gpu = {one.name for one in report.scenarios if one.simulated and one.on_gpu and one.tokens}
    assert on_gpu
    assert on_gpu <= launched
