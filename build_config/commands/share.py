"""Commands that share wheels: make variants, publish them in an index, yank them, make its pages again, serve it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from build_config.commands.app import PublicKeys, Revoked, Signers, WorkRoot, app, keys_of, layout_of
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT

if TYPE_CHECKING:
    from build_config.system.storage import Bucket

To = Annotated[
    str | None, typer.Option(help="The index, a folder or s3://, gs://, az://BUCKET/FOLDER; default: wheelhouse/whl.")
]


@app.command()
def publish(  # noqa: PLR0913, PLR0917  # one parameter for each option
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with wheels and the files next to them; default: the wheelhouse.", exists=True),
    ] = None,
    to: To = None,
    start: Annotated[
        str | None, typer.Option("--from", help="An index to continue in an empty folder: its address or its folder.")
    ] = None,
    public_keys: PublicKeys = None,
    signers: Signers = 1,
    revoked: Revoked = None,
    supersede: Annotated[
        str | None, typer.Option(help="A published wheel that is yanked; the new one gets a build tag. With --reason.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="One line for those who have the superseded wheel.")] = None,
    sign_key: Annotated[
        Path | None, typer.Option(help="An Ed25519 key in PEM: sign the wheel that gets a build tag.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Yank all but the newest N versions of each index and platform.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="With --keep: delete them instead.")] = False,  # noqa: FBT002  # typer's form
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Publish wheels in the index, all of them or none; wheels of other machines go into the wheelhouse, too."""
    from build_config.system import storage
    from build_config.tasks.publish import PublishRequest
    from build_config.tasks.publish import publish as task

    console = Console()
    layout = layout_of(work_root)
    request = PublishRequest(
        folders=tuple(folders or ()),
        to=_place(to),
        start=None if start is None else storage.reader(storage.place(start)),
        keys=keys_of(public_keys, signers, revoked),
        supersede=supersede,
        reason=reason,
        sign_key=sign_key,
        keep=keep,
        delete=delete,
    )
    published = task(request, layout, console)
    rows = tuple(("published", wheel.name) for wheel in published)
    console.summary("Done", (*rows, ("index", to or str(layout.index))))


@app.command()
def variant(
    wheels: Annotated[list[Path], typer.Argument(help="Wheels for one shard set each.", exists=True, dir_okay=False)],
    public_keys: PublicKeys = None,
    signers: Signers = 1,
    revoked: Revoked = None,
    sign_key: Annotated[Path | None, typer.Option(help="An Ed25519 key in PEM: sign the variant wheels.")] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Make variant wheels, a preview: uv takes the one for the GPU of each machine. The libraries stay the same."""
    from build_config.tasks.variant import make_variants

    console = Console()
    keys = keys_of(public_keys, signers, revoked)
    made = make_variants(tuple(wheels), layout_of(work_root), console, keys=keys, sign_key=sign_key)
    rows = tuple(("variant", wheel.name) for wheel in made)
    console.summary("Done", (*rows, ("folder", str(made[0].parent)), ("publish them", "nox -s publish")))


@app.command()
def yank(
    wheels: Annotated[list[str], typer.Argument(help="Names of published wheels.")],
    reason: Annotated[str | None, typer.Option(help="One line for those who have the wheel.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the yank back.")] = False,  # noqa: FBT002  # typer's form
    to: To = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Yank published wheels: installers take them only where a lock or a user names them."""
    from build_config.errors import SettingsError
    from build_config.tasks.index import rules, update

    if (reason is None) != undo:
        raise SettingsError("a yank needs --reason TEXT, and --undo needs none")
    names = update.names(wheels)
    change = rules.unyank if reason is None else lambda known, names: rules.yank(known, names, reason)
    update.change(_place(to) or layout_of(work_root).index, Console(), lambda known: change(known, names))


@app.command(name="index")
def make_index(
    out: To = None,
    base_url: Annotated[
        str | None, typer.Option(help="The address at which the folder will be, for the lines on its page.")
    ] = None,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Make a package index from the wheels of the wheelhouse and those that are in it already."""
    from build_config.tasks.index import update

    console = Console()
    layout = layout_of(work_root)
    update.write(layout, console, out=_place(out), base_url=base_url)
    console.summary("Done", (("index", out or str(layout.index)), ("look at it", "nox -s serve")))


@app.command()
def serve(
    folder: Annotated[Path | None, typer.Argument(help="Default: wheelhouse/whl.", file_okay=False)] = None,
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0: for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    work_root: WorkRoot = CANONICAL_WORK_ROOT,
) -> None:
    """Serve an index over HTTP, as HTML and as JSON."""
    from build_config.tasks.index.serve import serve as task

    task((folder or layout_of(work_root).index).absolute(), Console(), host=host, port=port)


def _place(name: str | None) -> Path | Bucket | None:
    """The index of ``--to``."""
    from build_config.system import storage

    if name is None:
        return None
    return storage.writer(name) if storage.is_address(name) else Path(name)
