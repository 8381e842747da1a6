"""Compare a GPU with the CPU in a clean environment that has the wheel: models, child process, judgement."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from build_config.errors import CommandError, StepResultError, ValidationError
from build_config.steps.validation import device_checks, numerics
from build_config.steps.validation.numerics import DeviceChecks, Measured, Plan, Request
from build_config.system import jsonio
from build_config.system.processes import Command
from build_config.system.processes import run as run_command
from build_config.testbed import synthetic_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TIMEOUT = 900.0
"""Seconds for all checks. A GPU takes one or two minutes, mostly for loading; two cores in its place take four."""
PROMPT = 64
LONG_PROMPT = 512
TEXT = 64


def run(
    python: Path,
    folder: Path,
    *,
    device: str = "CUDA0",
    kinds: tuple[str, ...] = synthetic_model.KINDS,
    log: Path | None = None,
    changes: Mapping[str, str | None] | None = None,
) -> DeviceChecks:
    """Write models of ``kinds`` into ``folder``, compute with them on ``device`` and on the CPU, and judge.

    ``python`` is the interpreter of an environment with the wheel; ``changes`` are variables for its process.
    ``device`` is ggml's name. The models take 250 MB in ``folder``. A wheel that crashes or computes wrong results
    gives failed checks.

    Raises ``ValidationError`` if the process could not be started.
    """
    start = time.monotonic()
    plan = make_plan(folder, device=device, kinds=kinds)
    measured = measure(python, folder, plan, log=log, changes=changes)
    descriptions = {one.name: one.description for one in measured.devices}
    return DeviceChecks(
        device=device,
        description=descriptions.get(device, "no such device"),
        checks=numerics.judge(plan, measured),
        seconds=round(time.monotonic() - start, 3),
    )


def make_plan(folder: Path, *, device: str, kinds: tuple[str, ...] = synthetic_model.KINDS) -> Plan:
    """Write the models and list the checks.

    The memory of the CPU is not checked: ggml always reports all of it as free.
    """
    requests = [*_plain(folder), *(request for kind in kinds for request in _of_kind(folder, kind))]
    if device == numerics.CPU:
        requests = [request for request in requests if request.check != "memory"]
    return Plan(device=device, checks=tuple(requests))


def measure(
    python: Path,
    folder: Path,
    plan: Plan,
    *,
    log: Path | None = None,
    changes: Mapping[str, str | None] | None = None,
    timeout: float = TIMEOUT,
) -> Measured:
    """Run the plan with ``python``. The result contains its exception, crash or timeout.

    Raises ``ValidationError`` if the process could not be started.
    """
    instructions, output = folder / "plan.json", folder / "measured.json"
    output.unlink(missing_ok=True)
    jsonio.write(instructions, plan)
    command = Command(
        argv=(str(python), "-I", device_checks.__file__, str(instructions), str(output)),
        cwd=folder,
        changes={"GGML_NO_BACKTRACE": "1", **(changes or {})},  # no debugger after ggml aborts
        log=log,
    )
    try:
        completed = run_command(command, check=False, timeout=timeout)
    except CommandError as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise ValidationError(f"The device checks could not be started: {error.message}", log=log) from error
        ending, said = f"was stopped after {timeout:.0f} s", ""
    else:
        ending, said = completed.ending, completed.last_words
    try:
        measured = jsonio.read(output, Measured) if output.exists() else Measured()
    except StepResultError as error:
        return Measured(error=f"unreadable result: {error.message}")
    return dataclasses.replace(measured, ending=ending, said=said)


def _plain(folder: Path) -> Iterator[Request]:
    """The checks that do not depend on the type of the weights."""
    tiny = synthetic_model.write(folder / "tiny.gguf", synthetic_model.TINY)
    layers = synthetic_model.TINY.layers + 1
    yield Request(
        name="logits of the tiny model",
        check="logits",
        reference=tiny,
        model=tiny,
        kind="F32",
        layers=layers,
        tokens=PROMPT,
    )
    model = synthetic_model.write(folder / "plain.gguf", synthetic_model.SMALL, kind="F32")
    layers = synthetic_model.SMALL.layers + 1
    yield Request(name="generation", check="generation", model=model, kind="F32", layers=layers, tokens=TEXT)
    yield Request(name="memory", check="memory", model=model, kind="F32", layers=layers, tokens=2)


def _of_kind(folder: Path, kind: str) -> Iterator[Request]:
    """Logits without and with flash attention; one batch and small ones, for which GPUs have other kernels."""
    model = synthetic_model.write(folder / f"{kind}.gguf", synthetic_model.SMALL, kind=kind)
    layers = synthetic_model.SMALL.layers + 1
    for flash, how in ((False, ""), (True, ", flash attention")):
        yield Request(
            name=f"logits {kind}{how}",
            check="logits",
            reference=model,
            model=model,
            kind=kind,
            layers=layers,
            tokens=PROMPT,
            flash=flash,
        )
    yield Request(
        name=f"batches {kind}", check="batches", model=model, kind=kind, layers=layers, tokens=LONG_PROMPT, flash=True
    )
