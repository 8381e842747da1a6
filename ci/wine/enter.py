"""Make the mounts of a Debian tree inside a mount namespace of its own, then become a program of that tree.

    LCW_ENTER=DESCRIPTION unshare --mount -- python -I enter.py PROGRAM ARGUMENTS...

Standard library only. Its root folder is made of the tree's ``/usr``, of a small ``/etc``, and of every other folder of
this machine under its own path. All mounts end with its process.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
MERGED = ("bin", "lib", "lib64", "sbin")
"""Links into ``/usr``."""
NOT_SHARED = frozenset({*MERGED, "lib32", "libx32", "usr", "etc", "run", "boot", "lost+found"})
NAMES = ("hosts", "resolv.conf")
CERTIFICATES = ("ssl", "pki", "ca-certificates")


DESCRIPTION = "LCW_ENTER"
"""The variable with the description, which is JSON."""


def main(argv: list[str]) -> None:
    """Make what is described, and become the program. Raises ``OSError`` if the kernel refuses."""
    wanted: dict[str, Any] = json.loads(os.environ[DESCRIPTION])
    root = Path(wanted["root"])
    _mount(None, Path("/"), None, MS_REC | MS_PRIVATE, None)  # keep the following mounts out of the system's own
    _mount("none", root, "tmpfs", 0, "mode=0755")
    for name in MERGED:
        (root / name).symlink_to(f"usr/{name}")
    _bind(Path(wanted["tree"], "usr"), root / "usr", read_only=True)
    for source in Path("/").iterdir():
        if source.name not in NOT_SHARED and source.is_dir() and not source.is_symlink():
            _bind(source, root / source.name)
    _etc(root / "etc", wanted["user"])
    for source, target, read_only in wanted["binds"]:
        _bind(Path(source), root / target.lstrip("/"), read_only=read_only)
    os.chroot(root)
    os.chdir(wanted["folder"])
    os.execve(argv[0], argv, wanted["environment"])  # noqa: S606  # the caller's own command


def _etc(etc: Path, user: str) -> None:
    """Names and certificates of this machine; one user, whose name becomes that of Windows' user."""
    etc.mkdir()
    for name in NAMES:
        if Path("/etc", name).is_file():
            shutil.copyfile(Path("/etc", name), etc / name)
    for name in CERTIFICATES:
        if Path("/etc", name).is_dir():
            _bind(Path("/etc", name), etc / name)
    (etc / "passwd").write_text(f"{user}:x:{os.getuid()}:{os.getgid()}::/run:/bin/false\n", encoding="utf-8")


def _bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _mount(str(source), target, None, MS_BIND | MS_REC, None)
    if read_only:
        _mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _kept(target), None)


def _kept(target: Path) -> int:
    """The flags that a user namespace may not drop. Their numbers are the same for statvfs and mount."""
    return os.statvfs(target).f_flag & (os.ST_NODEV | os.ST_NOSUID | os.ST_NOEXEC)


def _mount(source: str | None, target: Path, kind: str | None, flags: int, data: str | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = [os.fsencode(value) if value is not None else None for value in (source, str(target), kind)]
    if libc.mount(*names, ctypes.c_ulong(flags), os.fsencode(data) if data is not None else None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: mounting {source} at {target}")


if __name__ == "__main__":
    main(sys.argv[1:])
