"""A finished wheel on an emulated GPU: its kernels from the PTX of its build, a clean environment, the report."""

from __future__ import annotations

import hashlib
import time
import zipfile
from typing import TYPE_CHECKING

from build_config.errors import SettingsError, ValidationError
from build_config.formats import build_facts
from build_config.reports import EmulatedKernel, EmulationReport
from build_config.steps.validation import emulation, emulation_text
from build_config.steps.validation.emulation import EmulatedMachine, KeptRows
from build_config.system import jsonio, machine
from build_config.testbed import clean_environment, emulated_device
from build_config.testbed.emulated_device import ptx_files, server, shard_code
from build_config.testbed.emulated_device.kernels import Kernels

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.formats.build_facts import BuildFacts, ShardFacts
    from build_config.model import CudaArch, CudaToolkit, Wheel
    from build_config.reports import EmulatedCheck
    from build_config.steps.validation.emulation import Case
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.testbed.emulated_device import KernelUse


def choose(facts: BuildFacts | None, wanted: str | None) -> tuple[ShardFacts, CudaArch]:
    """The shard with machine code for an architecture, and that architecture; the first one by default.

    Raises ``SettingsError`` if there is none.
    """
    if facts is None:
        raise SettingsError("this is not a wheel of this project", remedy="build one: nox -s build_cuda_wheel")
    real = [(shard, arch) for shard in facts.shards for arch in shard.archs if arch.kind == "real"]
    for shard, arch in real:
        if wanted is None or wanted in {str(arch.number), f"{arch.number}{arch.suffix}"}:
            return shard, arch
    has = ", ".join(f"{arch.number}{arch.suffix}" for _, arch in real)
    raise SettingsError(f"the wheel has no machine code for {wanted}", remedy=f"--arch {has or 'of another wheel'}")


def compute(  # what is tried, with what, where
    wheel: Wheel,
    cases: tuple[Case, ...],
    *,
    arch: str | None,
    tried_by: str,
    toolkit: CudaToolkit,
    cc: str,
    layout: Layout,
    console: Console,
) -> EmulationReport:
    """Install the wheel into a clean environment, compute all cases there, and show what came.

    ``arch`` is one of the wheel's (``89``), by default the first; ``tried_by`` is the digest of this code. Checks that
    an earlier run with the same inputs passed are not computed again. Raises ``ValidationError`` if the
    shard's PTX cannot be made here, because it is not of a build in this work root, or the wheel is not installed.
    """
    start = time.monotonic()
    shard, chosen = choose(build_facts.read(wheel.path), arch)
    log = layout.logs / "emulation.log"
    log.unlink(missing_ok=True)
    with clean_environment.outside(layout.checkout) as folder:
        kernels = kernels_of(wheel.path, shard, chosen, toolkit, cc, folder, layout, log)
        key = (wheel.sha256, chosen.name, kernels.files.digest, machine.cpu_model(), tried_by)
        kept = KeptRows(
            folder=layout.state / "emulation" / "rows", key=hashlib.sha256("\0".join(key).encode()).hexdigest()
        )
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
        if found := clean_environment.install(wheel, wheel.path.parent, python, log):
            raise ValidationError("; ".join(finding.message for finding in found), log=log)
        total = sum(len(case.prompts) for case in cases)
        with (
            server.serve({chosen.number: kernels}, folder) as socket,
            console.progress("computing", total) as bar,
        ):

            def show(done: int, left: int, check: EmulatedCheck) -> None:
                bar.update(done, total=left, note=f"{check.model} {check.kind}")
                console.note(emulation_text.line(check))

            place = EmulatedMachine(
                python=python,
                folder=folder,
                libraries=libraries,
                server=socket,
                capability=chosen.capability,
                log=log,
                jobs=machine.usable_cores(),
            )
            seen = emulation.run(place, cases, show, kept)
        report = EmulationReport(
            wheel_sha256=wheel.sha256,
            arch=chosen.name,
            checks=seen.checks,
            kernels=tuple(_kernel(use, kernels) for use in seen.uses if use.executed),
            kernels_in_shard=len(kernels.code.kernels),
            refused=tuple(f"{one.name}: {one.refused}" for one in kernels.facts.values() if one.refused),
            cublas_calls=seen.count("cublas_calls"),
            graph_launches=seen.count("graph_launches"),
            misused=seen.misused,
            seconds=round(time.monotonic() - start, 3),
            memory=seen.memory,
        )
    if seen.kept:
        console.note(f"{seen.kept} of {total} checks were computed by an earlier run with the same inputs")
    made = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in kernels.seconds.items())
    console.note(f"making kernels: {made or 'nothing, all were kept'}; the sums of all threads")
    covered = emulation_text.coverage(report, seen.uses, kernels.code.kernels)
    emulation_text.show(report, covered, layout.state / "emulation" / f"coverage-{chosen.name}.txt", console)
    jsonio.write(layout.state / "emulation" / f"{chosen.name}.json", report)
    return report


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
    files = ptx_files.PtxFiles(build=layout.build / shard.name, arch=arch, folder=layout.emulation / "ptx", log=log)
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract(f"llama_cpp/lib/{shard.file}", folder / "shard")
    code = shard_code.read(folder.joinpath(library), arch, toolkit.root / "bin" / "cuobjdump")
    return Kernels(code=code, files=files, folder=layout.emulation / "kernels", cc=cc)


def _kernel(use: KernelUse, kernels: Kernels) -> EmulatedKernel:
    facts = kernels.identity(use.name)
    return EmulatedKernel(
        name=use.name,
        source=facts.source or "",
        identical=facts.identical,
        launches=use.launches,
        executed=len(use.executed) - len(use.missed),
        basic_blocks=len(use.executed),
    )
