"""Build a second time in an environment that differs in everything that must not matter.

nvcc hashes the path of the work root into its symbols. So a mount namespace has an empty folder at that path.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
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
from check_gpu import shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.system.console import Console
    from build_config.system.layout import Layout

NOBODY = 65534
"""The user and group of a second build that root starts, if this user can reach the interpreter."""
HOSTNAME = "another-machine"
LOCALE = "tr_TR.UTF-8"
"""In Turkish the capital letter of i is another one."""
VARIABLES = {
    "TZ": "Asia/Kathmandu",
    "LC_ALL": LOCALE,
    "LANG": LOCALE,
    "SOURCE_DATE_EPOCH": "1234567890",
    "PYTHONHASHSEED": "4711",
}
UMASK = 0o077
MEMORY_FOLDER = "2g"
"""Size of the file system in memory for the staged sources: it lists files in another order than a disk."""
KEPT = re.compile(r"PATH|TERM|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|PIP_.*|.*_(PROXY|proxy)")
"""Variables of this machine with which a second build reaches a package index."""
NOT_COPIED = (".git", ".nox", ".build-environment", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info")
NOT_COPIED_AT_THE_TOP = ("vendor", "wheelhouse")
"""The package has folders of these names too, which are copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondEnvironment:
    """The environment of the second build, with the command prefix that gives it namespaces of its own."""

    folder: Path
    checkout: Path
    work_root: Path
    varied: tuple[Variation, ...]
    prefix: tuple[str, ...]
    uid: int
    gid: int
    variables: Mapping[str, str]


@contextlib.contextmanager
def second_environment(
    layout: Layout, *, jobs: tuple[int, int], launchers: tuple[str, str], user: str | None = None
) -> Iterator[SecondEnvironment]:
    """Everything for a second build by ``user`` (of root: nobody), in a folder next to the work root; then delete it.

    ``jobs`` and ``launchers`` are those of both builds. Raises ``ReproductionError`` if this system provides no mount
    namespace, or cannot become ``user``.
    """
    prefix = namespaces()
    uid, gid, who = _user(layout) if user is None else _named_user(user, layout)
    everywhere, at_the_top = shutil.ignore_patterns(*NOT_COPIED), shutil.ignore_patterns(*NOT_COPIED_AT_THE_TOP)

    def not_copied(folder: str, names: list[str]) -> set[str]:
        top = at_the_top(folder, names) if Path(folder) == layout.checkout else set()
        return everywhere(folder, names) | top

    name = f"{layout.work_root.name}.second-"
    with tempfile.TemporaryDirectory(dir=layout.work_root.parent, prefix=name, ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        checkout, work_root, home = folder / "another checkout", folder / "root", folder / "home"
        shutil.copytree(layout.checkout, checkout, ignore=not_copied)
        # Without the list of verified files: the second build verifies every byte itself.
        unverified = shutil.ignore_patterns(VERIFIED, "rejected")
        work_root.mkdir()
        if layout.downloads.is_dir():  # it is missing if this machine repeats only what another one recorded
            shutil.copytree(layout.downloads, work_root / "downloads", ignore=unverified)
        home.mkdir()
        if uid != os.getuid():
            for path in (folder, *folder.rglob("*")):
                os.chown(path, uid, gid, follow_symlinks=False)
        yield SecondEnvironment(
            folder=folder,
            checkout=checkout,
            work_root=work_root,
            varied=_varied(layout, checkout, home, who, jobs, launchers),
            prefix=prefix,
            uid=uid,
            gid=gid,
            variables=_variables(home),
        )


def run(
    second: SecondEnvironment,
    arguments: tuple[str, ...],
    layout: Layout,
    console: Console,
    *,
    log: Path,
    module: str = "build_config",
) -> None:
    """Run ``python -m MODULE ARGUMENTS`` in that environment. Raises ``ReproductionError`` if it fails."""
    description = second.folder / "environment.json"
    jsonio.write(
        description,
        {
            "binds": [[str(second.work_root), str(layout.work_root)]],
            "memory_folders": [[str(layout.staged), MEMORY_FOLDER]],
            "hostname": HOSTNAME,
            "uid": second.uid,
            "gid": second.gid,
            "umask": UMASK,
            "folder": str(second.checkout),
            "command": (sys.executable, "-P", "-m", module, *arguments),
            "environment": {**second.variables, "PYTHONPATH": str(second.checkout)},
        },
    )
    log.unlink(missing_ok=True)
    argv = (*second.prefix, sys.executable, "-I", entry_script(), str(description))
    started = processes.Command(argv=argv, cwd=second.folder, log=log)
    done = processes.run(started, check=False, on_line=lambda line: console.note(f"| {line}"))
    if done.returncode != 0:
        raise ReproductionError(f"the second build {done.ending}: {done.last_words}", log=log)


def entry_script() -> str:
    """The path of the program that makes the environment and becomes the build."""
    return str(Path(enter.__file__).resolve())


def namespaces() -> tuple[str, ...]:
    """The command prefix for new mount and host name namespaces. Raises ``ReproductionError`` if there are none."""
    unshare = shutil.which("unshare", path="/usr/bin:/bin:/usr/sbin:/sbin")
    as_user = ("--user", "--map-current-user", "--keep-caps")
    for attempt in ((), as_user) if unshare else ():
        prefix = (str(unshare), *attempt, "--mount", "--uts", "--")
        with contextlib.suppress(CommandError):
            if processes.capture(*prefix, "true", timeout=10).returncode == 0:
                return prefix
    message = "a second build needs a mount namespace, but this system provides none (unshare --mount)"
    remedy = "run it as root, or on a system where users may create namespaces; in a container with --privileged"
    raise ReproductionError(message, remedy=remedy)


def _user(layout: Layout) -> tuple[int, int, str]:
    """The user and group of the second build, and their description."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid(), "the same: only root can become another user"
    if _locked_folder(layout) is not None:
        return 0, 0, "the same: another user cannot reach the Python interpreter or the folder of the work root"
    return NOBODY, NOBODY, f"user {NOBODY}"


def _named_user(name: str, layout: Layout) -> tuple[int, int, str]:
    import pwd  # noqa: PLC0415  # Windows has no such module, and imports this one for every command

    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise ReproductionError(f"there is no user {name}", remedy=shell.quote(["sudo", "useradd", name])) from error
    if os.getuid() not in (0, entry.pw_uid):
        raise ReproductionError(f"only root can build as {name}", remedy="run it with sudo, or leave --user out")
    locked = _locked_folder(layout)
    if locked is not None and os.getuid() == 0 != entry.pw_uid:
        message = f"{name} could not run {sys.executable} for {layout.work_root}: other users may not enter {locked}"
        raise ReproductionError(message, remedy=f"install nox with a Python that every user can run, or open {locked}")
    return entry.pw_uid, entry.pw_gid, f"user {entry.pw_uid} ({name})"


def _locked_folder(layout: Layout) -> Path | None:
    """A folder above the interpreter, or above the second build, that other users may not enter."""
    paths = (Path(sys.executable).resolve(), layout.work_root)
    return next((folder for path in paths for folder in path.parents if not _enterable(folder)), None)


def _enterable(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def _variables(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    return {**kept, "HOME": str(home), **VARIABLES}


def _varied(
    layout: Layout, checkout: Path, home: Path, who: str, jobs: tuple[int, int], launchers: tuple[str, str]
) -> tuple[Variation, ...]:
    os.umask(umask := os.umask(0))
    pairs = (
        ("checkout", str(layout.checkout), str(checkout)),
        ("HOME", os.environ.get("HOME", ""), str(home)),
        ("user", f"user {os.getuid()}", who),
        ("time", "earlier", f"from {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC on"),
        ("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", "not set"), VARIABLES["SOURCE_DATE_EPOCH"]),
        ("time zone", os.environ.get("TZ", "the system's"), VARIABLES["TZ"]),
        ("locale", os.environ.get("LC_ALL") or os.environ.get("LANG") or "not set", LOCALE),
        ("umask", f"{umask:03o}", f"{UMASK:03o}"),
        ("host name", socket.gethostname(), HOSTNAME),
        ("compilers at once", str(jobs[0]), str(jobs[1])),
        ("order of files in folders", "the disk's", "that of a file system in memory"),
        ("object cache", launchers[0], launchers[1]),
        ("hash seed of Python", os.environ.get("PYTHONHASHSEED", "random"), VARIABLES["PYTHONHASHSEED"]),
        ("build trees, toolkit, store", "existing", "empty: unpacked and built again"),
    )
    return tuple(Variation(what=what, first=first, second=second) for what, first, second in pairs)
