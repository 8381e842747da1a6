"""Processes of the probe, wherever they run: the scenarios that share one, what it is told, what its results mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build_config.reports import ScenarioResult
from build_config.steps.validation.judge import ProbeResult, judge
from build_config.system import redaction
from check_gpu import placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from build_config.steps.validation.scenarios import Scenario
    from build_config.system.processes import Completed
    from build_config.testbed.model_families import ModelFamily

Run = tuple["Scenario", ...]
"""The scenarios of one process. The first sets it up; the others only load their models there."""


def group(tried: Iterable[Scenario]) -> tuple[Run, ...]:
    """Group scenarios by their processes."""
    runs: list[Run] = []
    for scenario in tried:
        if scenario.continues:
            runs[-1] += (scenario,)
        else:
            runs.append((scenario,))
    return tuple(runs)


def options(run: Run) -> dict[str, Any]:
    """The arguments of ``Llama`` in this process."""
    return {"n_gpu_layers": run[0].gpu_layers, **run[0].options}


def tasks(run: Run) -> tuple[tuple[str, ModelFamily], ...]:
    """For each scenario what the probe does, and with a model of which family."""
    families = (scenario.expected.family for scenario in run)
    return tuple(("embed" if family.embeds else "generate", family) for family in families)


def model_name(family: ModelFamily) -> str:
    """The name of the file with the tiny model of ``family``."""
    return f"tiny-{family.architecture}.gguf"


def without_result(completed: Completed) -> str:
    """Say how a process ended that wrote no result: it crashed."""
    said = completed.last_words or "nothing"
    return f"the probe {completed.ending} and gave no result; its output ended with: {said}"


def complete(run: Run, results: tuple[ProbeResult, ...], ended: str) -> tuple[ProbeResult, ...]:
    """Add the results that a process did not write because it ``ended`` before."""
    if len(results) >= len(run):
        return results
    last = run[len(results)].expected.family.architecture
    later = ProbeResult(error=f"not loaded, because the process ended while it used the model {last}")
    return (*results, ProbeResult(error=ended), *[later] * (len(run) - len(results) - 1))


def judged(run: Run, results: tuple[ProbeResult, ...], *, folder: str, seconds: float) -> Iterator[ScenarioResult]:
    """Judge each scenario by itself.

    ``folder`` is the place of the run, whose name is left out. The process took ``seconds``; the start counts for the
    first scenario.
    """
    start_up = seconds - sum(result.seconds for result in results)
    for number, (scenario, result) in enumerate(zip(run, results, strict=True)):
        yield _judged(scenario, result, folder, result.seconds + (0 if number else start_up))


def _judged(scenario: Scenario, result: ProbeResult, folder: str, seconds: float) -> ScenarioResult:
    found = placement.parse(result.log)
    status = result.cuda_status or {}
    return ScenarioResult(
        name=scenario.name,
        shows=scenario.shows,
        simulated=scenario.simulated.capabilities if scenario.simulated is not None else (),
        shard=status.get("shard"),
        cpu_variant=status.get("cpu_variant"),
        placements=found.layers,
        offloaded=found.offloaded,
        buffers=found.buffers,
        launches=result.use.counts["launches"] if result.use is not None else None,
        tokens=result.tokens,
        text=result.text,
        said=redaction.without_paths((result.said or "").replace(f"{folder}/", "")) or None,
        findings=judge(result, scenario.expected),
        seconds=round(seconds, 3),
    )
