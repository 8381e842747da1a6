"""Commands that make something: wheels, units, second builds, vendored sources, locks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from build_config.archs import LOCKED_CUDA
from build_config.commands.app import Emulate, Launcher, Revoked, WorkRoot, app, layout_of
from build_config.system.console import Console, duration, megabytes
from build_config.system.layout import CANONICAL_WORK_ROOT
from check_gpu import shell

Units = Annotated[
    str | None,
    typer.Option(help="Units of other machines: a folder (units --export); with --trust-units, a shared store."),
]
TrustUnits = Annotated[
    list[Path] | None, typer.Option(help="A key whose units are used from the shared store --units: folder or address.")
]


@app.command()
def build(  # noqa: PLR0913, PLR0917  # one parameter for each option
    arch: Annotated[
        str,
        typer.Option(
            help="89 | 86,89 | 86+120 (one shard for both) | native (the GPUs here) | portable (all GPUs) | auto"
        ),
    ] = "auto",
    cuda: Annotated[
        str, typer.Option(help=f"{LOCKED_CUDA} (downloaded, locked) | 11.8, 12.4, ... | system (installed here)")
    ] = LOCKED_CUDA,
    llama_cpp: Annotated[
        Path | None, typer.Option(help="Your own llama.cpp checkout, to build instead of the locked one.")
    ] = None,
    launcher: Annotated[Launcher, typer.Option(help="Object cache in front of the compilers.")] = Launcher.AUTO,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Compilers at once; default: one for each core, if memory allows.")
    ] = None,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail unless it ran on a real GPU.")] = False,  # noqa: FBT002  # typer's form
    sign_key: Annotated[
        Path | None, typer.Option(help="An Ed25519 key in PEM: sign the statement about the wheel with it.")
    ] = None,
    copy_to: Annotated[Path | None, typer.Option(help="A folder for a copy of the wheel.", file_okay=False)] = None,
    units: Units = None,
    trust_units: TrustUnits = None,
    revoked: Revoked = None,
    require_units: Annotated[bool, typer.Option("--require-units", help="Compile nothing; fail without them.")] = False,  # noqa: FBT002  # typer's form
    emulate: Annotated[
        Emulate, typer.Option(help="Checks on an emulated GPU after validation, on a machine without a GPU.")
    ] = Emulate.QUICK,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Build, inspect, validate and publish a CUDA wheel."""
    from build_config import pipeline
    from build_config.plan import BuildRequest, resolve
    from build_config.system import machine
    from build_config.tasks.index import folder, rules

    console = Console()
    layout = layout_of(work_root)
    request = BuildRequest(
        arch=arch,
        cuda=cuda,
        llama_cpp=llama_cpp,
        launcher=launcher.value,
        jobs=jobs,
        require_gpu=require_gpu,
        sign_key=sign_key,
        units=_place(units),
        trust_units=tuple(trust_units or ()),
        revoked=revoked,
        require_units=require_units,
        emulate=emulate.value,
    )
    published = pipeline.build(resolve(request, machine.describe(), layout), console)
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
    wanted = f"llama-cpp-python=={record.version}"
    console.raw(f"Install it:\n  {shell.install(['--find-links', str(layout.wheelhouse), wanted])}")
    known = folder.read(layout.index)
    if known is not None and (command := rules.conflict(known, published.path.name, record.sha256)):
        console.warn(
            f"{published.path.name} is in the index {layout.index} with other bytes, which keep that name. Nothing has"
            f" to be built again: to publish this one next to it, and to yank the other: {command}"
        )


def _place(units: str | None) -> Path | str | None:
    """A folder with units, or an address."""
    from build_config.errors import SettingsError
    from build_config.system import storage

    if units is None:
        return None
    place = storage.place(units)
    if isinstance(place, Path) and not place.is_dir():
        raise SettingsError(f"--units {units}: there is no such folder")
    return place


@app.command(name="units")
def build_units(  # noqa: PLR0913, PLR0917  # one parameter for each option
    arch: Annotated[str, typer.Option(help="As for build.")] = "auto",
    cuda: Annotated[str, typer.Option(help="As for build.")] = LOCKED_CUDA,
    only: Annotated[list[str] | None, typer.Option(help="core, sm89, ...; default: all of the build.")] = None,
    launcher: Annotated[Launcher, typer.Option(help="Object cache in front of the compilers.")] = Launcher.AUTO,
    jobs: Annotated[int | None, typer.Option(min=1, help="Compilers at once.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="A folder for a copy of each unit, for build --units.", file_okay=False)
    ] = None,
    units: Units = None,
    trust_units: TrustUnits = None,
    revoked: Revoked = None,
    push: Annotated[
        str | None, typer.Option(help="A shared store to put them into: a folder, or s3://, gs://, az://BUCKET/FOLDER.")
    ] = None,
    sign_key: Annotated[Path | None, typer.Option(help="An Ed25519 key in PEM, for --push.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Build units into the store, without a wheel."""
    from build_config import pipeline
    from build_config.errors import SettingsError
    from build_config.plan import BuildRequest, resolve
    from build_config.steps.units import transfer
    from build_config.system import machine, storage, workroot

    console = Console()
    layout = layout_of(work_root)
    if (push is None) != (sign_key is None):
        raise SettingsError("--push and --sign-key belong together: others use a unit only if it is signed")
    place = None if push is None else storage.writer(storage.place(push))
    request = BuildRequest(
        arch=arch,
        cuda=cuda,
        launcher=launcher.value,
        jobs=jobs,
        units=_place(units),
        trust_units=tuple(trust_units or ()),
        revoked=revoked,
        sign_key=sign_key,
    )
    plan = resolve(request, machine.describe(), layout)
    with workroot.claim(layout, purpose=f"units --arch {arch}", console=console):
        compiled = pipeline.compile_units(plan, console, only=tuple(only or ()), for_wheel=False)
        if export is not None:
            transfer.export_units(compiled.units, export)
            console.note(f"exported {', '.join(unit.name for unit in compiled.units)} to {export}")
        if place is not None:
            pipeline.push_units(plan, compiled.units, place, console)
    for unit in compiled.units:
        for file in unit.files:
            console.note(f"{file.sha256}  {file.name}")


@app.command()
def reproduce(
    arch: Annotated[str, typer.Option(help="As for build.")] = "auto",
    cuda: Annotated[str, typer.Option(help="As for build.")] = LOCKED_CUDA,
    units: Annotated[
        list[str] | None, typer.Option(help="core, sm89, ...: only these units instead of the whole wheel.")
    ] = None,
    launcher: Annotated[
        list[Launcher] | None, typer.Option(help="Launchers of the second builds; each must give the same bytes.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="The record of a published wheel: build that wheel.", exists=True)
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user of the second build; needs root.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Compilers at once in the first build.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Build again in an environment that differs in all that must not matter, and compare the bytes."""
    from build_config.plan import BuildRequest
    from build_config.tasks import reproduce as task

    request = task.ReproduceRequest(
        build=BuildRequest(arch=arch, cuda=cuda, jobs=jobs),
        units=tuple(units or ()),
        launchers=tuple(each.value for each in launcher or (Launcher.NONE,)),
        record=record,
        user=user,
    )
    console = Console()
    for result in task.reproduce(request, layout_of(work_root), console):
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
    from build_config import inputs
    from build_config.steps import locks
    from build_config.system import workroot

    console = Console()
    layout = layout_of(work_root)
    with workroot.claim(layout, purpose="vendor", console=console):
        inputs.vendor(locks.read_source_lock(layout), layout, console)
    console.note("vendor/llama.cpp and vendor/llama-cpp-python are the locked sources")


@app.command(name="lock")
def relock(
    upgrade: Annotated[list[str] | None, typer.Option(help="A package to move to its newest release.")] = None,
) -> None:
    """Make the locks again, and show the changes."""
    from build_config.steps.locks import refresh

    console = Console()
    changes = refresh.refresh(layout_of(CANONICAL_WORK_ROOT), upgrade=tuple(upgrade or ()), console=console)
    for change in changes:
        console.note(str(change))
    if not changes:
        console.note("the locks have not changed")


@app.command()
def outdated(
    names: Annotated[
        list[str] | None, typer.Argument(help="Only these packages; default: all that are locked.")
    ] = None,
    osv: Annotated[
        str | None, typer.Option(help="A database of advisories with OSV's API; default: api.osv.dev.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002  # typer's form
) -> None:
    """Name newer releases of everything that is locked, and known advisories; status 1 if there is an advisory."""
    from build_config.system import jsonio
    from build_config.tasks import outdated as task

    console = Console()
    answer = task.examine(layout_of(CANONICAL_WORK_ROOT), console, only=tuple(names or ()), osv=osv or task.OSV)
    if json:
        console.raw(jsonio.dumps(answer))
    else:
        task.show(answer, console)
    if answer.advisories:
        raise typer.Exit(1)
