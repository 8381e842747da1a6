"""The judgement of measured values, and the arithmetic of the child process."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build_config.reports import DeviceCheck
from build_config.steps.validation import compare_with_cpu, device_checks, numerics
from build_config.steps.validation.numerics import Measured, Plan, Request
from build_config.testbed import synthetic_model
from tests.support.logs import placed

LAYERS = 3


def log(weights: str = "CUDA0", cache: str = "CUDA0", *, output: str = "CUDA0", layers: int = LAYERS) -> list[str]:
    """The lines that llama.cpp logs for a model with ``layers`` layers, including the output."""
    return placed(*[weights] * (layers - 1), output, cache=[cache] * (layers - 1))


ON_CPU = log("CPU", "CPU", output="CPU")
MODEL = Path("a.gguf")
LOGITS = Request(name="logits", check="logits", model=MODEL, reference=MODEL, kind="Q4_K", layers=LAYERS, tokens=64)
BATCHES = dataclasses.replace(LOGITS, name="batches", check="batches", kind="F16")
GENERATION = dataclasses.replace(LOGITS, name="generation", check="generation", tokens=4)
MEMORY = dataclasses.replace(LOGITS, name="memory", check="memory", cycles=2)
PLAN = Plan(device="CUDA0", checks=(LOGITS, BATCHES, GENERATION, MEMORY))
MIB = 1 << 20
SOUND: dict[str, dict[str, Any]] = {
    "logits": {"nmse": 2e-3, "scale": 1.0, "log": log(), "reference_log": ON_CPU},
    "batches": {"nmse": 5e-4, "scale": 1.0, "log": log()},
    "generation": {"first": [1, 2, 3, 4], "second": [1, 2, 3, 4], "other": [4, 2, 3, 1], "text": "", "log": log()},
    "memory": {"free": [900 * MIB, 900 * MIB, 898 * MIB], "loaded": 860 * MIB, "model": 38 * MIB},
}


def judged(checks: dict[str, dict[str, Any]] = SOUND, **measured: Any) -> dict[str, DeviceCheck]:
    return {check.name: check for check in numerics.judge(PLAN, Measured(checks=checks, **measured))}


def changed(name: str, **values: Any) -> DeviceCheck:
    """Judge with some values of one check changed; all other checks must pass."""
    results = judged(SOUND | {name: SOUND[name] | values})
    assert all(check.passed for check in results.values() if check.name != name)
    return results[name]


def test_correct_values_pass_with_their_unit_and_bound() -> None:
    assert [(one.measured, one.unit, one.bound, one.passed, one.reason) for one in judged().values()] == [
        (2e-3, "NMSE", 5e-3, True, None),
        (5e-4, "NMSE", 1e-3, True, None),
        (0, "tokens", 0, True, None),
        (2 * MIB, "bytes", 8 * MIB, True, None),
    ]


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("logits", {"nmse": 5.1e-3}, "0.0051 NMSE, allowed: 0.005"),
        ("logits", {"nmse": None}, "not finite"),
        ("logits", {"scale": 0.0}, "they cannot be compared"),
        ("logits", {"scale": 11.0}, "they cannot be compared"),
        ("logits", {"scale": None}, "they cannot be compared"),
        ("logits", {"log": ON_CPU}, "layer 0 was on CPU, not on CUDA0"),
        ("logits", {"log": log(output="CPU")}, "layer 2 was on CPU, not on CUDA0"),
        ("logits", {"log": log(cache="CPU")}, "the KV cache of layer 1 was on CPU, not on CUDA0"),
        ("logits", {"log": log(layers=2)}, "layer 2 was on an unknown device"),
        ("logits", {"log": []}, "layer 0 was on an unknown device"),
        ("logits", {"reference_log": log()}, "layer 0 was on CUDA0, not on CPU"),
        ("logits", {"reference_log": []}, "layer 0 was on an unknown device, not on CPU"),
        ("batches", {"nmse": 1.1e-3}, "0.0011 NMSE, allowed: 0.001"),
        ("batches", {"nmse": None}, "not finite"),
        ("batches", {"log": ON_CPU}, "layer 0 was on CPU, not on CUDA0"),
        ("generation", {"second": [1, 2, 3, 5]}, "1 tokens, allowed: 0"),
        ("generation", {"second": [1, 2]}, "2 tokens, allowed: 0; 2 tokens were generated, not 4"),
        ("generation", {"first": [], "second": []}, "0 tokens were generated, not 4"),
        ("generation", {"other": [1, 2, 3, 4]}, "another seed gave the same text"),
        ("generation", {"log": ON_CPU}, "layer 0 was on CPU, not on CUDA0"),
        ("memory", {"free": [900 * MIB, 900 * MIB, 891 * MIB]}, "bytes, allowed: 8.39e+06"),
        ("memory", {"free": [900 * MIB, 891 * MIB, 900 * MIB]}, "bytes, allowed: 8.39e+06"),
        ("memory", {"free": [900 * MIB, 900 * MIB]}, "1 cycles were measured, not 2"),
        ("memory", {"loaded": 900 * MIB}, "took 0 bytes of the device while it was loaded"),
        ("memory", {"loaded": 890 * MIB}, f"took {10 * MIB} bytes of the device"),
    ],
)
def test_each_wrong_value_is_found(name: str, values: dict[str, Any], reason: str) -> None:
    check = changed(name, **values)
    assert not check.passed
    assert check.reason is not None
    assert reason in check.reason


def test_more_free_memory_than_before_passes() -> None:
    assert changed("memory", free=[900 * MIB, 950 * MIB, 950 * MIB]).passed


@pytest.mark.parametrize(
    ("kind", "bound"), [("F32", 1e-4), ("F16", 1e-3), ("BF16", 1e-3), ("Q8_0", 5e-3), ("IQ1_S", 5e-3)]
)
def test_bounds_follow_the_type_of_the_weights(kind: str, bound: float) -> None:
    assert numerics.bound(kind) == bound


def test_a_check_that_could_not_run_has_failed() -> None:
    check = judged(SOUND | {"batches": {"error": "Traceback\n  somewhere\nRuntimeError: no memory"}})["batches"]
    assert (check.passed, check.measured) == (False, None)
    assert check.reason == "not run: RuntimeError: no memory"


def test_after_a_crash_the_check_that_ran_is_named_and_the_rest_has_failed() -> None:
    ending = "was ended by signal 6 (Aborted)"
    results = judged({"logits": SOUND["logits"]}, running="batches", ending=ending, said="CUDA error")
    assert {name: check.reason for name, check in results.items()} == {
        "logits": None,
        "batches": "the process was ended by signal 6 (Aborted) during this check; its output ended with: CUDA error",
        "generation": "not run: the process was ended by signal 6 (Aborted) during batches",
        "memory": "not run: the process was ended by signal 6 (Aborted) during batches",
    }


def test_a_failed_import_fails_every_check() -> None:
    results = judged({}, error="Traceback\nLookupError: ggml has no device CUDA0").values()
    assert {check.reason for check in results} == {"not run: LookupError: ggml has no device CUDA0"}


def test_one_failed_check_or_no_check_at_all_is_a_failure() -> None:
    good = tuple(judged().values())
    bad = dataclasses.replace(good[0], passed=False, reason="a reason")
    together = numerics.DeviceChecks(device="CUDA0", description="a GPU", checks=good, seconds=1.0)
    assert together.passed
    assert not dataclasses.replace(together, checks=(*good[1:], bad)).passed
    assert not dataclasses.replace(together, checks=()).passed


def test_the_plan_has_every_type_with_and_without_flash_attention(tmp_path: Path) -> None:
    plan = compare_with_cpu.make_plan(tmp_path, device="CUDA0")
    names = {request.name for request in plan.checks}
    assert len(names) == len(plan.checks), "two checks have the same name"
    assert {"logits of the tiny model", "generation", "memory"} <= names
    for kind in synthetic_model.KINDS:
        assert {f"logits {kind}", f"logits {kind}, flash attention", f"batches {kind}"} <= names
    assert all(request.model.is_file() for request in plan.checks)
    assert [request.flash for request in plan.checks if request.name.endswith("Q4_K, flash attention")] == [True]


def test_the_memory_of_the_cpu_is_not_checked(tmp_path: Path) -> None:
    plan = compare_with_cpu.make_plan(tmp_path, device="CPU", kinds=("F32",))
    assert "memory" not in {request.check for request in plan.checks}


REFERENCE = np.array([[3.0, 4.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("factor", "error"), [(1, 0), (0, 1), (1.5, 0.25), (-1, 4), (math.nan, None), (math.inf, None)]
)
def test_the_error_is_that_of_upstreams_tests(factor: float, error: float | None) -> None:
    computed = REFERENCE * np.array([1, factor] if error is None else factor, dtype=np.float32)
    assert device_checks.nmse(computed, REFERENCE) == (None if error is None else pytest.approx(error))
    assert (device_checks.scale(computed) is None) == (error is None)


def test_compared_with_zeros_there_is_no_error() -> None:
    assert device_checks.nmse(REFERENCE, np.zeros_like(REFERENCE)) is None


def test_the_size_of_logits_is_their_root_mean_square() -> None:
    assert device_checks.scale(np.array([[1.0, 7.0], [5.0, 5.0]], dtype=np.float32)) == 5


def test_a_prompt_is_text_and_always_the_same() -> None:
    prompt = device_checks._prompt(512, 1024, 1)
    assert prompt == device_checks._prompt(512, 1024, 1)
    assert prompt != device_checks._prompt(512, 1024, 2)
    assert min(prompt) >= 3
    assert max(prompt) < 1024
