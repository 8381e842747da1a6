"""JSON for the frozen types: one step writes it, a later step reads and checks it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from packaging.version import Version

from build_config.errors import StepResultError
from build_config.system import files

if TYPE_CHECKING:
    from types import UnionType

    import cattrs

T = TypeVar("T")
NOT_JSON = (ValueError, RecursionError)
"""What ``json`` and ``tomllib`` raise for a text of others: one of many brackets is nested too deeply."""


def to_data(value: object) -> Any:
    """Convert a frozen value to plain lists, mappings, strings and numbers."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {to_data(key): to_data(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_data(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, (Path, Version)) else value


def from_data(data: Any, kind: type[T] | UnionType) -> T:
    """The reverse of ``to_data``. An unknown or missing key raises ``StepResultError``."""
    from cattrs import BaseValidationError, transform_error  # noqa: PLC0415  # see _converter

    try:
        return _converter().structure(data, kind)  # type: ignore[arg-type]
    except (BaseValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        details = "; ".join(transform_error(error)) if isinstance(error, BaseValidationError) else error
        raise StepResultError(f"not a valid {getattr(kind, '__name__', kind)}: {details}") from error


def dumps(value: object) -> str:
    """Readable JSON with a stable order of keys: the same value gives the same text."""
    return json.dumps(to_data(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(path: Path, value: object) -> None:
    """Write ``value`` as JSON. Atomic: a reader sees the old file or the new one."""
    write_text(path, dumps(value))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        files.rename(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_sealed(path: Path, value: object) -> None:
    """Write ``value`` with its digest, for ``read_sealed``: a damaged disk makes no report pass."""
    data = to_data(value)
    write(path, {"sha256": _digest(data), "value": data})


def read_sealed(path: Path, kind: type[T]) -> T:
    """Read what ``write_sealed`` wrote. Raises ``StepResultError``, also if it was changed since."""
    sealed = read(path, dict[str, Any])
    if sealed.get("sha256") != _digest(sealed.get("value")):
        raise StepResultError(f"{path.name} has changed since it was written")
    return from_data(sealed["value"], kind)


def _digest(data: Any) -> str:
    return hashlib.sha256(dumps(data).encode()).hexdigest()


def loads(text: str | bytes, kind: type[T]) -> T:
    """The value of a text that others wrote. Raises ``StepResultError`` if it is not JSON or has another structure."""
    try:
        data = json.loads(text)
    except NOT_JSON as error:
        raise StepResultError(f"it is not JSON: {error}") from error
    return from_data(data, kind)


def read(path: Path, kind: type[T]) -> T:
    """Read what ``write`` wrote. Raises ``StepResultError`` if it is missing, unreadable or has another structure."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *NOT_JSON) as error:
        raise StepResultError(f"{path.name} cannot be read: {error}") from error
    return from_data(data, kind)


@functools.cache
def _converter() -> cattrs.Converter:
    import cattrs  # noqa: PLC0415  # slow to import, and writing needs none of it

    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(Path, lambda value, _: Path(str(value)))
    converter.register_structure_hook(Version, lambda value, _: Version(str(value)))
    return converter
