"""A command answers at once: it imports what it needs to answer, and nothing of what the other commands need."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from typing import TYPE_CHECKING

import pytest

from build_config.system.layout import PACKAGE
from tests.integration.conftest import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

LOG = """\
ggml_cuda_init: found 1 CUDA devices:
  Device 0: NVIDIA GeForce RTX 4090, compute capability 8.9, VMM: yes
load_tensors: offloaded 33/33 layers to GPU
"""
OWN = {"build_config", "check_gpu"}
A_COMMAND_OF_TYPER = """
from pathlib import Path
import typer

def command(path: Path = Path()) -> None: ...

typer.run(command)
"""


def imported(*arguments: str) -> tuple[str, set[str]]:
    """What Python printed, and the packages outside of the standard library that it imported, at whatever moment."""
    ended = run(sys.executable, "-X", "importtime", *arguments, cwd=PACKAGE.parent)
    names = set(re.findall(r"^import time: .*\| +(\w+)", ended.stderr, re.MULTILINE)) - sys.stdlib_module_names
    return ended.stdout, {name for name in names if importlib.util.find_spec(name)}  # others were looked for only


@functools.cache
def needed_by_typer() -> set[str]:
    """Nobody can do without these: typer itself, and what it reads options with."""
    _, packages = imported("-c", A_COMMAND_OF_TYPER)
    assert "typer" in packages
    return packages


@pytest.mark.parametrize(
    ("arguments", "answer", "allowed"),
    [
        (("--help",), "doctor", set()),
        (("build", "--help"), "--require-gpu", set()),
        (("doctor", "--json"), '"This machine"', {"psutil", "pynvml"}),  # asks for the memory and the GPUs
        (("check_gpu", "--log", "LOG"), "card-used", set()),
        (("matrix",), '"wheels"', {"attr", "attrs", "cattrs"}),  # reads ci/matrix.toml into frozen values
    ],
    ids=["help", "help of a command", "doctor", "check_gpu", "matrix"],
)
def test_a_command_imports_only_what_it_needs(
    tmp_path: Path, arguments: tuple[str, ...], answer: str, allowed: set[str]
) -> None:
    log = tmp_path / "log.txt"
    log.write_text(LOG, encoding="utf-8")
    printed, packages = imported("-m", "build_config", *(str(log) if one == "LOG" else one for one in arguments))

    assert answer in printed
    assert packages - needed_by_typer() - OWN - {"packaging"} <= allowed
