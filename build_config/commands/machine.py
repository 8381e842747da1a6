"""Commands about this machine: its ability to build, the right wheel for it, the use of its GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from build_config.commands.app import WorkRoot, app, layout_of
from build_config.errors import SettingsError
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002  # typer's form
    recommend: Annotated[bool, typer.Option("--recommend", help="Recommend a wheel for this machine.")] = False,  # noqa: FBT002
    index: Annotated[
        str | None, typer.Option(help="Where to search for wheels: a folder, page or address; default: the wheelhouse.")
    ] = None,
    gpus: Annotated[bool, typer.Option("--gpus", "--cards", help="Print the table of docs/choosing.md.")] = False,  # noqa: FBT002  # typer's form
    disk: Annotated[  # noqa: FBT002  # typer's form
        bool, typer.Option("--disk", help="Show what the work root contains, who needs it, and the hits of its caches.")
    ] = False,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Show what this machine can build and what is missing, or recommend a wheel."""
    from build_config.system import jsonio
    from build_config.tasks import doctor as task

    console = Console()
    if gpus:
        from build_config.tasks import recommend as choosing

        console.raw(choosing.table())
        return
    if disk:
        from build_config.tasks import clean as cleaning

        cleaning.show_disk(layout_of(work_root), console, json=json)
        return
    if recommend or index is not None:
        from build_config.tasks import recommend as choosing

        answer = task.recommend(layout_of(work_root), index)
        console.raw(jsonio.dumps(answer) if json else choosing.text(answer))
        if answer.chosen is None:
            raise typer.Exit(1)
        return
    rows = task.examine(layout_of(work_root))
    if json:
        console.raw(jsonio.dumps(rows))
    else:
        console.table("", tuple((row.subject, row.state, row.text, row.remedy or "") for row in rows))
    if not task.overall(rows):
        raise typer.Exit(1)


@app.command(name="check_gpu")
def check_gpu(  # noqa: PLR0913, PLR0917  # one parameter for each option
    python: Annotated[
        str | None, typer.Option(help="The Python whose llama-cpp-python is checked: a command or path.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="A GGUF file to load; default: a tiny one.", exists=True)] = None,
    log: Annotated[Path | None, typer.Option(help="Check this log of llama.cpp instead; -: standard input.")] = None,
    pid: Annotated[int | None, typer.Option(help="Check this running program instead; Linux only.")] = None,
    n_gpu_layers: Annotated[int, typer.Option(help="As for Llama().")] = -1,
    n_ctx: Annotated[int, typer.Option(min=1, help="As for Llama().")] = 512,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for loading the model.")] = 300.0,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002  # typer's form
    make_file: Annotated[
        Path | None, typer.Option(help="Check nothing; write the checker as one file, to run anywhere.")
    ] = None,
) -> None:
    """Check whether an installed llama-cpp-python uses the GPU; status 1 if there is something to fix."""
    from build_config.system import jsonio
    from check_gpu import collect, diagnosis, log_stream, report, running

    console = Console()
    if make_file is not None:
        from build_config.tasks import check_gpu_file

        console.note(f"{check_gpu_file.make(make_file)} runs with Python 3.8 or later and needs nothing else")
        return
    if python is None and log is None and pid is None:
        raise SettingsError("There is nothing to check", remedy="--python PATH, --log FILE, or --pid NUMBER")
    if pid is not None and log is not None:
        raise SettingsError("--log and --pid are two questions", remedy="pass one of them")
    if pid is not None and (problem := running.problem(pid)):
        raise SettingsError(problem)
    if log is not None and (problem := log_stream.problem(log)):
        raise SettingsError(f"--log: {problem}")
    request = collect.Request(
        python=python or sys.executable,
        model=model,
        log=log,
        pid=pid,
        n_gpu_layers=n_gpu_layers,
        n_ctx=n_ctx,
        timeout=timeout,
    )
    try:
        facts = collect.collect(request, _write_model)
    except OSError as error:
        if log is None:
            raise
        raise SettingsError(f"--log: {log} cannot be read: {error.strerror}") from error
    answer = diagnosis.diagnose(facts)
    if json:
        console.raw(jsonio.dumps(report.document(facts, answer)))
    else:
        console.raw(report.text(facts, answer))
    if not answer.well:
        raise typer.Exit(1)


def _write_model(path: Path) -> Path:
    from build_config.testbed import synthetic_model

    return synthetic_model.write(path)


@app.command()
def clean(
    older_than: Annotated[str | None, typer.Option(help="Free what was not used for this time: 30d, 12h, 4w.")] = None,
    keep_below: Annotated[
        str | None, typer.Option(help="Free what was not used for longest until this size is left: 20GB.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Free without a question.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Show what the work root contains and who needs it; free what nobody needs. Status 1 if too much is needed."""
    from build_config.tasks import clean as task
    from build_config.tasks.clean import choice

    limits = choice.Limits(
        older_than=None if older_than is None else choice.parse_age(older_than),
        keep_below=None if keep_below is None else choice.parse_size(keep_below),
    )
    done = task.clean(task.CleanRequest(limits=limits, yes=yes), layout_of(work_root), Console())
    if done.too_much:
        raise typer.Exit(1)
