"""Measure the speed of a wheel: the same prompt with the same model on the CPU and on the GPU, in one run.

Every measurement is a new process in an environment with the wheel and nothing of this package. A measurement on the
GPU counts only if llama.cpp's own log places every layer and its KV cache there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from build_config.errors import CommandError, DiskFullError, MeasurementError, SettingsError, StepResultError
from build_config.model import Machine, Wheel
from build_config.system import jsonio, machine
from build_config.system.processes import Command, run
from build_config.tasks.bench import child, results
from build_config.tasks.bench.results import (
    Build,
    ChildResult,
    Device,
    DeviceReport,
    GpuKind,
    MeasuredGpu,
    Measurement,
    Sample,
    is_disturbed,
)
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
"""Attempts to measure on the CPU without other programs using its cores."""
LOG = "bench.log"
NO_GPU = "-1"
"""``CUDA_VISIBLE_DEVICES`` for a process that must not see a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A simulated GPU: its compute capability (``8.9``), and the variables with which a process runs on it.

    ``no_device`` are the variables for a process that finds a driver without a GPU: a build without our loader cannot
    even be imported without a driver.
    """

    capability: str
    changes: dict[str, str | None]
    no_device: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """The measurements to make. Without the file ``model``, a random model of ``shape`` and ``kind`` is made.

    ``ours`` is a wheel or the interpreter of an environment with an installed build, and so is ``against``, the
    baseline. ``prompt_tokens`` and ``tokens`` are the lengths of prompt and answer.
    """

    ours: Wheel | Path
    machine: Machine
    model: Path | None = None
    shape: ModelShape = field(default=synthetic_model.ONE_B)
    kind: str = "Q4_K_M"
    against: Wheel | Path | None = None
    simulation: Simulation | None = None
    prompt_tokens: int = 256
    tokens: int = 64
    rounds: int = 3


@dataclass(slots=True, kw_only=True)
class _Run:
    """One column of the table: an interpreter with a build on one device, and what was measured so far."""

    python: Path
    changes: Mapping[str, str | None]
    measured: Measurement


def measure_devices(plan: DevicePlan, *, created: datetime, layout: Layout, console: Console) -> DeviceReport:
    """Measure, and compare our build with the baseline if there is one.

    A failed measurement is in the report with its reason. The wheels' requirements come from the lock
    ``validation.txt`` or that of an earlier CUDA, by digest.

    Raises ``SettingsError`` for an impossible plan, ``ValidationError`` if an environment cannot be made,
    ``MeasurementError`` if a wheel cannot be installed, ``DiskFullError`` if the disk has no room for the model.
    """
    check(plan)
    gpu, devices = _devices(plan)
    # Physical cores only: a second thread on a core makes generation slower.
    usable = machine.usable_cores()
    threads = max(1, min(usable, psutil.cpu_count(logical=False) or usable))
    with clean_environment.outside(layout.checkout) as folder:
        runs = _runs(plan, devices, folder, layout, console)
        model = _provide_model(plan, folder, console)
        _measure_rounds(plan, runs, model, threads, folder, layout.logs / LOG, console)
        model_bytes = model.stat().st_size
    measured = tuple(one.measured for one in runs)
    return DeviceReport(
        created=created.strftime("%Y-%m-%d %H:%M UTC"),
        machine=plan.machine,
        card=gpu,
        notice=gpu.notice,
        wheel=_name(plan.ours, Build.OURS, measured),
        wheel_sha256=plan.ours.sha256 if isinstance(plan.ours, Wheel) else None,
        against=_name(plan.against, Build.BASELINE, measured) if plan.against is not None else None,
        model=_model_name(plan),
        model_bytes=model_bytes,
        prompt_tokens=plan.prompt_tokens,
        tokens=plan.tokens,
        rounds=plan.rounds,
        threads=threads,
        measurements=measured,
        ratios=results.compare(measured, gpu, threads),
    )


def check(plan: DevicePlan) -> None:
    """Raise ``SettingsError`` for a plan that cannot be measured, before anything is made."""
    if plan.model is not None and not plan.model.is_file():
        raise SettingsError(f"there is no model {plan.model}", remedy="pass a GGUF file or --synthetic 1b")
    if plan.model is None:
        synthetic_model.check(plan.shape, plan.kind)
        if plan.prompt_tokens + plan.tokens > plan.shape.context:
            raise SettingsError(
                f"a prompt of {plan.prompt_tokens} and an answer of {plan.tokens} tokens are more than the "
                f"{plan.shape.context} tokens of the context of the model {plan.shape.name}",
                remedy="pass fewer --prompt-tokens or --tokens",
            )
    for subject in (plan.ours, plan.against):
        if isinstance(subject, Path) and not subject.is_file():
            raise SettingsError(f"there is no {subject}", remedy="pass a wheel file or a Python interpreter")


def _devices(plan: DevicePlan) -> tuple[MeasuredGpu, dict[Device, dict[str, str | None]]]:
    """The GPU, and for each device to measure the variables of a process that sees only this one."""
    devices: dict[Device, dict[str, str | None]] = {Device.CPU: {"CUDA_VISIBLE_DEVICES": NO_GPU}}
    if plan.simulation is not None:
        devices[Device.GPU] = plan.simulation.changes
        name = f"device of compute capability {plan.simulation.capability}"
        return MeasuredGpu(kind=GpuKind.SIMULATED, name=name), devices
    if not plan.machine.gpus:
        nothing = "there is no NVIDIA driver" if plan.machine.driver is None else "the NVIDIA driver lists no GPU"
        return MeasuredGpu(kind=GpuKind.NONE, why=machine.nvidia().problem or nothing), devices
    visible = results.first_visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
    # The driver named the GPU by its index in this order; CUDA's default order is another one.
    devices[Device.GPU] = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    names = {str(gpu.index): gpu.name for gpu in plan.machine.gpus}
    return MeasuredGpu(kind=GpuKind.REAL, name=names.get(visible, f"GPU {visible}")), devices


def _runs(
    plan: DevicePlan, devices: dict[Device, dict[str, str | None]], folder: Path, layout: Layout, console: Console
) -> tuple[_Run, ...]:
    """Make the environments; returns one run for each build on each device."""
    builds: list[tuple[Build, Path, dict[str, str]]] = []
    for build, subject in ((Build.OURS, plan.ours), (Build.BASELINE, plan.against)):
        if isinstance(subject, Wheel):
            console.note(f"Making a clean environment with {subject.path.name}")
            python = _environment(subject, folder / build, layout)
            # Our build finds the CUDA libraries by itself; this is part of the measurement.
            builds.append((build, python, _library_path(python) if build is Build.BASELINE else {}))
        elif subject is not None:
            builds.append((build, subject.absolute(), {}))
    runs = []
    for device, changes in devices.items():
        for build, python, libraries in builds:
            driver: dict[str, str | None] = {}
            if plan.simulation is not None and (build, device) == (Build.BASELINE, Device.CPU):
                driver = plan.simulation.no_device
            measured = Measurement(build=build, device=device, version="", samples=())
            runs.append(_Run(python=python, changes={**libraries, **driver, **changes}, measured=measured))
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
    """The variable with which a build without our loader finds the CUDA libraries in NVIDIA's wheels next to it."""
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
            message, remedy="set TMPDIR to a folder with more room, or pass --synthetic small"
        ) from error


def _measure_rounds(
    plan: DevicePlan, runs: tuple[_Run, ...], model: Path, threads: int, folder: Path, log: Path, console: Console
) -> None:
    """Make every run in every round, so a machine that becomes warm or busy affects all of them."""
    request = {"model": str(model), "prompt_tokens": plan.prompt_tokens, "tokens": plan.tokens, "threads": threads}
    for device, layers in ((Device.CPU, 0), (Device.GPU, -1)):
        jsonio.write(folder / f"request-{device}.json", {**request, "gpu_layers": layers})
    with console.progress("Measuring", total=len(runs) * plan.rounds) as bar:
        for number in range(plan.rounds):
            for place, one in enumerate(runs if number % 2 == 0 else runs[::-1]):
                if one.measured.failure is not None:
                    continue
                device = one.measured.device
                title = device.label if one.measured.build is Build.OURS else f"{device.label}, baseline"
                tries: list[Sample] = []
                while len(tries) < TRIES and all(is_disturbed(each.cores_busy, device, threads) for each in tries):
                    again = ", again: the machine was busy" if tries else ""
                    note = f"{title}, round {number + 1} of {plan.rounds}{again}"
                    show = functools.partial(bar.update, number * len(runs) + place, note=note)
                    result, grown = _run_child(one, folder / f"request-{device}.json", show, log)
                    failure = results.problem(result, device, tokens=plan.tokens)
                    one.measured = replace(one.measured, version=result.version, failure=failure)
                    if failure is not None:
                        console.warn(f"{title}: {failure}")
                        break
                    peak = grown if device is Device.GPU and plan.simulation is None else None
                    tries.append(results.sample(result, prompt_tokens=plan.prompt_tokens, device_peak_bytes=peak))
                else:
                    # Chosen by the cores that it used, not by its speed: no result is selected for being good.
                    samples = (*one.measured.samples, max(tries, key=lambda each: each.cores_busy))
                    repeated = one.measured.repeated + len(tries) - 1
                    one.measured = replace(one.measured, samples=samples, repeated=repeated)


def _run_child(one: _Run, request: Path, show: Callable[[], None], log: Path) -> tuple[ChildResult, int | None]:
    """Measure once; also return by how many bytes the used GPU memory grew (``None`` if the driver cannot say)."""
    output = request.with_name("result.json")
    output.unlink(missing_ok=True)
    used = [machine.gpu_memory_used()]

    def tick(_pid: int) -> None:
        show()
        if used[0] is not None:
            used.append(machine.gpu_memory_used())

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
        return ChildResult(
            error=f"the process {completed.ending} and gave no result; its output ended with: {said}"
        ), None
    return result, None if used[0] is None else max(size for size in used if size is not None) - used[0]


def _model_name(plan: DevicePlan) -> str:
    if plan.model is not None:
        return plan.model.name
    weights = plan.shape.weights
    count = f"{weights / 1e9:.1f} billion" if weights >= 1e9 else f"{weights / 1e6:.1f} million"  # noqa: PLR2004
    return f"random model {plan.shape.name!r}, {count} weights, {plan.kind}"


def _name(subject: Wheel | Path, build: Build, measured: tuple[Measurement, ...]) -> str:
    if isinstance(subject, Wheel):
        return subject.path.name
    version = next((one.version for one in measured if one.build is build and one.version), "of unknown version")
    return f"llama-cpp-python {version}, installed elsewhere"
