"""Builds a second time in a world that differs in everything that must not matter.

The one thing that has to be the same is the path of the work root, because nvcc hashes it into its symbols. So the
second build gets a mount namespace in which an empty folder lies at that path; the first one stays as it is.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pwd
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, ReproductionError
from build_config.reports import Variation
from build_config.steps.locks.download import VERIFIED
from build_config.system import jsonio, processes
from build_config.tasks.reproduce import enter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.system.console import Console
    from build_config.system.layout import Layout

NOBODY = 65534
"""The user and group of a second build that root starts, where that user can reach the interpreter."""
HOSTNAME = "another-machine"
TIME_ZONE = "Asia/Kathmandu"
LOCALE = "tr_TR.UTF-8"
"""Turkish has another idea of what the capital letter of i is."""
UMASK = 0o077
EPOCH = "1234567890"
HASH_SEED = "4711"
CHECKOUT = "another checkout"
MEMORY_FOLDER = "2g"
"""The staged sources lie in memory: folders there list their files in another order than on a disk."""
KEPT_VARIABLES = ("PATH", "TERM", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
KEPT_PREFIXES = ("PIP_",)
KEPT_SUFFIXES = ("_PROXY", "_proxy")
"""What a second build must know of this machine to reach a package index."""
NOT_COPIED = (
    ".git",
    ".nox",
    ".build-environment",
    "vendor",
    "wheelhouse",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "*.egg-info",
)
NAMESPACES = ("--mount", "--uts")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondWorld:
    """Where the second build takes place: its checkout, and the folder that is the work root for it."""

    folder: Path
    checkout: Path
    work_root: Path
    varied: tuple[Variation, ...]
    prefix: tuple[str, ...]
    uid: int
    gid: int
    environment: Mapping[str, str]

    @property
    def wheelhouse(self) -> Path:
        """Where the second build publishes."""
        return self.checkout / "wheelhouse"


@contextlib.contextmanager
def second_world(
    layout: Layout, *, jobs: tuple[int, int], launchers: tuple[str, str], user: str | None = None
) -> Iterator[SecondWorld]:
    """Everything for a second build, in a folder beside the work root; gone afterwards.

    ``jobs`` and ``launchers`` are those of the first and of the second build, for the list of what was varied.
    ``user`` is the name of who builds; without it root becomes nobody where that can be.

    Raises ``ReproductionError`` where this system gives no mount namespace, or cannot become ``user``.
    """
    prefix = namespaces()
    uid, gid, who = _user(layout) if user is None else _named_user(user, layout)
    parent = layout.work_root.parent
    with tempfile.TemporaryDirectory(
        dir=parent, prefix=f"{layout.work_root.name}.second-", ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        checkout, work_root, home = folder / CHECKOUT, folder / "root", folder / "home"
        shutil.copytree(layout.checkout, checkout, ignore=shutil.ignore_patterns(*NOT_COPIED))
        # Without the note of what was verified before: the second build looks at every byte itself.
        unverified = shutil.ignore_patterns(VERIFIED, "rejected")
        work_root.mkdir()
        if layout.downloads.is_dir():  # a machine that answers a record may have fetched nothing yet
            shutil.copytree(layout.downloads, work_root / "downloads", ignore=unverified)
        home.mkdir()
        if uid != os.getuid():
            _give(folder, uid, gid)
        environment = _environment(home)
        yield SecondWorld(
            folder=folder,
            checkout=checkout,
            work_root=work_root,
            varied=_varied(layout, checkout, home, who, jobs, launchers),
            prefix=prefix,
            uid=uid,
            gid=gid,
            environment=environment,
        )


def run(
    world: SecondWorld,
    arguments: tuple[str, ...],
    layout: Layout,
    console: Console,
    *,
    log: Path,
    module: str = "build_config",
) -> None:
    """``python -m build_config ARGUMENTS`` in that world, or another module. Its lines are shown as they come.

    Raises ``ReproductionError`` when it fails.
    """
    description = world.folder / "world.json"
    command = (sys.executable, "-P", "-m", module, *arguments)
    jsonio.write(
        description,
        {
            "binds": [[str(world.work_root), str(layout.work_root)]],
            "memory_folders": [[str(layout.staged), MEMORY_FOLDER]],
            "hostname": HOSTNAME,
            "uid": world.uid,
            "gid": world.gid,
            "umask": UMASK,
            "folder": str(world.checkout),
            "command": command,
            "environment": {**world.environment, "PYTHONPATH": str(world.checkout)},
        },
    )
    log.unlink(missing_ok=True)
    started = processes.Command(
        argv=(*world.prefix, sys.executable, "-I", second_world_script(), str(description)), cwd=world.folder, log=log
    )
    done = processes.run(started, check=False, on_line=lambda line: console.note(f"| {line}"))
    if done.returncode != 0:
        raise ReproductionError(f"the second build {done.ending}: {done.last_words}", log=log)


def second_world_script() -> str:
    """The program that makes the world and becomes the build."""
    return str(Path(enter.__file__).resolve())


def namespaces() -> tuple[str, ...]:
    """What gives a command mount and host name namespaces of its own: as root, or as a user who is root inside.

    Raises ``ReproductionError`` where this system gives none.
    """
    unshare = shutil.which("unshare", path="/usr/bin:/bin:/usr/sbin:/sbin")
    as_user = ("--user", "--map-current-user", "--keep-caps")
    for attempt in ((), as_user) if unshare is not None else ():
        prefix = (str(unshare), *attempt, *NAMESPACES, "--")
        with contextlib.suppress(CommandError):
            if processes.capture(*prefix, "true", timeout=10).returncode == 0:
                return prefix
    message = "a second build needs a mount namespace, and this system gives none (unshare --mount)"
    remedy = "run it as root, or where users may have namespaces; in a container with --privileged"
    raise ReproductionError(message, remedy=remedy)


def _user(layout: Layout) -> tuple[int, int, str]:
    """Who builds the second time, and how to call that."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid(), "the same: only root can become another user"
    if _locked_folder(layout) is not None:
        return 0, 0, "the same: another user cannot reach the Python interpreter or the folder of the work root"
    return NOBODY, NOBODY, f"user {NOBODY}"


def _named_user(name: str, layout: Layout) -> tuple[int, int, str]:
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise ReproductionError(f"there is no user {name}", remedy=f"sudo useradd {name}") from error
    if os.getuid() not in (0, entry.pw_uid):
        raise ReproductionError(f"only root can build as {name}", remedy="run it with sudo, or leave --user out")
    locked = _locked_folder(layout)
    if locked is not None and os.getuid() == 0 != entry.pw_uid:
        message = f"{name} could not run {sys.executable} for {layout.work_root}: the way leads through {locked}"
        raise ReproductionError(message, remedy=f"install nox with a Python that every user can run, or open {locked}")
    return entry.pw_uid, entry.pw_gid, f"user {entry.pw_uid} ({name})"


def _locked_folder(layout: Layout) -> Path | None:
    """A folder above the interpreter, or above the second world, that other users may not enter."""
    ways = (Path(sys.executable).resolve(), layout.work_root)
    return next((folder for way in ways for folder in way.parents if not _enterable(folder)), None)


def _enterable(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def _give(folder: Path, uid: int, gid: int) -> None:
    for root, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            os.chown(Path(root, name), uid, gid, follow_symlinks=False)


def _environment(home: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES) or name.endswith(KEPT_SUFFIXES)
    }
    return {
        **kept,
        "HOME": str(home),
        "TZ": TIME_ZONE,
        "LC_ALL": LOCALE,
        "LANG": LOCALE,
        "SOURCE_DATE_EPOCH": EPOCH,
        "PYTHONHASHSEED": HASH_SEED,
    }


def _varied(
    layout: Layout, checkout: Path, home: Path, who: str, jobs: tuple[int, int], launchers: tuple[str, str]
) -> tuple[Variation, ...]:
    umask = os.umask(0)
    os.umask(umask)
    now = dt.datetime.now(dt.UTC)
    pairs = (
        ("checkout", str(layout.checkout), str(checkout)),
        ("HOME", os.environ.get("HOME", ""), str(home)),
        ("user", f"user {os.getuid()}", who),
        ("time", "earlier", f"from {now:%Y-%m-%d %H:%M} UTC on"),
        ("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", "not set"), EPOCH),
        ("time zone", os.environ.get("TZ", "the system's"), TIME_ZONE),
        ("locale", os.environ.get("LC_ALL") or os.environ.get("LANG") or "not set", LOCALE),
        ("umask", f"{umask:03o}", f"{UMASK:03o}"),
        ("host name", socket.gethostname(), HOSTNAME),
        ("compilers at once", str(jobs[0]), str(jobs[1])),
        ("order of files in folders", "the disk's", "that of a file system in memory"),
        ("object cache", launchers[0], launchers[1]),
        ("hash seed of Python", os.environ.get("PYTHONHASHSEED", "random"), HASH_SEED),
        ("build trees, toolkit, store", "as they were", "empty: unpacked and built anew"),
    )
    return tuple(Variation(what=what, first=first, second=second) for what, first, second in pairs)
