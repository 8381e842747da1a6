"""Free what the work root no longer needs: say what, ask, then free it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import filelock

from build_config.errors import SettingsError, WorkRootError
from build_config.system import jsonio, processes, usage, workroot
from build_config.system.files import rename
from build_config.tasks.clean import choice, inventory
from build_config.tasks.clean.choice import Item, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.system.console import Console
    from build_config.system.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanRequest:
    """The request of a user. ``yes`` frees without a question."""

    limits: Limits
    yes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What was freed, and the bytes that are left. ``too_much``: more than ``--keep-below`` allows is needed."""

    freed: tuple[Item, ...]
    size: int
    left: int
    too_much: bool


def clean(request: CleanRequest, layout: Layout, console: Console) -> Cleaned:
    """Show what is there and what would be freed; free it if the user agrees.

    The question is asked before the work root is claimed, so that a build does not wait for an answer. What was used
    meanwhile stays. Raises ``WorkRootError`` for a folder that is not a work root, and ``SettingsError`` if there is no
    terminal in which to ask.
    """
    workroot.check(layout.work_root)
    now = time.time()
    items = inventory.collect(layout, now)
    chosen = choice.choose(items, request.limits, now)
    show(items, chosen, now, console)
    total = sum(item.size for item in items)
    size = sum(item.size for item in chosen)
    freed: tuple[Item, ...] = ()
    if chosen and _agreed(request, f"Free {_size(size)} in {len(chosen)} files and folders?", console):
        with workroot.claim(layout, purpose="clean", console=console):
            freed = tuple(_free(layout, chosen))
        console.note(f"freed {_size(sum(item.size for item in freed))} in {len(freed)} files and folders")
    left = total - sum(item.size for item in freed)
    limit = request.limits.keep_below
    too_much = limit is not None and total - size > limit
    if limit is not None and too_much:
        console.warn(f"{_size(total - size)} are needed, more than {_size(limit)}: remove wheels from the wheelhouse")
    return Cleaned(freed=freed, size=sum(item.size for item in freed), left=left, too_much=too_much)


def show(items: tuple[Item, ...], chosen: tuple[Item, ...], now: float, console: Console) -> None:
    """Print a table with a row for each kind, and the sums."""
    header = ("kind", "number", "size", "longest unused", "to free", "needed by")
    table = tuple(
        (
            row.kind,
            str(row.number),
            _size(row.size),
            f"{(now - row.oldest) / inventory.DAY:.0f} days",
            f"{_size(row.freed_size)} ({row.freed})" if row.freed else "-",
            _named(row.needed_by),
        )
        for row in choice.rows(items, chosen)
    )
    console.table("", table, header=header)
    total, freed = (sum(item.size for item in each) for each in (items, chosen))
    choose = "" if chosen else "; nox -s clean -- --older-than 30d or --keep-below 20GB chooses"
    console.note(f"{_size(total)} in all, {_size(freed)} to free{choose}")


def show_disk(layout: Layout, console: Console, *, json: bool) -> None:
    """Show what is in the work root, and how often its store and caches had what was asked for."""
    now = time.time()
    items, uses_of_all = inventory.collect(layout, now), usage.summary(layout)
    if json:
        console.raw(jsonio.dumps({"kinds": choice.rows(items, ()), "usage": uses_of_all}))
        return
    show(items, (), now, console)
    for uses in uses_of_all:
        share = f"{100 * uses.hits / uses.asked:.0f} %"
        console.note(f"{uses.what}: {uses.hits} of {uses.asked} were there ({share}), since {uses.since}")


def _agreed(request: CleanRequest, question: str, console: Console) -> bool:
    answer = True if request.yes else console.confirm(question)
    if answer is None:
        raise SettingsError("nothing was freed: there is no terminal in which to ask", remedy="pass --yes")
    return answer


def _free(layout: Layout, agreed: tuple[Item, ...]) -> Iterator[Item]:
    """Delete what the user agreed to, unless it was used, is in use or needed by now; yield what is gone."""
    now = time.time()
    with _wine_lock(layout) as wine_is_free:
        still = {item.path: item for item in inventory.collect(layout, now)}
        for item in agreed:
            found = still.get(item.path)
            if found is None or found.needed_by or found.used > item.used:
                continue
            if item.kind == inventory.CONTENTS["wine"] and not wine_is_free:
                continue
            if item.path.is_dir() and processes.is_in_use(item.path):  # some commands claim nothing, as Wine's tests
                continue
            _delete(item.path)
            yield item
    _remove_empty_folders(layout)


@contextlib.contextmanager
def _wine_lock(layout: Layout) -> Iterator[bool]:
    """Whether nobody makes something in Wine's cache, which has a lock of its own."""
    folder = layout.work_root / "wine"
    if not folder.is_dir():
        yield True
        return
    lock = filelock.FileLock(folder / "lock", fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _delete(path: Path) -> None:
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        if not path.name.startswith(inventory.TRASH):
            # No other process finds half of a folder under its old name. An earlier run may have left that of another.
            path = rename(path, path.with_name(f"{inventory.TRASH}{secrets.token_hex(4)}-{path.name}"))
        shutil.rmtree(path)
    except OSError as error:
        message = f"{path} cannot be deleted completely: {error.strerror}"
        raise WorkRootError(message, remedy="delete it by hand") from error


def _remove_empty_folders(layout: Layout) -> None:
    """Remove the folders that have lost their last file. A cache has thousands of them."""
    for root in (layout.object_cache, layout.store, layout.state):
        for folder in sorted((path for path in root.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _named(names: tuple[str, ...]) -> str:
    shown = 2
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more or "-"


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"  # noqa: PLR2004  # a gigabyte
