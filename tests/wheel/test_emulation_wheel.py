"""The newest wheel of the wheelhouse on an emulated GPU: right numbers from its own kernels, and a fault is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from build_config.formats import build_facts
from build_config.steps.validation import emulated_wheel, emulation
from build_config.steps.validation.emulation import Case, EmulatedMachine, Prompt
from build_config.system.console import Console
from build_config.tasks import simulate
from build_config.testbed import emulated_device
from build_config.testbed.emulated_device import ptx_module, server, translation
from build_config.testbed.emulated_device.kernels import Kernels
from build_config.testbed.synthetic_model import TINY

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Wheel
    from build_config.system.layout import Layout

pytestmark = pytest.mark.wheel

CASE = Case(shape=TINY, kind="F32", prompts=(Prompt(tokens=8),))
NORM = "_Z12rms_norm_f32"


@pytest.fixture(name="kernels", scope="module")
def _kernels(wheel: Wheel, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    facts = build_facts.read(wheel.path)
    assert facts is not None
    shard, arch = emulated_wheel.choose(facts, None)
    if not (layout.build / shard.name / "compile_commands.json").is_file():
        pytest.skip("the wheel was not built here: the PTX behind it is made with the commands of its build")
    toolkit, cc = simulate.provide_compilers(layout, Console(terminal=False), cuda=simulate.of_wheel(wheel.path))
    folder = tmp_path_factory.mktemp("shard")
    return emulated_wheel.kernels_of(wheel.path, shard, arch, toolkit, cc, folder, layout, folder / "log")


@pytest.fixture(name="machine", scope="module")
def _machine(
    kernels: Kernels, wheel: Wheel, layout: Layout, python: Path, tmp_path_factory: pytest.TempPathFactory
) -> EmulatedMachine:
    folder = tmp_path_factory.mktemp("emulated")
    toolkit, cc = simulate.provide_compilers(layout, Console(terminal=False), cuda=simulate.of_wheel(wheel.path))
    major = int(toolkit.release.partition(".")[0])
    libraries = emulated_device.build(folder / "doubles", include=toolkit.include, major=major, cc=cc)
    return EmulatedMachine(
        python=python,
        folder=folder,
        libraries=libraries,
        server=folder / "kernels.socket",
        capability=kernels.code.arch.capability,
    )


def test_the_tiny_model_computes_what_the_cpu_computes_with_the_wheels_own_kernels(
    kernels: Kernels, machine: EmulatedMachine
) -> None:
    with server.serve({kernels.code.arch.number: kernels}, machine.folder):
        seen = emulation.run(machine, (CASE,))
    (one,) = seen.checks
    assert one.check.reason is None
    assert one.check.measured is not None
    assert one.check.measured < one.check.bound / 10
    executed = [use for use in seen.uses if any(use.executed)]
    assert len(executed) > 8
    assert all(kernels.facts[use.name].identical for use in executed)
    assert seen.misused == 0


@dataclass(frozen=True)
class WithFault:
    """The kernels of the wheel, except that the norm takes the root instead of its reciprocal."""

    kernels: Kernels

    def library(self, name: str) -> Path:
        if not name.startswith(NORM):
            return self.kernels.library(name)
        ptx = self.kernels.ptx(self.kernels.number(name))
        text = ptx.path.read_text(encoding="utf-8")
        assert "rsqrt.approx" in text
        module = ptx_module.read_module(text.replace("rsqrt.approx", "sqrt.approx"), ptx.source)
        return self.kernels.compile(translation.translate(module, name).source, name)


def test_one_wrong_instruction_is_found(kernels: Kernels, machine: EmulatedMachine) -> None:
    with server.serve({kernels.code.arch.number: WithFault(kernels)}, machine.folder):
        (one,) = emulation.run(machine, (CASE,)).checks
    assert not one.check.passed
    assert one.check.measured is None or one.check.measured > 100 * one.check.bound
