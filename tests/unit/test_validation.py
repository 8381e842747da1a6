"""The judgement, by mutations of a sound result: each lie must be caught."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from build_config.jsonio import from_data, to_data
from build_config.model import GpuDevice, Machine, Severity, Verdict
from build_config.validation import ProbeResult, judge

pytestmark = pytest.mark.unit

PACKAGE = "/venv/site-packages/llama_cpp"
WITHOUT_CARD = Machine(system="Linux", cpu="a CPU", cores=2, glibc="2.36", driver=None, gpus=())
WITH_CARD = dataclasses.replace(
    WITHOUT_CARD, gpus=(GpuDevice(index=0, name="NVIDIA H200", capability="9.0", memory=1 << 37),)
)


def _log(device: str) -> tuple[str, ...]:
    weights = [f"load_tensors: layer   {layer} assigned to device {device}, is_swa = 0" for layer in range(3)]
    kv_cache = [f"llama_kv_cache: layer   {layer}: dev = {device}" for layer in range(2)]
    return (*weights, *kv_cache)


def _files(backend: str) -> tuple[str, ...]:
    return (f"{PACKAGE}/lib/libggml-base.so", f"{PACKAGE}/lib/libllama.so", f"{PACKAGE}/lib/{backend}", "/usr/libc.so")


ON_CPU = ProbeResult(
    log=_log("CPU"),
    text="noise",
    tokens=8,
    cuda_status={"loaded": False, "reason": "No NVIDIA driver", "cpu_variant": "zen4"},
    package=PACKAGE,
    loaded_files=_files("libggml-cpu-zen4.so"),
)
ON_CARD = ProbeResult(
    log=(*_log("CUDA0"), "load_tensors: offloaded 3/3 layers to GPU"),
    text="noise",
    tokens=8,
    cuda_status={"loaded": True, "reason": None, "shard": "sm90", "cpu_variant": "zen4"},
    package=PACKAGE,
    loaded_files=_files("libggml-cuda-sm90.so"),
)


def _without(result: ProbeResult, text: str) -> tuple[str, ...]:
    return tuple(line for line in result.log if text not in line)


def _with(result: ProbeResult, old: str, new: str) -> tuple[str, ...]:
    return tuple(line.replace(old, new) for line in result.log)


def test_the_cpu_fallback_is_verified_without_a_card_only() -> None:
    assert judge(ON_CPU, WITHOUT_CARD, require_gpu=False) == (Verdict.CPU_FALLBACK_VERIFIED, ())
    assert judge(ON_CPU, WITH_CARD, require_gpu=False)[0] is Verdict.FAILED


@pytest.mark.parametrize("require_gpu", [False, True])
def test_a_gpu_is_verified_with_a_card_only(require_gpu: bool) -> None:  # noqa: FBT001  # pytest passes it by name
    assert judge(ON_CARD, WITH_CARD, require_gpu=require_gpu) == (Verdict.GPU_VERIFIED, ())
    assert judge(ON_CARD, WITHOUT_CARD, require_gpu=require_gpu)[0] is Verdict.FAILED


CPU_LIES: dict[str, tuple[dict[str, Any], str]] = {
    "a crash": ({"error": "signal 4"}, "probe-failed"),
    "no tokens": ({"tokens": 0}, "tokens-missing"),
    "too few tokens": ({"tokens": 7}, "tokens-missing"),
    "no placement at all": ({"log": ("all is well",)}, "placement-missing"),
    "no line for the output": ({"log": _without(ON_CPU, "layer   2")}, "placement-missing"),
    "no line for a cache": ({"log": _without(ON_CPU, "layer   1: dev")}, "placement-missing"),
    "a layer elsewhere": (
        {"log": _with(ON_CPU, "1 assigned to device CPU", "1 assigned to device Vulkan0")},
        "not-on-cpu",
    ),
    "no status": ({"cuda_status": None}, "no-cuda-status"),
    "no variant": ({"cuda_status": {"loaded": False, "reason": "x", "cpu_variant": None}}, "cpu-variant-unknown"),
    "no reason": ({"cuda_status": {"loaded": False, "reason": None, "cpu_variant": "x64"}}, "reason-missing"),
    "cuda without a card": ({"cuda_status": ON_CARD.cuda_status}, "card-unknown"),
    "a planted library": ({"loaded_files": (*ON_CPU.loaded_files, "/cwd/libggml-cpu-evil.so")}, "library-from-outside"),
    "a library beside the package": (
        {"loaded_files": (*ON_CPU.loaded_files, f"{PACKAGE}_evil/lib/libllama.so")},
        "library-from-outside",
    ),
    "no list of libraries": ({"loaded_files": ()}, "libraries-unseen"),
}

CARD_LIES: dict[str, tuple[dict[str, Any], str]] = {
    "one layer on the CPU": (
        {"log": _with(ON_CARD, "1 assigned to device CUDA0", "1 assigned to device CPU")},
        "not-on-card",
    ),
    "the cache on the CPU": ({"log": _with(ON_CARD, "0: dev = CUDA0", "0: dev = CPU")}, "not-on-card"),
    "a host buffer": (
        {"log": _with(ON_CARD, "1 assigned to device CUDA0", "1 assigned to device CUDA_Host")},
        "not-on-card",
    ),
    "no line for a cache": ({"log": _without(ON_CARD, "layer   0: dev")}, "placement-missing"),
    "too few offloaded": ({"log": _with(ON_CARD, "3/3", "2/3")}, "not-all-offloaded"),
    "no word of offloading": ({"log": _without(ON_CARD, "offloaded")}, "not-all-offloaded"),
    "cuda not loaded": ({"cuda_status": ON_CPU.cuda_status}, "cuda-not-loaded"),
    "no tokens": ({"tokens": 0}, "tokens-missing"),
}


@pytest.mark.parametrize(("change", "code"), CPU_LIES.values(), ids=CPU_LIES)
def test_a_lie_about_the_cpu_is_caught(change: dict[str, Any], code: str) -> None:
    _assert_caught(dataclasses.replace(ON_CPU, **change), WITHOUT_CARD, code)


@pytest.mark.parametrize(("change", "code"), CARD_LIES.values(), ids=CARD_LIES)
def test_a_lie_about_the_card_is_caught(change: dict[str, Any], code: str) -> None:
    _assert_caught(dataclasses.replace(ON_CARD, **change), WITH_CARD, code)


def _assert_caught(result: ProbeResult, machine: Machine, code: str) -> None:
    verdict, findings = judge(result, machine, require_gpu=False)
    assert verdict is Verdict.FAILED
    assert {finding.code for finding in findings} == {code}
    assert all(finding.severity is Severity.ERROR for finding in findings)


def test_a_required_gpu_that_is_not_there_fails_a_sound_fallback() -> None:
    verdict, findings = judge(ON_CPU, WITHOUT_CARD, require_gpu=True)
    assert verdict is Verdict.FAILED
    assert [finding.code for finding in findings] == ["gpu-required"]
    assert "no card" in findings[0].message


def test_the_loaders_reason_reaches_the_finding() -> None:
    _, findings = judge(dataclasses.replace(ON_CARD, cuda_status=ON_CPU.cuda_status), WITH_CARD, require_gpu=True)
    assert "No NVIDIA driver" in findings[0].message


def test_a_probe_result_survives_its_way_through_json() -> None:
    assert from_data(to_data(ON_CARD), ProbeResult) == ON_CARD
