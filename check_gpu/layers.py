"""Judges the placement of a loaded model's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

from check_gpu.placement import CACHES
from check_gpu.result import Code, Diagnosis

if TYPE_CHECKING:
    from check_gpu.facts import Load

REMEDY_ALL_LAYERS = "Llama(..., n_gpu_layers=-1)"


def on_gpu(device: str | None) -> bool:
    """Whether a ggml device is not the CPU: ``CUDA0``, or a device of another kind of backend."""
    return device is not None and not device.startswith("CPU")


def all_on_gpu(load: Load) -> bool:
    """Whether the log places the weights of every layer on a GPU, and its cache, if it has one.

    Older versions of llama.cpp log only the number of layers.
    """
    placements = load.signs.placements
    if not placements.layers:
        return placements.offloaded is not None and placements.offloaded[0] == placements.offloaded[1] > 0
    return all(
        on_gpu(layer.weights) and (layer.kv_cache is None or on_gpu(layer.kv_cache)) for layer in placements.layers
    )


def any_on_gpu(load: Load) -> bool:
    """Whether at least one layer's weights are on a GPU."""
    placements = load.signs.placements
    if not placements.layers:
        return placements.offloaded is not None and placements.offloaded[0] > 0
    return any(on_gpu(layer.weights) for layer in placements.layers)


def not_requested(load: Load) -> Diagnosis | None:
    """The backend uses a GPU, but no layer was requested there: llama-cpp-python's default."""
    offloaded = load.signs.placements.offloaded
    if offloaded is None or offloaded[0] != 0 or any_on_gpu(load):
        return None
    sentence = (
        f"The build can use a GPU, but none of the {offloaded[1]} layers was requested there: n_gpu_layers is 0, "
        "the default of llama-cpp-python."
    )
    return Diagnosis(Code.NO_LAYERS_REQUESTED, sentence, REMEDY_ALL_LAYERS)


def left_on_cpu(load: Load) -> Diagnosis | None:
    """Some layers are on a GPU, others are not."""
    if not any_on_gpu(load):
        return None
    placements = load.signs.placements
    left = [layer.layer for layer in placements.layers if not on_gpu(layer.weights)]
    total = len(placements.layers)
    if not placements.layers and placements.offloaded is not None:
        left, total = list(range(placements.offloaded[1] - placements.offloaded[0])), placements.offloaded[1]
    if not left:
        return None
    which = f" ({ranges(left)})" if placements.layers else ""
    sentence = (
        f"{len(left)} of {total} layers are on the CPU{which} and slow down all others: n_gpu_layers "
        f"was {_requested(load)}fewer than all, by choice or because the memory of the GPU is too small for more."
    )
    command = f"{REMEDY_ALL_LAYERS}  # if that runs out of memory: a smaller quantisation, or a smaller n_ctx"
    return Diagnosis(Code.LAYERS_LEFT_ON_CPU, sentence, command)


def cache_on_cpu(load: Load) -> Diagnosis | None:
    """All weights are on a GPU, but the cache of some layers is not."""
    layers = load.signs.placements.layers
    if not layers or not all(on_gpu(layer.weights) for layer in layers):
        return None
    left = [layer.layer for layer in layers if layer.kv_cache is not None and not on_gpu(layer.kv_cache)]
    if not left:
        return None
    what = cache(load) or CACHES["KV"]
    sentence = f"All weights are on a GPU, but the {what} of {len(left)} layers ({ranges(left)}) is on the CPU."
    return Diagnosis(Code.KV_CACHE_ON_CPU, sentence, "Llama(..., offload_kqv=True)")


def cache(load: Load) -> str | None:
    """Name what the layers keep of a text; ``None`` for a model that keeps nothing, such as an encoder."""
    placements = load.signs.placements
    purposes = {buffer.purpose for buffer in placements.buffers}
    kept = [name for purpose, name in CACHES.items() if purpose in purposes]
    if kept or not placements.layers:  # without the layers, the log of an older llama.cpp
        return " and ".join(kept) or CACHES["KV"]
    return CACHES["KV"] if any(layer.kv_cache is not None for layer in placements.layers) else None


def whole(load: Load) -> str:
    """Say ``all layers``, with their cache, if they have one."""
    kept = cache(load)
    return f"all layers and their {kept}" if kept else "all layers"


def where(load: Load) -> str:
    """Name the devices of the layers, with their GPUs: ``CUDA0 (NVIDIA GeForce RTX 4090)``."""
    names = dict(load.signs.in_use)
    used = dict.fromkeys(layer.weights for layer in load.signs.placements.layers if layer.weights is not None)
    return ", ".join(f"{device} ({names[device]})" if device in names else device for device in used or names) or "GPU"


def ranges(numbers: Iterable[int]) -> str:
    """Return ``0-3, 7`` for 0, 1, 2, 3 and 7."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _requested(load: Load) -> str:
    return f"{load.n_gpu_layers}, " if load.n_gpu_layers is not None else ""
