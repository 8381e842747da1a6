"""Commands for a finished wheel: validate it, verify it, sign it, measure it, pack it for conda."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from build_config.commands.app import PublicKeys, Revoked, Signers, WorkRoot, app, keys_of, layout_of
from build_config.system.console import Console, megabytes
from build_config.system.layout import CANONICAL_WORK_ROOT
from build_config.testbed.simulation_options import DEFAULT_MEMORY, FAULTS
from check_gpu import shell

bench = typer.Typer(no_args_is_help=True, help="Measure the speed of a wheel.")
app.add_typer(bench, name="bench")


class Shape(StrEnum):
    """Choices of ``--synthetic``."""

    TINY = "tiny"
    SMALL = "small"
    ONE_B = "1b"


@app.command()
def validate(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    simulate: Annotated[
        str | None,
        typer.Option(help="A compute capability (8.9), or every: also on simulated GPUs, which never count as real."),
    ] = None,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail unless it ran on a real GPU.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Install a wheel into a clean environment, run it in every scenario, and show where its layers are."""
    from build_config.tasks.validate import validate as task

    task(wheel, layout_of(work_root), Console(), simulate=simulate, require_gpu=require_gpu)


@app.command()
def emulate(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    arch: Annotated[str | None, typer.Option(help="An architecture of the wheel, 89; default: its first.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every type of weights, prompt and family.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Compute with the wheel's own kernels on an emulated GPU, and compare the numbers with the CPU's."""
    from build_config.tasks import emulate as task

    task.emulate(task.EmulationRequest(wheel=wheel, arch=arch, every=every), layout_of(work_root), Console())


@app.command()
def verify(
    wheel: Annotated[str | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    public_keys: PublicKeys = None,
    signers: Signers = 1,
    revoked: Revoked = None,
    whole: Annotated[bool, typer.Option("--all", help="A whole index: a folder or an address.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Compare a wheel with its record, its statement, its signature and the locks of this checkout."""
    from build_config.tasks import verify as task
    from build_config.tasks.index.whole import verify_index

    layout, keys = layout_of(work_root), keys_of(public_keys, signers, revoked)
    if whole:
        verify_index(wheel or str(layout.index), layout, Console(), keys=keys)
    else:
        task.verify(None if wheel is None else Path(wheel), layout, Console(), keys=keys)


@app.command()
def sign(
    sign_key: Annotated[Path, typer.Option(help="An Ed25519 key in PEM that nobody else can read.")],
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Remove the signatures of other keys.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Sign the statement about a published wheel; signatures of other keys stay."""
    from build_config.tasks import verify as task

    task.sign(wheel, sign_key, layout_of(work_root), Console(), replace_others=replace)


@app.command(name="conda")
def conda_package(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    public_keys: PublicKeys = None,
    signers: Signers = 1,
    revoked: Revoked = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Make a conda package from a published wheel, in the channel wheelhouse/conda."""
    from build_config.tasks.conda import task

    console = Console()
    layout = layout_of(work_root)
    package, path = task.make_conda_package(wheel, layout, console, keys=keys_of(public_keys, signers, revoked))
    rows = (("needs", ", ".join(package.depends)), ("if there", ", ".join(package.constrains)))
    console.summary("Done", (("package", path.name), ("size", megabytes(path.stat().st_size)), *rows))
    wanted = f"{package.name}={package.version}={package.build}"
    command = shell.quote(["conda", "install", "-c", layout.conda_channel.as_uri(), "-c", "conda-forge", wanted])
    console.raw(f"Install it:\n  {command}")


@app.command()
def keygen(folder: Annotated[Path, typer.Argument(help="The folder for the two files.")]) -> None:
    """Make an Ed25519 key pair to sign statements with."""
    from build_config.steps.wheelhouse import signature

    private, public = signature.make_keys(folder)
    console = Console()
    console.note(f"keep {private} secret; share {public}")
    console.note(f"the key's identifier: {signature.key_id(signature.read_public_key(public))}")


@app.command(name="upstream_tests")
def upstream_tests(
    wheel: Annotated[Path | None, typer.Argument(help="Default: the newest of the wheelhouse.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Run llama-cpp-python's own tests with a wheel, except those that download a model."""
    from build_config.tasks.upstream_tests import task

    task.run_upstream_tests(wheel, layout_of(work_root), Console())


@bench.command(name="device")
def bench_device(  # noqa: PLR0913, PLR0917  # one parameter for each option
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
        typer.Option(help="The baseline, another build: a wheel, or the Python that has it installed.", exists=True),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Length of the prompt.")] = 256,
    tokens: Annotated[int, typer.Option(min=2, help="Length of the answer.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Processes for each figure; the median counts.")] = 3,
    simulate: Annotated[
        str | None, typer.Option(help="A compute capability (8.9): on a simulated GPU, whose speed means nothing.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default: bench in the work root.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Answer the same prompt on the CPU and on the GPU; compare times, speed, memory and load."""
    from build_config.tasks.bench import task

    request = task.DeviceBenchRequest(
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
    task.bench_devices(request, layout_of(work_root), Console())


@app.command()
def simulate(
    capabilities: Annotated[str, typer.Argument(help="One compute capability for each GPU: 8.9, or 8.9,7.5.")],
    command: Annotated[list[str], typer.Argument(help="The command to run, after two dashes.")],
    fault: Annotated[str | None, typer.Option(help=f"One of: {', '.join(FAULTS)}; out-of-memory:BYTES.")] = None,
    memory: Annotated[int, typer.Option(min=1, help="Memory of each GPU in bytes.")] = DEFAULT_MEMORY,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Run a command on simulated GPUs, whose kernels do nothing."""
    from build_config.tasks import simulate as task

    devices = task.simulated_machine(capabilities, fault, memory)
    raise typer.Exit(task.simulate(devices, tuple(command), layout_of(work_root), Console()))
