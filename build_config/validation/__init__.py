"""Installs the finished wheel as a user would, runs it, and says where its layers were.

The answer is a verdict with its evidence, never a hope: no placement line in the log is a failure like a wrong one.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_config import clean_environment, jsonio, synthetic_model
from build_config.check_gpu import placement
from build_config.check_gpu.placement import LayerPlacement
from build_config.errors import CommandError, StepResultError, ValidationError
from build_config.model import Finding, Severity, ValidationReport, Verdict
from build_config.runner import Command, run
from build_config.validation import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.console import Console
    from build_config.layout import Layout
    from build_config.model import Machine, Wheel

PROBE_TIMEOUT = 120.0
"""Seconds for the probe. It takes one or two; a card that wakes up and loads cuBLAS for the first time takes longer."""

_OURS = re.compile(r"(lib)?(ggml|llama|mtmd)\b")
_CUDA_DEVICE = re.compile(r"CUDA\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What the probe wrote, or ``error`` when it broke off or could not write.

    ``package`` is the folder that ``llama_cpp`` was imported from, ``cuda_status`` the loader's answer as it is,
    ``loaded_files`` are the shared libraries of the process.
    """

    log: tuple[str, ...] = ()
    text: str = ""
    tokens: int = 0
    cuda_status: dict[str, Any] | None = None
    package: str | None = None
    loaded_files: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    error: str | None = None


def validate(
    wheel: Wheel,
    *,
    wheels_folder: Path,
    downloads: Path,
    layout: Layout,
    machine: Machine,
    require_gpu: bool,
    console: Console,
) -> ValidationReport:
    """Install ``wheel`` from ``wheels_folder`` into a clean environment, generate with a tiny model, and judge.

    The wheel's requirements come from the lock ``validation.txt``, by digest, from ``downloads`` first. A wheel that
    does not install or run gives a report with the verdict ``failed``.

    Raises ``ValidationError`` when the environment could not be made or the probe could not be started.
    """
    start = time.monotonic()
    log = layout.logs / "validation.log"
    with clean_environment.outside(layout.checkout) as folder:
        console.note("Making a clean environment with the wheel's requirements")
        python = clean_environment.make(folder, layout.locks / "validation.txt", downloads, log)
        console.note(f"Installing {wheel.path.name}")
        installed = clean_environment.install(wheel, wheels_folder, python, log)
        if any(finding.severity is Severity.ERROR for finding in installed):
            result = ProbeResult(error="not run: the wheel did not install")
        else:
            console.note(f"Generating {probe.TOKENS} tokens")
            result = run_probe(python, folder, log=log)
    verdict, findings = judge(result, machine, require_gpu=require_gpu)
    placements = placement.parse(result.log)
    status = result.cuda_status or {}
    return ValidationReport(
        wheel_sha256=wheel.sha256,
        verdict=Verdict.FAILED if installed else verdict,
        machine=machine,
        placements=placements.layers,
        offloaded=placements.offloaded,
        cpu_variant=status.get("cpu_variant"),
        cuda_reason=status.get("reason"),
        tokens_generated=result.tokens,
        text=result.text,
        findings=(*installed, *findings),
        seconds=round(time.monotonic() - start, 3),
    )


def judge(result: ProbeResult, machine: Machine, *, require_gpu: bool) -> tuple[Verdict, tuple[Finding, ...]]:
    """What a probe proves on ``machine``.

    With a card: ``gpu-verified`` when every layer and the whole KV cache are on CUDA devices. Without one:
    ``cpu-fallback-verified`` when all of it is on the CPU, by a known variant, and the loader says why. Anything else
    is ``failed``, and so is anything but ``gpu-verified`` with ``require_gpu``.
    """
    with_card = bool(machine.gpus)
    findings = list(_what_is_wrong(result, with_card=with_card))
    verdict = Verdict.GPU_VERIFIED if with_card else Verdict.CPU_FALLBACK_VERIFIED
    if findings:
        verdict = Verdict.FAILED
    if require_gpu and verdict is not Verdict.GPU_VERIFIED:
        why = "see the other findings" if with_card else "this machine has no card that the driver lists"
        findings.append(_error("gpu-required", f"A GPU was required and the wheel was not seen to use one: {why}"))
        verdict = Verdict.FAILED
    return verdict, tuple(findings)


def run_probe(python: Path, folder: Path, *, log: Path | None = None, timeout: float = PROBE_TIMEOUT) -> ProbeResult:
    """Run the probe with ``python`` in ``folder``. Its exceptions, its crash and its timeout are in the result.

    Raises ``ValidationError`` when it could not be started.
    """
    model = synthetic_model.write(folder / "tiny.gguf")
    output = folder / "result.json"
    command = Command(
        argv=(str(python), "-I", str(Path(probe.__file__).resolve()), str(model), str(output)), cwd=folder, log=log
    )
    try:
        completed = run(command, check=False, timeout=timeout)
    except CommandError as error:
        if isinstance(error.__cause__, TimeoutError):
            return ProbeResult(error=f"no answer within {timeout:.0f} s")
        raise ValidationError(f"The probe could not be started: {error.message}", log=log) from error
    if not output.exists():
        return ProbeResult(error=f"it {completed.ending} and no result; it said: {completed.last_words or 'nothing'}")
    try:
        return jsonio.read(output, ProbeResult)
    except StepResultError as error:
        return ProbeResult(error=f"unreadable result: {error.message}")


def _what_is_wrong(result: ProbeResult, *, with_card: bool) -> Iterator[Finding]:
    if result.error is not None:
        yield _error("probe-failed", f"The probe did not come to its end: {result.error.strip()}")
        return
    if result.tokens != probe.TOKENS:
        yield _error("tokens-missing", f"{result.tokens} tokens were generated, not {probe.TOKENS}")
    yield from _wrong_status(result.cuda_status, with_card=with_card)
    yield from _wrong_placement(placement.parse(result.log), with_card=with_card)
    yield from _wrong_files(result)


def _wrong_status(status: dict[str, Any] | None, *, with_card: bool) -> Iterator[Finding]:
    if status is None:
        yield _error("no-cuda-status", "llama_cpp has no cuda_status(): this is not a wheel of this pipeline")
        return
    if not status.get("cpu_variant"):
        yield _error("cpu-variant-unknown", "The loader does not name the CPU variant in use")
    if with_card and not status.get("loaded"):
        yield _error("cuda-not-loaded", f"A card is there and CUDA is not in use: {status.get('reason')}")
    if not with_card and status.get("loaded"):
        yield _error("card-unknown", "CUDA came up although the driver lists no card: nothing was verified on a GPU")
    if not status.get("loaded") and not status.get("reason"):
        yield _error("reason-missing", "CUDA is not in use and the loader does not say why")


def _wrong_placement(found: placement.Placements, *, with_card: bool) -> Iterator[Finding]:
    if not found.layers:
        yield _error("placement-missing", "The log does not say where any layer is; its wording may have changed")
        return
    where = {layer.layer: layer for layer in found.layers}
    for number in range(synthetic_model.TINY.layers + 1):
        layer = where.get(number, LayerPlacement(layer=number, weights=None, kv_cache=None))
        yield from _wrong_device(f"layer {number}", layer.weights, with_card=with_card)
        if number < synthetic_model.TINY.layers:  # the last one is the output: it has no cache
            yield from _wrong_device(f"KV cache of layer {number}", layer.kv_cache, with_card=with_card)
    everything = (synthetic_model.TINY.layers + 1,) * 2
    if with_card and found.offloaded != everything:
        yield _error("not-all-offloaded", f"llama.cpp reports {found.offloaded} offloaded layers, not {everything}")


def _wrong_device(what: str, device: str | None, *, with_card: bool) -> Iterator[Finding]:
    if device is None:
        yield _error("placement-missing", f"The log does not say where {what} is")
    elif with_card and not _CUDA_DEVICE.fullmatch(device):
        yield _error("not-on-card", f"{what} is on {device}, not on a CUDA device")
    elif not with_card and device != "CPU":
        yield _error("not-on-cpu", f"{what} is on {device} although the machine has no card")


def _wrong_files(result: ProbeResult) -> Iterator[Finding]:
    """Every library of llama.cpp must come from the installed package: one from elsewhere was planted or left over."""
    ours = [Path(file) for file in result.loaded_files if _OURS.match(Path(file).name)]
    if not ours or result.package is None:
        yield _error("libraries-unseen", "The probe saw no library of llama.cpp in its process")
        return
    for file in ours:
        if not file.is_relative_to(result.package):
            yield _error("library-from-outside", f"{file.name} was loaded from {file.parent}, not from the package")


def _error(code: str, message: str) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, message=message)
