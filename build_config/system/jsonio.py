"""JSON for the frozen types: what a step writes, a later step reads back and checks."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cattrs
from packaging.version import Version

from build_config.errors import StepResultError

if TYPE_CHECKING:
    from types import UnionType

T = TypeVar("T")

_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_unstructure_hook(Path, str)
_converter.register_structure_hook(Path, lambda value, _: Path(str(value)))
_converter.register_unstructure_hook(Version, str)
_converter.register_structure_hook(Version, lambda value, _: Version(str(value)))


def to_data(value: object) -> Any:
    """A frozen value as plain lists, mappings, strings and numbers."""
    return _converter.unstructure(value)


def from_data(data: Any, kind: type[T] | UnionType) -> T:
    """The reverse of ``to_data``. An unknown or missing key raises ``StepResultError``."""
    try:
        return _converter.structure(data, kind)  # type: ignore[arg-type]
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        details = "; ".join(cattrs.transform_error(error)) if isinstance(error, cattrs.BaseValidationError) else error
        message = f"not a valid {getattr(kind, '__name__', kind)}: {details}"
        raise StepResultError(message) from error


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
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, kind: type[T]) -> T:
    """Read back what ``write`` wrote. Raises ``StepResultError`` when it is missing, unreadable or of another shape."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path.name} cannot be read: {error}"
        raise StepResultError(message) from error
    return from_data(data, kind)
