"""Bounds for the difference between a GPU and the CPU, and the judgement of measured values. Pure.

How far two correct results are apart depends on their rounding. Errors are given as in upstream's own comparison of
backends (``tests/test-backend-ops.cpp``): the normalised mean square error, which is 0 for equal results, 1 for zeros
and 2 for unrelated ones, here over all logits of a prompt. Upstream allows 5e-4 for one matrix product; a model of four
layers has 25 in a row, whose errors add up.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from build_config.reports import DeviceCheck
from check_gpu import placement
from check_gpu.placement import LayerPlacement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from check_gpu.placement import Placements

CPU = "CPU"
ALL_DEVICES = "Meta()"
"""The name in the log for several GPUs that share each tensor. They are meant to be listed in it, but are not."""
BOUNDS = {"F32": 1e-4, "F16": 1e-3, "BF16": 1e-3}
"""The largest error of the logits, by the type of the weights.

- F32: a GPU multiplies in TF32, whose numbers have ten bits after the point like those of F16. A CPU that rounds to
  F16 before each product is 1.5e-6 from exact arithmetic (measured, docs/measurements/device-checks.md); rounding both
  factors doubles that. Flash attention adds up in F16, on the CPU too: 1.6e-5 with 512 tokens. The bound leaves a
  factor of five to the sum of these.
- F16: a GPU may also add up in F16. With n terms that costs at most n/2 * 2^-24 a product, 3e-5 for the 1024 of the
  widest one; the model makes about twenty times that of it, as it does of the 8e-8 of one rounding to F16: 6e-4.
- BF16: rounding to seven bits puts the CPU 5.2e-5 from exact arithmetic, the GPU rounds as coarsely, and independent
  errors add: 1e-4. The same bound as for F16, since both tell right from wrong.

The error of a model with one matrix scaled by 1.5 is 2e-2 or more, with one zeroed 7e-2 or more (measured).
"""
QUANTISED_BOUND = 5e-3
"""The same for quantised weights.

Both sides round activations to eight bits, the CPU with one scale for 32 or for 256 of them, a GPU with one for 32.
That puts the CPU up to 6e-4 (32) or 1.4e-3 (256) from exact arithmetic with the same weights (measured). Independent
errors add: if the GPU is as far from it, 2.8e-3 are between them. The weights are the same bytes on both sides, so
their own rounding does not count.
"""
MEMORY_BOUND = 8 << 20
"""Bytes of device memory that may be missing after all cycles of loading and closing.

GPUs allocate memory in pieces of 2 MiB: four of them are allowed. If each cycle lost its KV cache (4 MiB) or its
weights (36 MiB), it would be 20 MiB or more after five.
"""
SCALE = (0.1, 10.0)
"""Allowed root mean square of the reference. The models are made for 1; zeros or an overflow cannot be compared."""
WEIGHTS_SEEN = 0.5
"""The share of the model's size by which the free memory must shrink while it is loaded: it shows that the free memory
reflects a model at all. Token embeddings stay on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One check for the child process (``device_checks.py`` describes each).

    ``reference`` is the model on the CPU, ``model`` the one on the device; except in tests they are the same file.
    ``kind`` is the type of its weights, ``layers`` the number of its layers, including the output. ``tokens`` is the
    length of the prompt or of the text, ``small`` that of a small batch; ``before`` and ``cycles`` count loads.
    ``cache`` is the type of the KV cache on the device; the CPU's has F16. ``others`` are further devices on which
    layers must be, ``split`` says what is divided among them: the layers, or each tensor.
    """

    name: str
    check: Literal["logits", "embedding", "batches", "generation", "memory"]
    model: Path
    kind: str
    layers: int
    tokens: int
    reference: Path | None = None
    flash: bool = False
    small: int = 8
    seed: int = 1
    before: int = 2
    cycles: int = 5
    cache: Literal["F16", "Q8_0"] = "F16"
    others: tuple[str, ...] = ()
    split: Literal["layer", "tensor"] = "layer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The checks for the child process, and the name of the ggml device."""

    device: str
    checks: tuple[Request, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of ggml: ``CUDA0``, its type (``gpu``) and its own description."""

    name: str
    type: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The result of the child process.

    ``checks`` are the values of each check, or its ``error``. ``running`` is the check during which the process ended,
    ``error`` is an error outside the checks. ``ending`` says how the process ended, ``said`` is the end of its output.
    """

    versions: dict[str, str] = field(default_factory=dict)
    package: str | None = None
    devices: tuple[Device, ...] = ()
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: str | None = None
    error: str | None = None
    ending: str | None = None
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChecks:
    """All checks of one device, with its own ``description``. ``seconds`` is wall time."""

    device: str
    description: str
    checks: tuple[DeviceCheck, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether there are checks and all passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def bound(kind: str) -> float:
    """The largest error of the logits with weights of this type."""
    return BOUNDS.get(kind, QUANTISED_BOUND)


def judge(plan: Plan, measured: Measured) -> tuple[DeviceCheck, ...]:
    """Judge each check of the plan, in its order. A check without a measured value has failed."""
    return tuple(_judge(request, measured, plan.device) for request in plan.checks)


def _judge(request: Request, measured: Measured, device: str) -> DeviceCheck:
    values = measured.checks.get(request.name)
    unit, limit = "NMSE", bound(request.kind)
    value: float | None = None
    if values is None:
        reasons = [_why_not(request, measured)]
    elif "error" in values:
        reasons = [f"not run: {_last_line(values['error'])}"]
    elif request.check == "memory":
        value = values["free"][0] - min(values["free"][1:])
        reasons = [*_unseen_memory(request, values)]
    elif request.check == "generation":
        first, second = values["first"], values["second"]
        value = sum(a != b for a, b in itertools.zip_longest(first, second))
        reasons = [*_wrong_texts(request, values), *_wrong_places(request, values, device)]
    else:
        value = values["nmse"]
        reasons = [*_wrong_numbers(values), *_wrong_places(request, values, device)]
    if request.check == "memory":
        unit, limit = "bytes", float(MEMORY_BOUND)
    elif request.check == "generation":
        unit, limit = "tokens", 0.0
    if value is not None and not value <= limit:
        reasons = [f"{value:.3g} {unit}, allowed: {limit:.3g}", *reasons]
    return DeviceCheck(
        name=request.name,
        unit=unit,
        measured=value,
        bound=limit,
        passed=value is not None and not reasons,
        reason="; ".join(reasons) or None,
    )


def _why_not(request: Request, measured: Measured) -> str:
    if measured.error is not None:
        return f"not run: {_last_line(measured.error)}"
    how = measured.ending or "ended"
    if measured.running == request.name:
        return f"the process {how} during this check; its output ended with: {measured.said or 'nothing'}"
    return f"not run: the process {how} during {measured.running or 'no check'}"


def _wrong_numbers(values: Mapping[str, Any]) -> Iterator[str]:
    if values["nmse"] is None:
        yield "the logits are not finite numbers"
    low, high = SCALE
    if values["scale"] is None or not low <= values["scale"] <= high:
        yield f"the reference logits have the root mean square {values['scale']}: they cannot be compared"


def _wrong_places(request: Request, values: Mapping[str, Any], device: str) -> Iterator[str]:
    """Check by the logs that each side ran on its device: comparing the CPU with itself would always pass."""
    found = placement.parse(values["log"])
    if request.split == "tensor":
        yield from misplaced(found, request.layers, ALL_DEVICES)
    elif request.others:
        yield from _not_split(found, request.layers, (device, *request.others))
    else:
        yield from misplaced(found, request.layers, device)
    if "reference_log" in values:
        yield from misplaced(placement.parse(values["reference_log"]), request.layers, CPU)


def misplaced(found: Placements, layers: int, device: str) -> Iterator[str]:
    """Name each of ``layers``, including the output, and each cache that the log does not place on ``device``."""
    where = {layer.layer: layer for layer in found.layers}
    nowhere = LayerPlacement(layer=0, weights=None, kv_cache=None)
    for number in range(layers):
        layer = where.get(number, nowhere)
        if layer.weights != device:
            yield f"layer {number} was on {layer.weights or 'an unknown device'}, not on {device}"
        # The last one is the output.
        without = number == layers - 1 or number in found.without_cache or found.encoder
        if not without and layer.kv_cache != device:
            yield f"the KV cache of layer {number} was on {layer.kv_cache or 'an unknown device'}, not on {device}"


def _not_split(found: Placements, layers: int, devices: tuple[str, ...]) -> Iterator[str]:
    """Name each layer that is not on one of ``devices`` with its cache, and each device without a layer."""
    where = {layer.layer: layer for layer in found.layers}
    for number in range(layers):
        layer = where.get(number)
        if layer is None or layer.weights not in devices:
            somewhere = (layer.weights if layer else None) or "an unknown device"
            yield f"layer {number} was on {somewhere}, not on {' or '.join(devices)}"
        elif number < layers - 1 and layer.kv_cache != layer.weights:  # the last one is the output
            yield f"layer {number} was on {layer.weights}, its KV cache on {layer.kv_cache or 'an unknown device'}"
    for device in devices:
        if device not in {layer.weights for layer in found.layers}:
            yield f"no layer was on {device}"


def _wrong_texts(request: Request, values: Mapping[str, Any]) -> Iterator[str]:
    for name in ("first", "second", "other"):
        if len(values[name]) != request.tokens:
            yield f"{len(values[name])} tokens were generated, not {request.tokens}"
    if values["first"] == values["other"]:
        yield "another seed gave the same text: nothing was sampled"


def _unseen_memory(request: Request, values: Mapping[str, Any]) -> Iterator[str]:
    if len(values["free"]) != request.cycles + 1:
        yield f"{len(values['free']) - 1} cycles were measured, not {request.cycles}"
    taken = values["free"][0] - values["loaded"]
    if taken < WEIGHTS_SEEN * values["model"]:
        yield f"a model of {values['model']} bytes took {taken} bytes of the device while it was loaded"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
