"""The commands of this project inside a remedy, parsed and resolved by its own command lines."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import typer.main

from build_config import archs
from build_config.commands import app
from build_config.system.layout import PACKAGE
from check_gpu.__main__ import parser

if TYPE_CHECKING:
    from build_config.model import Shard

_NOXFILE = (PACKAGE.parent / "noxfile.py").read_text(encoding="utf-8")
_STEPS = dict(re.findall(r'^def (\w+)\(session.*\n    """.*\n    step\(session, "(\w+)"', _NOXFILE, re.MULTILINE))
_SESSION = re.compile(r"nox -s (\w+)(?: -- ([^#&;|`]*))?")
_CHECK = re.compile(r"python \S*check_gpu\.pyz ?([^#&;|`]*)")


def sessions(remedy: str) -> list[tuple[str, list[str]]]:
    """The sessions of nox that a remedy names, with their options."""
    return [(name, shlex.split(options)) for name, options in _SESSION.findall(remedy)]


def resolve(remedy: str) -> list[Shard]:
    """Parse every command of ours in a remedy, and resolve the architectures of those that build.

    An option that does not exist, and an architecture that the toolkit cannot compile for, raise an error.
    """
    for options in _CHECK.findall(remedy):
        parser().parse_args(shlex.split(options))
    shards: list[Shard] = []
    for session, options in sessions(remedy):
        command = typer.main.get_group(app).commands[_STEPS[session]]
        values = command.make_context(session, options).params
        if session == "build_cuda_wheel":
            cuda = values["cuda"] or archs.LOCKED_CUDA
            shards += archs.resolve(values["arch"] or "auto", cuda_release=cuda, gpus=()).shards
    return shards
