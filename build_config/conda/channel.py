"""A folder that conda, mamba and pixi take for a channel: packages by platform, and ``repodata.json`` of each."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.conda.packing import pack

if TYPE_CHECKING:
    from build_config.conda.description import CondaPackage
    from build_config.model import Wheel

NOARCH = "noarch"
"""A channel has to have this folder, be it empty."""


def publish(package: CondaPackage, wheel: Wheel, channel: Path) -> Path:
    """Pack the wheel, put the package into the channel and list what is there; returns where the package is.

    A package of the same name is replaced, every other one stays. Raises ``PackagingError``.
    """
    folder = channel / package.subdir
    for each in (folder, channel / NOARCH):
        each.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=channel, prefix=".part.") as temporary:
        made = pack(package, wheel, Path(temporary))
        final = made.replace(folder / made.name)
    final.chmod(0o644)
    asyncio.run(_index(channel))
    return final


async def _index(channel: Path) -> None:
    from rattler.index import index_fs  # noqa: PLC0415  # only the lock conda.txt has it

    await index_fs(channel, write_zst=False, write_shards=False, max_parallel=os.cpu_count() or 1)
    shutil.rmtree(channel / ".tmp", ignore_errors=True)  # which it leaves behind
