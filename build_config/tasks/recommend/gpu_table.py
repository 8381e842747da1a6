"""The table of GPUs: what each needs, and what serves it. Made from ``data/cuda_architectures.toml``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from build_config import archs
from build_config.archs import LOCKED_CUDA

if TYPE_CHECKING:
    from build_config.archs import GpuModels

HEADER = "| GPU | generation | compute capability | oldest driver | CUDA | shard | in the portable wheel | option |\n"


class GpuRow(NamedTuple):
    """The GPUs of one compute capability, in Markdown. Without ``option`` no wheel for them can be built."""

    gpus: str
    generation: str
    capability: str
    driver: str = ""
    cuda: str = "another processor than x86-64"
    shard: str = ""
    portable: str = ""
    option: str = "not covered"


def rows() -> tuple[GpuRow, ...]:
    """All GPUs that are known, the newest first."""
    return tuple(map(_row, reversed(archs.known_gpus())))


def table() -> str:
    """The table in Markdown."""
    lines = [("---",) * len(GpuRow._fields), *rows()]
    return HEADER + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(models: GpuModels) -> GpuRow:
    row = GpuRow(models.names, models.generation, models.capability)
    if models.another_processor:
        return row
    number = archs.as_number(models.capability)
    series = archs.series_for([models.capability])[0]
    locked = series.since == LOCKED_CUDA
    (shard,) = archs.resolve(str(number), cuda_release=series.since, gpus=()).shards
    ways = {archs.covers(portable, models.capability) for portable in series.portable}
    return row._replace(
        driver=str(series.driver_compatible),
        cuda=f"{series.since}, locked" if locked else f"{series.since} at the newest, to be installed",
        shard=f"`{shard.name}`",
        portable="yes" if "cubin" in ways else "by PTX" if "ptx" in ways else "no",
        option=f"`--arch {number}`" if locked else f"`--arch {number} --cuda {series.since}`",
    )
