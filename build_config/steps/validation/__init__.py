"""Install the finished wheel as a user would, run it in every scenario, and report where its layers were.

The result is a verdict with its evidence. A log without placement lines is a failure, like a wrong placement.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, StepResultError, ValidationError
from build_config.formats import build_facts
from build_config.reports import (
    VERDICT_MEANINGS,
    DeviceCheck,
    Finding,
    ScenarioResult,
    Severity,
    ValidationReport,
    Verdict,
)
from build_config.steps.validation import compare_with_cpu, probe, probe_runs, scenarios, several_gpus
from build_config.steps.validation.judge import ProbeResult, error
from build_config.steps.validation.planted_libraries import PlantedLibraries
from build_config.system import jsonio
from build_config.system.processes import Command
from build_config.system.processes import run as run_command
from build_config.testbed import clean_environment, simulated_device, synthetic_model
from build_config.testbed.simulated_device import SimulatedLibraries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from build_config.formats.build_facts import BuildFacts
    from build_config.model import Machine, Wheel
    from build_config.steps.validation.scenarios import Scenario
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.testbed.model_families import ModelFamily

PROBE_TIMEOUT = 120.0
"""Seconds for the probe. It takes one or two; a GPU that wakes up and loads cuBLAS for the first time takes longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The requirements of a simulated GPU: CUDA's headers (``include``) and a C compiler.

    ``capability`` is its compute capability; ``None`` simulates one GPU for every shard of the wheel.
    """

    include: Path
    cc: str
    capability: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The place of all scenarios: an interpreter with the wheel, an empty folder, and the libraries compiled there."""

    python: Path
    folder: Path
    log: Path | None = None
    simulated: SimulatedLibraries | None = None
    planted: PlantedLibraries | None = None

    def model(self, family: ModelFamily) -> Path:
        """The tiny model of ``family``; it is written when it is first needed."""
        path = self.folder / probe_runs.model_name(family)
        return path if path.exists() else synthetic_model.write(path, family=family)


def validate(
    wheel: Wheel,
    *,
    wheels_folder: Path,
    downloads: Path,
    layout: Layout,
    machine: Machine,
    simulation: Simulation | None,
    require_gpu: bool,
    console: Console,
) -> ValidationReport:
    """Install ``wheel`` from ``wheels_folder`` into a clean environment, use it in every scenario, and judge.

    The wheel's requirements come from the lock ``validation.txt`` or that of an earlier CUDA, by digest, from
    ``downloads`` first. A wheel that does not install or run gives a report with the verdict ``failed``.

    Raises ``ValidationError`` if the environment could not be made or the probe could not be started, and
    ``ToolkitMissingError`` if CUDA's headers for the simulated GPU are missing.
    """
    start = time.monotonic()
    log = layout.logs / "validation.log"
    log.unlink(missing_ok=True)
    facts = build_facts.read(wheel.path)
    tried = plan(machine, facts, simulation)
    results: tuple[ScenarioResult, ...] = ()
    checks: tuple[DeviceCheck, ...] = ()
    with clean_environment.outside(layout.checkout) as folder:
        console.note("Making a clean environment with the wheel's requirements")
        python = clean_environment.make(folder, clean_environment.requirements(wheel, layout.locks), downloads, log)
        console.note(f"Installing {wheel.path.name}")
        installed = clean_environment.install(wheel, wheels_folder, python, log)
        if not any(finding.severity is Severity.ERROR for finding in installed):
            bench = _bench(python, folder, log, facts, simulation)
            results = _try_all(bench, tried, console)
            if results[0].on_gpu and results[0].passed:
                checks = _compare_gpus(bench, results[0], console)
    report = conclude(wheel.sha256, machine, results, checks, simulation=simulation, findings=installed)
    if require_gpu and report.verdict is not Verdict.GPU_VERIFIED:
        why = "see the other findings" if machine.gpus else "the driver lists no GPU in this machine"
        required = error("gpu-required", f"A GPU was required, but the wheel did not verifiably use one: {why}")
        report = dataclasses.replace(report, verdict=Verdict.FAILED, findings=(*report.findings, required))
    return dataclasses.replace(report, seconds=round(time.monotonic() - start, 3))


def conclude(
    wheel_sha256: str,
    machine: Machine,
    results: tuple[ScenarioResult, ...],
    checks: tuple[DeviceCheck, ...],
    *,
    simulation: Simulation | None = None,
    findings: tuple[Finding, ...] = (),
    seconds: float = 0.0,
) -> ValidationReport:
    """Give the verdict on everything that was seen. A failed check or another finding makes it ``failed``."""
    decisive = _decisive(results, simulation)
    findings = (*findings, *(error("wrong-on-card", f"{one.name}: {one.reason}") for one in checks if not one.passed))
    return ValidationReport(
        wheel_sha256=wheel_sha256,
        verdict=judge_all(results, decisive) if not findings else Verdict.FAILED,
        machine=machine,
        scenarios=results,
        decisive=decisive.name if decisive is not None else None,
        device_checks=checks,
        findings=findings,
        seconds=seconds,
    )


def show(report: ValidationReport, console: Console) -> None:
    """Print each scenario with its result, then the verdict."""
    console.scenarios(report.scenarios)
    for scenario in report.scenarios:
        if scenario.name == report.decisive:
            console.note(f"placement of the layers in {scenario.name!r}:")
            console.placements(scenario)
    console.findings(report.findings)
    console.note(f"verdict: {report.verdict} ({VERDICT_MEANINGS[report.verdict]})")


def plan(machine: Machine, facts: BuildFacts | None, simulation: Simulation | None) -> tuple[Scenario, ...]:
    """List the scenarios for a wheel on a machine; those on simulated GPUs come last."""
    here = scenarios.on_this_machine(machine, facts)
    if simulation is None or facts is None:
        return here
    simulated = scenarios.on_simulated_devices(facts, simulation.capability)
    return (*here, *simulated, *several_gpus.on_simulated_machines(facts, simulation.capability))


def judge_all(results: tuple[ScenarioResult, ...], decisive: ScenarioResult | None) -> Verdict:
    """Give ``failed`` if one scenario failed. Otherwise the decisive scenario determines the verdict.

    ``gpu-verified`` requires layers on a real GPU; a simulated one gives ``simulated-device-verified`` at best.
    """
    if decisive is None or not all(result.passed for result in results):
        return Verdict.FAILED
    if not decisive.on_gpu:
        return Verdict.CPU_FALLBACK_VERIFIED
    return Verdict.SIMULATED_DEVICE_VERIFIED if decisive.simulated else Verdict.GPU_VERIFIED


def run_probe(bench: Bench, run: tuple[Scenario, ...], *, timeout: float = PROBE_TIMEOUT) -> tuple[ProbeResult, ...]:
    """Run the probe in a process of its own: one result for each scenario, with its exception, crash or timeout.

    The first scenario sets up the process; the others only load their models there. Raises ``ValidationError`` if it
    could not be started.
    """
    first = run[0]
    output, report = bench.folder / "result.json", bench.folder / "simulated-use.json"
    for old in (output, report):
        old.unlink(missing_ok=True)
    planted = bench.planted if first.planted else None
    models = [(task, str(bench.model(family))) for task, family in probe_runs.tasks(run)]
    command = Command(
        argv=(
            *(str(bench.python), "-I", str(Path(probe.__file__).resolve())),
            *(str(output), json.dumps(probe_runs.options(run)), *itertools.chain.from_iterable(models)),
        ),
        cwd=planted.folder if planted is not None else bench.folder,
        changes=_environment(bench, first, report),
        log=bench.log,
    )
    try:
        completed = run_command(command, check=False, timeout=timeout)
    except CommandError as problem:
        if not isinstance(problem.__cause__, TimeoutError):
            raise ValidationError(f"The probe could not be started: {problem.message}", log=bench.log) from problem
        ended = f"no answer within {timeout:.0f} s"
    else:
        ended = probe_runs.without_result(completed)
    results = probe_runs.complete(run, _read_results(output), ended)
    left = planted.loaded() if planted is not None else ()
    use = simulated_device.read_report(report) if first.simulated is not None else None
    return tuple(dataclasses.replace(result, planted=left, use=use) for result in results)


def _read_results(output: Path) -> tuple[ProbeResult, ...]:
    if not output.exists():
        return ()
    try:
        return jsonio.read(output, tuple[ProbeResult, ...])
    except StepResultError as problem:
        return (ProbeResult(error=f"unreadable result: {problem.message}"),)


def _environment(bench: Bench, scenario: Scenario, report: Path) -> dict[str, str | None]:
    """No debugger when ggml aborts; on a simulated GPU none of the user's settings for a real one."""
    changes: dict[str, str | None] = {"GGML_NO_BACKTRACE": "1"}
    if scenario.simulated is not None and bench.simulated is not None:
        changes["CUDA_VISIBLE_DEVICES"] = None
        changes |= bench.simulated.environment(scenario.simulated, report=report)
    return {**changes, **scenario.changes}


def _bench(python: Path, folder: Path, log: Path, facts: BuildFacts | None, simulation: Simulation | None) -> Bench:
    simulated = None
    cc = simulation.cc if simulation is not None else "cc"
    if simulation is not None and facts is not None:
        target = folder / "simulated-device"
        simulated = simulated_device.build(target, include=simulation.include, major=facts.major, cc=cc, log=log)
    return Bench(
        python=python,
        folder=folder,
        log=log,
        simulated=simulated,
        planted=PlantedLibraries.compile(folder / "planted", cc=cc, log=log),
    )


def _try_all(bench: Bench, tried: tuple[Scenario, ...], console: Console) -> tuple[ScenarioResult, ...]:
    usable = (scenario for scenario in tried if not scenario.planted or bench.planted is not None)
    results: list[ScenarioResult] = []
    with console.progress("using the wheel", len(tried)) as bar:
        for run in probe_runs.group(usable):
            bar.update(len(results), note=run[0].name)
            start = time.monotonic()
            seen = run_probe(bench, run)
            results += probe_runs.judged(run, seen, folder=str(bench.folder), seconds=time.monotonic() - start)
    return tuple(results)


def _compare_gpus(bench: Bench, result: ScenarioResult, console: Console) -> tuple[DeviceCheck, ...]:
    """Compare what each real GPU computes with the CPU: a correct placement does not prove correct results."""
    found: list[DeviceCheck] = []
    for device in used_devices(result):
        console.note(f"Comparing what {device} computes with the CPU (one or two minutes)")
        folder = bench.folder / device
        folder.mkdir()
        checks = compare_with_cpu.run(bench.python, folder, device=device, log=bench.log).checks
        found += named(device, checks)
    return tuple(found)


def used_devices(result: ScenarioResult) -> tuple[str, ...]:
    """The devices that have layers, by ggml's names."""
    return tuple(sorted({layer.weights for layer in result.placements if layer.weights}))


def named(device: str, checks: Iterable[DeviceCheck]) -> Iterator[DeviceCheck]:
    """The checks of one device, with its name in front of theirs."""
    return (dataclasses.replace(check, name=f"{device}, {check.name}") for check in checks)


def _decisive(results: tuple[ScenarioResult, ...], simulation: Simulation | None) -> ScenarioResult | None:
    """Choose the scenario of the verdict: on a real GPU, else on a simulated one, else on the CPU.

    If the user named the capability of a simulated GPU, that one is chosen, whatever GPUs the machine has.
    """
    here = [result for result in results if not result.simulated][:1]
    there = [result for result in results if result.simulated][:1]
    asked_for = simulation is not None and simulation.capability is not None
    order = [*there, *here] if asked_for or not any(result.on_gpu for result in here) else [*here, *there]
    return order[0] if order else None
