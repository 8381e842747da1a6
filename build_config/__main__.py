"""The command line: ``python -m build_config STEP``. The only place that turns errors into exit codes."""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from build_config import doctor as doctor_step
from build_config import jsonio, lock, pipeline, workroot
from build_config.console import Console, duration, megabytes
from build_config.errors import InterruptedRunError, PipelineError, SettingsError
from build_config.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


class Launcher(StrEnum):
    """Choices of ``--launcher``."""

    AUTO = "auto"
    SCCACHE = "sccache"
    CCACHE = "ccache"
    NONE = "none"


WorkRoot = Annotated[
    Path, typer.Option(help="Where to build. Only the default gives the same bytes as everybody else's.")
]


def _layout(work_root: Path) -> Layout:
    return Layout(checkout=PACKAGE.parent, work_root=work_root.absolute())


@app.command()
def build(
    arch: Annotated[
        str, typer.Option(help="89 | 86,89 | native (the cards here) | portable (all cards) | auto")
    ] = "auto",
    cuda: Annotated[str, typer.Option(help="13.0 (fetched, locked) | system (CUDA_PATH, nvcc on PATH)")] = "13.0",
    llama_cpp: Annotated[
        Path | None, typer.Option(help="A llama.cpp checkout of your own to build instead of the locked one.")
    ] = None,
    launcher: Annotated[Launcher, typer.Option(help="Object cache in front of the compilers.")] = Launcher.AUTO,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Compilers at once; default: cores, as memory allows.")
    ] = None,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail unless a real card ran it.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Build, inspect, validate and publish a CUDA wheel."""
    console = Console()
    layout = _layout(work_root)
    request = pipeline.BuildRequest(
        arch=arch,
        cuda=cuda,
        llama_cpp=llama_cpp,
        launcher=launcher.value,
        jobs=jobs,
        require_gpu=require_gpu,
    )
    published = pipeline.build(request, layout, console)
    record = published.record
    seconds = sum(timing.seconds for timing in console.timings)
    console.summary(
        "Done",
        (
            ("wheel", published.path.name),
            ("size", megabytes(record.size)),
            ("SHA-256", record.sha256),
            ("architectures", ", ".join(str(arch) for shard in record.shards for arch in shard.archs)),
            ("verdict", str(record.validation.verdict)),
            ("time", duration(seconds)),
            ("record", f"{published.path.name}.record.json"),
        ),
    )
    console.raw(
        f'Install it:\n  python -m pip install --find-links "{layout.wheelhouse}" llama-cpp-python=={record.version}'
    )


@app.command()
def vendor(work_root: WorkRoot = CANONICAL_WORK_ROOT) -> None:
    """Fetch the locked sources and put them below vendor/."""
    console = Console()
    layout = _layout(work_root)
    with workroot.claim(layout, purpose="vendor", console=console):
        pipeline.vendor(layout, console)
    console.note("vendor/llama.cpp and vendor/llama-cpp-python are the locked sources")


@app.command(name="lock")
def relock(
    upgrade: Annotated[list[str] | None, typer.Option(help="A package to move to its newest release.")] = None,
) -> None:
    """Make the locks again, and say what changed."""
    console = Console()
    changes = lock.refresh(_layout(CANONICAL_WORK_ROOT), upgrade=tuple(upgrade or ()), console=console)
    for change in changes:
        console.note(str(change))
    if not changes:
        console.note("the locks are as they were")


@app.command()
def validate(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail unless a real card ran it.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Install a wheel into a clean environment, run it, and say where its layers are."""
    pipeline.validate(wheel, _layout(work_root), Console(), require_gpu=require_gpu)


@app.command(name="upstream_tests")
def upstream_tests(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Run llama-cpp-python's own tests with a wheel, but for those that download a model."""
    pipeline.run_upstream_tests(wheel, _layout(work_root), Console())


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Say what this machine can build, and what is missing."""
    console = Console()
    rows = doctor_step.examine(_layout(work_root))
    if json:
        console.raw(jsonio.dumps(rows))
    else:
        console.table("", tuple((row.subject, row.state, row.text, row.remedy or "") for row in rows))
    if not doctor_step.overall(rows):
        raise typer.Exit(1)


def main() -> NoReturn:
    """Run, and turn what went wrong into a message and an exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        status = app(standalone_mode=False)
    except PipelineError as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail(InterruptedRunError("Stopped. What was finished is kept; the same command goes on from here."))
    except TyperException as error:
        _fail(SettingsError(error.format_message(), remedy="python -m build_config --help"))
    sys.exit(status if isinstance(status, int) else 0)


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    """A polite kill is an interruption: the same clean end."""
    raise KeyboardInterrupt


def _fail(error: PipelineError) -> NoReturn:
    Console().error(f"{error}\n(exit code {error.exit_code})")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
