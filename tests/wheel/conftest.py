"""Tests of the finished wheel in the wheelhouse, after the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filelock
import pytest

from build_config.errors import PipelineError
from build_config.formats import build_facts, wheelfile
from build_config.steps.validation import scenarios
from build_config.steps.wheelhouse import publication
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout
from build_config.tasks import simulate
from build_config.testbed import clean_environment, simulated_device
from build_config.testbed.simulated_device import SimulatedMachine

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Wheel
    from build_config.steps.validation import Simulation
    from build_config.testbed.simulated_device import SimulatedLibraries
    from tests.support.environments import Environments


@pytest.fixture(name="layout", scope="session")
def _layout() -> Layout:
    return Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)


@pytest.fixture(name="wheel", scope="session")
def _wheel(request: pytest.FixtureRequest, layout: Layout) -> Wheel:
    try:
        return wheelfile.read(publication.newest_wheel(layout))
    except PipelineError as error:
        if request.config.getoption("--require-wheel"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(name="simulation", scope="session")
def _simulation(layout: Layout, wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    cuda = simulate.of_wheel(wheel.path)  # download no toolkit for a missing wheel
    with filelock.FileLock(tmp_path_factory.getbasetemp().parent / "toolkit.lock"):  # tests run in several processes
        return simulate.provide_simulation(simulate.EVERY_SHARD, layout, Console(terminal=False), cuda=cuda)


@pytest.fixture(name="python", scope="session")
def _python(wheel: Wheel, layout: Layout, environments: Environments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment with the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    requirements = clean_environment.requirements(wheel, layout.locks)
    python = environments.make(folder, requirements, layout.downloads, folder / "log")
    assert clean_environment.install(wheel, layout.wheelhouse, python, folder / "log") == ()
    return python


@pytest.fixture(name="doubles", scope="session")
def _doubles(simulation: Simulation, wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> SimulatedLibraries:
    major = int(simulate.of_wheel(wheel.path).partition(".")[0])
    return simulated_device.build(tmp_path_factory.mktemp("doubles"), include=simulation.include, major=major)


@pytest.fixture(name="machine", scope="session")
def _machine(wheel: Wheel) -> SimulatedMachine:
    """A simulated GPU for which the wheel has code."""
    facts = build_facts.read(wheel.path)
    assert facts is not None
    return SimulatedMachine(capabilities=scenarios.own_capabilities(facts)[:1])
