"""The application that all commands belong to, and the options that several of them have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from build_config.system.layout import PACKAGE, Layout

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


def layout_of(work_root: Path) -> Layout:
    """The layout of this checkout with the given work root."""
    return Layout(checkout=PACKAGE.parent, work_root=work_root.absolute())
