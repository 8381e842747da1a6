"""Which wheel of an index fits a machine, why the others do not, and how to get one: facts in, a recommendation out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from build_config import archs
from build_config.archs import BUILD_COMMAND, LOCKED_CUDA
from build_config.formats import variants
from build_config.model import DISTRIBUTION, Driver
from build_config.tasks.recommend.gpu_table import table
from build_config.tasks.recommend.judge import Assessment, Interpreter, assess, best_first, driver_major, oldest_driver
from build_config.tasks.recommend.wheels import Candidate, candidate, read
from check_gpu import shell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from build_config.archs import ToolkitSeries
    from build_config.model import GpuDevice, Machine

__all__ = ["Candidate", "Interpreter", "Recommendation", "candidate", "read", "recommend", "table", "text"]

BUILDS_FOR = "Linux x86_64"
"""The one system that this project builds on and for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """``pip`` installs ``chosen``, and so does ``uv`` if it is there; a variant wheel is for uv alone.

    ``variants`` is the line with which uv chooses a wheel by itself, if it is there and the index has variants.
    ``build`` is the command if no wheel fits and one can be built here. ``advice`` are sentences, in the order in which
    they are to be followed; ``others`` are sorted, the best first.
    """

    machine: tuple[str, ...]
    chosen: Assessment | None
    pip: str | None
    uv: str | None
    variants: str | None
    build: str | None
    advice: tuple[str, ...]
    others: tuple[Assessment, ...]


def recommend(
    machine: Machine, python: Interpreter, candidates: Iterable[Candidate], index: Iterable[str]
) -> Recommendation:
    """Choose the best wheel; on a machine with a GPU, none for the CPU.

    ``index`` is pip's option to find wheels; it does not count for a candidate whose index is known.
    """
    candidates = tuple(candidates)
    assessed = best_first(assess(each, machine, python) for each in candidates)
    wanted = {"every GPU", "some GPUs"} if machine.gpus else {"the CPU"}
    chosen = assessed[0] if assessed and assessed[0].use in wanted else None
    build, advice, pip, uv = None, [], None, None
    if chosen:
        wheel = chosen.candidate
        found = ("--extra-index-url", wheel.index) if wheel.index else index
        # Exactly this version: a later source distribution of the package index cannot win.
        wanted_wheel = [*found, f"{DISTRIBUTION}=={wheel.version}"]
        if wheel.label is not None:  # and exactly this one of the variants, which have one version
            wanted_wheel = [*variants.UV_OPTIONS, f"{DISTRIBUTION} @ {wheel.address}"]
        else:
            pip = shell.install(wanted_wheel)
        uv = shell.install(wanted_wheel, installer=shell.UV) if python.uv else None
        if chosen.just_in_time:
            advice.append(
                "A GPU runs it by PTX: the driver compiles it at the first start, which takes minutes, and keeps that."
            )
        if chosen.use == "some GPUs":
            why = f"It does not use every GPU: {chosen.reason}."
            advice.append(f"{why} The others are left out.")
        if not machine.gpus:
            advice.append("Without a GPU it computes on the CPU, with the best code for that CPU.")
    if chosen is None or chosen.use == "some GPUs":
        build, before = how_to_build(machine)
        advice += [*_with_another_driver(assessed, machine, python), *before]
    driver = machine.driver and f"{machine.driver.version}, which runs CUDA {machine.driver.cuda} at the newest"
    return Recommendation(
        machine=(
            f"{machine.system}{f', glibc {machine.glibc}' if machine.glibc else ''}, Python {python.version}",
            f"NVIDIA driver {driver}" if driver else "no NVIDIA driver",
            *(f"{gpu.name}, compute capability {gpu.capability}" for gpu in machine.gpus),
            *(() if machine.gpus else ("no NVIDIA GPU",)),
        ),
        chosen=chosen,
        pip=pip,
        uv=uv,
        variants=_by_uv(candidates) if python.uv else None,
        build=build,
        advice=tuple(advice),
        others=tuple(each for each in assessed if each is not chosen),
    )


def _by_uv(candidates: Iterable[Candidate]) -> str | None:
    """The line with which uv chooses by itself, from an index of variants that is known."""
    address = next((each.index for each in candidates if each.label is not None and each.index), None)
    options = None if address is None else ["--index", address, *variants.UV_OPTIONS, DISTRIBUTION]
    return None if options is None else shell.install(options, installer=shell.UV)


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
    locked, gpus = archs.toolkit_series(LOCKED_CUDA), machine.gpus
    if _toolkit(machine, gpus) is None:
        gpus = tuple(gpu for gpu in gpus if locked.builds_for(archs.as_number(gpu.capability)))
    if not gpus:
        without = archs.list_gpus(machine.gpus)
        return None, (f"No toolkit that is known compiles for {without} and runs with this driver.",)
    series = _toolkit(machine, gpus)
    numbers = {archs.as_number(gpu.capability) for gpu in gpus}
    command = f"{BUILD_COMMAND} -- --arch {'+'.join(map(str, sorted(numbers)))}"
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
    lines = [*(f"here: {line}" for line in answer.machine), ""]
    if answer.chosen is not None:
        wheel = answer.chosen.candidate
        verdict = f"; verdict {wheel.verdict}" if wheel.verdict else ""
        lines += [
            f"take: {wheel.file_name}",
            f"      computes on {answer.chosen.use}{verdict}",
            f"      {answer.uv or answer.pip}",
        ]
    else:
        lines.append("None of the wheels there is for this machine." if answer.others else "There is no wheel there.")
    if answer.variants is not None:
        lines += [
            "or let uv choose by the GPU with the highest compute capability, a preview:",
            f"      {answer.variants}",
        ]
    lines += answer.advice
    if answer.build is not None:
        lines.append(f"build: {answer.build}")
    if answer.others:
        lines += ["", "the others:"]
    for other in answer.others:
        fits = "older, larger or slower to start" if other.candidate.label is None else "a variant wheel, a preview"
        reason = other.reason or f"fits too, and is {fits}"
        lines += [f"  {other.candidate.file_name}", f"    {reason}"]
    return "\n".join(lines)
