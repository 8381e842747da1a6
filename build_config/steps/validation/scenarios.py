"""The situations in which a wheel is tried: what each shows, how it is brought about, what must come of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from build_config import archs
from build_config.model import CudaArch, Shard
from build_config.steps.validation.judge import LAYERS, Expected
from build_config.testbed.simulated_device import SimulatedMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import Machine, Wheel

FACTS = "llama_cpp/_cuda_build.json"
"""What a wheel of this pipeline says of itself."""
ALL = -1
"""``n_gpu_layers`` for every layer."""
TOO_SMALL = 300_000
"""Bytes that do not hold the tiny model's layers."""
TRIED_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0", "6.1", "5.0")
"""Where a capability is looked for that a wheel does not cover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run of the probe.

    ``shows`` is what a pass means, in words. ``changes`` are to the environment (``None`` removes a variable).
    ``simulated`` is the machine that is pretended, ``None`` for the one at hand. ``planted``: the current directory
    holds libraries that must not be loaded.
    """

    name: str
    shows: str
    expected: Expected
    gpu_layers: int = ALL
    changes: Mapping[str, str | None] = field(default_factory=dict)
    simulated: SimulatedMachine | None = None
    planted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """What a wheel says of itself. ``cuda`` is ``major.minor``."""

    cuda: str
    shards: tuple[Shard, ...]

    @property
    def major(self) -> int:
        """CUDA's major version."""
        return int(self.cuda.partition(".")[0])

    def shard_for(self, capabilities: tuple[str, ...]) -> str | None:
        """The shard that has to be in use on these devices; ``None`` where none runs on all of them.

        Machine code comes before PTX, the nearest before the others; of several devices the worst served counts.
        """
        fits = {shard.name: min(_fit(shard, capability) for capability in capabilities) for shard in self.shards}
        best = max(fits, key=lambda name: fits[name])
        return best if fits[best] > _NO_FIT else None

    def uncovered(self) -> str | None:
        """A compute capability for which there is no shard; ``None`` where PTX serves them all."""
        return next((each for each in TRIED_CAPABILITIES if not self.shard_for((each,))), None)

    def own_capabilities(self) -> tuple[str, ...]:
        """One for each shard: that of the first architecture in it."""
        return tuple(dict.fromkeys(shard.archs[0].capability for shard in self.shards))


_NO_FIT = (0, 0)


def _fit(shard: Shard, capability: str) -> tuple[int, int]:
    ranks = {"cubin": 2, "ptx": 1, None: 0}
    fits = ((ranks[archs.covers((arch,), capability)], arch.number) for arch in shard.archs)
    return max((fit for fit in fits if fit[0]), default=_NO_FIT)


def read_facts(wheel: Wheel) -> BuildFacts | None:
    """What the wheel says of itself; ``None`` where it is not one of this pipeline."""
    try:
        with zipfile.ZipFile(wheel.path) as archive:
            data = json.loads(archive.read(FACTS))
        shards = tuple(
            Shard(name=item["name"], archs=tuple(CudaArch.parse(arch) for arch in item["archs"]))
            for item in data["shards"]
        )
        return BuildFacts(cuda=data["cuda"], shards=shards)
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile, OSError):
        return None


def on_this_machine(machine: Machine, facts: BuildFacts | None) -> tuple[Scenario, ...]:
    """The wheel as a user has it here: with the cards that there are, or with none. The first one decides."""
    cards = tuple(gpu.capability for gpu in machine.gpus)
    shard = facts.shard_for(cards) if facts is not None and cards else None
    if cards and facts is None:  # a wheel of somebody else's: all it can do is to use the card
        as_it_is = Expected(cuda=True, on_card=LAYERS)
    elif shard:
        as_it_is = Expected(cuda=True, on_card=LAYERS, shard=shard)
    else:
        as_it_is = Expected(cuda=False, reason="has code for" if cards else None)
    found = [
        Scenario(
            name="as it is",
            shows="every layer and its cache are on the card" if as_it_is.cuda else "it computes on the CPU, says why",
            expected=as_it_is,
        ),
        Scenario(
            name="planted library",
            shows="nothing is loaded from the current directory",
            expected=as_it_is,
            planted=True,
        ),
        Scenario(
            name="hidden cards",
            shows="CUDA_VISIBLE_DEVICES=-1 leaves the CPU",
            expected=Expected(cuda=False, reason="hides every GPU" if cards else None),
            changes={"CUDA_VISIBLE_DEVICES": "-1"},
        ),
    ]
    if as_it_is.cuda:
        found += [_with_layers(count, as_it_is, None) for count in (0, 1)]
    return tuple(found)


def on_simulated_devices(facts: BuildFacts, capability: str | None) -> tuple[Scenario, ...]:
    """The real CUDA backend on devices that are none, and on every machine that is broken in a known way.

    Without ``capability`` each shard gets a device of its own. The first scenario decides.
    """
    first, *others = (capability,) if capability is not None else facts.own_capabilities()
    if not facts.shard_for((first,)):
        return (_not_covered("simulated device", (first,)),)
    return (
        *(_simulated(facts, (each,), f"simulated {each}") for each in (first, *others)),
        *_with_a_card(facts, first),
        *_without_a_usable_card(facts, first),
    )


def _simulated(facts: BuildFacts, capabilities: tuple[str, ...], name: str, *, fault: str | None = None) -> Scenario:
    return Scenario(
        name=name,
        shows=f"every layer and its cache are on {'CUDA0' if len(capabilities) == 1 else 'CUDA devices'}",
        expected=Expected(cuda=True, on_card=LAYERS, simulated=True, shard=facts.shard_for(capabilities)),
        simulated=SimulatedMachine(capabilities=capabilities, fault=fault),
    )


def _with_a_card(facts: BuildFacts, first: str) -> Iterator[Scenario]:
    card = SimulatedMachine(capabilities=(first,))
    whole = Expected(cuda=True, on_card=LAYERS, simulated=True, shard=facts.shard_for((first,)))
    yield from (_with_layers(count, whole, card) for count in (0, 1))
    yield Scenario(
        name="simulated, planted library",
        shows="nothing is loaded from the current directory",
        expected=whole,
        simulated=card,
        planted=True,
    )
    yield _simulated(facts, (first, first), "two equal cards")
    yield _simulated(facts, (first,), "no virtual memory management", fault="no-vmm")
    yield Scenario(
        name="out of memory",
        shows="a model that is too large for the card ends in an error that says so",
        expected=Expected(cuda=True, error=r"(?s)out of memory.*Failed to load model"),
        simulated=SimulatedMachine(capabilities=(first,), fault="out-of-memory", argument=TOO_SMALL),
    )
    yield Scenario(
        name="kernel fails",
        shows="llama.cpp ends the process with CUDA's own words, it does not hang",
        expected=Expected(cuda=True, error=r"(?s)unspecified launch failure"),
        simulated=SimulatedMachine(capabilities=(first,), fault="launch-failure"),
    )


def _without_a_usable_card(facts: BuildFacts, first: str) -> Iterator[Scenario]:
    older = f"{facts.major - 1}.8"
    faults = (
        ("driver too old", "driver-too-old", f"runs CUDA {older} at most"),
        ("driver without a card", "no-device", "finds no GPU"),
        ("driver does not start", "no-driver", "does not start"),
    )
    for name, fault, reason in faults:
        yield Scenario(
            name=name,
            shows="it computes on the CPU, says why",
            expected=Expected(cuda=False, simulated=True, reason=reason),
            simulated=SimulatedMachine(capabilities=(first,), fault=fault),
        )
    yield Scenario(
        name="simulated, hidden cards",
        shows="CUDA_VISIBLE_DEVICES=-1 leaves the CPU, and the loader says so",
        expected=Expected(cuda=False, simulated=True, reason="CUDA_VISIBLE_DEVICES='-1' hides every GPU"),
        changes={"CUDA_VISIBLE_DEVICES": "-1"},
        simulated=SimulatedMachine(capabilities=(first,)),
    )
    uncovered = facts.uncovered()
    if uncovered is None:
        return
    yield _not_covered("card without code", (uncovered,))
    yield _not_covered("two different cards, one without code", (first, uncovered))


def _not_covered(name: str, capabilities: tuple[str, ...]) -> Scenario:
    return Scenario(
        name=name,
        shows="it computes on the CPU, and names the card and the command that builds for it",
        expected=Expected(cuda=False, simulated=True, reason=rf"has code for .* none that .*{capabilities[-1]}"),
        simulated=SimulatedMachine(capabilities=capabilities),
    )


def _with_layers(count: int, whole: Expected, card: SimulatedMachine | None) -> Scenario:
    return Scenario(
        name=f"n_gpu_layers={count}",
        shows=f"{count} of {LAYERS} layers on the card, as asked",
        expected=Expected(cuda=True, on_card=count, simulated=whole.simulated, shard=whole.shard),
        gpu_layers=count,
        simulated=card,
    )
