"""The report of a GPU kit whose wheel passed on a GPU; tests change one thing at a time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_config.model import GpuDevice, Machine
from build_config.steps.validation import compare_with_cpu, probe, probe_runs, scenarios
from build_config.steps.validation.judge import LAYERS, MODEL
from build_config.system import jsonio
from build_config.tasks.gpu_kit import contents, gpu_tests
from build_config.tasks.gpu_kit import run as kit_run

if TYPE_CHECKING:
    from build_config.formats.build_facts import BuildFacts
    from build_config.steps.validation.numerics import Request
    from build_config.steps.validation.scenarios import Scenario
    from build_config.testbed.model_families import Cache

GPU = GpuDevice(index=0, name="NVIDIA GeForce RTX 4090", capability="8.9", memory=24 << 30)
MIB = 1 << 20


def log(layers: int, on_gpu: int, cache: Cache | None = "KV") -> list[str]:
    """What llama.cpp logs for a model of which the last ``on_gpu`` layers are on the GPU."""
    devices = ["CPU" if number < layers - on_gpu else "CUDA0" for number in range(layers)]
    kept = devices[:-1] if cache is not None else []
    return [
        *(f"load_tensors: layer {number:3} assigned to device {device}" for number, device in enumerate(devices)),
        *(f"llama_kv_cache: layer {number:3}: dev = {device}" for number, device in enumerate(kept)),
        "load_tensors:   CPU_Mapped model buffer size =     0.07 MiB",
        *(f"load_tensors: {device} model buffer size =     0.48 MiB" for device in {*devices} - {"CPU"}),
        *(f"llama_kv_cache: {device} {cache} buffer size =     0.12 MiB" for device in {*kept}),
    ]


def ran(result: Any, **values: Any) -> dict[str, Any]:
    """A process that ended well."""
    return {"status": 0, "seconds": 1.5, "output": "", "result": result, **values}


def _probe(scenario: Scenario, gpus: tuple[GpuDevice, ...]) -> dict[str, Any]:
    expected = scenario.expected
    status: dict[str, Any] = {
        "loaded": expected.cuda,
        "cpu_variant": "zen4",
        "shard": None,
        "devices": [],
        "reason": None,
    }
    family = expected.family
    lines = log(LAYERS, expected.on_gpu, family.cache)
    if expected.cuda:
        left_out = [jsonio.to_data(gpu) for gpu in gpus if gpu.capability in expected.left_out]
        status |= {"shard": expected.shard, "devices": jsonio.to_data(gpus), "left_out": left_out}
        status["note"] = f"To use all GPUs: {expected.note}." if left_out else None
        lines.append(f"load_tensors: offloaded {expected.on_gpu}/{LAYERS} layers to GPU")
    else:
        status["reason"] = "CUDA_VISIBLE_DEVICES='-1' hides every GPU: unset it."
    return {
        "versions": {"python": "3.9.18", "llama_cpp": "0.3.36"},
        "package": "<work>/site/llama_cpp",
        "cuda_status": status,
        "missing_shards": [],
        **({"values": MODEL.width} if family.embeds else {"tokens": probe.TOKENS, "text": "noise"}),
        "log": lines,
        "seconds": 0.2,
        "loaded_files": ["<work>/site/llama_cpp/lib/libllama.so", "/lib/libc.so.6"],
    }


def _values(check: Request) -> dict[str, Any]:
    """Values of a check that agree with the CPU."""
    match check.check:
        case "memory":
            return {"free": [900 * MIB] * (check.cycles + 1), "loaded": 800 * MIB, "model": 40 * MIB}
        case "generation":
            tokens = [*range(check.tokens)]
            texts = {"first": tokens, "second": tokens, "other": tokens[::-1], "text": "noise"}
            return {**texts, "log": log(check.layers, check.layers)}
        case _:
            numbers = {"nmse": 1e-5, "scale": 1.0, "log": log(check.layers, check.layers)}
            return numbers if check.reference is None else {**numbers, "reference_log": log(check.layers, 0)}


def _sample(on_gpu: int) -> dict[str, Any]:
    lines = log(23, on_gpu)
    if on_gpu:
        lines.append("load_tensors: offloaded 23/23 layers to GPU")
    times = {"load": 0.5, "first_token": 0.1, "last_token": 1.1, "busy": 1.0, "peak_memory": 1 << 30}
    return {"version": "0.3.36", "generated": contents.BENCH["tokens"], "log": lines, "cuda_status": None, **times}


def good(wheel: Path, facts: BuildFacts, gpus: tuple[GpuDevice, ...] = (GPU,)) -> dict[str, Any]:
    """The content of ``report.json``, without its digest."""
    machine = Machine(system="", cpu="", cores=1, glibc="", driver=None, gpus=gpus)
    names = [gpu.name for gpu in gpus]
    driver = {"version": "580.65.06", "cuda": "13.0", "devices": jsonio.to_data(gpus), "cards": names}
    checks = compare_with_cpu.plan(Path(), device="CUDA0").checks
    devices = [{"name": "CUDA0", "type": "gpu", "description": GPU.name}]
    measured = {"versions": {}, "devices": devices, "checks": {check.name: _values(check) for check in checks}}
    return {
        "schema": contents.SCHEMA,
        "project": "0.1.0 (commit unknown)",
        "wheel": {"name": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()},
        "scripts": contents.scripts(),
        "started": "2026-11-28T12:00:00Z",
        "bench_model": jsonio.to_data(contents.BENCH["models"]["quick"]),
        "machine": {
            "system": "Linux x86_64",
            "cpuinfo": "processor\t: 0\nmodel name\t: A  CPU\n",
            "cores": 16,
            "threads": 8,
            "glibc": "2.36",
            "python": "3.9.18",
            "numpy": "2.0.2",
        },
        "parts": {name: {"failed": None, "seconds": 2.0} for name in kit_run.PARTS},
        "evidence": {
            "check_gpu": ran({"diagnosis": {"code": "card-used"}, "driver": driver}),
            "scenarios": [
                ran([_probe(one, gpus) for one in run], scenarios=[one.name for one in run], planted=[])
                for run in probe_runs.group(scenarios.on_this_machine(machine, facts))
            ],
            "comparison": {"CUDA0": ran(measured)},
            "bench": [
                {"device": device, **ran(_sample(on_gpu))}
                for device, on_gpu in (("cpu", 0), ("gpu", 23)) * contents.BENCH["rounds"]
            ],
            "tests": ran({"tests": dict.fromkeys(gpu_tests.names())}),
        },
        "interrupted": False,
    }


def write(folder: Path, report: dict[str, Any], **changes: Any) -> Path:
    """Write the report as a kit does; ``changes`` are made after its digest was computed."""
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()
    (folder / "report.json").write_text(json.dumps({**report, "sha256": digest, **changes}), encoding="utf-8")
    return folder
