"""The sandbox of compilers and linkers: an environment of its own, a PATH with the toolchain only, no network.

What they cannot find cannot get into a wheel.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, ConfigureError
from build_config.system import processes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_config.model import HostCompiler
    from build_config.system.layout import Layout

BINUTILS = ("ar", "as", "ld", "nm", "objcopy", "objdump", "ranlib", "readelf", "strip")
SHELL = ("sh",)
"""Ninja's rules and the drivers of GCC and nvcc need it."""
WINDOWS_KEPT = ("SystemRoot", "SystemDrive", "ComSpec", "ProgramData", "NUMBER_OF_PROCESSORS")
"""Variables that programs of Windows expect in every environment."""
ATTEMPTS = (("unshare", "--net", "--"), ("unshare", "--user", "--map-current-user", "--net", "--"))
"""Commands that give a network namespace: as root, and as any user if the kernel lets users have namespaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """The isolation of build commands. ``prefix`` is put in front of them; ``description`` is for the record.

    Without a prefix they have the machine's network; with one they have none, not even a loopback.
    """

    prefix: tuple[str, ...]
    description: str


NOT_ISOLATED = Isolation(prefix=(), description="not isolated: this system gives no network namespace")


def isolation() -> Isolation:
    """Find the first isolation that works here. Each is really tried: kernels, containers and policies differ."""
    unshare = shutil.which("unshare", path="/usr/bin:/bin:/usr/sbin:/sbin")
    if unshare is None:
        return NOT_ISOLATED
    for attempt in ATTEMPTS:
        prefix = (unshare, *attempt[1:])
        try:
            tried = processes.capture(*prefix, "true", timeout=10)
        except CommandError:
            continue
        if tried.returncode == 0:
            kind = "a user's own" if "--user" in attempt else "its own"
            return Isolation(prefix=prefix, description=f"none: {kind} network namespace")
    return NOT_ISOLATED


def tool_folder(host: HostCompiler, layout: Layout, environ: Mapping[str, str], *, cuda: tuple[Path, ...] = ()) -> Path:
    """Make the only folder of PATH: it has links to the programs that a build needs by name, and to nothing else.

    The compilers themselves are called by their paths, except for those of an installed toolkit that nvcc looks for on
    PATH (``cuda``). Raises ``ConfigureError`` if one of the binutils is missing.
    """
    target = layout.tools / "path"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fresh = Path(scratch) / "path"
        fresh.mkdir()
        for name in (*BINUTILS, *SHELL):
            (fresh / name).symlink_to(_find(name, host, environ))
        for program in cuda:
            (fresh / program.name).symlink_to(program)
        if _links(target) != _links(fresh):
            shutil.rmtree(target, ignore_errors=True)
            fresh.rename(target)
    return target


def environment(path: Path, layout: Layout) -> dict[str, str]:
    """The complete environment of the compilers, without any variable of the user's. Its folders are created."""
    folders = {"HOME": layout.work_root / "home", "TMPDIR": layout.work_root / "tmp"}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": str(path),
        **{name: str(folder) for name, folder in folders.items()},
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def windows_environment(
    host: HostCompiler, toolkit: Mapping[str, str], layout: Layout, environ: Mapping[str, str]
) -> dict[str, str]:
    """The same for Windows: the host compiler's own variables, the toolkit's, and what Windows itself needs.

    ``PATH`` comes from the host compiler: its programs, the Windows SDK, the folders of Windows. Nothing is created.
    """
    known = {name.casefold(): value for name, value in environ.items()}
    system = {name: known[name.casefold()] for name in WINDOWS_KEPT if name.casefold() in known}
    temporary = str(layout.work_root / "tmp")
    return {
        **system,
        "PATHEXT": ".COM;.EXE;.BAT;.CMD",
        "PROCESSOR_ARCHITECTURE": "AMD64",
        "TEMP": temporary,
        "TMP": temporary,
        "USERPROFILE": str(layout.work_root / "home"),
        "VSLANG": "1033",
        **dict(host.environment),
        **toolkit,
    }


def _find(name: str, host: HostCompiler, environ: Mapping[str, str]) -> Path:
    """The program that GCC itself would use, else the one on PATH."""
    answer = processes.capture(str(host.cxx.path), f"-print-prog-name={name}").output.strip()
    found = shutil.which(answer or name, path=environ.get("PATH", "/usr/bin:/bin"))
    if found is None:
        message = f"the build needs the program {name}, which was not found"
        remedy = "install binutils: sudo apt install binutils (Debian, Ubuntu), sudo dnf install binutils (Fedora)"
        raise ConfigureError(message, remedy=remedy)
    return Path(found)


def _links(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    return {link.name: str(link.readlink()) for link in folder.iterdir() if link.is_symlink()}
