"""Scenarios of machines with several GPUs: a shard uses those that it has code for, and leaves out the others."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from build_config.steps.validation import scenarios
from build_config.testbed import simulated_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.formats.build_facts import BuildFacts
    from build_config.steps.validation.scenarios import Scenario

SPLIT_NONE = 0
"""``LLAMA_SPLIT_MODE_NONE``: the whole model on ``main_gpu``."""


def on_simulated_machines(facts: BuildFacts, capability: str | None) -> Iterator[Scenario]:
    """Machines with GPUs that one shard covers, and with others next to them.

    ``capability`` is that of the first GPU; by default the first that the wheel has code for.
    """
    own = scenarios.own_capabilities(facts)
    first = capability or own[0]
    found = scenarios.reach(facts, (first,))
    if found is None:
        return
    if len(own) > 1:
        yield scenarios.simulated(facts, own, "GPUs of every architecture of the wheel")
    shard = next(shard for shard in facts.shards if shard.name == found.shard)
    others = (each for each in scenarios.TRIED_CAPABILITIES if not scenarios.fits(shard, each))
    if (other := next(others, None)) is None:  # PTX, which every GPU runs
        return
    yield scenarios.simulated(facts, (first, other), "two different GPUs")
    yield scenarios.simulated(facts, (other, first), "two different GPUs, the other order")
    three = scenarios.simulated(facts, (first, other, first), "three GPUs of two kinds")
    # Equal GPUs then reach each other's memory: the copies between them name both.
    yield dataclasses.replace(three, changes={"GGML_CUDA_P2P": "1"})
    yield _on_the_second(
        facts, (other, first, first), "main_gpu counts the GPUs in use", main_gpu=1, split_mode=SPLIT_NONE
    )
    yield _on_the_second(
        facts, (other, first, first), "tensor_split counts the GPUs in use", fault="no-vmm", tensor_split=[0.0, 1.0]
    )
    named = scenarios.simulated(facts, (first,), "a GPU named by its UUID")
    machine = simulated_device.SimulatedMachine(capabilities=(other, first))
    yield dataclasses.replace(named, changes={"CUDA_VISIBLE_DEVICES": simulated_device.uuid(1)}, simulated=machine)


def _on_the_second(
    facts: BuildFacts,
    capabilities: tuple[str, ...],
    name: str,
    *,
    fault: str | None = None,
    **options: int | list[float],
) -> Scenario:
    """Everything on the second of the GPUs that the shard uses."""
    whole = scenarios.simulated(facts, capabilities, name, fault=fault)
    used = whole.expected.used or ()
    return dataclasses.replace(
        whole,
        shows="every layer and its cache are on the second GPU that the shard has code for",
        expected=dataclasses.replace(whole.expected, used=used[1:2]),
        options=options,
    )
