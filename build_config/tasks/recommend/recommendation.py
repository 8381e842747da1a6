"""The judgement: a machine, a Python and wheels in, one recommendation out. Pure, so that any machine can be judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from packaging.version import Version

from build_config import archs
from build_config.model import Driver
from build_config.tasks.recommend import drivers, installing
from build_config.tasks.recommend.building import how_to_build
from build_config.tasks.recommend.wheels import DISTRIBUTION, Candidate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from build_config.model import GpuDevice, Machine, Shard
    from build_config.tasks.recommend.wheels import Index

Use = Literal["every card", "some cards", "the CPU", "nothing"]
USES: tuple[Use, ...] = ("every card", "some cards", "the CPU", "nothing")
"""Best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """One wheel on one machine.

    ``use`` is what it would compute on; ``reason`` why not on more, ``None`` where every card is used. ``just_in_time``
    says that a card would run it by PTX, which the driver compiles at the first start. ``distance`` is 0 for code that
    was compiled for exactly these cards, and grows with the age of the code.
    """

    candidate: Candidate
    use: Use
    reason: str | None
    just_in_time: bool = False
    distance: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to do. ``pip`` installs ``chosen``; ``build`` is the command where none fits and one can be built here.

    ``machine`` says in lines what was judged. ``others`` are all wheels that were not chosen, the best first.
    ``advice`` are sentences, in the order in which they are to be followed.
    """

    machine: tuple[str, ...]
    chosen: Assessment | None
    pip: str | None
    build: str | None
    advice: tuple[str, ...]
    others: tuple[Assessment, ...]


def recommend(
    machine: Machine, python: tuple[int, int], candidates: Iterable[Candidate], index: Index
) -> Recommendation:
    """Choose the wheel that uses most of the machine; among those the newest.

    Then machine code goes before PTX, code for exactly these cards before older code, a smaller wheel before a larger.
    Where there is a card, a wheel that would compute on the CPU is not recommended.
    """
    assessed = sorted((assess(each, machine, python) for each in candidates), key=_rank)
    wanted: set[Use] = {"every card", "some cards"} if machine.gpus else {"the CPU"}
    chosen = assessed[0] if assessed and assessed[0].use in wanted else None
    build: str | None = None
    advice = list(_advice_on(chosen, machine))
    if chosen is None or chosen.use == "some cards":
        build, before = how_to_build(machine)
        advice += [*_with_another_driver(assessed, machine, python), *before]
    return Recommendation(
        machine=tuple(_describe(machine, python)),
        chosen=chosen,
        pip=pip_line(chosen.candidate, index) if chosen else None,
        build=build,
        advice=tuple(advice),
        others=tuple(each for each in assessed if each is not chosen),
    )


def pip_line(wheel: Candidate, index: Index) -> str:
    """Installs exactly this version: a later source distribution of the package index cannot win."""
    return f'python -m pip install {index.option} "{DISTRIBUTION}=={wheel.version}"'


def assess(wheel: Candidate, machine: Machine, python: tuple[int, int]) -> Assessment:
    """What a wheel would do on a machine."""
    if reason := installing.why_not(wheel, machine, python):
        return Assessment(candidate=wheel, use="nothing", reason=reason)
    if reason := _why_not_cuda(wheel, machine):
        return Assessment(candidate=wheel, use="the CPU", reason=reason)
    return _on_cards(wheel, wheel.cuda or "", machine)


def _why_not_cuda(wheel: Candidate, machine: Machine) -> str | None:
    if wheel.cuda is None:
        return "its version does not say which CUDA and which cards it was built for"
    if not machine.gpus:
        return "there is no NVIDIA card here"
    return drivers.too_old(wheel.cuda, machine)


def _on_cards(wheel: Candidate, cuda: str, machine: Machine) -> Assessment:
    """Of the shards of a wheel one is loaded, for all cards that the process sees."""
    by_shard = [tuple(drivers.runs(shard, gpu, cuda, machine) for gpu in machine.gpus) for shard in wheel.shards]
    nothing = (None,) * len(machine.gpus)
    best = max(by_shard, key=lambda ways: (sum(map(bool, ways)), ways.count("cubin")), default=nothing)
    distance = min((_distance(shard, machine) for shard in wheel.shards), default=0)
    without = [gpu for gpu, way in zip(machine.gpus, best, strict=True) if way is None]
    if not without:
        return Assessment(candidate=wheel, use="every card", reason=None, just_in_time="ptx" in best, distance=distance)
    code = ", ".join(str(arch) for shard in wheel.shards for arch in shard.archs) or "no card that is known"
    reason = f"it has code for {code} and none that {_cards(without)} can run"
    if len(without) == len(machine.gpus):
        return Assessment(candidate=wheel, use="the CPU", reason=reason)
    if all(any(column) for column in zip(*by_shard, strict=True)):
        reason = f"no one shard of it has code for all cards, and one is loaded: {_cards(without)} would be idle"
    return Assessment(candidate=wheel, use="some cards", reason=reason, just_in_time="ptx" in best, distance=distance)


def _distance(shard: Shard, machine: Machine) -> int:
    """From each card's compute capability down to that of the newest code that it can run, added up."""
    below = 0
    for gpu in machine.gpus:
        card = archs.from_capability(gpu.capability).number
        fitting = [arch.number for arch in shard.archs if archs.covers((arch,), gpu.capability)]
        below += card - max(fitting, default=0)
    return below


@dataclass(frozen=True, slots=True)
class _Newest:
    """Sorts the other way round: the newest first."""

    version: Version
    cuda: Version

    def __lt__(self, other: _Newest) -> bool:
        return (self.version, self.cuda) > (other.version, other.cuda)


def _rank(each: Assessment) -> tuple[int, bool, _Newest, bool, int, int, str]:
    """Best first."""
    wheel = each.candidate
    return (
        USES.index(each.use),
        wheel.version.is_prerelease,
        _Newest(Version(wheel.version.public), Version(wheel.cuda or "0")),
        each.just_in_time,
        each.distance,
        sum(len(shard.archs) for shard in wheel.shards),
        wheel.file_name,
    )


# ------------------------------------------------------------------------------------------------------------ words


def _describe(machine: Machine, python: tuple[int, int]) -> Iterator[str]:
    glibc = f", glibc {machine.glibc}" if machine.glibc else ""
    yield f"{machine.system}{glibc}, Python {python[0]}.{python[1]}"
    if machine.driver:
        yield f"NVIDIA driver {machine.driver.version}, which runs CUDA {machine.driver.cuda} at the newest"
    else:
        yield "no NVIDIA driver"
    yield from (f"{gpu.name}, compute capability {gpu.capability}" for gpu in machine.gpus)
    if not machine.gpus:
        yield "no NVIDIA card"


def _advice_on(chosen: Assessment | None, machine: Machine) -> Iterator[str]:
    if chosen is None:
        return
    if chosen.just_in_time:
        yield "A card runs it by PTX: the driver compiles it at the first start, which takes minutes, and keeps that."
    if chosen.use == "some cards":
        yield f"It does not use every card: {chosen.reason}. CUDA_VISIBLE_DEVICES has to name those that it can use."
    if not machine.gpus:
        yield "Without a card it computes on the CPU, with the best code for that CPU."


def _with_another_driver(assessed: Iterable[Assessment], machine: Machine, python: tuple[int, int]) -> Iterator[str]:
    """Whether a newer driver would be enough for one of the wheels."""
    for each in assessed:
        cuda = each.candidate.cuda
        needed = drivers.needed(cuda) if cuda else None
        if not machine.gpus or not needed or each.use != "the CPU" or drivers.major_version(machine) >= needed:
            continue
        updated = replace(machine, driver=Driver(version=f"{needed}.0", cuda=cuda or ""))
        if assess(each.candidate, updated, python).use == "every card":
            yield f"Update the driver to {needed} or later, and {each.candidate.file_name} fits."
            return


def _cards(gpus: Iterable[GpuDevice]) -> str:
    return ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in gpus)
