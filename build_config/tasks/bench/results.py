"""The results of a benchmark and their evaluation: medians, ratios, whether the layers were placed as required."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from build_config.model import Machine
from build_config.steps.validation import numerics
from check_gpu import placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Device(StrEnum):
    """The device of a measurement."""

    CPU = "cpu"
    GPU = "card"  # the value is in published reports

    @property
    def label(self) -> str:
        """The name in messages."""
        return "CPU" if self is Device.CPU else "GPU"


class Build(StrEnum):
    """The build: the wheel that is measured, or the baseline that it is compared with."""

    OURS = "ours"
    BASELINE = "other"  # the value is in published reports


class GpuKind(StrEnum):
    """The kind of ``Device.GPU``. The value of a simulated one cannot be overlooked."""

    REAL = "real"
    SIMULATED = "SIMULATED"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredGpu:
    """The GPU: ``name`` by the driver (``NVIDIA GeForce RTX 4060``) or of the simulated one; ``why`` there is none."""

    kind: GpuKind
    name: str = ""
    why: str = ""

    @property
    def title(self) -> str:
        """The title of a column."""
        return f"SIMULATED: {self.name}" if self.kind is GpuKind.SIMULATED else self.name

    @property
    def notice(self) -> str | None:
        """A warning for the reader of the figures; ``None`` with a real GPU."""
        match self.kind:
            case GpuKind.NONE:
                return f"no GPU: {self.why}; only the CPU was measured"
            case GpuKind.SIMULATED:
                return (
                    "SIMULATED: there is no GPU. Kernels do nothing, so the GPU's column shows where the layers and "
                    "their memory would be, and nothing about speed"
                )
            case GpuKind.REAL:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildResult:
    """The result of the measuring process, or ``error``. In seconds and bytes; ``busy`` is CPU time of all threads."""

    version: str = ""
    cuda_status: dict[str, Any] | None = None
    load: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    generated: int = 0
    busy: float = 0.0
    peak_memory: int | None = None
    log: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer in a process of its own, after one that did not count.

    ``load_ms``: opening the model. ``first_token_ms`` and ``total_ms``: from passing the prompt to the first and to the
    last token. ``prompt_speed`` and ``speed``: tokens per second, of the prompt and of the answer. ``cores_busy``: CPU
    time over wall time. ``process_bytes``: maximum of resident memory, including mapped weights. ``device_bytes``:
    buffers that llama.cpp allocated on the GPU. ``device_peak_bytes``: maximum growth of the GPU's used memory by the
    driver, including the CUDA context; ``None`` if the driver cannot say.
    """

    load_ms: float
    first_token_ms: float
    total_ms: float
    prompt_speed: float
    speed: float
    cores_busy: float
    process_bytes: int | None
    device_bytes: int
    device_peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """All rounds of one build on one device. With ``failure``, ``samples`` mean nothing.

    ``repeated`` counts processes that were measured again because other programs used their cores.
    """

    build: Build
    device: Device
    version: str
    samples: tuple[Sample, ...]
    failure: str | None = None
    repeated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Generated tokens per second, medians: our build compared with the baseline.

    ``unjudged`` says why the ratio means nothing, if it does not.
    """

    device: Device
    ours: float
    other: float
    limit: float
    unjudged: str | None = None

    @property
    def value(self) -> float:
        """Below 1 if our build is slower."""
        return self.ours / self.other

    @property
    def passed(self) -> bool | None:
        """Whether our build is as fast as the limit demands; ``None`` if that cannot be judged."""
        return None if self.unjudged else self.value >= self.limit


UNDISTURBED = 0.9
"""The minimum share of its threads' cores that an answer on the CPU gets on a quiet machine: waiting threads spin."""
SIMULATED = "the GPU is SIMULATED"
BUSY = "other programs ran on this machine"
LIMITS = {Device.CPU: 0.95, Device.GPU: 0.98}
"""The minimum ratio: CPU figures vary more from run to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """The complete report. ``model`` and ``against`` are names, never paths; ``created`` is a date and time in UTC."""

    created: str
    machine: Machine
    card: MeasuredGpu
    notice: str | None
    wheel: str
    wheel_sha256: str | None
    against: str | None
    model: str
    model_bytes: int
    prompt_tokens: int
    tokens: int
    rounds: int
    threads: int
    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...] = field(default=())

    @property
    def failures(self) -> tuple[Measurement, ...]:
        """The measurements that failed."""
        return tuple(one for one in self.measurements if one.failure is not None)


def sample(result: ChildResult, *, prompt_tokens: int, device_peak_bytes: int | None) -> Sample:
    """Compute the figures of one process that measured without an error."""
    generating = result.last_token - result.first_token
    return Sample(
        load_ms=1000 * result.load,
        first_token_ms=1000 * result.first_token,
        total_ms=1000 * result.last_token,
        prompt_speed=prompt_tokens / result.first_token,
        speed=(result.generated - 1) / generating,
        cores_busy=result.busy / result.last_token,
        process_bytes=result.peak_memory,
        device_bytes=sum(buffer.size for buffer in placement.parse(result.log).buffers if buffer.on_card),
        device_peak_bytes=device_peak_bytes,
    )


def problem(result: ChildResult, device: Device, *, tokens: int) -> str | None:
    """Say why a result is not a measurement of ``device``; ``None`` if it is one.

    On the GPU every layer and its KV cache must be on the first CUDA device; on the CPU none may be.
    """
    return next(_problems(result, device, tokens), None)


def _problems(result: ChildResult, device: Device, tokens: int) -> Iterator[str]:
    """Problems, the most serious first: later ones may be consequences."""
    if result.error is not None:
        yield result.error.strip()
    if result.generated != tokens:
        yield f"{result.generated} tokens were generated, not {tokens}"
    found = placement.parse(result.log)
    if not found.layers:
        yield "the log does not say where any layer is"
    reason = (result.cuda_status or {}).get("reason") if device is Device.GPU else None
    for misplaced in numerics.misplaced(found, len(found.layers), "CUDA0" if device is Device.GPU else numerics.CPU):
        yield f"{misplaced}: {reason}" if reason else misplaced
    if device is Device.GPU and found.offloaded != (len(found.layers),) * 2:
        yield f"llama.cpp reports {found.offloaded} offloaded layers, not all {len(found.layers)}"
    if device is Device.CPU and any(buffer.on_card for buffer in found.buffers):
        yield "llama.cpp allocated memory on a GPU although none was visible"


def median(values: Iterable[float]) -> float | None:
    """The median; ``None`` without a value."""
    known = list(values)
    return statistics.median(known) if known else None


def is_disturbed(cores_busy: float | None, device: Device, threads: int) -> bool:
    """Whether other programs used the cores of an answer on the CPU; on the GPU this is unknown."""
    return device is Device.CPU and cores_busy is not None and cores_busy < UNDISTURBED * threads


def compare(measurements: Iterable[Measurement], gpu: MeasuredGpu, threads: int) -> tuple[Ratio, ...]:
    """Compare our build with the baseline, for each device on which both were measured."""
    measured = {(one.build, one.device): one for one in measurements if one.samples and one.failure is None}
    ratios = []
    for device in Device:
        pair = [measured[build, device] for build in Build if (build, device) in measured]
        if len(pair) < len(Build):
            continue
        unjudged = SIMULATED if device is Device.GPU and gpu.kind is GpuKind.SIMULATED else None
        if any(is_disturbed(median(each.cores_busy for each in one.samples), device, threads) for one in pair):
            unjudged = BUSY
        ours, other = (statistics.median(each.speed for each in one.samples) for one in pair)
        ratios.append(Ratio(device=device, ours=ours, other=other, limit=LIMITS[device], unjudged=unjudged))
    return tuple(ratios)


def first_visible(visible: str | None) -> str:
    """The only GPU that a process may see: the first one in ``CUDA_VISIBLE_DEVICES``, else the first of the machine."""
    return re.split(r"\s*,\s*", visible.strip())[0] if visible and visible.strip() else "0"
