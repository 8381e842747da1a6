"""Measures what a wheel gives: the same prompt on the CPU and on the card, in one run, with the same model.

Every measurement is a fresh process in an environment that holds the wheel and nothing of this package. A measurement
on the card counts only when llama.cpp's own log puts every layer and its KV cache there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from build_config.errors import CommandError, DiskFullError, MeasurementError, SettingsError, StepResultError
from build_config.model import Machine, Wheel
from build_config.system import jsonio, machine
from build_config.system.processes import Command, run
from build_config.tasks.bench import child, results
from build_config.tasks.bench.results import Build, Card, CardKind, ChildResult, Device, DeviceReport, Measurement
from build_config.testbed import clean_environment, synthetic_model
from build_config.testbed.synthetic_model import ModelShape

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from build_config.system.console import Console
    from build_config.system.layout import Layout

CHILD_TIMEOUT = 1800.0
"""Seconds for one measurement."""
TRIES = 3
"""For a measurement on the CPU, until other programs leave it its cores."""
LOG = "bench.log"
NO_CARD = "-1"
"""``CUDA_VISIBLE_DEVICES`` for a process that is to see no card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose llama-cpp-python is measured: a wheel, or what an interpreter has installed. One of them is given."""

    wheel: Wheel | None = None
    python: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A device without a card: what it is (``8.9``), and the variables that put a process onto it.

    ``no_device`` are those for a process that finds a driver and no device: a build without a loader of its own cannot
    even be imported where there is no driver.
    """

    capability: str
    changes: dict[str, str | None]
    no_device: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """What to measure. ``model`` is a file; without one a random model of ``shape`` and ``kind`` is made.

    ``prompt_tokens`` and ``tokens`` are the lengths of prompt and answer.
    """

    ours: Subject
    machine: Machine
    model: Path | None = None
    shape: ModelShape = field(default=synthetic_model.ONE_B)
    kind: str = "Q4_K_M"
    against: Subject | None = None
    simulation: Simulation | None = None
    prompt_tokens: int = 256
    tokens: int = 64
    rounds: int = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One column of the table: an interpreter with a build in it, on one device."""

    build: Build
    device: Device
    python: Path
    changes: Mapping[str, str | None]

    @property
    def title(self) -> str:
        """For progress."""
        device = "CPU" if self.device is Device.CPU else "card"
        return device if self.build is Build.OURS else f"{device}, the other build"


def measure_devices(plan: DevicePlan, *, created: datetime, layout: Layout, console: Console) -> DeviceReport:
    """Measure, and judge ours against the other build where there is one.

    A measurement that failed is in the report with its reason. The wheels' requirements come from the lock
    ``validation.txt`` or that of an earlier CUDA, by digest.

    Raises ``SettingsError`` for a plan that cannot be carried out, ``ValidationError`` when an environment cannot be
    made, ``MeasurementError`` when a wheel does not install, ``DiskFullError`` when the model does not fit.
    """
    check(plan)
    card = _card(plan)
    threads = _threads()
    with clean_environment.outside(layout.checkout) as folder:
        runs = _runs(plan, card, folder, layout, console)
        model = _provide_model(plan, folder, console)
        measured = _rounds(plan, runs, _requests(plan, model, threads, folder), threads, layout, console)
        model_bytes = model.stat().st_size
    return DeviceReport(
        created=created.strftime("%Y-%m-%d %H:%M UTC"),
        machine=plan.machine,
        card=card,
        notice=card.notice,
        wheel=_name(plan.ours, Build.OURS, measured),
        wheel_sha256=plan.ours.wheel.sha256 if plan.ours.wheel is not None else None,
        against=_name(plan.against, Build.OTHER, measured) if plan.against is not None else None,
        model=_model_name(plan),
        model_bytes=model_bytes,
        prompt_tokens=plan.prompt_tokens,
        tokens=plan.tokens,
        rounds=plan.rounds,
        threads=threads,
        measurements=measured,
        ratios=results.compare(measured, card, threads),
    )


def check(plan: DevicePlan) -> None:
    """Refuse what cannot be measured, before anything is made. Raises ``SettingsError``."""
    if plan.model is not None and not plan.model.is_file():
        raise SettingsError(f"there is no model {plan.model}", remedy="name a GGUF file, or --synthetic 1b")
    if plan.model is None:
        synthetic_model.check(plan.shape, plan.kind)
        if plan.prompt_tokens + plan.tokens > plan.shape.context:
            raise SettingsError(
                f"{plan.prompt_tokens} tokens of prompt and {plan.tokens} of answer are more than the "
                f"{plan.shape.context} that the model {plan.shape.name} has room for",
                remedy="fewer --prompt-tokens or --tokens",
            )
    for subject in (plan.ours, plan.against):
        if subject is not None and subject.python is not None and not subject.python.is_file():
            raise SettingsError(f"there is no {subject.python}", remedy="name a wheel file or a Python interpreter")


def _card(plan: DevicePlan) -> Card:
    if plan.simulation is not None:
        return Card(kind=CardKind.SIMULATED, name=f"device of compute capability {plan.simulation.capability}")
    if not plan.machine.gpus:
        nothing = "there is no NVIDIA driver" if plan.machine.driver is None else "the NVIDIA driver lists none"
        return Card(kind=CardKind.NONE, why=machine.nvidia().problem or nothing)
    visible = results.first_visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
    named = [gpu.name for gpu in plan.machine.gpus if str(gpu.index) == visible]
    return Card(kind=CardKind.REAL, name=named[0] if named else f"card {visible}")


def _threads() -> int:
    """Real cores that this process may use: a second thread on a core makes generation slower."""
    usable = len(psutil.Process().cpu_affinity())
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def _runs(plan: DevicePlan, card: Card, folder: Path, layout: Layout, console: Console) -> tuple[_Run, ...]:
    """Make the environments."""
    devices: dict[Device, dict[str, str | None]] = {Device.CPU: {"CUDA_VISIBLE_DEVICES": NO_CARD}}
    if plan.simulation is not None:
        devices[Device.CARD] = plan.simulation.changes
    elif card.kind is CardKind.REAL:
        visible = results.first_visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
        # Without an order of ours the numbers would not be those of the driver, which named the card.
        devices[Device.CARD] = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    builds: list[tuple[Build, Path, dict[str, str]]] = []
    for build, subject in ((Build.OURS, plan.ours), (Build.OTHER, plan.against)):
        if subject is not None and subject.wheel is not None:
            console.note(f"Making a clean environment with {subject.wheel.path.name}")
            python = _environment(subject.wheel, folder / build, layout)
            # Ours finds the CUDA libraries by itself: that it does is part of what is measured.
            builds.append((build, python, _library_path(python) if build is Build.OTHER else {}))
        elif subject is not None and subject.python is not None:
            builds.append((build, subject.python.absolute(), {}))
    runs = []
    for device, changes in devices.items():
        for build, python, libraries in builds:
            driver: dict[str, str | None] = {}
            if plan.simulation is not None and (build, device) == (Build.OTHER, Device.CPU):
                driver = plan.simulation.no_device
            runs.append(_Run(build, device, python, {**libraries, **driver, **changes}))
    return tuple(runs)


def _environment(wheel: Wheel, folder: Path, layout: Layout) -> Path:
    folder.mkdir()
    log = layout.logs / LOG
    lock = clean_environment.requirements(wheel, layout.locks)
    python = clean_environment.make(folder, lock, layout.downloads, log)
    findings = clean_environment.install(wheel, wheel.path.parent, python, log)
    if findings:
        raise MeasurementError("; ".join(finding.message for finding in findings), log=log)
    return python


def _library_path(python: Path) -> dict[str, str]:
    """Where a build without a loader of its own finds the CUDA libraries: in NVIDIA's wheels beside it."""
    folders = sorted(
        {str(file.parent) for file in python.parent.parent.glob("lib/python*/site-packages/nvidia/*/lib/*")}
    )
    inherited = [os.environ["LD_LIBRARY_PATH"]] if os.environ.get("LD_LIBRARY_PATH") else []
    return {"LD_LIBRARY_PATH": os.pathsep.join(folders + inherited)} if folders else {}


def _provide_model(plan: DevicePlan, folder: Path, console: Console) -> Path:
    if plan.model is not None:
        return plan.model.resolve()
    console.note(f"Writing the model: {_model_name(plan)}")
    try:
        return synthetic_model.write(folder / "model.gguf", plan.shape, kind=plan.kind)
    except OSError as error:
        message = f"the model could not be written to {folder.parent}: {error.strerror}"
        raise DiskFullError(
            message, remedy="set TMPDIR to a folder with more room, or take --synthetic small"
        ) from error


def _requests(plan: DevicePlan, model: Path, threads: int, folder: Path) -> dict[Device, Path]:
    """What the child is asked on each device."""
    files = {}
    for device, layers in ((Device.CPU, 0), (Device.CARD, -1)):
        files[device] = folder / f"request-{device}.json"
        request = {
            "model": str(model),
            "gpu_layers": layers,
            "prompt_tokens": plan.prompt_tokens,
            "tokens": plan.tokens,
            "threads": threads,
        }
        jsonio.write(files[device], request)
    return files


def _rounds(
    plan: DevicePlan,
    runs: tuple[_Run, ...],
    requests: Mapping[Device, Path],
    threads: int,
    layout: Layout,
    console: Console,
) -> tuple[Measurement, ...]:
    """Every run in every round, so that a machine that grows warm or busy meets all of them."""
    samples: dict[_Run, list[results.Sample]] = {one: [] for one in runs}
    versions: dict[_Run, str] = {}
    failures: dict[_Run, str] = {}
    repeated = dict.fromkeys(runs, 0)
    log = layout.logs / LOG
    with console.progress("Measuring", total=len(runs) * plan.rounds) as bar:
        for number in range(plan.rounds):
            for place, one in enumerate(runs if number % 2 == 0 else runs[::-1]):
                if one in failures:
                    continue
                done = number * len(runs) + place
                tries: list[results.Sample] = []
                while len(tries) < TRIES and all(_is_spoilt(each, one, threads) for each in tries):
                    again = ", again: the machine was busy" if tries else ""
                    note = f"{one.title}, round {number + 1} of {plan.rounds}{again}"
                    result, grown = _run_child(
                        one, requests[one.device], functools.partial(bar.update, done, note=note), log
                    )
                    versions[one] = result.version
                    failure = results.problem(result, one.device, tokens=plan.tokens)
                    if failure is not None:
                        failures[one] = failure
                        console.warn(f"{one.title}: {failure}")
                        break
                    peak = grown if one.device is Device.CARD and plan.simulation is None else None
                    tries.append(results.sample(result, prompt_tokens=plan.prompt_tokens, device_peak_bytes=peak))
                else:
                    repeated[one] += len(tries) - 1
                    # By the cores that it got, not by how fast it was: nothing is chosen by its outcome.
                    samples[one].append(max(tries, key=lambda each: each.cores_busy))
    return tuple(
        Measurement(
            build=one.build,
            device=one.device,
            version=versions[one],
            samples=tuple(samples[one]),
            failure=failures.get(one),
            repeated=repeated[one],
        )
        for one in runs
    )


def _is_spoilt(sample: results.Sample, one: _Run, threads: int) -> bool:
    return results.is_disturbed(sample.cores_busy, one.device, threads)


def _run_child(one: _Run, request: Path, show: Callable[[], None], log: Path) -> tuple[ChildResult, int | None]:
    """One measurement, and by how many bytes the cards' memory grew meanwhile (``None`` where nobody can be asked)."""
    output = request.with_name("result.json")
    output.unlink(missing_ok=True)
    before = machine.gpu_memory_used()
    most = before

    def tick(_pid: int) -> None:
        nonlocal most
        show()
        used = machine.gpu_memory_used() if before is not None else None
        if used is not None and most is not None:
            most = max(most, used)

    command = Command(
        argv=(str(one.python), "-I", str(Path(child.__file__).resolve()), str(request), str(output)),
        cwd=request.parent,
        changes=dict(one.changes),
        log=log,
    )
    try:
        completed = run(command, check=False, timeout=CHILD_TIMEOUT, on_tick=tick)
    except CommandError as error:
        return ChildResult(error=error.message), None
    try:
        result = jsonio.read(output, ChildResult)
    except StepResultError:
        said = completed.last_words or "nothing"
        return ChildResult(error=f"the process {completed.ending} and left no result; it said: {said}"), None
    return result, None if before is None or most is None else most - before


def _model_name(plan: DevicePlan) -> str:
    if plan.model is not None:
        return plan.model.name
    weights = plan.shape.weights
    count = f"{weights / 1e9:.1f} billion" if weights >= 1e9 else f"{weights / 1e6:.1f} million"  # noqa: PLR2004
    return f"random model {plan.shape.name!r}, {count} weights, {plan.kind}"


def _name(subject: Subject, build: Build, measured: tuple[Measurement, ...]) -> str:
    if subject.wheel is not None:
        return subject.wheel.path.name
    versions = [one.version for one in measured if one.build is build and one.version]
    return f"llama-cpp-python {versions[0] if versions else 'of unknown version'}, installed elsewhere"
