"""What the probe saw, what was expected of it, and the difference: pure, so that every lie can be tried in a test.

No placement line at all is wrong like a line with the wrong device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_config.reports import Finding, Severity
from build_config.steps.validation import probe
from build_config.testbed import synthetic_model
from build_config.testbed.simulated_device import SimulatedUse
from check_gpu import placement
from check_gpu.placement import LayerPlacement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from check_gpu.placement import Buffer, Placements

MODEL = synthetic_model.TINY
LAYERS = MODEL.layers + 1
"""What llama.cpp places on devices: the repeating layers and the output."""
INPUT_BYTES = MODEL.vocabulary * MODEL.width * 4
"""The token embedding, float32: llama.cpp keeps it on the CPU wherever the layers are."""
ROUNDING = 0.01 * (1 << 20)
"""Bytes: the log gives hundredths of a mebibyte."""

_OURS = re.compile(r"(lib)?(ggml|llama|mtmd)\b")
_CUDA_DEVICE = re.compile(r"CUDA\d+")
_SIMULATED = "SIMULATED"
_CAUSE = re.compile(r"out of memory|CUDA error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What the probe wrote, or ``error`` when it broke off or could not write.

    ``package`` is the folder that ``llama_cpp`` was imported from, ``cuda_status`` the loader's answer as it is,
    ``missing_shards`` are files that the wheel says it has and has not, ``loaded_files`` the shared libraries of the
    process. ``planted`` are libraries of the working directory that were loaded: there must be none. ``use`` is what a
    simulated device counted.
    """

    log: tuple[str, ...] = ()
    text: str = ""
    tokens: int = 0
    cuda_status: dict[str, Any] | None = None
    package: str | None = None
    missing_shards: tuple[str, ...] = ()
    loaded_files: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    planted: tuple[str, ...] = ()
    use: SimulatedUse | None = None

    @property
    def said(self) -> str | None:
        """The sentence that a user gets to see when CUDA is not in use, or the end of what went wrong."""
        if self.error is not None:
            causes = [line for line in self.log if _CAUSE.search(line)][:1]
            return "; ".join((*causes, self.error.strip().splitlines()[-1]))
        reason = (self.cuda_status or {}).get("reason")
        return str(reason) if reason else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must come of a run.

    ``cuda``: the CUDA backend comes up, with this ``shard`` where it is named. ``on_card`` is how many layers are
    then on CUDA devices (the last ones; llama.cpp fills from the output). ``simulated`` says what kind of devices they
    are. ``reason`` is what the loader must say where CUDA does not come up, ``error`` what a run must end with that
    cannot work, both as regular expressions.
    """

    cuda: bool
    on_card: int = 0
    simulated: bool = False
    shard: str | None = None
    reason: str | None = None
    error: str | None = None


def judge(result: ProbeResult, expected: Expected) -> tuple[Finding, ...]:
    """Everything that differs from what was expected; nothing where all is as it must be."""
    return tuple(_differences(result, expected))


def error(code: str, message: str) -> Finding:
    """A finding that makes a run a failed one."""
    return Finding(code=code, severity=Severity.ERROR, message=message)


def _differences(result: ProbeResult, expected: Expected) -> Iterator[Finding]:
    for name in result.planted:
        yield error("planted-library-loaded", f"{name} was loaded from the current directory")
    if expected.error is not None:
        yield from _wrong_error(result, expected.error)
        return
    if result.error is not None:
        yield error("probe-failed", f"The probe did not come to its end: {result.error.strip()}")
        return
    if result.tokens != probe.TOKENS:
        yield error("tokens-missing", f"{result.tokens} tokens were generated, not {probe.TOKENS}")
    for name in result.missing_shards:
        yield error("shard-missing", f"The wheel says that it has {name}, and it is not there")
    yield from _wrong_status(result.cuda_status, expected)
    yield from _wrong_placement(placement.parse(result.log), expected)
    yield from _wrong_files(result)
    if expected.simulated and expected.cuda:
        yield from _wrong_use(result.use, on_card=expected.on_card > 0)


def _wrong_error(result: ProbeResult, pattern: str) -> Iterator[Finding]:
    if result.error is None:
        yield error("fault-unnoticed", f"The run came to its end; it had to end with: {pattern}")
    elif not re.search(pattern, "\n".join((*result.log, result.error))):
        yield error("fault-unclear", f"The run ended without saying {pattern}: {result.error.strip()}")


def _wrong_status(status: dict[str, Any] | None, expected: Expected) -> Iterator[Finding]:
    if status is None:
        yield error("no-cuda-status", "llama_cpp has no cuda_status(): this is not a wheel of this pipeline")
        return
    if not status.get("cpu_variant"):
        yield error("cpu-variant-unknown", "The loader does not name the CPU variant in use")
    reason = str(status.get("reason") or "")
    if not status.get("loaded"):
        if expected.cuda:
            yield error("cuda-not-loaded", f"CUDA had to come up and did not: {reason}")
        if not reason:
            yield error("reason-missing", "CUDA is not in use and the loader does not say why")
        elif not expected.cuda and not re.search(expected.reason or "", reason):
            yield error("reason-wrong", f"The loader had to give as its reason {expected.reason!r}, it says: {reason}")
        return
    if not expected.cuda:
        yield error("cuda-unexpected", "CUDA came up where it must not: nothing was verified by this run")
    if expected.shard is not None and status.get("shard") != expected.shard:
        yield error("wrong-shard", f"Shard {status.get('shard')} is in use, not {expected.shard}")
    names = [str(device.get("name")) for device in status.get("devices") or ()]
    if any((_SIMULATED in name) is not expected.simulated for name in names) or not names:
        wanted = "simulated devices" if expected.simulated else "real cards"
        yield error("wrong-devices", f"The devices had to be {wanted}, they are: {', '.join(names) or 'none'}")


def _wrong_placement(found: Placements, expected: Expected) -> Iterator[Finding]:
    if not found.layers:
        yield error("placement-missing", "The log does not say where any layer is; its wording may have changed")
        return
    where = {layer.layer: layer for layer in found.layers}
    for number in range(LAYERS):
        layer = where.get(number, LayerPlacement(layer=number, weights=None, kv_cache=None))
        on_card = number >= LAYERS - expected.on_card
        yield from _wrong_device(f"layer {number}", layer.weights, on_card=on_card)
        if number < MODEL.layers:  # the last one is the output: it has no cache
            yield from _wrong_device(f"KV cache of layer {number}", layer.kv_cache, on_card=on_card)
    if expected.cuda and found.offloaded != (expected.on_card, LAYERS):
        promised = (expected.on_card, LAYERS)
        yield error("wrong-offloaded", f"llama.cpp reports {found.offloaded} offloaded layers, not {promised}")
    yield from _wrong_buffers(found.buffers, expected)


def _wrong_device(what: str, device: str | None, *, on_card: bool) -> Iterator[Finding]:
    if device is None:
        yield error("placement-missing", f"The log does not say where {what} is")
    elif on_card and not _CUDA_DEVICE.fullmatch(device):
        yield error("not-on-card", f"{what} is on {device}, not on a CUDA device")
    elif not on_card and device != "CPU":
        yield error("not-on-cpu", f"{what} is on {device}, not on the CPU")


def _wrong_buffers(buffers: tuple[Buffer, ...], expected: Expected) -> Iterator[Finding]:
    """A layer can be assigned to a device and its weights still lie elsewhere: memory is what counts."""
    here = {purpose: sum(b.size for b in buffers if b.purpose == purpose and not b.on_card) for purpose in _PURPOSES}
    there = {purpose: sum(b.size for b in buffers if b.purpose == purpose and b.on_card) for purpose in _PURPOSES}
    for purpose in _PURPOSES:
        if here[purpose] + there[purpose] == 0:
            yield error("buffers-missing", f"The log gives no size for any {purpose} buffer")
    if expected.on_card == LAYERS:
        if here["model"] > INPUT_BYTES + ROUNDING:
            yield error("weights-not-on-card", f"{here['model']} bytes of weights are not on the card")
        if here["KV"]:
            yield error("cache-not-on-card", f"{here['KV']} bytes of the KV cache are not on the card")
        if there["model"] <= ROUNDING:
            yield error("weights-not-on-card", "The card holds no weights")
    if expected.on_card == 0 and (there["model"] or there["KV"]):
        yield error("memory-on-card", f"{there['model'] + there['KV']} bytes are on a card that must not be used")


_PURPOSES = ("model", "KV")


def _wrong_files(result: ProbeResult) -> Iterator[Finding]:
    """Every library of llama.cpp must come from the installed package: one from elsewhere was planted or left over."""
    ours = [Path(file) for file in result.loaded_files if _OURS.match(Path(file).name)]
    if not ours or result.package is None:
        yield error("libraries-unseen", "The probe saw no library of llama.cpp in its process")
        return
    for file in ours:
        if not file.is_relative_to(result.package):
            yield error("library-from-outside", f"{file.name} was loaded from {file.parent}, not from the package")


def _wrong_use(use: SimulatedUse | None, *, on_card: bool) -> Iterator[Finding]:
    if use is None:
        yield error("device-silent", "The simulated device left no report")
        return
    if on_card and not use.counts["launches"]:
        yield error("no-launches", "No kernel was launched on the simulated device")
    if use.counts["refused"]:
        yield error("calls-refused", f"{use.counts['refused']} calls were ones that a card refuses")
    for index, device in enumerate(use.devices):
        if device.leaked_bytes:
            yield error("memory-leaked", f"Device {index}: {device.leaked_bytes} bytes were not given back")
    left = ", ".join(f"{count} {name}" for name, count in use.leaked.items() if count)
    if left:
        yield error("objects-leaked", f"Not given back: {left}")
