"""The store of finished build units.

A unit whose key is in the store is taken from there, and no compiler runs.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from build_config.errors import BuildError, StepResultError
from build_config.model import BuildUnit, BuiltFile, SystemHeaders
from build_config.system import jsonio
from build_config.system.files import file_sha256, listing_sha256, rename, touch

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.steps.units.spec import UnitSpec
    from build_config.system.layout import Layout

DESCRIPTION = "unit.json"
LIBRARIES = "lib"
"""A unit is a folder with its description and a folder of its files."""


def find(spec: UnitSpec, layout: Layout) -> BuildUnit | None:
    """The unit from the store, every file checked against its digest; ``None`` if it is missing or incomplete."""
    folder = _folder(spec, layout)
    try:
        known = read(folder)
        files = tuple(describe(folder / LIBRARIES / name) for name in spec.expected)
    except (StepResultError, OSError):
        return None
    if known.key != spec.key or known.files != files:
        return None
    touch(folder)
    return replace(known, name=spec.name, shard=spec.shard)


def read(folder: Path) -> BuildUnit:
    """Read the description of the unit in ``folder``. Raises ``StepResultError`` if it is missing or malformed."""
    return described(jsonio.read(folder / DESCRIPTION, dict[str, Any]), folder / LIBRARIES)


def described(data: dict[str, Any], libraries: Path) -> BuildUnit:
    """The unit of a description whose files are in ``libraries``. Raises ``StepResultError`` if it is malformed."""
    headers = data.get("headers")
    if isinstance(headers, dict) and "strangers" in headers:  # the key that earlier versions of this project wrote
        headers["unexpected"] = headers.pop("strangers")
    return jsonio.from_data({**data, "folder": libraries}, BuildUnit)


def keep(
    spec: UnitSpec,
    built: Path,
    layout: Layout,
    *,
    network: str,
    headers: SystemHeaders | None = None,
    launcher: str | None = None,
    declared: tuple[BuiltFile, ...] | None = None,
    origin: str | None = None,
) -> BuildUnit:
    """Put a finished unit into the store, completely or not at all.

    ``built`` is the folder with the unit's libraries; ``network``, ``headers``, ``launcher`` and ``origin`` are those
    of ``BuildUnit``. ``declared`` are the expected files, if they are known. Raises ``BuildError`` if a library is
    missing and ``StepResultError`` if one is not as declared.
    """
    missing = [name for name in spec.expected if not (built / name).is_file()]
    if missing:
        raise BuildError(f"unit {spec.name} was built, but {', '.join(missing)} is missing")
    folder = _folder(spec, layout)
    temporary = folder.with_name(folder.name + ".partial")
    for old in (temporary, folder):
        shutil.rmtree(old, ignore_errors=True)
    library_folder = temporary / LIBRARIES
    library_folder.mkdir(parents=True)
    for name in spec.expected:
        shutil.copyfile(built / name, library_folder / name)
        (library_folder / name).chmod(0o644)
    files = tuple(describe(library_folder / name) for name in spec.expected)
    if declared is not None and files != declared:
        shutil.rmtree(temporary)
        changed = ", ".join(file.name for file in files if file not in declared)
        raise StepResultError(f"{changed} of unit {spec.name} has another SHA-256 than when it was built")
    unit = BuildUnit(
        name=spec.name,
        key=spec.key,
        folder=folder / LIBRARIES,
        files=files,
        shard=spec.shard,
        network=network,
        headers=headers,
        launcher=launcher,
        origin=origin,
    )
    write(temporary, unit)
    rename(temporary, folder)
    return unit


def remove(unit: BuildUnit) -> None:
    """Remove a unit from the store. Raises ``OSError``."""
    shutil.rmtree(unit.folder.parent)


def write(folder: Path, unit: BuildUnit) -> None:
    """Write the description of a unit into ``folder``, where ``read`` finds it."""
    come_from = {} if unit.origin is None else {"origin": unit.origin}
    jsonio.write(folder / DESCRIPTION, description(unit) | come_from)


def description(unit: BuildUnit) -> dict[str, Any]:
    """Everything about a unit but its place and how it came there."""
    data = jsonio.to_data(unit)
    del data["folder"], data["origin"]
    return dict(data)


def folder_digest(folder: Path, *, without: tuple[str, ...] = ()) -> str:
    """SHA-256 over the names and contents of the files below a folder, except those in the folders ``without``."""
    left_out = {"__pycache__", *without}
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    paths = sorted(found, key=lambda path: path.parts)  # Windows would ignore case
    return listing_sha256(
        (path.as_posix(), file_sha256(folder / path)) for path in paths if left_out.isdisjoint(path.parts)
    )


def _folder(spec: UnitSpec, layout: Layout) -> Path:
    return layout.store / spec.name / spec.key.digest[:32]


def describe(path: Path) -> BuiltFile:
    """A file's name, digest and size. Raises ``OSError`` if it cannot be read."""
    return BuiltFile(name=path.name, sha256=file_sha256(path), size=path.stat().st_size)
