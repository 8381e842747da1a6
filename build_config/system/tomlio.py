"""TOML files as frozen values."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, TypeVar

from build_config.errors import PipelineError, StepResultError
from build_config.system import jsonio

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


def read(path: Path, kind: type[T], *, error: type[PipelineError]) -> T:
    """Read a file of this project. Raises ``error`` if it is missing, and as ``parse`` does."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise _unusable(path.name, problem, error, None) from problem
    return parse(text, kind, name=path.name, error=error)


def parse(text: str, kind: type[T], *, name: str, error: type[PipelineError], remedy: str | None = None) -> T:
    """The content of the file ``name``. Raises ``error`` for bad TOML, and for a missing or unknown key."""
    try:
        return jsonio.from_data(tomllib.loads(text), kind)
    except (*jsonio.NOT_JSON, StepResultError) as problem:
        raise _unusable(name, problem, error, remedy) from problem


def _unusable(name: str, problem: Exception, error: type[PipelineError], remedy: str | None) -> PipelineError:
    return error(f"{name} cannot be used: {problem}", remedy=remedy or f"correct or restore {name}")
