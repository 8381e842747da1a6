"""The command line: ``python -m build_config STEP``. The only place that turns errors into exit codes."""

from __future__ import annotations

import shutil
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from build_config import (
    check_gpu_file,
    choosing,
    dsse,
    jsonio,
    lock,
    machine,
    pipeline,
    synthetic_model,
    trials,
    workroot,
)
from build_config import doctor as doctor_step
from build_config import reproduce as reproduce_step
from build_config.check_gpu import diagnosis, gather, report
from build_config.console import Console, duration, megabytes
from build_config.errors import InterruptedRunError, PipelineError, SettingsError
from build_config.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout
from build_config.validation.simulated_device import DEFAULT_MEMORY, FAULTS

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
bench = typer.Typer(no_args_is_help=True, help="Measure what a wheel gives.")
app.add_typer(bench, name="bench")


class Shape(StrEnum):
    """Choices of ``--synthetic``."""

    TINY = "tiny"
    SMALL = "small"
    ONE_B = "1b"


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
def build(  # noqa: PLR0913, PLR0917  # one parameter an option
    arch: Annotated[
        str, typer.Option(help="89 | 86,89 | native (the cards here) | portable (all cards) | auto")
    ] = "auto",
    cuda: Annotated[
        str, typer.Option(help="13.0 (fetched, locked) | 11.8, 12.4, ... | system (installed here)")
    ] = "13.0",
    llama_cpp: Annotated[
        Path | None, typer.Option(help="A llama.cpp checkout of your own to build instead of the locked one.")
    ] = None,
    launcher: Annotated[Launcher, typer.Option(help="Object cache in front of the compilers.")] = Launcher.AUTO,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Compilers at once; default: cores, as memory allows.")
    ] = None,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail unless a real card ran it.")] = False,  # noqa: FBT002  # typer's form
    sign_key: Annotated[
        Path | None, typer.Option(help="An Ed25519 key in PEM: sign the statement about the wheel with it.")
    ] = None,
    copy_to: Annotated[
        Path | None, typer.Option(help="A folder that gets a copy of the wheel, too.", file_okay=False)
    ] = None,
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
        sign_key=sign_key,
    )
    published = pipeline.build(request, layout, console)
    if copy_to is not None:
        copy_to.mkdir(parents=True, exist_ok=True)
        shutil.copy2(published.path, copy_to)
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


@app.command(name="units")
def build_units(
    arch: Annotated[str, typer.Option(help="As for build.")] = "auto",
    cuda: Annotated[str, typer.Option(help="As for build.")] = "13.0",
    only: Annotated[list[str] | None, typer.Option(help="core, sm89, ...; default: all of the build.")] = None,
    launcher: Annotated[Launcher, typer.Option(help="Object cache in front of the compilers.")] = Launcher.AUTO,
    jobs: Annotated[int | None, typer.Option(min=1, help="Compilers at once.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Build units into the store, and no wheel."""
    console = Console()
    layout = _layout(work_root)
    here = machine.describe()
    request = pipeline.BuildRequest(arch=arch, cuda=cuda, launcher=launcher.value, jobs=jobs)
    pipeline.check_request(request, here, layout)
    with workroot.claim(layout, purpose=f"units --arch {arch}", console=console):
        compiled = pipeline.compile_units(request, here, layout, console, only=tuple(only or ()))
    for unit in compiled.units:
        for file in unit.files:
            console.note(f"{file.sha256}  {file.name}")


@app.command()
def reproduce(
    arch: Annotated[str, typer.Option(help="As for build.")] = "auto",
    cuda: Annotated[str, typer.Option(help="As for build.")] = "13.0",
    units: Annotated[
        list[str] | None, typer.Option(help="core, sm89, ...: these units only, instead of the whole wheel.")
    ] = None,
    launcher: Annotated[
        list[Launcher] | None, typer.Option(help="Launchers of the second builds; each must give the same bytes.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="The record of a wheel that somebody published: build that one.", exists=True)
    ] = None,
    user: Annotated[str | None, typer.Option(help="Who builds the second time; needs root.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Compilers at once in the first build.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Build again where everything differs that must not matter, and compare the bytes."""
    request = reproduce_step.ReproduceRequest(
        build=pipeline.BuildRequest(arch=arch, cuda=cuda, jobs=jobs),
        units=tuple(units or ()),
        launchers=tuple(each.value for each in launcher or (Launcher.NONE,)),
        record=record,
        user=user,
    )
    console = Console()
    for result in reproduce_step.reproduce(request, _layout(work_root), console):
        console.summary(
            "Reproduced, bit for bit",
            (
                ("what", result.subject),
                ("launcher", result.launcher),
                *((one.name, one.first) for one in result.compared),
                ("varied", str(len(result.varied))),
                ("time", duration(result.seconds)),
            ),
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
    simulate: Annotated[
        str | None,
        typer.Option(help="A compute capability (8.9), or every: also try a simulated device. Never counts as a card."),
    ] = None,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail unless a real card ran it.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Install a wheel into a clean environment, use it in every situation, and say where its layers are."""
    trials.validate(wheel, _layout(work_root), Console(), simulate=simulate, require_gpu=require_gpu)


@app.command()
def verify(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Whose signature there must be. Without it no signature is checked.")
    ] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Hold a wheel against its record, its statement, its signature and the locks of this checkout."""
    trials.verify(wheel, _layout(work_root), Console(), public_key=public_key)


@app.command()
def sign(
    sign_key: Annotated[Path, typer.Option(help="An Ed25519 key in PEM that nobody else can read.")],
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Sign the statement about a published wheel."""
    trials.sign(wheel, sign_key, _layout(work_root), Console())


@app.command(name="conda")
def conda_package(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    public_key: Annotated[Path | None, typer.Option(help="Whose signature there must be.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Make a conda package of a published wheel, in the channel wheelhouse/conda."""
    console = Console()
    layout = _layout(work_root)
    package, path = trials.make_conda_package(wheel, layout, console, public_key=public_key)
    rows = (("needs", ", ".join(package.depends)), ("if there", ", ".join(package.constrains)))
    console.summary("Done", (("package", path.name), ("size", megabytes(path.stat().st_size)), *rows))
    channel = layout.conda_channel.as_uri()
    console.raw(
        f"Install it:\n  conda install -c {channel} -c conda-forge {package.name}={package.version}={package.build}"
    )


@app.command()
def keygen(folder: Annotated[Path, typer.Argument(help="Where the two files go.")]) -> None:
    """Make an Ed25519 key pair to sign statements with."""
    private, public = dsse.make_keys(folder)
    Console().note(f"{private} is for you alone; give away {public}")


@app.command(name="upstream_tests")
def upstream_tests(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Run llama-cpp-python's own tests with a wheel, but for those that download a model."""
    trials.run_upstream_tests(wheel, _layout(work_root), Console())


@bench.command(name="device")
def bench_device(  # noqa: PLR0913, PLR0917  # one parameter an option
    model: Annotated[
        Path | None, typer.Option(help="A GGUF file; default: a random model.", exists=True, dir_okay=False)
    ] = None,
    synthetic: Annotated[
        Shape, typer.Option(help="The random model: its speed is that of a trained one of this size.")
    ] = Shape.ONE_B,
    kind: Annotated[str, typer.Option(help="The type of the random model's weights.")] = "Q4_K_M",
    wheel: Annotated[
        Path | None, typer.Option(help="Default: the newest of the wheelhouse.", exists=True, dir_okay=False)
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Another build to compare with: a wheel, or the Python that has it installed.", exists=True),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Length of the prompt.")] = 256,
    tokens: Annotated[int, typer.Option(min=2, help="Length of the answer.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Processes for each figure; the median counts.")] = 3,
    simulate: Annotated[
        str | None, typer.Option(help="A compute capability (8.9): a simulated device. Its speed means nothing.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default: bench in the work root.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Answer the same prompt on the CPU and on the card, and compare: times, speed, memory, load."""
    request = trials.DeviceBenchRequest(
        wheel=wheel,
        model=model,
        synthetic=synthetic.value,
        kind=kind,
        against=against,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        rounds=rounds,
        simulate=simulate,
        out=out,
    )
    trials.bench_devices(request, _layout(work_root), Console())


@app.command()
def simulate(
    capabilities: Annotated[str, typer.Argument(help="One compute capability a device: 8.9, or 8.9,7.5.")],
    command: Annotated[list[str], typer.Argument(help="What to run there, behind two dashes.")],
    fault: Annotated[str | None, typer.Option(help=f"One of: {', '.join(FAULTS)}; out-of-memory:BYTES.")] = None,
    memory: Annotated[int, typer.Option(min=1, help="Bytes of each device.")] = DEFAULT_MEMORY,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Run a command on a simulated device, which is never a card: its kernels do nothing."""
    devices = trials.simulated_machine(capabilities, fault, memory)
    raise typer.Exit(trials.simulate(devices, tuple(command), _layout(work_root), Console()))


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002  # typer's form
    recommend: Annotated[bool, typer.Option("--recommend", help="Which finished wheel is for this machine?")] = False,  # noqa: FBT002
    index: Annotated[
        str | None, typer.Option(help="Where to look for wheels: a folder, page or address; default: the wheelhouse.")
    ] = None,
    cards: Annotated[bool, typer.Option("--cards", help="Print the table of docs/choosing.md.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Say what this machine can build, and what is missing; or which wheel is for it."""
    console = Console()
    if cards:
        console.raw(choosing.table())
        return
    if recommend or index is not None:
        answer = doctor_step.recommend(_layout(work_root), index)
        console.raw(jsonio.dumps(answer) if json else choosing.text(answer))
        if answer.chosen is None:
            raise typer.Exit(1)
        return
    rows = doctor_step.examine(_layout(work_root))
    if json:
        console.raw(jsonio.dumps(rows))
    else:
        console.table("", tuple((row.subject, row.state, row.text, row.remedy or "") for row in rows))
    if not doctor_step.overall(rows):
        raise typer.Exit(1)


@app.command(name="check_gpu")
def check_gpu(
    python: Annotated[
        str | None, typer.Option(help="The interpreter whose llama-cpp-python to check, or its path.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="A GGUF file to load; default: a tiny one.", exists=True)] = None,
    log: Annotated[Path | None, typer.Option(help="Judge this log of llama.cpp instead.", exists=True)] = None,
    n_gpu_layers: Annotated[int, typer.Option(help="As for Llama().")] = -1,
    n_ctx: Annotated[int, typer.Option(min=1, help="As for Llama().")] = 512,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for loading the model.")] = 300.0,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002  # typer's form
    make_file: Annotated[
        Path | None, typer.Option(help="Check nothing; write the checker as one file, to run anywhere.")
    ] = None,
) -> None:
    """Say whether an installed llama-cpp-python uses the card; status 1 where there is something to mend."""
    console = Console()
    if make_file is not None:
        console.note(f"{check_gpu_file.make(make_file)} runs with Python 3.8 or later and needs nothing else")
        return
    if python is None and log is None:
        raise SettingsError("There is nothing to check", remedy="--python PATH, or --log FILE")
    request = gather.Request(
        python=python or sys.executable,
        model=model,
        log=log,
        n_gpu_layers=n_gpu_layers,
        n_ctx=n_ctx,
        timeout=timeout,
    )
    facts = gather.gather(request, synthetic_model.write)
    answer = diagnosis.diagnose(facts)
    if json:
        console.raw(jsonio.dumps(report.document(facts, answer)))
    else:
        console.raw(report.text(facts, answer))
    if not answer.well:
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
