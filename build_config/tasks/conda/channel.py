"""A folder that conda, mamba and pixi accept as a channel: packages by platform, and ``repodata.json`` of each.

Equal wheels give packages of equal bytes.
"""

from __future__ import annotations

import asyncio
import glob
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from build_config.errors import PackagingError
from build_config.formats import wheelfile
from build_config.system import jsonio
from build_config.tasks.conda.description import without_requirements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_config.model import Wheel
    from build_config.tasks.conda.description import CondaPackage

TIMESTAMP = datetime(*wheelfile.TIMESTAMP, tzinfo=UTC)
"""The time of every file, and of the package in a channel: the current time would change the bytes in each run."""
COMPRESSION_LEVEL = 9
INSTALLER = b"conda\n"
NOARCH = "noarch"
"""A channel must have this folder, even if it is empty."""


def publish(package: CondaPackage, wheel: Wheel, channel: Path) -> Path:
    """Pack the wheel, put the package into the channel and write the channel's index; returns the package's path.

    It replaces the package of an earlier wheel of the same version, CUDA and shards, as in the wheelhouse: the solver
    could not tell which is newer. Every other package stays. Raises ``PackagingError``.
    """
    from rattler.index import index_fs  # noqa: PLC0415  # only the lock conda.txt contains it

    folder = channel / package.subdir
    for each in (folder, channel / NOARCH):
        each.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=channel, prefix=".part.") as temporary:
        made = pack(package, wheel, Path(temporary))
        made.chmod(0o644)
        final = made.replace(folder / made.name)
    before_digest, _, _ = package.file_name.rpartition("_h")
    for earlier in folder.glob(f"{glob.escape(before_digest)}_h*.conda"):
        if earlier != final:
            earlier.unlink()
    asyncio.run(index_fs(channel, write_zst=False, write_shards=False, max_parallel=os.cpu_count() or 1))
    shutil.rmtree(channel / ".tmp", ignore_errors=True)  # index_fs does not delete it
    return final


def pack(package: CondaPackage, wheel: Wheel, folder: Path) -> Path:
    """Write the package of a wheel into ``folder``, and return its path.

    Its files are below ``site-packages``; an installer moves them to that folder of its Python. The bytes depend on the
    wheel, the description and the version of rattler-build; not on time, order, modes or user. Raises
    ``PackagingError`` if the wheel cannot be read, or the path of a member leads out of its folder.
    """
    from rattler_build import (  # noqa: PLC0415  # only the lock conda.txt contains it
        ArchiveType,
        RattlerBuildError,
        assemble_package,
    )

    with tempfile.TemporaryDirectory(prefix="llama-cuda-wheels-") as temporary:
        scratch = Path(temporary)
        contents = as_installed(package, wheel, scratch)
        staged = scratch / "prefix"
        write_files(contents, staged / "site-packages")
        recipe = scratch / "recipe"
        jsonio.write(recipe / "wheel.json", {"name": wheel.path.name, "sha256": wheel.sha256, "size": wheel.size})
        licences = f"{wheelfile.dist_info(contents)}/licenses/"
        try:
            output = assemble_package(
                package.name,
                package.version,
                package.subdir,
                package.build,
                scratch / "out",
                files_dir=staged,
                homepage=package.homepage,
                license=package.licence,
                summary=package.summary,
                depends=package.depends,
                constrains=package.constrains,
                noarch="python",
                license_files=[
                    staged / "site-packages" / name for name in sorted(contents) if name.startswith(licences)
                ],
                recipe_dir=recipe,
                compression_level=COMPRESSION_LEVEL,
                archive_type=ArchiveType.Conda,
                timestamp=TIMESTAMP,
                compression_threads=1,  # several threads would give other bytes
                detect_prefix=False,  # no file contains the path of an environment
            )
        except RattlerBuildError as error:
            raise PackagingError(f"rattler-build could not make {package.file_name}: {error}") from error
        folder.mkdir(parents=True, exist_ok=True)
        return output.path.replace(folder / package.file_name)


def as_installed(package: CondaPackage, wheel: Wheel, scratch: Path) -> dict[str, bytes]:
    """The members of a wheel as conda installs them: with INSTALLER, and matching METADATA and RECORD."""
    contents = wheelfile.read_contents(wheel.path)
    metadata = contents[f"{wheelfile.dist_info(contents)}/METADATA"]
    extra = {"METADATA": without_requirements(metadata, package.dropped), "INSTALLER": INSTALLER}
    return wheelfile.read_contents(wheelfile.write_normalised(wheel.path, scratch / wheel.path.name, extra=extra).path)


def write_files(contents: Mapping[str, bytes], folder: Path) -> None:
    """Write members below ``folder``. Raises ``PackagingError`` for a path that leads out of it."""
    for name, data in contents.items():
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name:
            raise PackagingError(f"{name!r} leads out of its folder")
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
