"""Compute with a wheel on an emulated GPU, compare with the CPU, and record the verdict next to a published wheel."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import ValidationError
from build_config.formats import build_facts, wheelfile
from build_config.inputs import runtime_files, tried_by
from build_config.reports import BuildRecord, EmulationReport
from build_config.steps.locks import download
from build_config.steps.validation import emulated_wheel, emulation
from build_config.steps.wheelhouse import publication
from build_config.steps.wheelhouse.publication import newest_wheel
from build_config.system import jsonio, redaction, workroot
from build_config.tasks.simulate import of_wheel, provide_compilers
from build_config.tasks.verify import verified

if TYPE_CHECKING:
    from build_config.system.console import Console
    from build_config.system.layout import Layout


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
    emulated_wheel.choose(build_facts.read(path), request.arch)
    with workroot.claim(layout, purpose=f"emulate {path.name}", console=console):
        download.fetch(runtime_files(path, layout), layout.downloads, console)
        toolkit, cc = provide_compilers(layout, console, cuda=of_wheel(path))
        report = emulated_wheel.compute(
            wheelfile.read(path),
            emulation.ALL if request.every else emulation.QUICK,
            arch=request.arch,
            tried_by=tried_by(),
            toolkit=toolkit,
            cc=cc,
            layout=layout,
            console=console,
        )
    if problems := report.problems():
        raise ValidationError(f"{path.name} did not pass: {'; '.join(problems)}", log=layout.logs / "emulation.log")
    record(path, report, layout, console)
    return report


def record(path: Path, report: EmulationReport, layout: Layout, console: Console) -> None:
    """Put the report, and the verdict if the earlier one is weaker, into the record of a wheel of the wheelhouse."""
    if path.resolve().parent != layout.wheelhouse.resolve() or not publication.record_path(path).is_file():
        console.note(f"{path.name} passed; it is not published in the wheelhouse, so nothing is recorded")
        return
    verified(path, layout, console, None)
    known = jsonio.read(publication.record_path(path), BuildRecord)
    judged = known.validation.with_emulation(report)
    changed = dataclasses.replace(known, validation=judged)
    changed = jsonio.from_data(redaction.without_paths(jsonio.to_data(changed)), BuildRecord)
    if publication.is_signed(path):
        console.warn("the signature of the earlier record is removed: nox -s sign signs the new one")
    wheel = wheelfile.read(path)
    publication.publish(wheel, changed, changed.inspection, changed.validation, layout.wheelhouse)
    console.note(f"recorded {judged.verdict} next to {path.name}")
