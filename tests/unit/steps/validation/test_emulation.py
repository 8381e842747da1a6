"""The checks on an emulated GPU: which there are, and what they ask of the script that computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_config.steps.validation import compare_with_cpu, emulation, numerics
from build_config.steps.validation.emulation import ALL, QUICK, Case, EmulatedMachine, Prompt
from build_config.steps.validation.numerics import Measured, Plan
from build_config.testbed import synthetic_model
from build_config.testbed.model_families import QWEN2MOE
from build_config.testbed.simulated_device import SimulatedLibraries
from build_config.testbed.synthetic_model import TINY
from tests.support import systems

pytestmark = pytest.mark.unit

LOG = [f"load_tensors: layer {layer} assigned to device CUDA0" for layer in range(3)]
LOG += [f"llama_kv_cache: layer {layer}: dev = CUDA0" for layer in range(2)]
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


def _plan(folder: Path, case: Case) -> Plan:
    return Plan(device="CUDA0", checks=tuple(emulation._request(case, prompt, folder) for prompt in case.prompts))


def test_names_are_words() -> None:
    prompt = Prompt(tokens=64, small=8, flash=True, cache="Q8_0")
    assert prompt.name == "64 tokens, batches of 8, flash attention, KV cache Q8_0"
    assert Prompt(tokens=1).name == "1 token"
    assert Case(shape=TINY, kind="F32", prompts=(), family=QWEN2MOE).model == "tiny qwen2moe"
    assert Case(shape=TINY, kind="F32", prompts=(), devices=2).model == "tiny on 2 GPUs"


@systems.linux_only("there is no emulated GPU for Windows")
@pytest.mark.parametrize(("error", "passed"), [(2e-7, True), (2e-3, False)])
def test_what_was_computed_is_judged_by_the_bounds_of_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float, *, passed: bool
) -> None:
    asked: list[Plan] = []

    def measure(_python: Path, _folder: Path, plan: Plan, **how: object) -> Measured:
        asked.append(plan)
        changes = how["changes"]
        assert isinstance(changes, dict)
        assert changes["EMULATED_SERVER"] == "/socket"
        assert changes["SIMULATED_DEVICES"] == "8.9"
        values = {"nmse": error, "scale": 1.0, "log": LOG, "reference_log": CPU_LOG, "seconds": 2.5}
        return Measured(checks={request.name: values for request in plan.checks})

    monkeypatch.setattr(compare_with_cpu, "measure", measure)
    machine = EmulatedMachine(
        python=Path("/python"),
        folder=tmp_path,
        libraries=SimulatedLibraries(files=(), major=13),
        server=Path("/socket"),
        capability="8.9",
    )
    case = Case(shape=TINY, kind="F32", prompts=(Prompt(tokens=8), Prompt(tokens=64, small=8)))
    seen = emulation.run(machine, (case,))
    logits, batches = asked[0].checks
    assert (logits.check, logits.tokens, batches.check, batches.small) == ("logits", 8, "batches", 8)
    assert [one.check.passed for one in seen.checks] == [passed, passed]
    assert [one.seconds for one in seen.checks] == [2.5, 2.5]
    assert seen.checks[0].check.bound == numerics.bound("F32")
    assert (seen.uses, seen.misused) == ((), 0)
