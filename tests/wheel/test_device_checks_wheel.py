"""The device checks with the newest wheel of the wheelhouse, without a GPU: they pass, and they can fail.

To compare results, the CPU replaces the GPU. On a simulated GPU, whose kernels do nothing, the wheel's real CUDA
backend loads, places and frees everything, and every number is wrong.
"""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import gguf
import pytest

from build_config.steps.validation import compare_with_cpu, numerics
from build_config.testbed import synthetic_model

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.reports import DeviceCheck
    from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine

pytestmark = pytest.mark.wheel


def failed(checks: tuple[DeviceCheck, ...]) -> dict[str, str]:
    return {check.name: check.reason or "" for check in checks if not check.passed}


def test_the_cpu_agrees_with_itself(python: Path, tmp_path: Path) -> None:
    result = compare_with_cpu.run(python, tmp_path, device="CPU", kinds=("F16", "Q4_K"))
    assert failed(result.checks) == {}
    assert result.passed
    measured = {check.name: check.measured for check in result.checks}
    assert set(measured) == {
        "logits of the tiny model",
        "generation",
        *(f"logits {kind}{how}" for kind in ("F16", "Q4_K") for how in ("", ", flash attention")),
        *(f"batches {kind}" for kind in ("F16", "Q4_K")),
    }
    flash = measured["logits Q4_K, flash attention"]
    assert flash is not None
    assert 0 < flash < 1e-3, "another algorithm: not equal, and within the error that the bound is based on"


def test_another_model_on_the_device_is_found(python: Path, tmp_path: Path) -> None:
    plan = compare_with_cpu.make_plan(tmp_path, device="CPU", kinds=("Q4_K",))
    other = synthetic_model.write(tmp_path / "other.gguf", synthetic_model.SMALL, kind="Q4_K", seed=1)
    logits = [check for check in plan.checks if check.name.startswith("logits Q4_K")]
    plan = dataclasses.replace(plan, checks=tuple(dataclasses.replace(check, model=other) for check in logits))
    results = numerics.judge(plan, compare_with_cpu.measure(python, tmp_path, plan))
    assert len(failed(results)) == 2
    assert [check.measured for check in results] == [pytest.approx(2, abs=0.5)] * 2  # unrelated


@pytest.mark.parametrize(("tensor", "factor"), [("blk.1.attn_q.weight", 1.5), ("blk.3.ffn_down.weight", 1.1)])
def test_one_changed_tensor_is_found(python: Path, tmp_path: Path, tensor: str, factor: float) -> None:
    plan = compare_with_cpu.make_plan(tmp_path, device="CPU", kinds=("F32",))
    (check,) = [check for check in plan.checks if check.name == "logits F32"]
    scaled = tmp_path / "scaled.gguf"
    shutil.copyfile(check.model, scaled)
    (found,) = [one for one in gguf.GGUFReader(scaled, "r+").tensors if one.name == tensor]
    found.data[:] *= factor
    plan = dataclasses.replace(plan, checks=(check, dataclasses.replace(check, name="off", model=scaled)))
    results = numerics.judge(plan, compare_with_cpu.measure(python, tmp_path, plan))
    assert list(failed(results)) == ["off"]


def test_a_model_that_cannot_be_loaded_fails_its_own_check(python: Path, tmp_path: Path) -> None:
    plan = compare_with_cpu.make_plan(tmp_path, device="CPU", kinds=("F16",))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(plan.checks[0].model.read_bytes()[:1000])
    checks = [check for check in plan.checks if check.name in {"logits of the tiny model", "logits F16"}]
    plan = dataclasses.replace(plan, checks=(dataclasses.replace(checks[0], model=broken), checks[1]))
    results = numerics.judge(plan, compare_with_cpu.measure(python, tmp_path, plan))
    assert list(failed(results)) == ["logits of the tiny model"]
    assert "broken.gguf was not loaded" in failed(results)["logits of the tiny model"]


def test_without_a_gpu_nothing_passes(python: Path, tmp_path: Path) -> None:
    result = compare_with_cpu.run(python, tmp_path, device="CUDA7", kinds=("F16",))
    assert len(failed(result.checks)) == len(result.checks) > 0
    assert {reason for reason in failed(result.checks).values() if "ggml has no device CUDA7" not in reason} == set()


def test_a_child_process_that_hangs_is_stopped_and_its_finished_checks_count(python: Path, tmp_path: Path) -> None:
    first, *_ = compare_with_cpu.make_plan(tmp_path, device="CPU", kinds=()).checks
    endless = dataclasses.replace(first, name="endless", check="memory", cycles=1_000_000)
    plan = numerics.Plan(device="CPU", checks=(first, endless, dataclasses.replace(first, name="later")))
    results = numerics.judge(plan, compare_with_cpu.measure(python, tmp_path, plan, timeout=8.0))
    assert [check.reason for check in results] == [
        None,
        "the process was stopped after 8 s during this check; its output ended with: nothing",
        "not run: the process was stopped after 8 s during endless",
    ]


@pytest.fixture(name="simulated", scope="module")
def _simulated(
    python: Path, doubles: SimulatedLibraries, machine: SimulatedMachine, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, DeviceCheck]:
    """The results of all checks if kernels do nothing."""
    folder = tmp_path_factory.mktemp("simulated")
    result = compare_with_cpu.run(python, folder, kinds=("F16", "Q4_K"), changes=doubles.environment(machine))
    assert not result.passed
    return {check.name: check for check in result.checks}


def test_kernels_that_do_nothing_give_wrong_numbers(simulated: dict[str, DeviceCheck]) -> None:
    logits = {name: check for name, check in simulated.items() if name.startswith("logits")}
    assert len(logits) == 5
    for check in logits.values():
        assert not check.passed
        assert check.measured is None or check.measured > 0.5
        assert "was on" not in (check.reason or ""), "its layers were on the device, and on the CPU for the reference"


def test_memory_that_is_allocated_and_freed_passes(simulated: dict[str, DeviceCheck]) -> None:
    assert simulated["memory"].reason is None
    assert simulated["memory"].passed


def test_a_failing_kernel_is_reported_with_the_check(
    python: Path, doubles: SimulatedLibraries, machine: SimulatedMachine, tmp_path: Path
) -> None:
    broken = dataclasses.replace(machine, fault="launch-failure")
    result = compare_with_cpu.run(python, tmp_path, kinds=("F16",), changes=doubles.environment(broken))
    first, *others = result.checks
    assert "during this check" in (first.reason or "")
    assert {check.passed for check in result.checks} == {False}
    assert all(f"during {first.name}" in (check.reason or "") for check in others)
