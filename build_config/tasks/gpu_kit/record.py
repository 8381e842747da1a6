"""Judge the report of a kit by the code of validation, and put the result into the record of the wheel."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import SettingsError, StepResultError, ValidationError, VerificationError
from build_config.formats import build_facts, wheelfile
from build_config.reports import BuildRecord, Finding, Severity, Verdict
from build_config.steps import validation
from build_config.steps.validation import compare_with_cpu, numerics, probe_runs, scenarios
from build_config.steps.validation.judge import ProbeResult, error
from build_config.steps.validation.numerics import Measured
from build_config.steps.wheelhouse import publication, signature
from build_config.system import jsonio, redaction
from build_config.tasks.bench import report as bench_report
from build_config.tasks.bench import results
from build_config.tasks.bench.results import Build, ChildResult, Device, DeviceReport, GpuKind, MeasuredGpu, Measurement
from build_config.tasks.gpu_kit import contents, evidence, gpu_tests
from build_config.tasks.gpu_kit.evidence import AGAIN
from build_config.tasks.verify import verified
from check_gpu.result import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.formats.build_facts import BuildFacts
    from build_config.reports import DeviceCheck, ScenarioResult, ValidationReport
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.tasks.gpu_kit.evidence import GpuReport, ProbeRan

MALFORMED = (StepResultError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError)
"""Errors of the judges for results that no script of the kit writes: they trust the structure of their input."""


def record(folder: Path, layout: Layout, console: Console, *, sign_key: Path | None = None) -> ValidationReport:
    """Judge the report in ``folder``; if the wheel passed on a GPU, publish it again with that verdict.

    Raises ``VerificationError`` for a report that is changed, incomplete, about a simulated GPU or about a wheel that
    is not in the wheelhouse, ``ValidationError`` with all findings if the wheel did not pass.
    """
    report = evidence.read(folder, contents.scripts())
    key = None if sign_key is None else signature.read_private_key(sign_key)
    wheel = _wheel_of(report, layout)
    verified(wheel, layout, console, None)
    known = jsonio.read(publication.record_path(wheel), BuildRecord)
    facts = build_facts.read(wheel)
    if facts is None:
        raise VerificationError(f"{wheel.name} is not a wheel of this project", remedy="build one")
    try:
        judged = judge(report, facts)
        measured = bench(report)
    except MALFORMED as malformed:
        what = malformed.message if isinstance(malformed, StepResultError) else repr(malformed)
        raise VerificationError(f"the report has an unreadable result: {what}", remedy=AGAIN) from malformed
    validation.show(judged, console)
    console.table("", bench_report.rows(measured), header=bench_report.header(measured))
    if judged.verdict is not Verdict.GPU_VERIFIED:
        problems = "; ".join(finding.message for finding in judged.all_findings())
        raise ValidationError(f"{wheel.name} did not pass on a GPU: {problems or 'no layer was on one'}")
    note = Finding(
        code="validated-elsewhere",
        severity=Severity.NOTE,
        message=f"the scenarios on real GPUs and their checks come from the report {report.sha256} of a GPU kit, which "
        f"nobody signed; those on simulated GPUs ran on another machine",
    )
    simulated = tuple(one for one in known.validation.scenarios if one.simulated)
    judged = dataclasses.replace(judged, scenarios=(*judged.scenarios, *simulated), findings=(note,))
    changed = dataclasses.replace(known, validation=judged)
    changed = jsonio.from_data(redaction.without_paths(jsonio.to_data(changed)), BuildRecord)
    if key is None and publication.is_signed(wheel):
        console.warn("the signature of the earlier record is removed: nox -s sign signs the new one")
    publication.publish(
        wheelfile.read(wheel), changed, changed.inspection, changed.validation, layout.wheelhouse, key=key
    )
    console.note(f"recorded {Verdict.GPU_VERIFIED} next to {wheel.name}")
    console.warn("the report is not signed: whoever can write a file could have written it; record only your own runs")
    return changed.validation


def _wheel_of(report: GpuReport, layout: Layout) -> Path:
    name = report.wheel.get("name", "")
    wheel = layout.wheelhouse / name
    if not name or wheel.parent != layout.wheelhouse or not wheel.is_file():
        raise SettingsError(
            f"the report is about {name}, which is not in the wheelhouse", remedy="nox -s publish -- FOLDER"
        )
    if (here := wheelfile.read(wheel).sha256) != report.wheel.get("sha256"):
        message = f"the report is about other bytes than {name}: {report.wheel.get('sha256')}, here {here}"
        raise VerificationError(message, remedy="make a kit of this wheel: nox -s gpu_kit")
    return wheel


def judge(report: GpuReport, facts: BuildFacts) -> ValidationReport:
    """Judge what the kit saw, as if its processes had run here."""
    machine = report.described_machine
    planned = probe_runs.group(scenarios.on_this_machine(machine, facts))
    ran = {one.scenarios: one for one in report.evidence.scenarios}
    by_names = {tuple(one.name for one in run): run for run in planned}
    if missing := sorted(name for names in by_names.keys() - ran.keys() for name in names):
        raise VerificationError(f"the report is incomplete: it lacks {', '.join(missing)}", remedy=AGAIN)
    seen = tuple(result for names, run in by_names.items() for result in _judged(run, ran[names]))
    checks = tuple(_checks(report, seen[0]))
    findings = tuple(_failures(report))
    seconds = sum(part.seconds for part in report.parts.values())
    return validation.conclude(
        report.wheel["sha256"], machine, seen, checks, findings=findings, seconds=round(seconds, 3)
    )


def _judged(run: probe_runs.Run, ran: ProbeRan) -> Iterator[ScenarioResult]:
    """Judge the scenarios of one process. Those without a result failed."""
    written = jsonio.from_data(ran.result, tuple[ProbeResult, ...]) if ran.result is not None else ()
    whole = probe_runs.complete(run, written, probe_runs.without_result(ran.completed))
    whole = tuple(dataclasses.replace(result, planted=ran.planted) for result in whole)
    return probe_runs.judged(run, whole, folder="<work>", seconds=ran.seconds)


def _checks(report: GpuReport, seen: ScenarioResult) -> Iterator[DeviceCheck]:
    """The comparison with the CPU for every GPU that had layers."""
    for device in validation.used_devices(seen) if seen.on_gpu else ():
        if device not in report.evidence.comparison:
            raise VerificationError(f"the report is incomplete: {device} was not compared with the CPU", remedy=AGAIN)
        ran = report.evidence.comparison[device]
        plan = compare_with_cpu.plan(Path(), device=device)
        measured = jsonio.from_data(ran.result, Measured) if ran.result is not None else Measured()
        ended = ran.completed
        measured = dataclasses.replace(measured, ending=ended.ending, said=ended.last_words)
        yield from validation.named(device, numerics.judge(plan, measured))


def _failures(report: GpuReport) -> Iterator[Finding]:
    """The findings of the other parts: the diagnosis, the tests, the benchmark."""
    for name, part in report.parts.items():
        if part.failed is not None:
            yield error("part-failed", f"{name}: {part.failed}")
    ran = report.evidence.check_gpu
    code = (ran.result or {}).get("diagnosis", {}).get("code") if ran is not None else None
    if code != Code.CARD_USED.value:
        yield error("diagnosis", f"check_gpu found {code}, not {Code.CARD_USED.value}")
    tests = (report.evidence.tests.result or {}).get("tests", {}) if report.evidence.tests is not None else {}
    for name in gpu_tests.names():
        if name not in tests or tests[name] is not None:
            yield error("test-failed", f"{name}: {tests.get(name, 'did not run')}")
    for one in bench(report).failures:
        yield error("not-measured", f"{one.device.label}: {one.failure}")


def bench(report: GpuReport) -> DeviceReport:
    """The speeds, by the same rules as `nox -s bench`: on the GPU every layer and its cache must be there."""
    setup = contents.BENCH
    machine = report.described_machine
    measured = []
    for device, key in ((Device.CPU, "cpu"), (Device.GPU, "gpu")):
        samples: list[results.Sample] = []
        version, failure = "", None
        for ran in report.evidence.bench:
            if ran.device != key:
                continue
            if ran.result is None:
                words = ran.completed.last_words or "nothing"
                result = ChildResult(error=f"the process gave no result; its output ended with: {words}")
            else:
                result = jsonio.from_data(ran.result, ChildResult)
            problem = results.problem(result, device, tokens=setup["tokens"])
            version, failure = result.version, failure or problem
            if problem is None:
                samples.append(results.sample(result, prompt_tokens=setup["prompt_tokens"], device_peak_bytes=None))
        measured.append(
            Measurement(build=Build.OURS, device=device, version=version, samples=tuple(samples), failure=failure)
        )
    left_out = report.left_out
    names = [gpu.name for gpu in machine.gpus if gpu.index not in left_out][:1]
    gpu = MeasuredGpu(kind=GpuKind.REAL, name=names[0]) if names else MeasuredGpu(kind=GpuKind.NONE, why="no GPU")
    return DeviceReport(
        created=report.started,
        machine=machine,
        card=gpu,
        notice=gpu.notice,
        wheel=report.wheel["name"],
        wheel_sha256=report.wheel["sha256"],
        against=None,
        model=report.bench_model.name,
        model_bytes=0,
        prompt_tokens=setup["prompt_tokens"],
        tokens=setup["tokens"],
        rounds=setup["rounds"],
        threads=report.machine.threads,
        measurements=tuple(measured),
        ratios=(),
    )
