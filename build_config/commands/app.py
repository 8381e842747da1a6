"""The application that all commands belong to, and the options that several of them have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from build_config.system.layout import PACKAGE, Layout

if TYPE_CHECKING:
    from build_config.steps.wheelhouse.signature import Keys

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


class Launcher(StrEnum):
    """Choices of ``--launcher``."""

    AUTO = "auto"
    SCCACHE = "sccache"
    CCACHE = "ccache"
    NONE = "none"


class Emulate(StrEnum):
    """Choices of ``--emulate``."""

    QUICK = "quick"
    ALL = "all"
    NONE = "none"


WorkRoot = Annotated[
    Path, typer.Option(help="Where to build. Only the default gives the same bytes as on other machines.")
]


PublicKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--public-key", help="A key whose signature counts; may be given several times. Without it none is checked."
    ),
]
Signers = Annotated[int, typer.Option("--signers", min=1, help="How many of the keys must have signed.")]
Revoked = Annotated[
    Path | None, typer.Option("--revoked", help="A list of keys whose signatures never count (docs/provenance.md).")
]


def keys_of(public_keys: list[Path] | None, signers: int, revoked: Path | None) -> Keys | None:
    """The keys of these options; ``None`` if no signature is to be checked."""
    from build_config.steps.wheelhouse import signature

    return signature.read_keys(tuple(public_keys or ()), needed=signers, revoked=revoked)


def layout_of(work_root: Path) -> Layout:
    """The layout of this checkout with the given work root."""
    return Layout(checkout=PACKAGE.parent, work_root=work_root.absolute())
