"""The scenarios of validation: what each shows, how it is set up, and the expected result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from build_config import archs
from build_config.steps.validation.judge import LAYERS, Expected
from build_config.testbed.model_families import FAMILIES
from build_config.testbed.simulated_device import SimulatedMachine
from check_gpu import coverage
from check_gpu.placement import CACHES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.formats.build_facts import BuildFacts, ShardFacts
    from build_config.model import Machine

ALL = -1
"""``n_gpu_layers`` for every layer."""
TOO_SMALL = 300_000
"""Bytes of memory, too few for the layers of the tiny model."""
TRIED_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0", "6.1", "5.0")
"""Candidates for a capability that a wheel does not cover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run of the probe.

    ``shows`` says what a pass means. ``changes`` are changes of the environment (``None`` removes a variable).
    ``simulated`` is the simulated machine, ``None`` for the real one. ``planted``: the current directory contains
    libraries that must not be loaded. ``continues``: the model is loaded in the process of the scenario before, after
    that one's. ``options`` are further arguments of ``Llama``.
    """

    name: str
    shows: str
    expected: Expected
    gpu_layers: int = ALL
    options: Mapping[str, int | list[float]] = field(default_factory=dict)
    changes: Mapping[str, str | None] = field(default_factory=dict)
    simulated: SimulatedMachine | None = None
    planted: bool = False
    continues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The shard that must be in use on a machine, and the indices of the GPUs that it has code for."""

    shard: str
    used: tuple[int, ...]


_NO_FIT = (0, 0)


def reach(facts: BuildFacts, capabilities: tuple[str, ...], memory: tuple[int, ...] = ()) -> Reach | None:
    """Choose the shard for GPUs of these capabilities; ``None`` if none has code for any of them.

    The shard whose GPUs have the most memory wins, in whole GiB; ``memory`` is in bytes, empty if it is equal. Then
    machine code is preferred to PTX, then the nearest architecture; of several GPUs the one with the worst fit counts.
    Then the newest GPU decides.
    """
    sizes = [size >> 30 for size in memory] or [1] * len(capabilities)
    ranked = []
    for shard in facts.shards:
        found = {index: _fit(shard, each) for index, each in enumerate(capabilities) if fits(shard, each)}
        if found:
            newest = max(archs.as_number(capabilities[index]) for index in found)
            rank = (sum(sizes[index] for index in found), min(found.values()), newest)
            ranked.append((rank, Reach(shard=shard.name, used=tuple(found))))
    return max(ranked, key=lambda entry: entry[0])[1] if ranked else None


def expected_on(
    facts: BuildFacts, capabilities: tuple[str, ...], memory: tuple[int, ...] = (), *, simulated: bool = False
) -> Expected | None:
    """The expected result on a machine with these GPUs; ``None`` if no shard has code for any of them."""
    found = reach(facts, capabilities, memory)
    if found is None:
        return None
    left_out = tuple(each for index, each in enumerate(capabilities) if index not in found.used)
    command, _ = coverage.build_command(capabilities, facts.build_command, facts.cuda)
    return Expected(
        cuda=True,
        on_gpu=LAYERS,
        simulated=simulated,
        shard=found.shard,
        used=found.used if simulated else None,
        left_out=left_out,
        note=command if left_out else None,
    )


def uncovered(facts: BuildFacts) -> str | None:
    """A compute capability for which there is no shard; ``None`` if PTX covers all of them."""
    return next((each for each in TRIED_CAPABILITIES if not reach(facts, (each,))), None)


def own_capabilities(facts: BuildFacts) -> tuple[str, ...]:
    """The compute capabilities of the architectures that the wheel has code for."""
    return tuple(dict.fromkeys(arch.capability for shard in facts.shards for arch in shard.archs))


def fits(shard: ShardFacts, capability: str) -> bool:
    """Whether a shard has code for a GPU of this compute capability."""
    return _fit(shard, capability) > _NO_FIT


def _fit(shard: ShardFacts, capability: str) -> tuple[int, int]:
    ranks = {"cubin": 2, "ptx": 1, None: 0}
    fits = ((ranks[archs.covers((arch,), capability)], arch.number) for arch in shard.archs)
    return max((fit for fit in fits if fit[0]), default=_NO_FIT)


def on_this_machine(machine: Machine, facts: BuildFacts | None) -> tuple[Scenario, ...]:
    """The wheel as a user has it on this machine, with its GPUs if it has any. The first scenario decides."""
    capabilities = tuple(gpu.capability for gpu in machine.gpus)
    if facts is None and capabilities:  # another project's wheel is only expected to use the GPU
        expected = Expected(cuda=True, on_gpu=LAYERS)
    else:
        known = expected_on(facts, capabilities, tuple(gpu.memory for gpu in machine.gpus)) if facts else None
        expected = known or Expected(cuda=False, reason="has code for" if capabilities else None)
    shows = "every layer and its cache are on the GPU" if expected.cuda else "it runs on the CPU and says why"
    as_it_is = Scenario(name="as it is", shows=shows, expected=expected)
    return (
        as_it_is,
        _planted(as_it_is, "planted library"),
        Scenario(
            name="hidden GPUs",
            shows="CUDA_VISIBLE_DEVICES=-1 leaves the CPU",
            expected=Expected(cuda=False, reason="hides every GPU" if capabilities else None),
            changes={"CUDA_VISIBLE_DEVICES": "-1"},
        ),
        *(_with_layers(count, as_it_is) for count in (0, 1) if expected.cuda),
        *_other_families(as_it_is),
    )


def on_simulated_devices(facts: BuildFacts, capability: str | None) -> tuple[Scenario, ...]:
    """The real CUDA backend on simulated GPUs, and on simulated machines with each known fault.

    Without ``capability`` there is one GPU for each shard. The first scenario decides.
    """
    first, *others = (capability,) if capability is not None else own_capabilities(facts)
    if not reach(facts, (first,)):
        return (_not_covered("simulated device", (first,)),)
    return (
        *(simulated(facts, (each,), f"simulated {each}") for each in (first, *others)),
        *_with_a_gpu(facts, first),
        *_other_families(simulated(facts, (first,), "whole"), "simulated, "),
        *_without_a_usable_gpu(facts, first),
    )


def simulated(facts: BuildFacts, capabilities: tuple[str, ...], name: str, *, fault: str | None = None) -> Scenario:
    """The wheel on simulated GPUs of these capabilities, for at least one of which it has code."""
    expected = expected_on(facts, capabilities, simulated=True)
    assert expected is not None, capabilities  # noqa: S101  # see above
    where = "CUDA0" if len(capabilities) == 1 else "the GPUs"
    left_out = f", and {', '.join(expected.left_out)} is left out" if expected.left_out else ""
    return Scenario(
        name=name,
        shows=f"every layer and its cache are on {where}{left_out}",
        expected=expected,
        simulated=SimulatedMachine(capabilities=capabilities, fault=fault),
    )


def _with_a_gpu(facts: BuildFacts, first: str) -> Iterator[Scenario]:
    whole = simulated(facts, (first,), "whole")
    yield from (_with_layers(count, whole) for count in (0, 1))
    yield _planted(whole, "simulated, planted library")
    yield simulated(facts, (first, first), "two equal GPUs")
    yield simulated(facts, (first,), "no virtual memory management", fault="no-vmm")
    yield Scenario(
        name="out of memory",
        shows="a model that is too large for the GPU gives an error that says so",
        expected=Expected(cuda=True, error=r"(?s)out of memory.*Failed to load model"),
        simulated=SimulatedMachine(capabilities=(first,), fault="out-of-memory", argument=TOO_SMALL),
    )
    yield Scenario(
        name="kernel fails",
        shows="llama.cpp ends the process with CUDA's own message and does not hang",
        expected=Expected(cuda=True, error=r"(?s)unspecified launch failure"),
        simulated=SimulatedMachine(capabilities=(first,), fault="launch-failure"),
    )


def _without_a_usable_gpu(facts: BuildFacts, first: str) -> Iterator[Scenario]:
    older = f"{facts.major - 1}.8"
    faults = (
        ("driver too old", "driver-too-old", f"runs CUDA {older} at most"),
        ("driver without a GPU", "no-device", "finds no GPU"),
        ("driver does not start", "no-driver", "does not start"),
    )
    for name, fault, reason in faults:
        yield Scenario(
            name=name,
            shows="it runs on the CPU and says why",
            expected=Expected(cuda=False, simulated=True, reason=reason),
            simulated=SimulatedMachine(capabilities=(first,), fault=fault),
        )
    yield Scenario(
        name="simulated, hidden GPUs",
        shows="CUDA_VISIBLE_DEVICES=-1 leaves the CPU, and the loader says so",
        expected=Expected(cuda=False, simulated=True, reason="CUDA_VISIBLE_DEVICES='-1' hides every GPU"),
        changes={"CUDA_VISIBLE_DEVICES": "-1"},
        simulated=SimulatedMachine(capabilities=(first,)),
    )
    without_code = uncovered(facts)
    if without_code is None:
        return
    yield _not_covered("GPU without code", (without_code,))
    yield _not_covered("two GPUs without code", (without_code, without_code))


def _not_covered(name: str, capabilities: tuple[str, ...]) -> Scenario:
    return Scenario(
        name=name,
        shows="it runs on the CPU and names the GPU and the command that builds for it",
        expected=Expected(cuda=False, simulated=True, reason=rf"has code for .* none that .*{capabilities[-1]}"),
        simulated=SimulatedMachine(capabilities=capabilities),
    )


def _planted(whole: Scenario, name: str) -> Scenario:
    return dataclasses.replace(whole, name=name, shows="nothing is loaded from the current directory", planted=True)


def _other_families(whole: Scenario, prefix: str = "") -> Iterator[Scenario]:
    """The families of models that no other scenario loads, one after the other in one process."""
    for number, family in enumerate(FAMILIES[1:]):
        placed = f"every layer and its {CACHES[family.cache]} are" if family.cache else "every layer is"
        yield dataclasses.replace(
            whole,
            name=f"{prefix}{family.architecture} model",
            shows=f"{family.shows}: {placed} on {'the GPU' if whole.expected.cuda else 'the CPU'}",
            expected=dataclasses.replace(whole.expected, family=family),
            continues=number > 0,
        )


def _with_layers(count: int, whole: Scenario) -> Scenario:
    return dataclasses.replace(
        whole,
        name=f"n_gpu_layers={count}",
        shows=f"{count} of {LAYERS} layers are on the GPU, as requested",
        expected=dataclasses.replace(whole.expected, on_gpu=count, used=whole.expected.used if count else None),
        gpu_layers=count,
    )
