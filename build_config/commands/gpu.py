"""Commands for a GPU on a machine without a network: make the folder for it, record its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from build_config.commands.app import WorkRoot, app, layout_of
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT


@app.command(name="gpu_kit")
def gpu_kit(
    out: Annotated[Path, typer.Option(help="The folder to make.", file_okay=False)],
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.", exists=True)] = None,
    arch: Annotated[str | None, typer.Option(help="The wheel of the wheelhouse that was built with this.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Make a folder that validates a wheel on a GPU without a network."""
    from build_config.tasks.gpu_kit import contents

    console = Console()
    made = contents.make(out.absolute(), layout_of(work_root), console, arch=arch, wheel=wheel)
    console.raw(f"Copy it to the machine with the GPU, and run there:\n  python {made.name}/run.py --out REPORT")


@app.command(name="record_gpu")
def record_gpu(
    report: Annotated[Path, typer.Argument(help="The folder that run.py wrote.", exists=True, file_okay=False)],
    sign_key: Annotated[
        Path | None, typer.Option(help="An Ed25519 key in PEM: sign the statement about the wheel with it.")
    ] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Judge the report of a kit, and record gpu-verified next to the wheel if it passed."""
    from build_config.tasks.gpu_kit.record import record

    record(report, layout_of(work_root), Console(), sign_key=sign_key)
