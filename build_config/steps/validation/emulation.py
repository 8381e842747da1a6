"""Checks on an emulated GPU: what its kernels compute there, compared with the CPU by the bounds of a real GPU.

The script and the judgement are those of ``compare_with_cpu``; the models are smaller, because a GPU's threads run one
after the other here. Each model has a process of its own: a kernel that fails ends only its checks.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from build_config.reports import EmulatedCheck
from build_config.steps.validation import compare_with_cpu, numerics
from build_config.steps.validation.numerics import Plan, Request
from build_config.testbed import emulated_device, simulated_device, synthetic_model
from build_config.testbed.emulated_device import KernelUse
from build_config.testbed.model_families import GEMMA2, LLAMA, MAMBA, QWEN2, QWEN2MOE, ModelFamily
from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine, SimulatedUse
from build_config.testbed.synthetic_model import SMALL, TINY, ModelShape

if TYPE_CHECKING:
    from collections.abc import Callable


NARROW = ModelShape(
    name="narrow", layers=2, width=256, feed_forward=512, heads=4, kv_heads=2, context=512, vocabulary=512
)
"""As narrow as types with 256 weights in a block allow; two heads of the queries share one of the keys."""
KINDS = ("F16", "BF16", "Q4_0", "Q8_0", "Q4_K_M", "Q6_K", "IQ4_XS", "MXFP4")
TIMEOUT = 3600.0
"""Seconds for all checks of a model, with the compilation of the kernels that no earlier run kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt of ``tokens``. With ``small``, also in batches of so many. ``cache`` is the type of the KV cache."""

    tokens: int
    small: int | None = None
    flash: bool = False
    cache: Literal["F16", "Q8_0"] = "F16"

    @property
    def name(self) -> str:
        """The words for a table."""
        parts = [f"{self.tokens} token{'s' if self.tokens > 1 else ''}"]
        parts += [f"batches of {self.small}"] if self.small else []
        parts += ["flash attention"] if self.flash else []
        parts += [f"KV cache {self.cache}"] if self.cache != "F16" else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model and the prompts that are computed with it, on ``devices`` equal GPUs."""

    shape: ModelShape
    kind: str
    prompts: tuple[Prompt, ...]
    family: ModelFamily = LLAMA
    devices: int = 1

    @property
    def model(self) -> str:
        """The name of the model: its shape, its architecture if that is not llama, and the number of GPUs."""
        name = self.shape.name if self.family is LLAMA else f"{self.shape.name} {self.family.architecture}"
        return name if self.devices == 1 else f"{name} on {self.devices} GPUs"


_LENGTHS = (Prompt(tokens=32), Prompt(tokens=8), Prompt(tokens=1))
_FLASH = tuple(dataclasses.replace(prompt, flash=True) for prompt in _LENGTHS)
QUICK = (
    Case(
        shape=TINY,
        kind="F32",
        prompts=(Prompt(tokens=64), Prompt(tokens=8), Prompt(tokens=1), Prompt(tokens=8, small=1)),
    ),
    Case(shape=SMALL, kind="F32", prompts=(Prompt(tokens=64),)),
)
"""The checks without ``--all``, with few kernels. Batches of one token become a CUDA graph."""
ALL = (
    *QUICK,
    Case(shape=SMALL, kind="F32", prompts=(Prompt(tokens=64, flash=True), Prompt(tokens=64, small=8, flash=True))),
    Case(shape=SMALL, kind="Q4_K_M", prompts=(Prompt(tokens=64, flash=True), Prompt(tokens=512, small=64, flash=True))),
    *(Case(shape=NARROW, kind=kind, prompts=(*_LENGTHS, *_FLASH)) for kind in KINDS),
    Case(
        shape=NARROW,
        kind="Q8_0",
        prompts=tuple(dataclasses.replace(prompt, cache="Q8_0") for prompt in _FLASH),
    ),
    *(Case(shape=NARROW, kind="F16", prompts=_LENGTHS, family=family) for family in (QWEN2, QWEN2MOE, GEMMA2, MAMBA)),
    Case(shape=NARROW, kind="Q4_K_M", prompts=_LENGTHS, family=QWEN2MOE),
    Case(shape=SMALL, kind="Q4_K_M", prompts=(Prompt(tokens=64, flash=True),), devices=2),
)
"""Every check of ``nox -s emulate -- --all``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedMachine:
    """The place of the checks: an interpreter with the wheel, an empty folder, doubles, and a server of kernels."""

    python: Path
    folder: Path
    libraries: SimulatedLibraries
    server: Path
    capability: str
    log: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """The checks of one or several cases, and the kernels that they executed. ``memory`` is in bytes.

    ``devices`` are the counters of the doubles, one for each process that ended by itself.
    """

    checks: tuple[EmulatedCheck, ...]
    uses: tuple[KernelUse, ...]
    devices: tuple[SimulatedUse, ...]
    memory: int

    def count(self, name: str) -> int:
        """A counter of the doubles in all processes."""
        return sum(use.counts[name] for use in self.devices)

    @property
    def misused(self) -> int:
        """The calls that a real GPU would refuse, and the objects that were not freed."""
        objects = sum(sum(use.leaked.values()) for use in self.devices)
        return (
            self.count("refused") + objects + sum(one.leaked_bytes > 0 for use in self.devices for one in use.devices)
        )


def run(
    machine: EmulatedMachine,
    cases: tuple[Case, ...],
    on_done: Callable[[int, tuple[EmulatedCheck, ...]], None] | None = None,
) -> Emulated:
    """Compute every case on the emulated GPU and on the CPU. A crash or a wrong number gives failed checks.

    ``on_done`` gets the number of finished cases and the checks of the last one.
    """
    checks: list[EmulatedCheck] = []
    uses: list[KernelUse] = []
    devices: list[SimulatedUse] = []
    for number, case in enumerate(cases, start=1):
        found, used, device = _run_case(machine, case)
        if on_done is not None:
            on_done(number, found)
        checks += found
        uses += used
        devices += [device] if device is not None else []
    import resource  # noqa: PLC0415  # Windows has none, and no doubles

    # Of the largest child: in kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return Emulated(checks=tuple(checks), uses=emulated_device.merged(uses), devices=tuple(devices), memory=peak)


def _run_case(
    machine: EmulatedMachine, case: Case
) -> tuple[tuple[EmulatedCheck, ...], tuple[KernelUse, ...], SimulatedUse | None]:
    start = time.monotonic()
    model = machine.folder / f"{case.model}-{case.kind}.gguf".replace(" ", "-")
    if not model.exists():
        synthetic_model.write(model, case.shape, family=case.family, kind=case.kind)
    plan = Plan(device="CUDA0", checks=tuple(_request(case, prompt, model) for prompt in case.prompts))
    use, report = machine.folder / "simulated-use.json", machine.folder / "emulated-use.json"
    for old in (use, report):
        old.unlink(missing_ok=True)
    changes: dict[str, str | None] = {"CUDA_VISIBLE_DEVICES": None}
    changes |= machine.libraries.environment(
        SimulatedMachine(capabilities=(machine.capability,) * case.devices), report=use
    )
    changes |= emulated_device.environment(machine.server, report)
    measured = compare_with_cpu.measure(
        machine.python, machine.folder, plan, log=machine.log, changes=changes, timeout=TIMEOUT
    )
    whole = time.monotonic() - start
    checks = tuple(
        EmulatedCheck(
            model=case.model,
            kind=case.kind,
            prompt=check.name,
            check=check,
            seconds=round(measured.checks.get(check.name, {}).get("seconds", whole), 3),
        )
        for check in numerics.judge(plan, measured)
    )
    return checks, emulated_device.read_report(report), simulated_device.read_report(use)


def _request(case: Case, prompt: Prompt, model: Path) -> Request:
    return Request(
        name=prompt.name,
        check="logits" if prompt.small is None else "batches",
        reference=model if prompt.small is None else None,
        model=model,
        kind=case.kind,
        layers=case.shape.layers + 1,
        tokens=prompt.tokens,
        small=prompt.small or prompt.tokens,
        flash=prompt.flash,
        cache=prompt.cache,
        others=tuple(f"CUDA{number}" for number in range(1, case.devices)),
    )
