"""Checks on an emulated GPU: what its kernels compute there, compared with the CPU by the bounds of a real GPU.

The script and the judgement are those of ``compare_with_cpu``; the models are smaller, because a GPU's threads run one
after the other here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from build_config.errors import InterruptedRunError, StepResultError
from build_config.reports import EmulatedCheck
from build_config.steps.validation import compare_with_cpu, numerics
from build_config.steps.validation.numerics import Plan, Request
from build_config.system import jsonio, processes
from build_config.system.machine import usable_cores
from build_config.testbed import emulated_device, simulated_device, synthetic_model
from build_config.testbed.emulated_device import KernelUse
from build_config.testbed.model_families import BERT, GEMMA2, LLAMA, MAMBA, QWEN2, QWEN2MOE, ModelFamily
from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine, SimulatedUse
from build_config.testbed.synthetic_model import SMALL, TINY, ModelShape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future


NARROW = ModelShape(
    name="narrow", layers=2, width=256, feed_forward=512, heads=4, kv_heads=2, context=512, vocabulary=512
)
"""As narrow as types with 256 weights in a block allow; two heads of the queries share one of the keys."""
NARROW_128 = dataclasses.replace(NARROW, name="narrow-128", heads=2, kv_heads=1)
"""With heads of 128: for smaller ones ggml has no flash attention with capped scores, which gemma2 needs."""
TIMEOUT = 3600.0
"""Seconds for a check, with the compilation of the kernels that no earlier run kept."""
_BEAT = 0.1
_writing = threading.Lock()


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
    split: Literal["layer", "tensor"] = "layer"

    @property
    def model(self) -> str:
        """The name of the model: its shape, its architecture if that is not llama, and the number of GPUs."""
        name = self.shape.name if self.family is LLAMA else f"{self.shape.name} {self.family.architecture}"
        return name if self.devices == 1 else f"{name} on {self.devices} GPUs, split by {self.split}"


def _flash(*prompts: Prompt) -> tuple[Prompt, ...]:
    return tuple(dataclasses.replace(prompt, flash=True) for prompt in prompts)


_LONG, _SHORT, _ONE = Prompt(tokens=32), Prompt(tokens=8), Prompt(tokens=1)
_LENGTHS = (_LONG, _SHORT, _ONE)
_WINDOW = (Prompt(tokens=128), _ONE)
"""The window of the family is 64 tokens."""
_SPLITS: tuple[Literal["layer", "tensor"], ...] = ("layer", "tensor")
QUICK = (
    Case(shape=TINY, kind="F32", prompts=(Prompt(tokens=64), _SHORT, _ONE, Prompt(tokens=8, small=1))),
    Case(shape=SMALL, kind="F32", prompts=(Prompt(tokens=64),)),
    Case(shape=NARROW, kind="Q4_K_M", prompts=_flash(_LONG, _ONE)),
)
"""The checks without ``--all``, with few kernels. Batches of one token become a CUDA graph."""
ALL = (
    *QUICK,
    Case(shape=NARROW, kind="F16", prompts=(*_LENGTHS, *_flash(*_LENGTHS, Prompt(tokens=512, small=64)))),
    Case(shape=NARROW, kind="BF16", prompts=(_LONG, _ONE, *_flash(_LONG))),
    *(Case(shape=NARROW, kind=kind, prompts=(_LONG, _ONE)) for kind in ("Q4_0", "Q6_K", "IQ4_XS", "MXFP4")),
    Case(shape=NARROW, kind="Q4_K_M", prompts=(_LONG, _SHORT, *_flash(_SHORT, Prompt(tokens=512, small=32)))),
    Case(
        shape=NARROW,
        kind="Q8_0",
        prompts=(_LONG, _ONE, *(dataclasses.replace(prompt, cache="Q8_0") for prompt in _flash(_LONG, _ONE))),
    ),
    *(Case(shape=NARROW, kind="F16", prompts=(_LONG, _ONE), family=family) for family in (QWEN2, MAMBA)),
    Case(shape=NARROW_128, kind="F16", prompts=(*_WINDOW, *_flash(_WINDOW[0])), family=GEMMA2),
    Case(shape=NARROW, kind="F16", prompts=_LENGTHS, family=QWEN2MOE),
    Case(shape=NARROW, kind="Q4_K_M", prompts=(_LONG, _ONE), family=QWEN2MOE),
    Case(shape=NARROW, kind="F16", prompts=(_LONG, *_flash(_LONG)), family=BERT),
    Case(shape=NARROW, kind="Q8_0", prompts=(_LONG,), family=BERT),
    *(Case(shape=NARROW, kind="F16", prompts=_flash(_LONG), devices=2, split=split) for split in _SPLITS),
)
"""Every check of ``nox -s emulate -- --all``."""
CASES = {"quick": QUICK, "all": ALL}
"""By the value of ``--emulate`` of the main job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedMachine:
    """The place of the checks: an interpreter with the wheel, an empty folder, doubles, and a server of kernels.

    So many ``jobs`` run at once.
    """

    python: Path
    folder: Path
    libraries: SimulatedLibraries
    server: Path
    capability: str
    log: Path | None = None
    jobs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A check, the kernels that it executed, the counters of its process if that ended by itself, and its memory."""

    check: EmulatedCheck
    uses: tuple[KernelUse, ...]
    device: SimulatedUse | None
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRows:
    """Rows that passed, as files in ``folder``, so that a run goes on where an earlier one was stopped.

    ``key`` names everything that a row depends on, except the check itself.
    """

    folder: Path
    key: str

    def find(self, case: Case, prompt: Prompt) -> Row | None:
        """The row of an earlier run with the same inputs."""
        with contextlib.suppress(StepResultError):
            return jsonio.read(self._path(case, prompt), Row)
        return None

    def keep(self, case: Case, prompt: Prompt, row: Row) -> None:
        """Write a row, if it passed."""
        if row.check.check.passed:
            jsonio.write(self._path(case, prompt), row)

    def _path(self, case: Case, prompt: Prompt) -> Path:
        asked = jsonio.dumps((dataclasses.replace(case, prompts=(prompt,)), self.key))
        return self.folder / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """The checks of one or several cases, and the kernels that they executed.

    ``devices`` are the counters of the doubles, one for each process that ended by itself; ``memory`` is that of the
    largest one, in bytes. ``kept`` counts the checks that an earlier run had computed.
    """

    checks: tuple[EmulatedCheck, ...]
    uses: tuple[KernelUse, ...]
    devices: tuple[SimulatedUse, ...]
    memory: int
    kept: int = 0

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
    on_done: Callable[[int, int, EmulatedCheck], None] | None = None,
    kept: KeptRows | None = None,
) -> Emulated:
    """Compute every check on the emulated GPU and on the CPU. A crash or a wrong number gives a failed check.

    ``on_done`` gets the numbers of finished checks and of all that are not ``kept``, and the last one. If the run is
    interrupted, everything that was finished is kept; that raises ``InterruptedRunError``.
    """
    asked = [(case, prompt) for case in cases for prompt in case.prompts]
    rows: dict[int, Row] = {}
    if kept is not None:
        found = ((number, kept.find(*one)) for number, one in enumerate(asked))
        rows = {number: row for number, row in found if row is not None}
    before = len(rows)
    with ThreadPoolExecutor(machine.jobs) as pool:
        # The first prompts of all cases come first: what runs at the same time then needs different kernels.
        order = sorted(set(range(len(asked))) - rows.keys(), key=lambda at: asked[at][0].prompts.index(asked[at][1]))
        futures = {pool.submit(_run_one, machine, *asked[number]): number for number in order}
        with _stopped_on_error(pool, futures):
            for future in as_completed(futures):
                number, row = futures[future], future.result()
                rows[number] = row
                if kept is not None:
                    kept.keep(*asked[number], row)
                if on_done is not None:
                    on_done(len(rows) - before, len(futures), row.check)
    ordered = [rows[number] for number in range(len(asked))]
    return Emulated(
        checks=tuple(row.check for row in ordered),
        uses=emulated_device.merged(use for row in ordered for use in row.uses),
        devices=tuple(row.device for row in ordered if row.device is not None),
        memory=max((row.memory for row in ordered), default=0),
        kept=before,
    )


@contextlib.contextmanager
def _stopped_on_error(pool: ThreadPoolExecutor, futures: Iterable[Future[Row]]) -> Iterator[None]:
    """End the processes of all threads if the block is interrupted: none must be waited for."""
    try:
        yield
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        while any(future.running() for future in futures):
            processes.stop_children()
            time.sleep(_BEAT)
        if isinstance(error, KeyboardInterrupt):
            message = "Stopped. Finished checks are kept; the same command goes on with those that are left."
            raise InterruptedRunError(message) from error
        raise


def _run_one(machine: EmulatedMachine, case: Case, prompt: Prompt) -> Row:
    """A check has a process of its own: a kernel that fails ends nothing else."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="check-", dir=machine.folder) as name:
        folder = Path(name)
        plan = Plan(device="CUDA0", checks=(_request(case, prompt, _model(machine.folder, case)),))
        use, report = folder / "simulated-use.json", folder / "emulated-use.json"
        changes: dict[str, str | None] = {"CUDA_VISIBLE_DEVICES": None}
        changes |= machine.libraries.environment(
            SimulatedMachine(capabilities=(machine.capability,) * case.devices), report=use
        )
        changes |= emulated_device.environment(machine.server, report)
        if case.split == "tensor":  # ggml's kernel that sums over GPUs waits for that of another one: copies, instead
            changes["GGML_CUDA_ALLREDUCE"] = "none"
        if machine.jobs > 1:  # a thread of OpenMP that waits would take the time of the other processes
            changes |= {"PTX_WORKERS": str(max(1, usable_cores() // machine.jobs)), "OMP_WAIT_POLICY": "passive"}
        measured = compare_with_cpu.measure(
            machine.python, folder, plan, log=machine.log, changes=changes, timeout=TIMEOUT
        )
        (check,) = numerics.judge(plan, measured)
        device = simulated_device.read_report(use)
        if device is not None and not all(one.peak_bytes for one in device.devices):
            check = dataclasses.replace(check, passed=False, reason="a GPU was not used")
        seconds = measured.checks.get(check.name, {}).get("seconds", time.monotonic() - start)
        return Row(
            check=EmulatedCheck(
                model=case.model, kind=case.kind, prompt=check.name, check=check, seconds=round(seconds, 3)
            ),
            uses=emulated_device.read_report(report),
            device=device,
            memory=emulated_device.read_memory(report),
        )


def _model(folder: Path, case: Case) -> Path:
    """The model of a case, written once."""
    path = folder / f"{case.shape.name}-{case.family.architecture}-{case.kind}.gguf"
    with _writing:
        return path if path.exists() else synthetic_model.write(path, case.shape, family=case.family, kind=case.kind)


def _request(case: Case, prompt: Prompt, model: Path) -> Request:
    return Request(
        name=prompt.name,
        check="batches" if prompt.small else "embedding" if case.family.embeds else "logits",
        reference=model if prompt.small is None else None,
        model=model,
        kind=case.kind,
        layers=case.shape.layers + 1,
        tokens=prompt.tokens,
        small=prompt.small or prompt.tokens,
        flash=prompt.flash,
        cache=prompt.cache,
        split=case.split,
        others=tuple(f"CUDA{number}" for number in range(1, case.devices)),
    )
