"""Programs of a Debian tree, started in a mount namespace whose root folder is that tree."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.system import processes
from ci.wine import enter

if TYPE_CHECKING:
    from collections.abc import Mapping

WAYS = (("--mount",), ("--user", "--map-root-user", "--mount"))
"""Options of unshare: as root, and as any user if the kernel lets users have namespaces."""
LLVM = "/usr/lib/llvm-19/bin"
PATH = f"/usr/bin:{LLVM}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A folder that is seen at another path too."""

    source: Path
    target: Path
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A Debian tree: ``root`` is an empty folder for its mounts, ``way`` the command that gives a namespace.

    Its programs see the folders of this machine under their own paths, except for ``/usr`` and ``/etc``.
    """

    folder: Path
    root: Path
    way: tuple[str, ...]

    def command(
        self,
        *argv: str,
        folder: Path | None = None,
        changes: Mapping[str, str] | None = None,
        binds: tuple[Bind, ...] = (),
        user: str = "builder",
    ) -> processes.Command:
        """The call of a program of the tree, in ``folder``, with ``changes`` to an otherwise empty environment."""
        program = argv[0] if argv[0].startswith("/") else self._find(argv[0])
        environment = {"PATH": PATH, "HOME": "/run", "LC_ALL": "C.UTF-8", "TZ": "UTC", **(changes or {})}
        description = {
            "root": str(self.root),
            "tree": str(self.folder),
            "binds": [[str(one.source), str(one.target), one.read_only] for one in binds],
            "user": user,
            "folder": str(folder or Path.cwd()),
            "environment": environment,
        }
        entry = (sys.executable, "-I", enter.__file__, program, *argv[1:])
        return processes.Command(
            argv=(*self.way, *entry), environment={**os.environ, enter.DESCRIPTION: json.dumps(description)}
        )

    def _find(self, name: str) -> str:
        for folder in PATH.split(":"):
            if (self.folder / folder.lstrip("/") / name).exists():
                return f"{folder}/{name}"
        raise CommandError(f"the tree of Debian's packages has no program {name}")


def way_in() -> tuple[str, ...] | None:
    """The first command that gives a mount namespace here; ``None`` if none does. Each is really tried."""
    unshare = shutil.which("unshare", path="/usr/bin:/bin:/usr/sbin:/sbin")
    for options in WAYS if unshare is not None else ():
        way = (str(unshare), *options, "--")
        try:
            if processes.capture(*way, "true", timeout=10).returncode == 0:
                return way
        except CommandError:
            continue
    return None
