"""The checks on an emulated GPU: which there are, and what they ask of the script that computes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from build_config.errors import InterruptedRunError
from build_config.steps.validation import compare_with_cpu, emulation, numerics
from build_config.steps.validation.emulation import ALL, QUICK, Case, EmulatedMachine, KeptRows, Prompt
from build_config.steps.validation.numerics import Measured, Plan
from build_config.system import jsonio
from build_config.testbed import synthetic_model
from build_config.testbed.model_families import BERT, FAMILIES, QWEN2MOE
from build_config.testbed.simulated_device import SimulatedDeviceUse, SimulatedLibraries, SimulatedUse
from build_config.testbed.synthetic_model import SMALL, TINY
from tests.support import systems

pytestmark = pytest.mark.unit

LOG = [f"load_tensors: layer {layer} assigned to device CUDA0" for layer in range(3)]
LOG += [f"llama_kv_cache: layer {layer}: dev = CUDA0" for layer in range(2)]
USE = """{"memory": %d000, "kernels": [{"name": "_Z1kv", "code": 89, "launches": 3, "blocks": 1, "seconds": 0.5,
"executed": [1], "lines": [7]}]}"""
CPU_LOG = [line.replace("CUDA0", "CPU") for line in LOG]


def test_every_model_can_be_written() -> None:
    for case in ALL:
        synthetic_model.check(case.shape, case.kind, case.family)


def test_all_contains_the_quick_checks_once_and_no_prompt_twice() -> None:
    assert set(QUICK) <= set(ALL)
    asked = [(case.model, case.kind, prompt) for case in ALL for prompt in case.prompts]
    assert len(asked) == len(set(asked))


def test_a_quantised_cache_of_values_needs_flash_attention() -> None:
    prompts = [prompt for case in ALL for prompt in case.prompts]
    assert all(prompt.flash for prompt in prompts if prompt.cache != "F16")
    assert any(prompt.cache != "F16" for prompt in prompts)


def test_layers_on_two_devices_must_be_split(tmp_path: Path) -> None:
    (request,) = _plan(tmp_path, Case(shape=TINY, kind="F32", prompts=(Prompt(tokens=8),), devices=2)).checks
    assert request.others == ("CUDA1",)
    split = [line.replace("CUDA0", "CUDA1") if "layer 1" in line else line for line in LOG]
    apart = [line.replace("CUDA0", "CUDA1") if "layer 1 " in line else line for line in LOG]
    for log, reason in ((split, None), (LOG, "no layer was on CUDA1"), (apart, "its KV cache on CUDA0")):
        values = {"nmse": 1e-7, "scale": 1.0, "log": log, "reference_log": CPU_LOG}
        (check,) = numerics.judge(Plan(device="CUDA0", checks=(request,)), Measured(checks={request.name: values}))
        assert check.passed is (reason is None)
        assert reason is None or reason in (check.reason or "")


def test_tensors_on_two_devices_are_on_both(tmp_path: Path) -> None:
    case = Case(shape=TINY, kind="F32", prompts=(Prompt(tokens=8),), devices=2, split="tensor")
    (request,) = _plan(tmp_path, case).checks
    for log, passed in (([line.replace("CUDA0", numerics.ALL_DEVICES) for line in LOG], True), (LOG, False)):
        values = {"nmse": 1e-7, "scale": 1.0, "log": log, "reference_log": CPU_LOG}
        (check,) = numerics.judge(Plan(device="CUDA0", checks=(request,)), Measured(checks={request.name: values}))
        assert check.passed is passed


def _plan(folder: Path, case: Case) -> Plan:
    return Plan(device="CUDA0", checks=tuple(emulation._request(case, prompt, folder) for prompt in case.prompts))


def test_names_are_words() -> None:
    prompt = Prompt(tokens=64, small=8, flash=True, cache="Q8_0")
    assert prompt.name == "64 tokens, batches of 8, flash attention, KV cache Q8_0"
    assert Prompt(tokens=1).name == "1 token"
    assert Case(shape=TINY, kind="F32", prompts=(), family=QWEN2MOE).model == "tiny qwen2moe"
    two = Case(shape=TINY, kind="F32", prompts=(), devices=2)
    assert two.model == "tiny on 2 GPUs, split by layer"
    assert dataclasses.replace(two, split="tensor").model == "tiny on 2 GPUs, split by tensor"


@dataclass
class Measuring:
    """Takes the place of the process: every check gives this error, and is remembered with its environment."""

    error: float = 2e-7
    plans: list[Plan] = field(default_factory=list)
    changes: list[dict[str, str | None]] = field(default_factory=list)
    interrupted_at: int | None = None
    used: tuple[int, ...] = (7,)

    def measure(self, _python: Path, folder: Path, plan: Plan, **how: object) -> Measured:
        if len(self.plans) == self.interrupted_at:
            raise KeyboardInterrupt
        self.plans.append(plan)
        changes = how["changes"]
        assert isinstance(changes, dict)
        self.changes.append(changes)
        (request,) = plan.checks
        (folder / "emulated-use.json").write_text(USE % len(self.plans), encoding="utf-8")
        used = [SimulatedDeviceUse(capability="8.9", peak_bytes=size, leaked_bytes=0) for size in self.used]
        use = SimulatedUse(devices=tuple(used), counts={"refused": 0}, leaked={})
        jsonio.write(folder / "simulated-use.json", use)
        values = {"nmse": self.error, "scale": 1.0, "log": LOG, "reference_log": CPU_LOG, "seconds": 2.5}
        return Measured(checks={request.name: values})


@pytest.fixture(name="measuring")
def _measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    measuring = Measuring()
    monkeypatch.setattr(compare_with_cpu, "measure", measuring.measure)
    return measuring


def place(folder: Path, jobs: int = 1) -> EmulatedMachine:
    return EmulatedMachine(
        python=Path("/python"),
        folder=folder,
        libraries=SimulatedLibraries(files=(), major=13),
        server=Path("/socket"),
        capability="8.9",
        jobs=jobs,
    )


CASE = Case(shape=TINY, kind="F32", prompts=(Prompt(tokens=8), Prompt(tokens=64, small=8)))


@systems.linux_only("there is no emulated GPU for Windows")
@pytest.mark.parametrize(("error", "passed"), [(2e-7, True), (2e-3, False)])
def test_what_was_computed_is_judged_by_the_bounds_of_a_gpu(
    tmp_path: Path, measuring: Measuring, error: float, *, passed: bool
) -> None:
    measuring.error = error
    seen = emulation.run(place(tmp_path), (CASE,))
    (logits,), (batches,) = (plan.checks for plan in measuring.plans)
    assert (logits.check, logits.tokens, batches.check, batches.small) == ("logits", 8, "batches", 8)
    assert all(changes["EMULATED_SERVER"] == "/socket" for changes in measuring.changes)
    assert all(changes["SIMULATED_DEVICES"] == "8.9" for changes in measuring.changes)
    assert [one.check.passed for one in seen.checks] == [passed, passed]
    assert [one.seconds for one in seen.checks] == [2.5, 2.5]
    assert seen.checks[0].check.bound == numerics.bound("F32")
    assert (len(seen.uses), seen.uses[0].launches, seen.memory, seen.misused) == (1, 6, 2000, 0)


def test_checks_run_on_all_cores_and_are_reported_in_their_order(tmp_path: Path, measuring: Measuring) -> None:
    other = dataclasses.replace(CASE, shape=SMALL)
    done: list[tuple[int, int]] = []
    seen = emulation.run(place(tmp_path, jobs=4), (CASE, other), lambda number, of, _: done.append((number, of)))
    assert [(one.model, one.prompt) for one in seen.checks] == [
        (shape, prompt.name) for shape in ("tiny", "small") for prompt in CASE.prompts
    ]
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {changes["OMP_WAIT_POLICY"] for changes in measuring.changes} == {"passive"}
    assert "PTX_WORKERS" in measuring.changes[0]


def test_every_gpu_must_be_used(tmp_path: Path, measuring: Measuring) -> None:
    measuring.used = (7, 0)
    assert {one.check.reason for one in emulation.run(place(tmp_path), (CASE,)).checks} == {"a GPU was not used"}


def test_a_run_that_was_stopped_goes_on_where_it_stopped(tmp_path: Path, measuring: Measuring) -> None:
    kept = KeptRows(folder=tmp_path / "rows", key="the wheel and the code")
    measuring.interrupted_at = 1
    with pytest.raises(InterruptedRunError, match="Finished checks are kept"):
        emulation.run(place(tmp_path), (CASE,), kept=kept)
    measuring.interrupted_at = None
    first = measuring.plans.copy()
    seen = emulation.run(place(tmp_path), (CASE,), kept=kept)
    assert [plan.checks[0].name for plan in measuring.plans] == [prompt.name for prompt in CASE.prompts]
    assert (len(first), seen.kept, len(seen.checks), seen.uses[0].launches) == (1, 1, 2, 6)
    measuring.plans.clear()
    assert emulation.run(place(tmp_path), (CASE,), kept=kept).checks == seen.checks
    assert measuring.plans == []


def test_a_check_is_computed_again_if_it_failed_or_anything_changed(tmp_path: Path, measuring: Measuring) -> None:
    measuring.error = 1.0
    kept = KeptRows(folder=tmp_path / "rows", key="the wheel and the code")
    assert not emulation.run(place(tmp_path), (CASE,), kept=kept).checks[0].check.passed
    measuring.error = 2e-7
    assert emulation.run(place(tmp_path), (CASE,), kept=kept).kept == 0
    changed = (
        (dataclasses.replace(kept, key="another wheel"), (CASE,)),
        (kept, (dataclasses.replace(CASE, kind="F16"),)),
    )
    for key, cases in changed:
        assert emulation.run(place(tmp_path), cases, kept=key).kept == 0
    assert emulation.run(place(tmp_path), (CASE,), kept=kept).kept == 2


def test_the_embedding_of_an_encoder_is_compared(tmp_path: Path) -> None:
    (request,) = _plan(tmp_path, Case(shape=TINY, kind="F32", prompts=(Prompt(tokens=8),), family=BERT)).checks
    assert request.check == "embedding"
    said = ["decode: cannot decode batches with this context (calling encode() instead)"]
    weights = [line for line in LOG if "assigned" in line]
    for log, passed in ((weights + said, True), (weights, False)):
        cpu = [line.replace("CUDA0", "CPU") for line in log]
        values = {"nmse": 1e-7, "scale": 1.0, "log": log, "reference_log": cpu}
        (check,) = numerics.judge(Plan(device="CUDA0", checks=(request,)), Measured(checks={request.name: values}))
        assert check.passed is passed


def test_all_has_every_type_length_and_family() -> None:
    prompts = [prompt for case in ALL for prompt in case.prompts]
    kinds = {"F32", "F16", "BF16", "Q4_0", "Q8_0", "Q4_K_M", "Q6_K", "IQ4_XS", "MXFP4"}
    assert {case.kind for case in ALL} == kinds
    assert {prompt.flash for prompt in prompts} == {True, False}
    assert {1, 8, 32, 64, 512} <= {prompt.tokens for prompt in prompts}
    assert {case.split for case in ALL if case.devices == 2} == {"layer", "tensor"}
    assert {case.family for case in ALL} == set(FAMILIES)
