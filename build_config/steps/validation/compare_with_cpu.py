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
from build_config.testbed.synthetic_model import SMALL, TINY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from build_config.testbed.synthetic_model import ModelShape

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


def models(kinds: tuple[str, ...] = synthetic_model.KINDS) -> dict[str, tuple[ModelShape, str]]:
    """The models of all checks: the name of the file, the shape and the type of the weights."""
    return {
        "tiny.gguf": (TINY, "F32"),
        "plain.gguf": (SMALL, "F32"),
        **{f"{kind}.gguf": (SMALL, kind) for kind in kinds},
    }


def make_plan(folder: Path, *, device: str, kinds: tuple[str, ...] = synthetic_model.KINDS) -> Plan:
    """Write the models and list the checks."""
    for name, (shape, kind) in models(kinds).items():
        synthetic_model.write(folder / name, shape, kind=kind)
    return plan(folder, device=device, kinds=kinds)


def plan(folder: Path, *, device: str, kinds: tuple[str, ...] = synthetic_model.KINDS) -> Plan:
    """List the checks with the models in ``folder``.

    The memory of the CPU is not checked: ggml always reports all of it as free.
    """
    checks = (request for request in _requests(folder, kinds) if device != numerics.CPU or request.check != "memory")
    return Plan(device=device, checks=tuple(checks))


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


def _requests(folder: Path, kinds: tuple[str, ...]) -> Iterator[Request]:
    """The checks that do not depend on the type of the weights, then those of each type.

    Logits are computed without and with flash attention, and in one batch and small ones, for which GPUs have other
    kernels.
    """

    def model(name: str, shape: ModelShape, kind: str) -> Request:
        file = folder / name
        layers = shape.layers + 1
        return Request(
            name=f"logits {kind}", check="logits", reference=file, model=file, kind=kind, layers=layers, tokens=PROMPT
        )

    tiny, plain, *others = (model(name, *described) for name, described in models(kinds).items())
    yield dataclasses.replace(tiny, name="logits of the tiny model")
    plain = dataclasses.replace(plain, reference=None)
    yield dataclasses.replace(plain, name="generation", check="generation", tokens=TEXT)
    yield dataclasses.replace(plain, name="memory", check="memory", tokens=2)
    for logits in others:
        yield logits
        yield dataclasses.replace(logits, name=f"{logits.name}, flash attention", flash=True)
        yield dataclasses.replace(
            logits, name=f"batches {logits.kind}", check="batches", reference=None, tokens=LONG_PROMPT, flash=True
        )
