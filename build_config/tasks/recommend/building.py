"""The command that gives a wheel for a machine, where no finished one fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config import archs
from build_config.tasks.recommend.drivers import major_version

if TYPE_CHECKING:
    from build_config.archs import ToolkitSeries
    from build_config.model import GpuDevice, Machine

BUILDS_FOR = "Linux x86_64"
"""The one system that this project builds on and for."""
LOCKED_CUDA = "13.0"
COMMAND = "nox -s build_cuda_wheel"


def how_to_build(machine: Machine) -> tuple[str | None, tuple[str, ...]]:
    """The command, and what has to be done before; ``None`` and the reason where there is no way on this machine."""
    if machine.system != BUILDS_FOR:
        return None, (f"This project builds on and for {BUILDS_FOR}; {machine.system} is not covered.",)
    if not machine.glibc:
        return None, ("NVIDIA's compiler and libraries need glibc: use a system or a container with it.",)
    if not machine.gpus:
        return f"{COMMAND} -- --arch portable", ()
    locked = archs.toolkit_series(LOCKED_CUDA)
    if series := _able(machine, machine.gpus):
        return _command(series, machine.gpus)
    if fitting := tuple(gpu for gpu in machine.gpus if locked.builds_for(_number(gpu))):
        command, before = _command(_able(machine, fitting) or locked, fitting)
        left_out = [f"{gpu.name} ({gpu.capability})" for gpu in machine.gpus if gpu not in fitting]
        if left_out:
            before = (*before, f"No toolkit is for all of these cards at once: it leaves out {', '.join(left_out)}.")
        if _able(machine, fitting) is None:
            before = (*before, f"Nothing runs these cards before the driver is {locked.driver_compatible} or later.")
        return command, before
    cards = ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in machine.gpus)
    return None, (f"No toolkit that is known compiles for {cards} and runs with this driver.",)


def _able(machine: Machine, gpus: tuple[GpuDevice, ...]) -> ToolkitSeries | None:
    """The locked toolkit, else the newest, that compiles for all of these cards and that the driver runs."""
    wanted = {_number(gpu) for gpu in gpus}
    for series in (archs.toolkit_series(LOCKED_CUDA), *reversed(archs.known_series())):
        if all(series.builds_for(number) for number in wanted) and major_version(machine) >= series.driver_compatible:
            return series
    return None


def _command(series: ToolkitSeries, gpus: tuple[GpuDevice, ...]) -> tuple[str, tuple[str, ...]]:
    numbers = sorted({_number(gpu) for gpu in gpus})
    # Several numbers would be several shards, of which one is loaded; native is one shard for all cards.
    arch = str(numbers[0]) if len(numbers) == 1 else "native"
    if series.since == LOCKED_CUDA:
        return f"{COMMAND} -- --arch {arch}", ()
    first = f"Install CUDA {series.since} first: it compiles for these cards, and this driver runs it."
    return f"{COMMAND} -- --arch {arch} --cuda {series.since}", (first,)


def _number(gpu: GpuDevice) -> int:
    return archs.from_capability(gpu.capability).number
