"""Compare what the newest wheel of the wheelhouse computes on each GPU of this machine with the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config import inputs
from build_config.formats import wheelfile
from build_config.steps.locks import download
from build_config.steps.validation import compare_with_cpu
from build_config.steps.wheelhouse import publication
from build_config.system import machine
from build_config.system.console import Console
from build_config.testbed import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.steps.validation.numerics import DeviceChecks
    from build_config.system.layout import Layout

pytestmark = pytest.mark.gpu


@pytest.fixture(name="python", scope="module")
def _python(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment with the wheel."""
    wheel = wheelfile.read(publication.newest_wheel(layout))
    folder = tmp_path_factory.mktemp("installed")
    download.fetch(inputs.runtime_files(wheel.path, layout), layout.downloads, Console(terminal=False))
    requirements = clean_environment.requirements(wheel, layout.locks)
    python = clean_environment.make(folder, requirements, layout.downloads, folder / "log")
    assert clean_environment.install(wheel, layout.wheelhouse, python, folder / "log") == ()
    return python


@pytest.fixture(name="results", scope="module")
def _results(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, DeviceChecks]:
    """Results for every GPU that the driver lists, by ggml's names."""
    devices = [f"CUDA{number}" for number in range(len(machine.nvidia().gpus))]
    return {device: compare_with_cpu.run(python, tmp_path_factory.mktemp(device), device=device) for device in devices}


@pytest.mark.parametrize("check", ["logits", "batches", "generation", "memory"])
def test_the_gpu_computes_what_the_cpu_does(results: dict[str, DeviceChecks], check: str) -> None:
    judged = [one for result in results.values() for one in result.checks if one.name.startswith(check)]
    assert judged
    assert {one.name: one.reason for one in judged if not one.passed} == {}


def test_results_of_a_gpu_are_not_those_of_the_cpu(results: dict[str, DeviceChecks]) -> None:
    """If all types had equal results in every bit, the CPU would have been compared with itself."""
    for result in results.values():
        assert any(one.measured for one in result.checks if one.name.startswith("logits"))
