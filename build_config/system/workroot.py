"""The canonical work root: safe to use, one build at a time, enough space.

The root has one well-known path in a folder that everybody may write to, so another user may have put something there
first. Wheels are compiled in it; hence the checks before it is used.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, DiskFullError, InterruptedRunError, StepResultError, WorkRootError
from build_config.system import jsonio, platforms, processes
from build_config.system.platforms import access
from check_gpu import shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    import filelock

    from build_config.system.console import Console
    from build_config.system.layout import Layout

COLD_BUILD_BYTES = 6_000_000_000
"""Disk space of a first build: toolkit, sources, build trees, object cache, wheels."""

REPORT_INTERVAL = 30.0
"""Seconds between two lines about the other build while waiting."""

POLL_INTERVAL = 0.2
ROOT_USER = 0
ICACLS_SECONDS = 60.0
USERS_MAPPED = Path("/proc/self/uid_map")
USER_OVERFLOW = Path("/proc/sys/kernel/overflowuid")
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The build that uses the work root. ``since`` is local time in ISO format."""

    pid: int
    user: str
    checkout: str
    purpose: str
    since: str

    def __str__(self) -> str:
        """One line for a user who waits."""
        return f"{self.purpose} (process {self.pid} of {self.user}, since {self.since}, in {self.checkout})"


@contextlib.contextmanager
def claim(layout: Layout, *, purpose: str, console: Console) -> Iterator[None]:
    """Claim the work root for this process during the block; it is created if it is missing.

    Waits while another build uses it, and names that build. The kernel releases the lock when the process ends, so a
    killed build never blocks the next one.

    Raises ``WorkRootError`` if the root is not safe to use and ``InterruptedRunError`` on Ctrl-C while waiting.
    """
    import filelock  # noqa: PLC0415  # `doctor` checks the root and locks nothing

    check(layout.work_root)
    _create(layout.work_root)
    check(layout.work_root)
    # Without flock, filelock would fall back to a file that outlives a killed build.
    lock = filelock.FileLock(layout.lock_file, fallback_to_soft=False)
    _acquire(lock, layout, console)
    try:
        jsonio.write(_holder_file(layout), _myself(layout, purpose))
        yield
    finally:
        with contextlib.suppress(PermissionError):  # on Windows, while a waiting build reads it
            _holder_file(layout).unlink(missing_ok=True)
        lock.release()


def check(root: Path) -> None:
    """Raise ``WorkRootError`` unless only this user and root can change ``root`` and every folder above it.

    A missing folder is accepted. So is, above the root, a sticky folder that everybody may write to (``/var/tmp``):
    nobody can rename or remove another user's files there.
    """
    if not platforms.HERE.has_modes:
        _check_windows(root)
        return
    for folder in reversed(root.parents):
        _check_folder(folder, owners={os.getuid(), _root_user()}, is_root=False)
    _check_folder(root, owners={os.getuid()}, is_root=True)


def restriction(root: Path, sid: str) -> tuple[str, ...]:
    """The call that restricts a folder of Windows to this user, the administrators and the system."""
    grants = (f"*{who}:(OI)(CI)F" for who in (sid, "S-1-5-18", "S-1-5-32-544"))
    return ("icacls", str(root), "/inheritance:r", "/grant:r", *grants)


def judge_windows(root: Path, descriptor: str, sid: str) -> None:
    """Raise ``WorkRootError`` if anybody except those of ``restriction`` can change a folder of Windows."""
    others = access.unexpected_writers(descriptor, sid)
    if others:
        command = shell.quote(restriction(root, sid), system="win32")
        message = f"{root} can be written to by others ({', '.join(sorted(others))} in {descriptor})"
        raise WorkRootError(message, remedy=f"{command}, if its contents are yours")


def free_bytes(path: Path) -> int:
    """Free bytes for this user on the file system that holds ``path``, or will hold it."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def require_space(layout: Layout, needed: int) -> None:
    """Raise ``DiskFullError`` if fewer than ``needed`` bytes are free, before anything is started."""
    free = free_bytes(layout.work_root)
    if free < needed:
        message = f"{free / 1e9:.1f} GB are free at {layout.work_root}, the build needs {needed / 1e9:.1f} GB"
        raise DiskFullError(message, remedy="free some space on that file system, then run the same command again")


# -------------------------------------------------------------------------------------------------------- safety


def _create(root: Path) -> None:
    try:
        root.mkdir()
        root.chmod(0o755)  # with any umask: other users may read, nobody else may write
        if not platforms.HERE.has_modes:  # on Windows, a new folder inherits from C:\\ that everybody may write
            processes.run(processes.Command(argv=restriction(root, _sid())), timeout=ICACLS_SECONDS)
    except FileExistsError:
        return
    except OSError as error:
        message = f"the work root {root} cannot be created: {error.strerror}"
        raise WorkRootError(message, remedy=f"make {root.parent} a folder that you can write to") from error


def _root_user() -> int:
    """The owner of the system's folders: root, or nobody if a user namespace does not show root."""
    try:
        mapped = USERS_MAPPED.read_text(encoding="utf-8").split()
        overflow = int(USER_OVERFLOW.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ROOT_USER
    starts = [int(number) for number in mapped[::3]]
    return ROOT_USER if ROOT_USER in starts or not starts else overflow


def _check_folder(folder: Path, *, owners: set[int], is_root: bool) -> None:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"{folder} cannot be examined: {error.strerror}"
        raise WorkRootError(message, remedy="make sure that you can enter every folder above it") from error
    if stat.S_ISLNK(found.st_mode):
        message = f"{folder} is a symbolic link (to {folder.readlink()}), but the same wheel needs the same real path"
        removal = shell.quote(["rm", str(folder)])
        remedy = f"remove the link: {removal}" if is_root else f"make {folder} a folder, or a bind mount"
        raise WorkRootError(message, remedy=remedy)
    if not stat.S_ISDIR(found.st_mode):
        move = shell.quote(["mv", str(folder), f"{folder}.old"])
        raise WorkRootError(f"{folder} is not a folder", remedy=f"move it away: {move}")
    if found.st_uid not in owners:
        message = f"{folder} belongs to {_owner(folder, found.st_uid)}, you are {_user()}"
        removal = shell.quote(["sudo", "rm", "-r", str(folder)])
        owner = shell.quote(["sudo", "chown", "0", str(folder)])
        remedy = f"build as that user, or have it removed: {removal}" if is_root else owner
        raise WorkRootError(message, remedy=remedy)
    sticky = bool(found.st_mode & stat.S_ISVTX)
    if found.st_mode & WRITABLE_BY_OTHERS and (is_root or not sticky):
        message = f"{folder} can be written to by others (mode {stat.S_IMODE(found.st_mode):o})"
        command = shell.quote(["chmod", "go-w" if is_root else "+t", str(folder)])
        remedy = f"{command}, if its contents are yours" if is_root else command
        raise WorkRootError(message, remedy=remedy)


def _check_windows(root: Path) -> None:
    r"""Check a root on Windows: it must not be a junction, and its access list must name nobody else.

    Folders above are not checked: anybody can create something in ``C:\\``, but nobody can rename what is there.
    """
    try:
        found = root.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"{root} cannot be examined: {error.strerror}"
        raise WorkRootError(message, remedy="make sure that it is yours") from error
    if stat.S_ISREG(found.st_mode):
        move = shell.quote(["move", str(root), f"{root}.old"], system="win32")
        raise WorkRootError(f"{root} is not a folder", remedy=f"move it away: {move}")
    if getattr(found, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_REPARSE_POINT:
        message = f"{root} is a link or a junction, but the same wheel needs the same real path"
        raise WorkRootError(message, remedy=f"remove the link: {shell.quote(['rmdir', str(root)], system='win32')}")
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "access"
        try:
            processes.run(processes.Command(argv=("icacls", str(root), "/save", str(saved))), timeout=ICACLS_SECONDS)
        except CommandError as error:
            raise WorkRootError(f"the access list of {root} cannot be read: {error.message}") from error
        if not saved.is_file():
            message = f"the access list of {root} cannot be read: icacls ended with status 0 and saved nothing"
            raise WorkRootError(message, remedy="use a folder on a disk with access lists (NTFS)")
        judge_windows(root, access.parse_saved(saved.read_bytes()), _sid())


def _sid() -> str:
    """The SID of this user, by which Windows' access lists name it."""
    sid = access.parse_whoami(processes.capture("whoami", "/user", "/fo", "csv", "/nh").output)
    if sid is None:
        raise WorkRootError("whoami does not print the SID of this user", remedy="run the build as an ordinary user")
    return sid


def _owner(folder: Path, uid: int) -> str:
    try:
        return f"{folder.owner()} (user id {uid})"
    except KeyError:
        return f"user id {uid}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user id without a name, or Windows without USERNAME
        return f"user id {os.getuid()}" if platforms.HERE.has_modes else "unknown"


# ----------------------------------------------------------------------------------------------------------- lock


def _acquire(lock: filelock.BaseFileLock, layout: Layout, console: Console) -> None:
    from filelock import Timeout  # noqa: PLC0415  # see claim

    waits_for = None
    announced = 0.0
    try:
        while True:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                pass
            except OSError as error:
                message = f"the work root {layout.work_root} cannot be locked: {error.strerror}"
                raise WorkRootError(message, remedy="make sure that it is on a local, writable disk") from error
            else:
                return
            holder = _holder(layout)
            if holder != waits_for or time.monotonic() - announced >= REPORT_INTERVAL or not announced:
                waits_for, announced = holder, time.monotonic()
                console.note(f"Waiting for another build to end: {holder or 'unknown'}. Ctrl-C stops.")
            time.sleep(POLL_INTERVAL)
    except KeyboardInterrupt as interrupt:
        raise InterruptedRunError(f"Stopped while waiting for another build: {waits_for or 'unknown'}") from interrupt


def _holder(layout: Layout) -> Holder | None:
    """The build that holds the lock; ``None`` in the moment before its entry is written."""
    try:
        return jsonio.read(_holder_file(layout), Holder)
    except StepResultError:
        return None


def _myself(layout: Layout, purpose: str) -> Holder:
    return Holder(
        pid=os.getpid(),
        user=_user(),
        checkout=str(layout.checkout),
        purpose=purpose,
        since=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    )


def _holder_file(layout: Layout) -> Path:
    return layout.lock_file.with_name(f"{layout.lock_file.name}.holder")
