"""One wheel on one machine: whether pip installs it there, what it computes on, and which of several is better."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from build_config import archs
from build_config.errors import ArchitectureError
from build_config.formats import variants
from build_config.tasks.recommend.wheels import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from build_config.model import GpuDevice, Machine, Shard

Use = Literal["every GPU", "some GPUs", "the CPU", "nothing"]
"""Best first."""
_LEGACY = {"manylinux1_": "manylinux_2_5_", "manylinux2010_": "manylinux_2_12_", "manylinux2014_": "manylinux_2_17_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """The Python that pip installs for: its version (``3.12``), and the tags of the wheels that it accepts.

    ``uv``: uv is there, too.
    """

    version: str
    tags: frozenset[str]
    uv: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a wheel would compute on, and why not on more.

    ``just_in_time``: by PTX, which the driver compiles at the first start. ``distance`` is 0 for code that was compiled
    for exactly these GPUs, and grows with the age of the code.
    """

    candidate: Candidate
    use: Use
    reason: str | None
    just_in_time: bool = False
    distance: int = 0


def assess(wheel: Candidate, machine: Machine, python: Interpreter) -> Assessment:
    """Judge a wheel for a machine, which may be any, and a Python on it."""
    if reason := _why_not_installed(wheel, machine, python):
        return Assessment(candidate=wheel, use="nothing", reason=reason)
    if wheel.needs_driver and not machine.gpus:
        reason = "it is another publisher's build for a GPU, which cannot be imported without a driver"
        return Assessment(candidate=wheel, use="nothing", reason=reason)
    if reason := _why_not_cuda(wheel, machine):
        return Assessment(candidate=wheel, use="the CPU", reason=reason)
    return _on_gpus(wheel, wheel.cuda or "", machine)


def best_first(assessed: Iterable[Assessment]) -> list[Assessment]:
    """Sort: the wheel that uses most of the machine first, ours before others', a release, the newest, the best fit."""

    def fit(each: Assessment) -> tuple[object, ...]:  # machine code, for exactly these GPUs, the smallest, no preview
        wheel = each.candidate
        size = sum(len(shard.archs) for shard in wheel.shards)
        return each.just_in_time, each.distance, size, wheel.label is not None, wheel.file_name

    def worth(each: Assessment) -> tuple[int, bool, bool, Version, Version]:
        version, cuda = each.candidate.version, each.candidate.cuda or "0"
        rank, ours = -get_args(Use).index(each.use), each.candidate.cuda is not None
        return rank, ours, not version.is_prerelease, Version(version.public), Version(cuda)

    return sorted(sorted(assessed, key=fit), key=worth, reverse=True)  # a sort is stable, a reversed one too


def driver_major(machine: Machine) -> int:
    """``580`` of ``580.65.06``; 0 without a driver."""
    return int(machine.driver.version.split(".")[0]) if machine.driver else 0


def oldest_driver(cuda: str | None) -> int | None:
    """The oldest driver that runs a release of CUDA; ``None`` for a release that is not known."""
    try:
        series = archs.toolkit_series(cuda) if cuda else None
    except ArchitectureError:
        return None
    # The newest series has no end, but a major release that is not known has rules that are not known.
    return series.driver_compatible if series and cuda and series.since.split(".")[0] == cuda.split(".")[0] else None


def _why_not_installed(wheel: Candidate, machine: Machine, python: Interpreter) -> str | None:
    """Why pip would not take a wheel, if it would not."""
    if wheel.yanked:
        return "it was withdrawn"
    if wheel.requires_python and python.version not in SpecifierSet(wheel.requires_python):
        return f"it needs Python {wheel.requires_python}"
    if not python.tags.isdisjoint(wheel.tags):
        return None if wheel.label is None else _why_not_taken(wheel, machine, python)
    pythons, _, platforms = (sorted(set(part)) for part in zip(*(tag.split("-") for tag in wheel.tags), strict=True))
    if any(tag.split("-")[2] in platforms for tag in python.tags):
        return f"it is for {', '.join(pythons)}, this is cp{python.version.replace('.', '')}"
    if glibcs := [glibc for tag in platforms if (glibc := _glibc(tag, machine))]:
        return f"it needs glibc {min(glibcs)} or later, here is {machine.glibc or 'another C library'}"
    return f"it is for {', '.join(platforms)}, this is {machine.system}"


def _why_not_taken(wheel: Candidate, machine: Machine, python: Interpreter) -> str | None:
    """Why a variant wheel is not installed here, if it is not."""
    if not python.uv:
        return f"it is a variant wheel, a preview: only uv installs it, since {variants.OLDEST_UV}"
    highest = max((gpu.capability for gpu in machine.gpus), key=archs.as_number, default=None)
    code = tuple(arch for shard in wheel.shards for arch in shard.archs)
    if highest is None or not variants.takes(code, highest):
        here = "a machine without a GPU" if highest is None else f"a machine whose highest GPU is {highest}"
        return f"it is a variant wheel, which uv does not take for {here}"
    return None


def _glibc(platform: str, machine: Machine) -> Version | None:
    """The oldest glibc that a platform tag allows; ``None`` if it is of another system than the machine's."""
    for legacy, modern in _LEGACY.items():
        platform = platform.replace(legacy, modern)
    match = re.fullmatch(r"manylinux_(\d+)_(\d+)_(\w+)", platform)
    return Version(f"{match[1]}.{match[2]}") if match and machine.system == f"Linux {match[3]}" else None


def _why_not_cuda(wheel: Candidate, machine: Machine) -> str | None:
    """Why a machine does not run the CUDA of a wheel, whatever code is in it; ``None`` if it does."""
    if wheel.cuda is None:
        return "it is another publisher's: its name does not say which CUDA and which GPUs it was built for"
    if not machine.gpus:
        return "there is no NVIDIA GPU here"
    if (oldest := oldest_driver(wheel.cuda)) is None:
        return f"of CUDA {wheel.cuda} it is not known which driver and which GPUs run it"
    if driver_major(machine) >= oldest:
        return None
    here = f"driver {machine.driver.version}" if machine.driver else "no driver"
    return f"CUDA {wheel.cuda} needs driver {oldest} or later, here is {here}"


def _on_gpus(wheel: Candidate, cuda: str, machine: Machine) -> Assessment:
    """Of the shards of a wheel one is loaded, for all GPUs that the process sees."""
    too_old = driver_major(machine) < archs.toolkit_series(cuda).driver  # runs the toolkit's machine code, not its PTX
    able = {"cubin"} if too_old else {"cubin", "ptx"}
    by_shard = [[archs.covers(shard.archs, gpu.capability) for gpu in machine.gpus] for shard in wheel.shards]
    by_shard = [[way if way in able else None for way in ways] for ways in by_shard]
    nothing = [None] * len(machine.gpus)
    best = max(by_shard, key=lambda ways: (sum(map(bool, ways)), ways.count("cubin")), default=nothing)
    idle = [gpu for gpu, served in zip(machine.gpus, best, strict=True) if not served]
    code = ", ".join(str(arch) for shard in wheel.shards for arch in shard.archs) or "no GPU that is known"
    reason = f"it has code for {code} and none that {archs.list_gpus(idle)} can run"
    if len(idle) == len(machine.gpus):
        return Assessment(candidate=wheel, use="the CPU", reason=reason)
    if all(any(ways) for ways in zip(*by_shard, strict=True)):
        reason = f"no one shard of it has code for all GPUs, and one is loaded: {archs.list_gpus(idle)} would be idle"
    return Assessment(
        candidate=wheel,
        use="some GPUs" if idle else "every GPU",
        reason=reason if idle else None,
        just_in_time="ptx" in best,
        distance=min(sum(_distance(shard, gpu) for gpu in machine.gpus) for shard in wheel.shards),
    )


def _distance(shard: Shard, gpu: GpuDevice) -> int:
    """From the GPU's compute capability down to that of the newest code that it can run."""
    fitting = [arch.number for arch in shard.archs if archs.covers((arch,), gpu.capability)]
    return archs.as_number(gpu.capability) - max(fitting, default=0)
