"""Compare what the probe saw with what was expected. Pure, so that a test can try every false report.

A missing placement line is as wrong as a line with the wrong device.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_config.reports import Finding, Severity
from build_config.steps.validation import probe
from build_config.testbed import synthetic_model
from build_config.testbed.model_families import LLAMA, ModelFamily
from build_config.testbed.simulated_device import SimulatedUse
from check_gpu import placement
from check_gpu.placement import CACHES, LayerPlacement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from check_gpu.placement import Buffer, Placements

MODEL = synthetic_model.TINY
LAYERS = MODEL.layers + 1
"""The number of layers that llama.cpp places on devices: the repeating layers and the output."""
ROUNDING = 0.01 * (1 << 20)
"""Bytes: the log gives hundredths of a mebibyte."""

_OURS = re.compile(r"(lib)?(ggml|llama|mtmd)\b")
_CUDA_DEVICE = re.compile(r"CUDA\d+")
_SIMULATED = "SIMULATED"
_CAUSE = re.compile(r"out of memory|CUDA error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The result of the probe for one model, or ``error`` if it failed or could not write one.

    ``package`` is the folder that ``llama_cpp`` was imported from, ``cuda_status`` the loader's unchanged answer.
    ``missing_shards`` are files that the wheel declares but does not contain. ``loaded_files`` are the shared libraries
    of the process. ``planted`` are those loaded from the working directory; it must be empty. ``use`` contains the
    counters of a simulated GPU. ``tokens`` were generated; a model that embeds gives ``values`` instead.
    """

    log: tuple[str, ...] = ()
    text: str = ""
    tokens: int = 0
    values: int = 0
    cuda_status: dict[str, Any] | None = None
    package: str | None = None
    missing_shards: tuple[str, ...] = ()
    loaded_files: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    planted: tuple[str, ...] = ()
    use: SimulatedUse | None = None
    seconds: float = 0.0

    @property
    def said(self) -> str | None:
        """The sentence that a user sees if CUDA is not in use, or the end of the error's output."""
        if self.error is not None:
            causes = [line for line in self.log if _CAUSE.search(line)][:1]
            return "; ".join((*causes, self.error.strip().splitlines()[-1]))
        reason = (self.cuda_status or {}).get("reason")
        return str(reason) if reason else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The expected result of a scenario.

    ``cuda``: the CUDA backend is loaded, with ``shard`` if that is named. ``on_gpu`` is the number of layers that are
    then on GPUs (the last ones; llama.cpp starts with the output). ``simulated`` says which kind of GPUs these are.
    ``reason`` is a regular expression for the loader's sentence if CUDA is not loaded, ``error`` one for the error of a
    scenario that must fail. The model is the tiny one of ``family``. ``used`` are the indices of the simulated GPUs
    that must contain something, if that is known; no other may. ``left_out`` are the compute capabilities of the GPUs
    that the shard has no code for; ``note``, which must name them, contains this command.
    """

    cuda: bool
    on_gpu: int = 0
    simulated: bool = False
    shard: str | None = None
    reason: str | None = None
    error: str | None = None
    family: ModelFamily = LLAMA
    used: tuple[int, ...] | None = None
    left_out: tuple[str, ...] = ()
    note: str | None = None


def judge(result: ProbeResult, expected: Expected) -> tuple[Finding, ...]:
    """Report everything that differs from the expectation."""
    return tuple(_differences(result, expected))


def error(code: str, message: str) -> Finding:
    """A finding that makes a scenario fail."""
    return Finding(code=code, severity=Severity.ERROR, message=message)


def _differences(result: ProbeResult, expected: Expected) -> Iterator[Finding]:
    for name in result.planted:
        yield error("planted-library-loaded", f"{name} was loaded from the current directory")
    if expected.error is not None:
        yield from _wrong_error(result, expected.error)
        return
    if result.error is not None:
        yield error("probe-failed", f"The probe failed: {result.error.strip()}")
        return
    if expected.family.embeds:
        if result.values != MODEL.width:
            yield error("embedding-wrong", f"The embedding has {result.values} values, not {MODEL.width}")
    elif result.tokens != probe.TOKENS:
        yield error("tokens-missing", f"{result.tokens} tokens were generated, not {probe.TOKENS}")
    for name in result.missing_shards:
        yield error("shard-missing", f"The wheel declares {name} but does not contain it")
    yield from _wrong_status(result.cuda_status, expected)
    yield from _wrong_placement(placement.parse(result.log), expected)
    yield from _wrong_files(result)
    if expected.simulated and expected.cuda:
        yield from _wrong_use(result.use, expected)


def _wrong_error(result: ProbeResult, pattern: str) -> Iterator[Finding]:
    if result.error is None:
        yield error("fault-unnoticed", f"The run succeeded; expected the error: {pattern}")
    elif not re.search(pattern, "\n".join((*result.log, result.error))):
        yield error("fault-unclear", f"The run failed without the expected error {pattern}: {result.error.strip()}")


def _wrong_status(status: dict[str, Any] | None, expected: Expected) -> Iterator[Finding]:
    if status is None:
        yield error("no-cuda-status", "llama_cpp has no cuda_status(): this project did not build the wheel")
        return
    if not status.get("cpu_variant"):
        yield error("cpu-variant-unknown", "The loader does not name the CPU variant in use")
    reason = str(status.get("reason") or "")
    if not status.get("loaded"):
        if expected.cuda:
            yield error("cuda-not-loaded", f"The CUDA backend was not loaded: {reason}")
        if not reason:
            yield error("reason-missing", "CUDA is not in use, and the loader gives no reason")
        elif not expected.cuda and not re.search(expected.reason or "", reason):
            yield error("reason-wrong", f"The loader's reason: expected {expected.reason!r}, found: {reason}")
        return
    if not expected.cuda:
        yield error("cuda-unexpected", "The CUDA backend was loaded although it must not be: this run verified nothing")
    if expected.shard is not None and status.get("shard") != expected.shard:
        yield error("wrong-shard", f"Shard in use: expected {expected.shard}, found {status.get('shard')}")
    yield from _wrong_left_out(status, expected)
    names = [str(device.get("name")) for device in status.get("devices") or ()]
    if any((_SIMULATED in name) is not expected.simulated for name in names) or not names:
        wanted = "simulated GPUs" if expected.simulated else "real GPUs"
        yield error("wrong-devices", f"Devices: expected {wanted}, found: {', '.join(names) or 'none'}")


def _wrong_left_out(status: dict[str, Any], expected: Expected) -> Iterator[Finding]:
    left_out = tuple(str(device.get("capability")) for device in status.get("left_out") or ())
    if left_out != expected.left_out:
        yield error("wrong-left-out", f"GPUs that are left out: expected {expected.left_out}, found {left_out}")
    if (expected.note or "") not in str(status.get("note") or ""):
        yield error("note-wrong", f"The loader's note: expected {expected.note!r}, found: {status.get('note')}")


def _wrong_placement(found: Placements, expected: Expected) -> Iterator[Finding]:
    if not found.layers:
        yield error("placement-missing", "The log does not say where any layer is; its wording may have changed")
        return
    where = {layer.layer: layer for layer in found.layers}
    cache = expected.family.cache
    for number in range(LAYERS):
        layer = where.get(number, LayerPlacement(layer=number, weights=None, kv_cache=None))
        on_gpu = number >= LAYERS - expected.on_gpu
        yield from _wrong_device(f"layer {number}", layer.weights, on_gpu=on_gpu)
        if (cache is not None and number < MODEL.layers) or layer.kv_cache is not None:  # the last one is the output
            what = CACHES[cache or "KV"]
            yield from _wrong_device(f"the {what} of layer {number}", layer.kv_cache, on_gpu=on_gpu)
    if expected.cuda and found.offloaded != (expected.on_gpu, LAYERS):
        promised = (expected.on_gpu, LAYERS)
        yield error("wrong-offloaded", f"Offloaded layers: expected {promised}, llama.cpp reports {found.offloaded}")
    yield from _wrong_buffers(found.buffers, expected)


def _wrong_device(what: str, device: str | None, *, on_gpu: bool) -> Iterator[Finding]:
    if device is None:
        yield error("placement-missing", f"The log does not say where {what} is")
    elif on_gpu and not _CUDA_DEVICE.fullmatch(device):
        yield error("not-on-card", f"{what} is on {device}, not on a GPU")
    elif not on_gpu and device != "CPU":
        yield error("not-on-cpu", f"{what} is on {device}, not on the CPU")


def _wrong_buffers(buffers: tuple[Buffer, ...], expected: Expected) -> Iterator[Finding]:
    """Compare the memory: the weights of a layer can be elsewhere than on the device that it is assigned to."""
    sizes = Counter[tuple[str, bool]]()
    for buffer in buffers:
        sizes[buffer.purpose, buffer.on_card] += buffer.size
    cache = expected.family.cache
    for purpose in ("model", *((cache,) if cache is not None else ())):
        if sizes[purpose, False] + sizes[purpose, True] == 0:
            yield error("buffers-missing", f"The log gives no size for any {purpose} buffer")
    if expected.on_gpu == LAYERS:
        if sizes["model", False] > expected.family.input_bytes(MODEL.sizes) + ROUNDING:
            yield error("weights-not-on-card", f"{sizes['model', False]} bytes of weights are not on the GPU")
        for purpose, what in CACHES.items():
            if sizes[purpose, False]:
                yield error("cache-not-on-card", f"{sizes[purpose, False]} bytes of the {what} are not on the GPU")
        if sizes["model", True] <= ROUNDING:
            yield error("weights-not-on-card", "The GPU contains no weights")
    on_gpu = sum(sizes[purpose, True] for purpose in ("model", *CACHES))
    if expected.on_gpu == 0 and on_gpu:
        yield error("memory-on-card", f"{on_gpu} bytes are on a GPU that must not be used")


def _wrong_files(result: ProbeResult) -> Iterator[Finding]:
    """Every library of llama.cpp must come from the installed package: any other is planted or left over."""
    ours = [Path(file) for file in result.loaded_files if _OURS.match(Path(file).name)]
    if not ours or result.package is None:
        yield error("libraries-unseen", "The probe found no library of llama.cpp in its process")
        return
    for file in ours:
        if not file.is_relative_to(result.package):
            yield error("library-from-outside", f"{file.name} was loaded from {file.parent}, not from the package")


def _wrong_use(use: SimulatedUse | None, expected: Expected) -> Iterator[Finding]:
    if use is None:
        yield error("device-silent", "The simulated GPU wrote no report")
        return
    if expected.on_gpu and not use.counts["launches"]:
        yield error("no-launches", "No kernel was launched on the simulated GPU")
    if use.counts["refused"]:
        yield error("calls-refused", f"The simulated GPU refused {use.counts['refused']} calls, as a real one would")
    for index, device in enumerate(use.devices):
        if device.leaked_bytes:
            yield error("memory-leaked", f"Device {index}: {device.leaked_bytes} bytes were not freed")
        if expected.used is not None and bool(device.peak_bytes) is not (index in expected.used):
            wanted = "some" if index in expected.used else "none"
            found = f"{device.peak_bytes} bytes"
            yield error(
                "wrong-device-used", f"Memory of device {index} ({device.capability}): expected {wanted}, found {found}"
            )
    left = ", ".join(f"{count} {name}" for name, count in use.leaked.items() if count)
    if left:
        yield error("objects-leaked", f"Not freed: {left}")
