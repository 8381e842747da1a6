"""One recommendation for a machine: the wheel and the line for pip, or the command that builds one; and its text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from build_config import archs
from build_config.archs import BUILD_COMMAND, LOCKED_CUDA
from build_config.model import DISTRIBUTION, Driver
from build_config.tasks.recommend.judge import Assessment, Interpreter, assess, best_first, driver_major, oldest_driver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from build_config.archs import ToolkitSeries
    from build_config.model import GpuDevice, Machine
    from build_config.tasks.recommend.wheels import Candidate

BUILDS_FOR = "Linux x86_64"
"""The one system that this project builds on and for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """``pip`` installs ``chosen``; ``build`` is the command if no wheel fits and one can be built here.

    ``machine`` says in lines what was judged. ``others`` are all wheels that were not chosen, the best first.
    ``advice`` are sentences, in the order in which they are to be followed.
    """

    machine: tuple[str, ...]
    chosen: Assessment | None
    pip: str | None
    build: str | None
    advice: tuple[str, ...]
    others: tuple[Assessment, ...]


def recommend(machine: Machine, python: Interpreter, candidates: Iterable[Candidate], index: str) -> Recommendation:
    """Choose the best wheel; on a machine with a GPU, none that would compute on the CPU.

    ``index`` is the option with which pip finds the wheels.
    """
    assessed = best_first(assess(each, machine, python) for each in candidates)
    wanted = {"every GPU", "some GPUs"} if machine.gpus else {"the CPU"}
    chosen = assessed[0] if assessed and assessed[0].use in wanted else None
    build: str | None = None
    advice = list(_advice_on(chosen, machine)) if chosen else []
    if chosen is None or chosen.use == "some GPUs":
        build, before = how_to_build(machine)
        advice += [*_with_another_driver(assessed, machine, python), *before]
    return Recommendation(
        machine=tuple(_describe(machine, python)),
        chosen=chosen,
        # Exactly this version: a later source distribution of the package index cannot win.
        pip=f'python -m pip install {index} "{DISTRIBUTION}=={chosen.candidate.version}"' if chosen else None,
        build=build,
        advice=tuple(advice),
        others=tuple(each for each in assessed if each is not chosen),
    )


def _describe(machine: Machine, python: Interpreter) -> Iterator[str]:
    glibc = f", glibc {machine.glibc}" if machine.glibc else ""
    yield f"{machine.system}{glibc}, Python {python.version}"
    if machine.driver:
        yield f"NVIDIA driver {machine.driver.version}, which runs CUDA {machine.driver.cuda} at the newest"
    else:
        yield "no NVIDIA driver"
    yield from (f"{gpu.name}, compute capability {gpu.capability}" for gpu in machine.gpus)
    if not machine.gpus:
        yield "no NVIDIA GPU"


def _advice_on(chosen: Assessment, machine: Machine) -> Iterator[str]:
    if chosen.just_in_time:
        yield "A GPU runs it by PTX: the driver compiles it at the first start, which takes minutes, and keeps that."
    if chosen.use == "some GPUs":
        yield f"It does not use every GPU: {chosen.reason}. CUDA_VISIBLE_DEVICES has to name those that it can use."
    if not machine.gpus:
        yield "Without a GPU it computes on the CPU, with the best code for that CPU."


def _with_another_driver(assessed: Iterable[Assessment], machine: Machine, python: Interpreter) -> Iterator[str]:
    """Whether a newer driver would be enough for one of the wheels, none of which uses every GPU now."""
    for wheel in (each.candidate for each in assessed):
        needed = oldest_driver(wheel.cuda)
        updated = replace(machine, driver=Driver(version=str(needed or 0), cuda=wheel.cuda or ""))
        if assess(wheel, updated, python).use == "every GPU":
            yield f"Update the driver to {needed} or later, and {wheel.file_name} fits."
            return


def how_to_build(machine: Machine) -> tuple[str | None, tuple[str, ...]]:
    """The command, and what has to be done before; ``None`` and the reason if there is no way on this machine."""
    if machine.system != BUILDS_FOR:
        return None, (f"This project builds on and for {BUILDS_FOR}; {machine.system} is not covered.",)
    if not machine.glibc:
        return None, ("NVIDIA's compiler and libraries need glibc: use a system or a container with it.",)
    if not machine.gpus:
        return f"{BUILD_COMMAND} -- --arch portable", ()
    locked = archs.toolkit_series(LOCKED_CUDA)
    gpus = machine.gpus
    if _toolkit(machine, gpus) is None:
        gpus = tuple(gpu for gpu in gpus if locked.builds_for(archs.as_number(gpu.capability)))
    if not gpus:
        without = archs.list_gpus(machine.gpus)
        return None, (f"No toolkit that is known compiles for {without} and runs with this driver.",)
    series = _toolkit(machine, gpus)
    numbers = {archs.as_number(gpu.capability) for gpu in gpus}
    # Several numbers would be several shards, of which one is loaded; native is one shard for all GPUs.
    command = f"{BUILD_COMMAND} -- --arch {numbers.pop() if len(numbers) == 1 else 'native'}"
    before = []
    if series is not None and series != locked:
        command += f" --cuda {series.since}"
        before.append(f"Install CUDA {series.since} first: it compiles for these GPUs, and this driver runs it.")
    if left_out := archs.list_gpus(gpu for gpu in machine.gpus if gpu not in gpus):
        before.append(f"No toolkit is for all of these GPUs at once: it leaves out {left_out}.")
    if series is None:
        before.append(f"Nothing runs these GPUs before the driver is {locked.driver_compatible} or later.")
    return command, tuple(before)


def _toolkit(machine: Machine, gpus: Iterable[GpuDevice]) -> ToolkitSeries | None:
    """The locked toolkit, else the newest, that compiles for all of these GPUs and that the driver runs."""
    able = archs.series_for(gpu.capability for gpu in gpus)
    return next((series for series in able if driver_major(machine) >= series.driver_compatible), None)


def text(answer: Recommendation) -> str:
    """Write it out: the machine, the wheel and how to get it, what to do first, why not the others."""
    return "\n".join(_lines(answer))


def _lines(answer: Recommendation) -> Iterator[str]:
    yield from (f"here: {line}" for line in answer.machine)
    yield ""
    if answer.chosen is not None:
        wheel = answer.chosen.candidate
        yield f"take: {wheel.file_name}"
        yield f"      computes on {answer.chosen.use}" + (f"; verdict {wheel.verdict}" if wheel.verdict else "")
        yield f"      {answer.pip}"
    else:
        yield "None of the wheels there is for this machine." if answer.others else "There is no wheel there."
    yield from answer.advice
    if answer.build is not None:
        yield f"build: {answer.build}"
    if answer.others:
        yield ""
        yield "the others:"
    for other in answer.others:
        yield f"  {other.candidate.file_name}"
        yield f"    {other.reason or 'fits too, and is older, larger or slower to start'}"
