"""Export units to a folder on the machine that built them; import them into the store on another machine.

A unit is identified by its key, which covers all its inputs, and each of its files by the digest that was recorded when
it was built. Whoever can change the folder can change both, so it must come from a trusted builder: from the jobs of
the same workflow.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from build_config.errors import BuildError, StepResultError, TransferError
from build_config.steps.units import store
from build_config.steps.units.store import LIBRARIES
from build_config.system.files import rename

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import BuildUnit, UnitKey
    from build_config.steps.units.spec import UnitSpec
    from build_config.system.console import Console
    from build_config.system.layout import Layout

AGAIN = "copy the folder again; if that does not help, build the unit again"
UNSIGNED = "a folder of another machine, unsigned"
"""The origin of an imported unit."""
SAME = (
    "build all units from one commit, with the same compilers and on the same system as this:"
    " nox -s units -- --arch ARCH --only UNIT --export FOLDER"
)


def export_units(built: tuple[BuildUnit, ...], folder: Path) -> None:
    """Copy finished units into ``folder``, each into a folder of its own name; one of that name is replaced.

    Raises ``TransferError`` where a file does not arrive as it was.
    """
    for unit in built:
        partial = folder / f".{unit.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        (partial / LIBRARIES).mkdir(parents=True)
        for file in unit.files:
            copied = partial / LIBRARIES / file.name
            shutil.copyfile(unit.folder / file.name, copied)
            if store.describe(copied) != file:
                raise TransferError(f"{file.name} of unit {unit.name} changed while it was copied", remedy=AGAIN)
        store.write(partial, replace(unit, origin=None))
        shutil.rmtree(folder / unit.name, ignore_errors=True)
        rename(partial, folder / unit.name)


def import_units(
    specs: tuple[UnitSpec, ...], folder: Path | None, layout: Layout, console: Console, *, required: bool
) -> None:
    """Copy the units that the store lacks from ``folder`` into the store; one with another key is ignored.

    Raises ``TransferError`` for a damaged unit, and with ``required`` for each that is neither there nor in the store.
    """
    lacking = []
    for spec in specs:
        if store.find(spec, layout) is not None:
            continue
        offered = None if folder is None else _read(folder / spec.name)
        if folder is None or offered is None:
            where = "no folder with units was named" if folder is None else f"there is no folder {folder / spec.name}"
            lacking.append(f"unit {spec.name} ({spec.key.digest[:12]}) is not in the store, and {where}")
        elif offered.key == spec.key:
            _keep(spec, offered, layout)
            console.note(f"unit {spec.name}: imported from {folder / spec.name} ({spec.key.digest[:12]})")
        else:
            lacking.append(
                f"unit {spec.name}: expected key {spec.key.digest[:12]}, found {offered.key.digest[:12]};"
                f" {_differences(spec.key, offered.key)}"
            )
    if lacking and required:
        raise TransferError("\n".join(lacking), remedy=SAME)
    for line in lacking:
        console.note(line)


def _read(folder: Path) -> BuildUnit | None:
    if not folder.exists():
        return None
    try:
        return store.read(folder)
    except StepResultError as error:
        raise TransferError(f"the unit in {folder} has no valid description: {error.message}", remedy=AGAIN) from error


def _keep(spec: UnitSpec, offered: BuildUnit, layout: Layout) -> None:
    """Put a unit into the store, if it matches its description."""
    libraries, names = offered.folder, tuple(file.name for file in offered.files)
    if (offered.name, offered.shard, names) != (spec.name, spec.shard, spec.expected):
        message = f"the unit in {libraries.parent} has the key of {spec.name}, but declares other contents"
        raise TransferError(message, remedy=AGAIN)
    for file in offered.files:
        path = libraries / file.name
        if path.is_symlink() or libraries.is_symlink() or not path.is_file():
            raise TransferError(f"{path} is not a file", remedy=AGAIN)
    try:
        store.keep(
            spec,
            libraries,
            layout,
            network=offered.network,
            headers=offered.headers,
            launcher=offered.launcher,
            declared=offered.files,
            origin=UNSIGNED,
        )
    except (BuildError, StepResultError) as error:
        raise TransferError(error.message, remedy=AGAIN) from error


def _differences(wanted: UnitKey, there: UnitKey) -> str:
    """The inputs that differ between two keys, with both values."""
    ours, theirs = dict(wanted.inputs), dict(there.inputs)
    names = [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]
    listed = (f"{name} is {ours.get(name, '(none)')} here, {theirs.get(name, '(none)')} there" for name in names)
    return "; ".join(listed) if names else "the digest does not match the listed inputs"
