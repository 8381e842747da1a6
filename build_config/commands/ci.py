"""The command for the jobs of a CI service: the list of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from build_config.commands.app import app, layout_of
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT

LIST = "ci/matrix.toml"


@app.command(name="matrix")
def show_matrix(
    arch: Annotated[str, typer.Option(help="One wheel for these GPUs instead of the list; empty: the list.")] = "",
    cuda: Annotated[str, typer.Option(help="Only this release of CUDA; empty: all of the list.")] = "",
    platform: Annotated[str, typer.Option(help="Only this platform; empty: all of the list.")] = "",
    cards: Annotated[str, typer.Option(help="GPU runners, as CAPABILITY=LABEL: 8.9=rtx4090 12.0=b.")] = "",
    gitlab: Annotated[bool, typer.Option("--gitlab", help="As a child pipeline of GitLab.")] = False,  # noqa: FBT002  # typer's form
    github_output: Annotated[
        Path | None, typer.Option(help="Also append the outputs of a GitHub step to this file.")
    ] = None,
) -> None:
    """Print the jobs of ci/matrix.toml as JSON."""
    from build_config.system import jsonio
    from build_config.tasks import ci_matrix

    listed = ci_matrix.read(layout_of(CANONICAL_WORK_ROOT).checkout / LIST)
    made = ci_matrix.plan(
        ci_matrix.select(listed, arch=arch, cuda=cuda, platform=platform), ci_matrix.read_gpu_runners(cards)
    )
    if github_output is not None:
        with github_output.open("a", encoding="utf-8") as file:
            file.write(ci_matrix.github_output(made))
    Console().raw(jsonio.dumps(ci_matrix.gitlab_pipeline(made) if gitlab else made))
