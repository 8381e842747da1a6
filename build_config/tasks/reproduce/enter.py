"""Make the environment of a second build inside its own namespaces, then become that build.

    unshare --mount --uts -- python -I enter.py ENVIRONMENT.json

Standard library only, nothing of the pipeline. Its changes (mounts, host name, user) end with its process.
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
    """Make the environment that ``file`` describes and become its command. Raises ``OSError`` if the kernel refuses."""
    wanted: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    _mount(None, "/", None, MS_REC | MS_PRIVATE, None)  # keep the following mounts out of the system's own
    for source, target in wanted["binds"]:
        Path(target).mkdir(parents=True, exist_ok=True)
        _mount(source, target, None, MS_BIND, None)
    for target, size in wanted["memory_folders"]:
        Path(target).mkdir(parents=True, exist_ok=True)
        _mount("none", target, "tmpfs", 0, f"size={size},mode=0755,uid={wanted['uid']},gid={wanted['gid']}")
    socket.sethostname(wanted["hostname"])
    if os.getuid() != wanted["uid"]:
        os.setgroups([])
        os.setgid(wanted["gid"])
        os.setuid(wanted["uid"])
    os.umask(wanted["umask"])
    os.chdir(wanted["folder"])
    argv = wanted["command"]
    os.execve(argv[0], argv, wanted["environment"])  # noqa: S606  # the pipeline's own command


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [os.fsencode(value) if value is not None else None for value in (source, target, kind)]
    if libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(data) if data is not None else None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: mounting {source} at {target}")


if __name__ == "__main__":
    main(sys.argv[1])
