"""A folder that conda, mamba and pixi accept as a channel: packages by platform, and ``repodata.json`` of each."""

from __future__ import annotations

import asyncio
import glob
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.tasks.conda.packing import pack

if TYPE_CHECKING:
    from build_config.model import Wheel
    from build_config.tasks.conda.description import CondaPackage

NOARCH = "noarch"
"""A channel must have this folder, even if it is empty."""


def publish(package: CondaPackage, wheel: Wheel, channel: Path) -> Path:
    """Pack the wheel, put the package into the channel and write the channel's index; returns the package's path.

    It replaces the package of an earlier wheel of the same version, CUDA and shards, as in the wheelhouse: the solver
    could not tell which is newer. Every other package stays. Raises ``PackagingError``.
    """
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
    asyncio.run(_index(channel))
    return final


async def _index(channel: Path) -> None:
    from rattler.index import index_fs  # noqa: PLC0415  # only the lock conda.txt contains it

    await index_fs(channel, write_zst=False, write_shards=False, max_parallel=os.cpu_count() or 1)
    shutil.rmtree(channel / ".tmp", ignore_errors=True)  # index_fs does not delete it
