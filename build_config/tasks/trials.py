"""What is done with a finished wheel: validate it, simulate a device for it, run upstream's tests, measure it."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import archs, inputs
from build_config.errors import MeasurementError, SettingsError, ValidationError, VerificationError
from build_config.formats import wheelfile
from build_config.inputs import PLATFORM, provide_toolkit, runtime_files
from build_config.pipeline import BuildRequest, newest_wheel, show_validation
from build_config.reports import BuildRecord, Severity, Verdict
from build_config.steps import validation
from build_config.steps.locks import download, refresh
from build_config.steps.toolchain import gcc
from build_config.steps.validation.scenarios import read_facts
from build_config.steps.wheelhouse import publication, signature, statement, verification
from build_config.system import jsonio, machine, processes, workroot
from build_config.tasks import bench, conda, upstream_tests
from build_config.tasks.bench import chart as bench_chart
from build_config.tasks.bench import report as bench_report
from build_config.tasks.bench import results as bench_results
from build_config.testbed import simulated_device, synthetic_model
from build_config.testbed.simulated_device import SimulatedMachine

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from build_config.reports import ValidationReport
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.tasks.bench.results import DeviceReport
    from build_config.tasks.conda import CondaPackage
    from build_config.tasks.upstream_tests.results import UpstreamTestReport

EVERY_SHARD = "every"
"""``--simulate`` for one device a shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBenchRequest:
    """What to measure. ``model`` is a file, else a random one named in ``synthetic_model.SHAPES`` is made.

    ``against`` is a wheel or the interpreter of an environment. ``simulate`` is the compute capability of a device that
    is no card.
    """

    wheel: Path | None = None
    model: Path | None = None
    synthetic: str = "1b"
    kind: str = "Q4_K_M"
    against: Path | None = None
    prompt_tokens: int = 256
    tokens: int = 64
    rounds: int = 3
    simulate: str | None = None
    out: Path | None = None


def validate(
    path: Path | None, layout: Layout, console: Console, *, simulate: str | None = None, require_gpu: bool = False
) -> ValidationReport:
    """Validate a wheel file, by default the newest of the wheelhouse. Raises ``ValidationError`` when it fails.

    ``simulate`` is the compute capability of a simulated device (``8.9``), ``every`` for one a shard of the wheel.
    """
    chosen = path or newest_wheel(layout)
    if simulate and require_gpu:
        message = "--simulate and --require-gpu contradict each other: a simulated device is never a GPU"
        raise SettingsError(message, remedy="leave one of them out")
    with workroot.claim(layout, purpose=f"validate {chosen.name}", console=console):
        needed = runtime_files(chosen, layout)
        download.fetch(needed, layout.downloads, console)
        report = validation.validate(
            wheelfile.read(chosen),
            wheels_folder=chosen.parent,
            downloads=layout.downloads,
            layout=layout,
            machine=machine.describe(),
            simulation=provide_simulation(simulate, layout, console, cuda=of_wheel(chosen)) if simulate else None,
            require_gpu=require_gpu,
            console=console,
        )
    show_validation(report, console)
    if report.verdict is Verdict.FAILED:
        problems = "; ".join(finding.message for finding in report.all_findings())
        raise ValidationError(f"{chosen.name} did not pass: {problems}", log=layout.logs / "validation.log")
    return report


def verify(path: Path | None, layout: Layout, console: Console, *, public_key: Path | None = None) -> None:
    """Hold a wheel, by default the newest of the wheelhouse, against what lies beside it. Nothing of it is run.

    Raises ``VerificationError`` with all that speaks against it.
    """
    key = None if public_key is None else signature.read_public_key(public_key)
    result = _verified(path or newest_wheel(layout), layout, console, key)
    if result.signed_by is None:
        console.warn("NO SIGNATURE was checked: who can replace the wheel can replace all of it; --public-key KEY")
    else:
        console.note(f"signed by the key {result.signed_by}")


def _verified(
    wheel: Path, layout: Layout, console: Console, public_key: Ed25519PublicKey | None
) -> verification.Verification:
    result = verification.verify(wheel, inputs.beside(wheel, layout, PLATFORM, public_key=public_key))
    if not result.passed:
        errors = (finding for finding in result.findings if finding.severity is Severity.ERROR)
        listed = "\n".join(f"  {finding.message} [{finding.code}]" for finding in errors)
        raise VerificationError(
            f"{wheel.name} was refused:\n{listed}", remedy="do not install it; get it and the files beside it again"
        )
    console.findings(result.findings)
    console.note(f"{result.wheel}: SHA-256 {result.sha256}")
    console.note("wheel, record, statement and the locks of this checkout belong together")
    return result


def sign(path: Path | None, sign_key: Path, layout: Layout, console: Console) -> None:
    """Sign the statement about a published wheel, by default the newest of the wheelhouse.

    Raises ``VerificationError`` for a wheel that does not belong to its record: nobody should vouch for that.
    """
    chosen = path or newest_wheel(layout)
    key = signature.read_private_key(sign_key)
    _verified(chosen, layout, console, None)
    publication.attest(chosen, jsonio.read(publication.record_path(chosen), BuildRecord), key)
    console.note(f"signed by the key {signature.key_id(key.public_key())}")


def publish(
    folders: tuple[Path, ...], layout: Layout, console: Console, *, public_key: Path | None = None
) -> tuple[Path, ...]:
    """Put every wheel that lies in ``folders`` or below them into the wheelhouse, with all that lies beside it.

    Returns where they are now. Raises ``SettingsError`` where there is none, and ``VerificationError`` for one that
    does not belong to its record, or for two of one name; then none is published.
    """
    key = None if public_key is None else signature.read_public_key(public_key)
    found = sorted({path.absolute() for folder in folders for path in folder.rglob("*.whl")})
    if not found:
        listed = ", ".join(map(str, folders))
        raise SettingsError(f"there is no wheel in {listed}", remedy="name the folder that the wheels were put into")
    digests: dict[str, str] = {}
    for path in found:
        result = _verified(path, layout, console, key)
        if digests.setdefault(path.name, result.sha256) != result.sha256:
            message = f"{path.name} is there twice, with different bytes: {digests[path.name]} and {result.sha256}"
            raise VerificationError(message, remedy="find out which build is at fault: nox -s reproduce")
    return tuple(_published(path, layout) for path in {path.name: path for path in found}.values())


def _published(path: Path, layout: Layout) -> Path:
    """Into the wheelhouse with a wheel that was verified; its signature, if there is one, goes along."""
    record = jsonio.read(publication.record_path(path), BuildRecord)
    envelope = statement.envelope_path(path)
    signed = envelope.read_text(encoding="utf-8") if envelope.exists() else None
    final = publication.publish(wheelfile.read(path), record, record.inspection, record.validation, layout.wheelhouse)
    if signed is not None:
        jsonio.write_text(statement.envelope_path(final), signed)
    return final


def make_conda_package(
    path: Path | None, layout: Layout, console: Console, *, public_key: Path | None = None
) -> tuple[CondaPackage, Path]:
    """Turn a published wheel, by default the newest of the wheelhouse, into a package of the local conda channel.

    Raises ``VerificationError`` for a wheel that does not belong to its record, ``PackagingError`` for one that conda
    cannot have.
    """
    chosen = path or newest_wheel(layout)
    _verified(chosen, layout, console, None if public_key is None else signature.read_public_key(public_key))
    wheel = wheelfile.read(chosen)
    record = jsonio.read(publication.record_path(chosen), BuildRecord)
    names = conda.read_names(layout.data / "conda.toml")
    package = conda.describe(wheel, wheelfile.read_contents(chosen), record, names)
    return package, conda.publish(package, wheel, layout.conda_channel)


def provide_simulation(simulate: str, layout: Layout, console: Console, *, cuda: str) -> validation.Simulation:
    """What a simulated device is compiled with: the headers of CUDA ``cuda`` and the host compiler."""
    capability = None if simulate == EVERY_SHARD else archs.as_capability(simulate)
    toolkit = provide_toolkit(cuda, layout, console)
    cc = gcc.find(None, os.environ).cc.path
    return validation.Simulation(include=toolkit.include, cc=str(cc), capability=capability)


def of_wheel(wheel: Path) -> str:
    """The release of CUDA that a wheel was built with; the locked one for a wheel that does not say it."""
    facts = read_facts(wheelfile.read(wheel))
    return BuildRequest().cuda if facts is None or facts.major == locked_major() else facts.cuda


def locked_major() -> int:
    """The major release of the locked toolkit."""
    return int(BuildRequest().cuda.partition(".")[0])


def simulated_machine(capabilities: str, fault: str | None, memory: int) -> SimulatedMachine:
    """What the user asked for. Raises ``ArchitectureError`` or ``ValidationError`` for what cannot be simulated."""
    name, _, argument = (fault or "").partition(":")
    if argument and not argument.isdecimal():
        raise SettingsError(f"--fault {fault}: {argument!r} is no number", remedy=f"pass --fault {name}:1000000")
    return SimulatedMachine(
        capabilities=tuple(archs.as_capability(each) for each in capabilities.split(",")),
        memory=memory,
        fault=name or None,
        argument=int(argument) if argument else None,
    )


def simulate(devices: SimulatedMachine, command: tuple[str, ...], layout: Layout, console: Console) -> int:
    """Run a command on simulated devices, say what they were used for, and return the command's status."""
    with workroot.claim(layout, purpose="simulate", console=console):
        simulation = provide_simulation(devices.capabilities[0], layout, console, cuda=BuildRequest().cuda)
        major = locked_major()
        folder = layout.work_root / "simulated-device"
        libraries = simulated_device.build(folder, include=simulation.include, major=major, cc=simulation.cc)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "use.json"
        changes = {"GGML_NO_BACKTRACE": "1", **libraries.environment(devices, report=report)}
        completed = processes.run(processes.Command(argv=command, changes=changes), check=False, on_line=console.raw)
        use = simulated_device.read_report(report)
    console.note(f"the command {completed.ending}, on a SIMULATED device")
    if use is not None:
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in use.counts.items() if count)
        console.note(
            f"counted: {counts or 'nothing'}; {'nothing' if use.is_clean else 'SOMETHING'} was left or refused"
        )
    return completed.returncode if completed.returncode >= 0 else 128 - completed.returncode


def run_upstream_tests(path: Path | None, layout: Layout, console: Console) -> UpstreamTestReport:
    """Run upstream's own tests with a wheel file, by default the newest of the wheelhouse; the report is kept.

    Raises ``ValidationError`` when one fails or none ran.
    """
    chosen = path or newest_wheel(layout)
    with workroot.claim(layout, purpose=f"upstream tests of {chosen.name}", console=console):
        source = refresh.read_source_lock(layout)
        (archive,) = download.fetch((source.file,), layout.downloads, console)
        download.fetch(runtime_files(chosen, layout), layout.downloads, console)
        tested = wheelfile.read(chosen)
        report = upstream_tests.run(
            tested, source, archive, wheels_folder=chosen.parent, layout=layout, console=console
        )
        jsonio.write(layout.state / "upstream-tests" / f"{tested.sha256}.json", report)
    for outcome, tests in (("left out", report.left_out), ("skipped", report.skipped), ("FAILED", report.failed)):
        for test in tests:
            console.note(f"{outcome}: {test.id} ({test.reason})")
    counts = (
        ("passed", str(len(report.passed)), ""),
        ("failed", str(len(report.failed)), ""),
        ("skipped", str(len(report.skipped)), "by upstream itself"),
        ("left out", str(len(report.left_out)), "because they download a model"),
        ("collected", str(report.collected), f"tests of llama-cpp-python {report.upstream}"),
    )
    console.table("", counts)
    if not report.good:
        raise ValidationError(
            f"{chosen.name}: of upstream's own tests {len(report.failed)} failed and {len(report.passed)} passed",
            remedy="the log has what pytest said",
            log=layout.logs / upstream_tests.LOG,
        )
    return report


def bench_devices(request: DeviceBenchRequest, layout: Layout, console: Console) -> DeviceReport:
    """Measure a wheel on the CPU and on the card, and write ``device.json``, ``device.md`` and ``device.png``.

    Raises ``MeasurementError`` when a measurement failed or the wheel is slower than it may be; the files are there
    even then.
    """
    chosen = request.wheel or newest_wheel(layout)
    with workroot.claim(layout, purpose=f"bench {chosen.name}", console=console):
        plan = bench.DevicePlan(
            ours=bench.Subject(wheel=wheelfile.read(chosen)),
            machine=machine.describe(),
            model=request.model,
            shape=synthetic_model.SHAPES[request.synthetic],
            kind=request.kind,
            against=bench_subject(request.against),
            prompt_tokens=request.prompt_tokens,
            tokens=request.tokens,
            rounds=request.rounds,
        )
        bench.check(plan)
        if request.simulate is not None:
            simulation = bench_simulation(request.simulate, layout, console, cuda=of_wheel(chosen))
            plan = dataclasses.replace(plan, simulation=simulation)
        download.fetch(runtime_files(chosen, layout), layout.downloads, console)
        report = bench.measure_devices(plan, created=datetime.now(UTC), layout=layout, console=console)
    folder = request.out or layout.bench
    jsonio.write(folder / "device.json", report)
    jsonio.write_text(folder / "device.md", bench_report.markdown(report))
    bench_chart.draw(report, folder / "device.png")
    console.table("", bench_report.rows(report), header=bench_report.header(report))
    for remark in bench_report.remarks(report):
        console.note(remark)
    console.note(f"device.json, device.md and device.png are in {folder}")
    slow = [
        bench_report.ratio_line(ratio)
        for ratio in report.ratios
        if ratio.passed is False or ratio.unjudged == bench_results.BUSY
    ]
    failed = [f"{one.device}: {one.failure}" for one in report.failures]
    if slow or failed:
        raise MeasurementError("; ".join(failed + slow), log=layout.logs / bench.LOG)
    return report


def bench_subject(against: Path | None) -> bench.Subject | None:
    """A wheel by its name, else the interpreter of an environment that has a build installed."""
    if against is None:
        return None
    return bench.Subject(wheel=wheelfile.read(against)) if against.suffix == ".whl" else bench.Subject(python=against)


def bench_simulation(capability: str, layout: Layout, console: Console, *, cuda: str) -> bench.Simulation:
    """A process's way onto a simulated device."""
    made_of = provide_simulation(capability, layout, console, cuda=cuda)
    major = int(cuda.partition(".")[0])
    folder = layout.bench / "simulated-device"
    doubles = simulated_device.build(
        folder, include=made_of.include, major=major, cc=made_of.cc, log=layout.logs / bench.LOG
    )
    pretended = simulated_device.SimulatedMachine(capabilities=(archs.as_capability(capability),))
    bare = dataclasses.replace(pretended, fault="no-device")
    return bench.Simulation(
        capability=pretended.capabilities[0],
        changes={"CUDA_VISIBLE_DEVICES": None, **doubles.environment(pretended)},
        no_device={**doubles.environment(bare)},
    )
