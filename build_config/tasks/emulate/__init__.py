"""Compute with a wheel on an emulated GPU, compare with the CPU, and record the verdict next to a published wheel."""

from __future__ import annotations

import dataclasses
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import SettingsError, ValidationError
from build_config.formats import build_facts, wheelfile
from build_config.inputs import runtime_files
from build_config.reports import BuildRecord, EmulatedCheck, EmulatedKernel, EmulationReport, Verdict
from build_config.steps.locks import download
from build_config.steps.validation import emulation
from build_config.steps.validation.emulation import EmulatedMachine
from build_config.steps.wheelhouse import publication
from build_config.steps.wheelhouse.publication import newest_wheel
from build_config.system import jsonio, redaction, workroot
from build_config.tasks.emulate import report_text
from build_config.tasks.simulate import of_wheel, provide_compilers
from build_config.tasks.verify import verified
from build_config.testbed import clean_environment, emulated_device
from build_config.testbed.emulated_device import kernels, ptx_files, server, shard_code

if TYPE_CHECKING:
    from build_config.formats.build_facts import BuildFacts, ShardFacts
    from build_config.model import CudaArch, CudaToolkit
    from build_config.steps.validation.emulation import Case
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.testbed.emulated_device import KernelUse
    from build_config.testbed.emulated_device.kernels import Kernels

WEAKER = (Verdict.SIMULATED_DEVICE_VERIFIED, Verdict.CPU_FALLBACK_VERIFIED)
"""The verdicts that a passed emulation replaces: a real GPU shows more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulationRequest:
    """A wheel, one of its architectures (``89``; the first by default), and whether every check runs."""

    wheel: Path | None = None
    arch: str | None = None
    every: bool = False


def emulate(request: EmulationRequest, layout: Layout, console: Console) -> EmulationReport:
    """Run the checks and show what came. A wheel of the wheelhouse that passed is published with the verdict.

    Raises ``SettingsError`` for an architecture that the wheel lacks, ``ValidationError`` if a number is wrong, a
    kernel cannot be translated or its PTX is not that of the wheel.
    """
    path = request.wheel or newest_wheel(layout)
    facts = build_facts.read(path)
    if facts is None:
        raise SettingsError(f"{path.name} is not a wheel of this project", remedy="build one: nox -s build_cuda_wheel")
    shard, arch = choose(facts, request.arch)
    with workroot.claim(layout, purpose=f"emulate {path.name}", console=console):
        download.fetch(runtime_files(path, layout), layout.downloads, console)
        cases = emulation.ALL if request.every else emulation.QUICK
        report, coverage = run(path, shard, arch, cases, layout, console)
    jsonio.write(layout.state / "emulation" / f"{arch.name}.json", report)
    report_text.show(report, coverage, layout.state / "emulation" / f"coverage-{arch.name}.txt", console)
    if problems := report.problems():
        raise ValidationError(f"{path.name} did not pass: {'; '.join(problems)}", log=layout.logs / "emulation.log")
    record(path, report, layout, console)
    return report


def choose(facts: BuildFacts, wanted: str | None) -> tuple[ShardFacts, CudaArch]:
    """The shard with machine code for an architecture, and that architecture; the first one by default."""
    real = [(shard, arch) for shard in facts.shards for arch in shard.archs if arch.kind == "real"]
    for shard, arch in real:
        if wanted is None or wanted in {str(arch.number), f"{arch.number}{arch.suffix}"}:
            return shard, arch
    has = ", ".join(f"{arch.number}{arch.suffix}" for _, arch in real)
    raise SettingsError(f"the wheel has no machine code for {wanted}", remedy=f"--arch {has or 'of another wheel'}")


def run(  # what is tried, on what, where
    path: Path, shard: ShardFacts, arch: CudaArch, cases: tuple[Case, ...], layout: Layout, console: Console
) -> tuple[EmulationReport, str]:
    """Install the wheel into a clean environment and compute all cases there; also return the coverage as text."""
    start = time.monotonic()
    log = layout.logs / "emulation.log"
    log.unlink(missing_ok=True)
    toolkit, cc = provide_compilers(layout, console, cuda=of_wheel(path))
    wheel = wheelfile.read(path)
    with clean_environment.outside(layout.checkout) as folder:
        translated = kernels_of(path, shard, arch, toolkit, cc, folder, layout, log)
        libraries = emulated_device.build(
            folder / "emulated-device",
            include=toolkit.include,
            major=int(toolkit.release.split(".")[0]),
            cc=cc,
            log=log,
        )
        python = clean_environment.make(
            folder, clean_environment.requirements(wheel, layout.locks), layout.downloads, log
        )
        if found := clean_environment.install(wheel, path.parent, python, log):
            raise ValidationError("; ".join(finding.message for finding in found), log=log)
        with (
            server.serve({arch.number: translated}, folder) as socket,
            console.progress("computing", len(cases)) as bar,
        ):
            machine = EmulatedMachine(
                python=python,
                folder=folder,
                libraries=libraries,
                server=socket,
                capability=arch.capability,
                log=log,
            )

            def show(number: int, checks: tuple[EmulatedCheck, ...]) -> None:
                bar.update(number, note=f"{checks[0].model} {checks[0].kind}")
                for one in checks:
                    console.note(report_text.line(one))

            seen = emulation.run(machine, cases, show)
    report = EmulationReport(
        wheel_sha256=wheel.sha256,
        arch=arch.name,
        checks=seen.checks,
        kernels=tuple(_kernel(use, translated) for use in seen.uses if use.executed),
        kernels_in_shard=len(translated.code.kernels),
        refused=tuple(f"{one.name}: {one.refused}" for one in translated.facts.values() if one.refused),
        cublas_calls=seen.count("cublas_calls"),
        graph_launches=seen.count("graph_launches"),
        misused=seen.misused,
        seconds=round(time.monotonic() - start, 3),
        memory=seen.memory,
    )
    return report, report_text.coverage(report, seen.uses, translated.code.kernels)


def kernels_of(  # the wheel's part, and where things are
    wheel: Path,
    shard: ShardFacts,
    arch: CudaArch,
    toolkit: CudaToolkit,
    cc: str,
    folder: Path,
    layout: Layout,
    log: Path,
) -> Kernels:
    """The kernels of a shard, whose library is unpacked into ``folder``."""
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract(f"llama_cpp/lib/{shard.file}", folder / "shard")
    code = shard_code.read(folder.joinpath(library), arch, toolkit.root / "bin" / "cuobjdump")
    files = ptx_files.PtxFiles(build=layout.build / shard.name, arch=arch, folder=layout.emulation / "ptx", log=log)
    return kernels.Kernels(code=code, files=files, folder=layout.emulation / "kernels", cc=cc)


def _kernel(use: KernelUse, translated: Kernels) -> EmulatedKernel:
    facts = translated.facts[use.name]
    return EmulatedKernel(
        name=use.name,
        source=facts.source or "",
        identical=facts.identical,
        launches=use.launches,
        executed=len(use.executed) - len(use.missed),
        basic_blocks=len(use.executed),
    )


def record(path: Path, report: EmulationReport, layout: Layout, console: Console) -> None:
    """Put the report, and the verdict if the earlier one is weaker, into the record of a wheel of the wheelhouse."""
    if path.resolve().parent != layout.wheelhouse.resolve() or not publication.record_path(path).is_file():
        console.note(f"{path.name} passed; it is not published in the wheelhouse, so nothing is recorded")
        return
    verified(path, layout, console, None)
    known = jsonio.read(publication.record_path(path), BuildRecord)
    verdict = known.validation.verdict
    verdict = Verdict.EMULATED_DEVICE_VERIFIED if verdict in WEAKER else verdict
    judged = dataclasses.replace(known.validation, verdict=verdict, emulation=report)
    changed = dataclasses.replace(known, validation=judged)
    changed = jsonio.from_data(redaction.without_paths(jsonio.to_data(changed)), BuildRecord)
    if publication.is_signed(path):
        console.warn("the signature of the earlier record is removed: nox -s sign signs the new one")
    wheel = wheelfile.read(path)
    publication.publish(wheel, changed, changed.inspection, changed.validation, layout.wheelhouse)
    console.note(f"recorded {verdict} next to {path.name}")
