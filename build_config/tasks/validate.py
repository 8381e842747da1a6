"""Validate a finished wheel: install it, run it, and report where its layers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.errors import SettingsError, ValidationError
from build_config.formats import wheelfile
from build_config.inputs import runtime_files
from build_config.reports import Verdict
from build_config.steps import validation
from build_config.steps.locks import download
from build_config.steps.wheelhouse.publication import newest_wheel
from build_config.system import machine, workroot
from build_config.tasks.simulate import of_wheel, provide_simulation

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.reports import ValidationReport
    from build_config.system.console import Console
    from build_config.system.layout import Layout


def validate(
    path: Path | None, layout: Layout, console: Console, *, simulate: str | None = None, require_gpu: bool = False
) -> ValidationReport:
    """Validate a wheel file, by default the newest of the wheelhouse. Raises ``ValidationError`` if it fails.

    ``simulate`` is the compute capability of a simulated GPU (``8.9``), or ``every`` for one for each shard.
    """
    chosen = path or newest_wheel(layout)
    if simulate and require_gpu:
        message = "--simulate and --require-gpu contradict each other: a simulated GPU is never accepted as a real one"
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
    validation.show(report, console)
    if report.verdict is Verdict.FAILED:
        problems = "; ".join(finding.message for finding in report.all_findings())
        raise ValidationError(
            f"{chosen.name} did not pass: {problems}",
            remedy="read in the log what llama.cpp said; if a build from nothing fails too, report it with the log",
            log=layout.logs / "validation.log",
        )
    return report
