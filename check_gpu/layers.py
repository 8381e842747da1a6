"""Judges where the layers of a loaded model are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

from check_gpu.result import Code, Diagnosis

if TYPE_CHECKING:
    from check_gpu.facts import Load

ALL_LAYERS = "Llama(..., n_gpu_layers=-1)"


def on_card(device: str | None) -> bool:
    """Whether a ggml device is another than the CPU: ``CUDA0``, or that of another kind of backend."""
    return device is not None and not device.startswith("CPU")


def all_on_card(load: Load) -> bool:
    """Whether the log says of every layer that its weights and its KV cache are on a card.

    Older versions of llama.cpp name no layers, only their number.
    """
    placements = load.signs.placements
    if not placements.layers:
        return placements.offloaded is not None and placements.offloaded[0] == placements.offloaded[1] > 0
    return all(
        on_card(layer.weights) and (layer.kv_cache is None or on_card(layer.kv_cache)) for layer in placements.layers
    )


def any_on_card(load: Load) -> bool:
    """Whether at least one layer's weights are on a card."""
    placements = load.signs.placements
    if not placements.layers:
        return placements.offloaded is not None and placements.offloaded[0] > 0
    return any(on_card(layer.weights) for layer in placements.layers)


def not_requested(load: Load) -> Diagnosis | None:
    """A card is in use by the backend, and no layer was to go there: llama-cpp-python's default."""
    offloaded = load.signs.placements.offloaded
    if offloaded is None or offloaded[0] != 0 or any_on_card(load):
        return None
    sentence = (
        f"The build can use a card and none of the {offloaded[1]} layers was to go there: n_gpu_layers is 0, "
        "which is the default of llama-cpp-python."
    )
    return Diagnosis(Code.NO_LAYERS_REQUESTED, sentence, ALL_LAYERS)


def left_on_cpu(load: Load) -> Diagnosis | None:
    """Some layers are on a card, others are not."""
    if not any_on_card(load):
        return None
    placements = load.signs.placements
    left = [layer.layer for layer in placements.layers if not on_card(layer.weights)]
    total = len(placements.layers)
    if not placements.layers and placements.offloaded is not None:
        left, total = list(range(placements.offloaded[1] - placements.offloaded[0])), placements.offloaded[1]
    if not left:
        return None
    which = f" ({ranges(left)})" if placements.layers else ""
    sentence = (
        f"{len(left)} of {total} layers are on the CPU{which} and slow down all others: n_gpu_layers "
        f"was {_asked(load)}fewer than all, by choice or since the memory of the card is too small for more."
    )
    command = f"{ALL_LAYERS}  # if that runs out of memory: a smaller quantisation of the model, or a smaller n_ctx"
    return Diagnosis(Code.LAYERS_LEFT_ON_CPU, sentence, command)


def cache_on_cpu(load: Load) -> Diagnosis | None:
    """All weights are on a card, and the KV cache of some layers is not."""
    layers = load.signs.placements.layers
    if not layers or not all(on_card(layer.weights) for layer in layers):
        return None
    left = [layer.layer for layer in layers if layer.kv_cache is not None and not on_card(layer.kv_cache)]
    if not left:
        return None
    sentence = f"All weights are on a card, and the KV cache of {len(left)} layers ({ranges(left)}) is on the CPU."
    return Diagnosis(Code.KV_CACHE_ON_CPU, sentence, "Llama(..., offload_kqv=True)")


def where(load: Load) -> str:
    """The devices that layers are on, with the names of the cards: ``CUDA0 (NVIDIA GeForce RTX 4090)``."""
    names = dict(load.signs.in_use)
    used = dict.fromkeys(layer.weights for layer in load.signs.placements.layers if layer.weights is not None)
    return ", ".join(f"{device} ({names[device]})" if device in names else device for device in used or names) or "GPU"


def ranges(numbers: Iterable[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3 and 7."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _asked(load: Load) -> str:
    return f"{load.n_gpu_layers}, " if load.n_gpu_layers is not None else ""
