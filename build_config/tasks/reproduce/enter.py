"""Runs inside namespaces of its own: makes the world of a second build, then becomes that build.

    unshare --mount --uts -- python -I enter.py WORLD.json

Standard library only, nothing of the pipeline. What it changes (a mount, the host name, the user) is gone with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000


def main(file: str) -> None:
    """Make the world that ``file`` describes and become its command. Raises ``OSError`` where the kernel denies it."""
    world: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    _mount(None, "/", None, MS_REC | MS_PRIVATE, None)  # nothing of what follows reaches the system's own mounts
    for source, target in world["binds"]:
        Path(target).mkdir(parents=True, exist_ok=True)
        _mount(source, target, None, MS_BIND, None)
    for target, size in world["memory_folders"]:
        Path(target).mkdir(parents=True, exist_ok=True)
        _mount("none", target, "tmpfs", 0, f"size={size},mode=0755,uid={world['uid']},gid={world['gid']}")
    socket.sethostname(world["hostname"])
    if os.getuid() != world["uid"]:
        os.setgroups([])
        os.setgid(world["gid"])
        os.setuid(world["uid"])
    os.umask(world["umask"])
    os.chdir(world["folder"])
    argv = world["command"]
    os.execve(argv[0], argv, world["environment"])  # noqa: S606  # the pipeline's own command


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [os.fsencode(value) if value is not None else None for value in (source, target, kind)]
    if libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(data) if data is not None else None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: mounting {source} at {target}")


if __name__ == "__main__":
    main(sys.argv[1])
