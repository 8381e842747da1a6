"""List what is in the work root, and what killed runs left outside it: sizes, last uses, and who needs it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from build_config.errors import StepResultError, WorkRootError
from build_config.reports import BuildRecord
from build_config.steps import locks
from build_config.steps.locks.download import VERIFIED
from build_config.steps.toolchain import locked_cuda
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio, platforms, processes
from build_config.system.files import file_sha256
from build_config.tasks.clean.choice import Item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.system.layout import Layout

THIS_CHECKOUT = "this checkout"
BLOCK = 512
"""Bytes of a block, as ``stat`` counts them."""
DAY = 86_400.0
CONTENTS = {
    "assembly": "assembled wheels",
    "build": "build trees",
    "cache": "object cache",
    "differences": "compared files",
    "downloads": "downloads",
    "emulation": "kernels of the emulated GPU",
    "home": "temporary files",
    "inspection": "temporary files",
    "logs": "logs",
    "src": "staged sources",
    "state": "reports of earlier runs",
    "store": "units",
    "tmp": "temporary files",
    "toolkit": "CUDA toolkits",
    "tools": "programs",
    "wine": "Wine",
}
"""The folders of a work root from which something can be freed, each with its kind."""
KEPT = frozenset({"bench", "lock", "lock.holder", "sccache.sock", "simulated-device"})
"""What stays in a work root: reports of measurements, the lock, and what takes no space."""
STORED_WHEELS = "wheels of the store"
LEFTOVERS = "leftovers of killed runs"
TRASH = ".trash-"
"""How the name of a folder begins that is being deleted."""
TEMPORARY = "llama-cuda-wheels-"
"""How the names of temporary folders begin (``testbed.clean_environment``)."""
RANDOM = "[a-z0-9_]{8}"
"""How ``tempfile`` ends the name of a temporary folder."""
KEPT_BY_USERS = ("pyproject.toml", "lock")
"""Files by which a checkout or a work root is known: neither is a temporary folder, whatever its name."""
MOUNTED = "a mounted file system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Who needs what: the names of wheels, or of this checkout, by a part of the name of a file or folder.

    ``units`` are the names of folders in the store, ``shards`` those of build trees, ``digests`` the SHA-256 of wheels,
    ``toolkits`` the names of roots or the identities at their ends.
    ``all_units`` are the wheels with a record that cannot be read: any unit could be theirs.
    """

    units: Mapping[str, tuple[str, ...]]
    shards: Mapping[str, tuple[str, ...]]
    digests: Mapping[str, tuple[str, ...]]
    files: Mapping[str, tuple[str, ...]]
    toolkits: Mapping[str, tuple[str, ...]]
    all_units: tuple[str, ...]


def collect(layout: Layout, now: float) -> tuple[Item, ...]:
    """Everything that could be freed. Nothing is changed; what disappears meanwhile is left out.

    Raises ``WorkRootError`` for a folder that is not a work root.
    """
    if not layout.work_root.exists():
        return ()
    require_work_root(layout)
    needs, mounted = _needs(layout), _above_mounts()
    found = (item for item in (*_in_work_root(layout, needs), *_outside(layout, now)) if item is not None)
    return tuple(replace(item, needed_by=(MOUNTED,)) if item.path in mounted else item for item in found)


def require_work_root(layout: Layout) -> None:
    """Raise ``WorkRootError`` unless everything in the folder is what builds put into a work root."""
    root = layout.work_root
    remedy = "name the folder that builds used as --work-root"
    mark = layout.lock_file if platforms.HERE.keeps_locks else layout.state  # every build makes both
    if mark.is_symlink() or not mark.exists():
        raise WorkRootError(f"{root} is not a work root: it has no lock; nothing was freed", remedy=remedy)
    names = sorted(path.name for path in root.iterdir())
    unexpected = [name for name in names if name not in CONTENTS | dict.fromkeys(KEPT) and not _is_part(name, layout)]
    if unexpected:
        message = f"{root} contains {', '.join(unexpected)}, which no build puts into a work root; nothing was freed"
        raise WorkRootError(message, remedy=f"{remedy}, or move that away if it is one")
    if changed := [name for name in names if name in CONTENTS and not _is_folder(root / name)]:
        message = f"{', '.join(changed)} in {root} is not a folder: links are not followed; nothing was freed"
        raise WorkRootError(message, remedy="remove it if it is yours")


def _is_part(name: str, layout: Layout) -> bool:
    """Whether a file is what a killed run left of a file that is written atomically."""
    return name.startswith(f".{layout.lock_file.name}.holder.")


# ---------------------------------------------------------------------------------------------------------- needs


def _needs(layout: Layout) -> Needs:
    maps: dict[str, dict[str, list[str]]] = {name: {} for name in ("units", "shards", "digests", "files", "toolkits")}
    all_units = []

    def need(which: str, key: str, who: str) -> None:
        maps[which].setdefault(key, []).append(who)

    for path in sorted(layout.wheelhouse.glob("*.whl")):
        need("digests", file_sha256(path), path.name)
        try:
            record = jsonio.read(publication.record_path(path), BuildRecord)
        except StepResultError:
            all_units.append(path.name)
            continue
        for unit in record.units:
            need("units", unit.digest[:32], path.name)
        for shard in record.shards:
            need("shards", shard.name, path.name)
        for material in record.materials:
            need("files", material.name, path.name)
        need("toolkits", dict(record.toolchain).get("cuda.identity", "")[:12], path.name)
    contents = locks.contents(layout.locks)
    need("files", locks.read_source(contents).filename, THIS_CHECKOUT)
    for release in locks.releases(contents):
        toolkit = locks.read_toolkit(contents, release, platforms.HERE.name)
        for file in toolkit.files:
            need("files", file.filename, THIS_CHECKOUT)
        for root in (locked_cuda.planned(toolkit, layout).root, locked_cuda.root_without_compiler(toolkit, layout)):
            need("toolkits", root.name, THIS_CHECKOUT)
    frozen = {name: {key: tuple(who) for key, who in each.items()} for name, each in maps.items()}
    return Needs(**frozen, all_units=tuple(all_units))


# ---------------------------------------------------------------------------------------------------------- listing


def _in_work_root(layout: Layout, needs: Needs) -> Iterator[Item | None]:
    yield from _store(layout, needs)
    yield from _toolkits(layout, needs)
    yield from _downloads(layout, needs)
    for tree in _children(layout.build):
        yield _item(CONTENTS["build"], tree, needs.shards.get(tree.name, ()))
    for report in _files(layout.state):
        who = (THIS_CHECKOUT,) if report.parent == layout.state else needs.digests.get(report.name[:64], ())
        yield _item(CONTENTS["state"], report, who)
    for tool in _children(layout.tools):
        is_used = tool.name in {"path", f"sccache-{metadata.version('sccache')}"}
        yield _item(CONTENTS["tools"], tool, (THIS_CHECKOUT,) if is_used else ())
    wine = layout.work_root / "wine"
    made = (folder for folder in _children(wine) if folder.name.startswith(("tree-", "windows-", TRASH)))
    yield from (_item(CONTENTS["wine"], path) for path in (*made, *_files(wine / "downloads")))
    for folder in (layout.object_cache, layout.emulation, layout.logs):
        yield from (_item(CONTENTS[folder.name], file) for file in _files(folder))
    for name in ("assembly", "differences", "home", "inspection", "src", "tmp"):
        yield from (_item(CONTENTS[name], path) for path in _children(layout.work_root / name))


def _store(layout: Layout, needs: Needs) -> Iterator[Item | None]:
    for unit in _children(layout.store):
        if unit.name.startswith("."):  # of an import (units.shared_store)
            yield _item(LEFTOVERS, unit)
            continue
        for folder in _children(unit):
            if folder.name.endswith(".partial"):
                yield _item(LEFTOVERS, folder)
            elif unit.name == "wheel":
                yield _item(STORED_WHEELS, folder, _wheel_needed(folder, needs))
            else:
                yield _item(CONTENTS["store"], folder, (*needs.units.get(folder.name, ()), *needs.all_units))


def _toolkits(layout: Layout, needs: Needs) -> Iterator[Item | None]:
    for root in _children(layout.toolkits):
        is_part = root.name.startswith(".")
        who = (*needs.toolkits.get(root.name, ()), *needs.toolkits.get(root.name.rpartition("-")[2], ()))
        yield _item(LEFTOVERS if is_part else CONTENTS["toolkit"], root, () if is_part else who)


def _downloads(layout: Layout, needs: Needs) -> Iterator[Item | None]:
    for file in _files(layout.downloads):
        is_part = file.suffix == ".part" or file.parent.name == "rejected"
        who = (THIS_CHECKOUT,) if file.name == VERIFIED else needs.files.get(file.name, ())
        yield _item(LEFTOVERS if is_part else CONTENTS["downloads"], file, () if is_part else who)


def _outside(layout: Layout, now: float) -> Iterator[Item | None]:
    """What killed runs left: second work roots next to the work root, temporary folders.

    A temporary folder can be in use by a command that claims no work root, or another one. So it must be a day old, and
    no process may use it: a clock can be wrong.
    """
    for folder in _beginning(layout.work_root.parent, f"{layout.work_root.name}.second-"):
        yield _item(LEFTOVERS, folder)
    for folder in _beginning(Path(tempfile.gettempdir()), TEMPORARY):
        found = _item(LEFTOVERS, folder)
        if found is not None and now - found.used > DAY and not processes.is_in_use(folder):
            yield found


def _beginning(folder: Path, start: str) -> Iterator[Path]:
    """The user's own temporary folders in ``folder`` whose names begin so, and those that were being deleted."""
    name = re.compile(f"({re.escape(TRASH)}.*)?{re.escape(start)}{RANDOM}")
    for path in _children(folder.resolve()):  # processes name it by its real path
        if name.fullmatch(path.name) and _is_own(path) and not any((path / kept).exists() for kept in KEPT_BY_USERS):
            yield path


def _is_own(folder: Path) -> bool:
    """Whether a folder is one of this user's, and no link to another one. Windows' temporary folder is one's own."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (not platforms.HERE.has_modes or found.st_uid == os.getuid())


def _wheel_needed(folder: Path, needs: Needs) -> tuple[str, ...]:
    file = folder / "wheel.json"
    try:
        before = file.stat()
        digest = jsonio.read(file, str)
    except (StepResultError, OSError):
        return ()
    with contextlib.suppress(OSError):  # of another user: `doctor` only looks
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # to be looked at here is no use
    return needs.digests.get(digest, ())


def _above_mounts() -> frozenset[Path]:
    """All folders in which a file system is mounted, at any depth: what it contains would be deleted with them."""
    points = psutil.disk_partitions(all=True) if platforms.HERE.has_modes else ()
    paths = (Path(point.mountpoint) for point in points)
    return frozenset(each for path in paths for each in (path, *path.parents))


def _children(folder: Path) -> list[Path]:
    """What a folder contains; nothing for a link to one."""
    if not _is_folder(folder):
        return []
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder; none for a link to one."""
    if _is_folder(folder):
        for here, _, names in os.walk(folder):
            yield from (Path(here, name) for name in names)


def _is_folder(path: Path) -> bool:
    """Whether this is a folder, and neither a link to one nor a junction of Windows."""
    try:
        found = path.lstat()
    except OSError:
        return False
    is_junction = getattr(found, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_REPARSE_POINT
    return stat.S_ISDIR(found.st_mode) and not is_junction


def _item(kind: str, path: Path, needed_by: tuple[str, ...] = ()) -> Item | None:
    """The item at a path; ``None`` if it has disappeared. Nobody needs what was being deleted."""
    if path.name.startswith(TRASH):
        kind, needed_by = LEFTOVERS, ()
    try:
        size, used = _measure(path)
    except OSError:
        return None
    return Item(kind=kind, path=path, size=size, used=used, needed_by=tuple(dict.fromkeys(needed_by)))


def _measure(path: Path) -> tuple[int, float]:
    """The bytes on the disk of a file or a folder with all that is in it, and its last use.

    A file is used when it is read or written, a folder when an entry of it changes or somebody touches it: reading the
    folder itself, as this function does, is not a use.
    """
    status = path.lstat()
    size, used = _size(status), status.st_mtime
    if stat.S_ISREG(status.st_mode):
        return size, max(used, status.st_atime)
    if stat.S_ISDIR(status.st_mode):
        for entry in os.scandir(path):
            each, last = _measure(Path(entry.path))
            size, used = size + each, max(used, last)
    return size, used


def _size(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows does not say
    return status.st_size if blocks is None else blocks * BLOCK
