"""Reports of a benchmark with fixed figures."""

import dataclasses

from build_config.tasks.bench.results import (
    Build,
    Device,
    DeviceReport,
    GpuKind,
    MeasuredGpu,
    Measurement,
    Sample,
    compare,
)
from tests.support import factories

MACHINE = factories.MACHINE
REAL = MeasuredGpu(kind=GpuKind.REAL, name="NVIDIA GeForce RTX 4060")
SIMULATED = MeasuredGpu(kind=GpuKind.SIMULATED, name="device of compute capability 8.9")
NONE = MeasuredGpu(kind=GpuKind.NONE, why="there is no NVIDIA driver")
SLOW = Sample(
    load_ms=500,
    first_token_ms=2000,
    total_ms=4000,
    prompt_speed=128,
    speed=31.5,
    cores_busy=1.96,
    process_bytes=900_000_000,
    device_bytes=0,
)
FAST = dataclasses.replace(
    SLOW,
    first_token_ms=50,
    total_ms=400,
    prompt_speed=5120,
    speed=180.0,
    cores_busy=0.4,
    device_bytes=800_000_000,
    device_peak_bytes=1_100_000_000,
)


def measured(device: Device, *samples: Sample, build: Build = Build.OURS, failure: str | None = None) -> Measurement:
    return Measurement(build=build, device=device, version="0.3.36", samples=samples, failure=failure)


def made(
    gpu: MeasuredGpu, *measurements: Measurement, against: str | None = None, prompt_tokens: int = 256
) -> DeviceReport:
    return DeviceReport(
        created="2026-11-25 12:00 UTC",
        machine=MACHINE,
        card=gpu,
        notice=gpu.notice,
        wheel="llama_cpp_python.whl",
        wheel_sha256="0" * 64,
        against=against,
        model="random model '1b', 1.10 billion weights, Q4_K_M",
        model_bytes=668_000_000,
        prompt_tokens=prompt_tokens,
        tokens=64,
        rounds=len(measurements[0].samples),
        threads=2,
        measurements=measurements,
        ratios=compare(measurements, gpu, 2),
    )
