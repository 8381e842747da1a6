"""What a machine's driver runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from build_config import archs
from build_config.errors import ArchitectureError

if TYPE_CHECKING:
    from build_config.model import GpuDevice, Machine, Shard


def major_version(machine: Machine) -> int:
    """``580`` of ``580.65.06``; 0 without a driver."""
    return int(machine.driver.version.split(".")[0]) if machine.driver else 0


def needed(cuda: str) -> int | None:
    """The oldest driver that runs a release of CUDA; ``None`` for a release that is not known."""
    try:
        return archs.toolkit_series(cuda).driver_compatible
    except ArchitectureError:
        return None


def too_old(cuda: str, machine: Machine) -> str | None:
    """Why the driver does not run a release of CUDA; ``None`` where it does."""
    oldest = needed(cuda)
    if oldest is None:
        return f"of CUDA {cuda} it is not known which driver and which cards run it"
    if major_version(machine) >= oldest:
        return None
    here = f"driver {machine.driver.version}" if machine.driver else "no driver"
    return f"CUDA {cuda} needs driver {oldest} or later, here is {here}"


def runs(shard: Shard, gpu: GpuDevice, cuda: str, machine: Machine) -> Literal["cubin", "ptx"] | None:
    """How a card runs a shard. A driver older than the toolkit's runs its machine code and no PTX of it."""
    way = archs.covers(shard.archs, gpu.capability)
    if way == "ptx" and major_version(machine) < archs.toolkit_series(cuda).driver:
        return None
    return way
