"""What was measured, and what follows from it: medians, ratios, whether the layers were where they had to be."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from build_config.model import Machine
from check_gpu import placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CUDA_DEVICE = "CUDA0"


class Device(StrEnum):
    """What computed."""

    CPU = "cpu"
    CARD = "card"


class Build(StrEnum):
    """Whose llama-cpp-python: the wheel that is measured, or the one that it is held against."""

    OURS = "ours"
    OTHER = "other"


class CardKind(StrEnum):
    """What stands behind ``Device.CARD``. The value of a simulated one cannot be overlooked."""

    REAL = "real"
    SIMULATED = "SIMULATED"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """``name`` is the driver's (``NVIDIA GeForce RTX 4060``), or what is simulated; ``why`` says why there is none."""

    kind: CardKind
    name: str = ""
    why: str = ""

    @property
    def title(self) -> str:
        """For the head of a column."""
        return f"SIMULATED: {self.name}" if self.kind is CardKind.SIMULATED else self.name

    @property
    def notice(self) -> str | None:
        """What a reader must know before the figures; ``None`` with a real card."""
        match self.kind:
            case CardKind.NONE:
                return f"no card: {self.why}; only the CPU was measured"
            case CardKind.SIMULATED:
                return (
                    "SIMULATED: there is no card. Kernels do nothing, so the card's column says where the layers and "
                    "their memory would be, and nothing about speed"
                )
            case CardKind.REAL:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildResult:
    """What the measuring process wrote, or ``error``. Seconds and bytes; ``busy`` is CPU time of all its threads."""

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
    """One answer in a process of its own, after one that was not counted.

    ``load_ms``: opening the model. ``first_token_ms`` and ``total_ms``: from handing over the prompt to the first and
    to the last token. ``prompt_speed`` and ``speed``: tokens a second, of the prompt and of what was generated.
    ``cores_busy``: CPU time over wall time. ``process_bytes``: the most that was resident, mapped weights included.
    ``device_bytes``: the buffers that llama.cpp took on the card. ``device_peak_bytes``: the most by which the driver
    saw the card's memory grow, the CUDA context included; ``None`` where nobody could be asked.
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
    """All rounds of one build on one device. With ``failure`` there is nothing to be read from ``samples``.

    ``repeated`` counts processes that were measured again because other programs took their cores.
    """

    build: Build
    device: Device
    version: str
    samples: tuple[Sample, ...]
    failure: str | None = None
    repeated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Generated tokens per second, ours over the other's, by the medians.

    ``unjudged`` says why the ratio means nothing, where that is so.
    """

    device: Device
    ours: float
    other: float
    limit: float
    unjudged: str | None = None

    @property
    def value(self) -> float:
        """Below 1 where ours is slower."""
        return self.ours / self.other

    @property
    def passed(self) -> bool | None:
        """Whether ours is not slower than the limit allows; ``None`` where nothing can be said."""
        return None if self.unjudged else self.value >= self.limit


UNDISTURBED = 0.9
"""The least share of its threads' cores that an answer on the CPU gets on a quiet machine: waiting threads spin."""
SIMULATED = "the device is SIMULATED"
BUSY = "other programs ran on this machine"
LIMITS = {Device.CPU: 0.95, Device.CARD: 0.98}
"""The least ratio: CPU figures vary more from run to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """The whole document. ``model`` and ``against`` are names, never paths; ``created`` is a date and time in UTC."""

    created: str
    machine: Machine
    card: Card
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
        """Measurements that came to nothing."""
        return tuple(one for one in self.measurements if one.failure is not None)


def sample(result: ChildResult, *, prompt_tokens: int, device_peak_bytes: int | None) -> Sample:
    """The figures of one process that measured without an error."""
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
    """Why a result is no measurement of ``device``; ``None`` when it is one.

    On the card every layer and its KV cache must be on the first CUDA device, on the CPU nothing may be.
    """
    return next(_problems(result, device, tokens), None)


def _problems(result: ChildResult, device: Device, tokens: int) -> Iterator[str]:
    """The gravest first: what comes after one may only follow from it."""
    if result.error is not None:
        yield result.error.strip()
    if result.generated != tokens:
        yield f"{result.generated} tokens were generated, not {tokens}"
    found = placement.parse(result.log)
    if not found.layers:
        yield "the log does not say where any layer is"
    wanted = _CUDA_DEVICE if device is Device.CARD else "CPU"
    places = [(f"layer {layer.layer}", layer.weights) for layer in found.layers]
    places += [(f"the KV cache of layer {layer.layer}", layer.kv_cache) for layer in found.layers[:-1]]
    for what, where in places:
        if where != wanted:
            yield f"{what} was on {where or 'an unknown device'}, not on {wanted}{_reason(result, device)}"
    if device is Device.CARD and found.offloaded != (len(found.layers),) * 2:
        yield f"llama.cpp reports {found.offloaded} offloaded layers, not all {len(found.layers)}"
    if device is Device.CPU and any(buffer.on_card for buffer in found.buffers):
        yield "llama.cpp took memory on a card although none was to be seen"


def _reason(result: ChildResult, device: Device) -> str:
    """The loader's own sentence, where it has one to say."""
    reason = (result.cuda_status or {}).get("reason") if device is Device.CARD else None
    return f": {reason}" if reason else ""


def median(values: Iterable[float | None]) -> float | None:
    """The middle of the values that there are; ``None`` where there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def is_disturbed(cores_busy: float | None, device: Device, threads: int) -> bool:
    """Whether other programs took the cores of an answer on the CPU; on the card nobody can tell."""
    return device is Device.CPU and cores_busy is not None and cores_busy < UNDISTURBED * threads


def compare(measurements: Iterable[Measurement], card: Card, threads: int) -> tuple[Ratio, ...]:
    """Ours over the other's, for each device on which both were measured."""
    measured = {(one.build, one.device): one for one in measurements if one.samples and one.failure is None}
    ratios = []
    for device in Device:
        pair = [measured[build, device] for build in Build if (build, device) in measured]
        if len(pair) < len(Build):
            continue
        unjudged = SIMULATED if device is Device.CARD and card.kind is CardKind.SIMULATED else None
        if any(is_disturbed(median(each.cores_busy for each in one.samples), device, threads) for one in pair):
            unjudged = BUSY
        ours, other = (statistics.median(each.speed for each in one.samples) for one in pair)
        ratios.append(Ratio(device=device, ours=ours, other=other, limit=LIMITS[device], unjudged=unjudged))
    return tuple(ratios)


def first_visible(visible: str | None) -> str:
    """The one card to show to a process: the first of those that ``CUDA_VISIBLE_DEVICES`` names, else the first."""
    return re.split(r"\s*,\s*", visible.strip())[0] if visible and visible.strip() else "0"
