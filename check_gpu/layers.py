"""Judges the placement of a loaded model's layers.

A GPU is used only if the log shows it for the weights and for the cache, and nothing in it contradicts that.
``offloaded 33/33 layers to GPU`` alone is llama.cpp's plan. It counts if the log lists no memory at all, as an excerpt.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Iterable

from check_gpu import grammar, quotation
from check_gpu.log import A_CPU
from check_gpu.log_file import TAIL
from check_gpu.placement import CACHES, Placements, on_gpu, on_host
from check_gpu.result import Code, Diagnosis

if TYPE_CHECKING:
    from check_gpu.facts import Load

REMEDY_ALL_LAYERS = "Llama(..., n_gpu_layers=-1)"
REMEDY_EXAMINE = "python check_gpu.pyz --python PYTHON  # on the machine of the log, which alone shows no more"
REMEDY_REPORT = "report it with the output of --json"

_SOFTWARE = re.compile(
    rf"{A_CPU}|llvmpipe|lavapipe|softpipe|SwiftShader|Basic Render|\bpocl\b|\bLLVM \d+\.\d", re.IGNORECASE
)
"""Renderers that compute on the CPU and call themselves a device of Vulkan or OpenCL."""


def all_on_gpu(load: Load) -> bool:
    """Whether the log shows that the weights of every layer are on a GPU, and its cache, if it has one."""
    return _gap(load) is None and not _software(load) and not on_host(load.signs.image_encoder)


def problem(load: Load) -> Diagnosis | None:
    """Say what is not on a GPU; ``None`` if the log claims nothing about a GPU, or shows that all is there."""
    found = (
        check(load)
        for check in (_renderer, not_requested, left_on_cpu, _overridden, cache_on_cpu, _unclear, _image_encoder)
    )
    return next((diagnosis for diagnosis in found if diagnosis is not None), None)


def any_on_gpu(load: Load) -> bool:
    """Whether at least one layer's weights are on a GPU."""
    placements = load.signs.placements
    if not placements.layers:
        return placements.offloaded is not None and placements.offloaded[0] > 0
    return any(on_gpu(layer.weights) for layer in placements.layers)


def none_on_gpu(load: Load) -> bool:
    """Whether the log shows that all weights are in memory of the host."""
    placements = load.signs.placements
    weights = [layer.weights for layer in placements.layers if layer.weights is not None]
    in_host = placements.has("model", "host") and not placements.size("model", gpu=True)
    return all(map(on_host, weights)) if weights else in_host


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
    left = [layer.layer for layer in placements.layers if on_host(layer.weights)]
    total = len(placements.layers)
    if not left and placements.offloaded is not None:
        left, total = list(range(placements.offloaded[1] - placements.offloaded[0])), placements.offloaded[1]
        which = ""
    else:
        which = f" ({ranges(left)})"
    if not left:
        return None
    sentence = (
        f"{len(left)} of {total} layers are on the CPU{which} and slow down all others: n_gpu_layers "
        f"was {_requested(load)}fewer than all, by choice or because the memory of the GPU is too small for more."
    )
    command = f"{REMEDY_ALL_LAYERS}  # if that runs out of memory: a smaller quantisation, or a smaller n_ctx"
    return Diagnosis(Code.LAYERS_LEFT_ON_CPU, sentence, command)


def cache_on_cpu(load: Load) -> Diagnosis | None:
    """All weights are on a GPU, but the cache of some layers is not."""
    placements = load.signs.placements
    if not any_on_gpu(load) or (placements.has("model") and not placements.size("model", gpu=True)):
        return None
    left = [layer.layer for layer in placements.layers if on_host(layer.kv_cache)]
    kept = cache(load) or CACHES["KV"]
    size = sum(placements.size(purpose, gpu=False) for purpose in CACHES)
    if left:
        what = f"the {kept} of {len(left)} layers ({ranges(left)})"
    elif size:
        what = f"{size / 2**20:.2f} MiB of the {kept}"
    elif "CPU" in placements.halves:
        what = f"the {kept}"
    else:
        return None
    sentence = f"All weights are on a GPU, but {what} is on the CPU."
    return Diagnosis(Code.KV_CACHE_ON_CPU, sentence, "Llama(..., offload_kqv=True)")


def _renderer(load: Load) -> Diagnosis | None:
    names = _software(load)
    if not names:
        return None
    sentence = f"The layers are on {names}, a renderer that computes on the CPU and not on a GPU."
    command = "install the driver of the GPU with Vulkan or OpenCL, or a build with CUDA"
    return Diagnosis(Code.SOFTWARE_DEVICE, f"{sentence}", f"{command}  # GGML_VK_VISIBLE_DEVICES chooses the device")


def _software(load: Load) -> str:
    """Name the devices of the load that are no GPUs."""
    names = dict(load.signs.in_use)
    used = _devices(load.signs.placements) or [*names]
    return ", ".join(f"{device} ({names[device]})" for device in used if _SOFTWARE.search(names.get(device, "")))


def _overridden(load: Load) -> Diagnosis | None:
    placements = load.signs.placements
    if not placements.overridden or not any_on_gpu(load):
        return None
    number = "some" if placements.overridden == 1 else str(placements.overridden)
    sentence = f"The layers are on a GPU, but {number} of their tensors were kept in memory of the host."
    command = "leave out --override-tensor, --cpu-moe and --n-cpu-moe  # if the memory of the GPU is large enough"
    return Diagnosis(Code.LAYERS_LEFT_ON_CPU, sentence, command)


def _image_encoder(load: Load) -> Diagnosis | None:
    if not on_host(load.signs.image_encoder) or not any_on_gpu(load):
        return None
    sentence = f"The layers are on {where(load)}, but the part for images and sound (CLIP) is on the CPU, and slow."
    command = (
        "leave out --no-mmproj-offload, or install a newer build: those of late 2024 had no GPU code for this part"
    )
    return Diagnosis(Code.LAYERS_LEFT_ON_CPU, sentence, command)


def _unclear(load: Load) -> Diagnosis | None:
    """The log claims that a GPU was used, but does not show it."""
    placements = load.signs.placements
    claims = any_on_gpu(load) or placements.of_2023 or placements.size("model", gpu=True) > 0
    gap = _gap(load)
    if not claims or gap is None:
        return None
    command = REMEDY_EXAMINE if load.stage == "log" else REMEDY_REPORT
    return Diagnosis(Code.UNKNOWN, f"It is not known whether a GPU ran the model: {gap}.", command)


# ------------------------------------------------------------------------------------------------------------ evidence


def _gap(load: Load) -> str | None:
    """Say what is missing before a GPU is known to be used; ``None`` if nothing is."""
    if load.signs.no_gpu_code:
        return "the log names a GPU, but also says that the build has no code for one"
    if load.signs.cuda_built_in is False and is_excerpt(load) and not load.signs.device_names:
        return "the log names no GPU, and its features do not name CUDA"
    if is_excerpt(load) and not load.signs.placements.size("compute", gpu=True) and not _only_llama(load):
        return "llama.cpp planned a GPU, but the log lists no memory, and more than llama.cpp wrote it"
    if load.signs.quoted and load.signs.earlier:
        return "the lines about a GPU follow the words of a person, who may have shown another log"
    if load.signs.doubtful and not load.signs.placements.size("model", gpu=True):
        return "llama.cpp planned a GPU, but other lines of the log speak of the CPU or of a backend that did not start"
    return _weights_gap(load.signs.placements) or _cache_gap(load)


def _weights_gap(placements: Placements) -> str | None:
    """Say what is missing before all weights are known to be on a GPU; ``None`` if nothing is."""
    on_card, in_host = placements.size("model", gpu=True), placements.size("model", gpu=False)
    offloaded = placements.offloaded
    everything = offloaded is not None and offloaded[0] >= offloaded[1] > 0
    claim = f"llama.cpp says that {offloaded[0]} of {offloaded[1]} layers are on the GPU, but " if offloaded else ""
    named = any(layer.weights is not None for layer in placements.layers)
    used = f"{on_card / 2**20:.0f} MiB are on the GPU, but " if on_card else ""
    named_devices = f"layers are on {', '.join(_devices(placements))}, but " if named else ""
    gaps = (
        (placements.of_2023, f"{used}the form of the log is too old to say where all layers and the KV cache are"),
        (
            (placements.has("model", "host") or placements.halves) and not on_card,
            f"{claim}all memory with weights is the host's ({in_host / 2**20:.2f} MiB)",
        ),
        (
            placements.has("compute") and not placements.size("compute", gpu=True),
            f"{claim}all memory for computing is the host's",
        ),
        (placements.overridden or (offloaded is not None and not everything), "not all weights are on a GPU"),
        (not everything, f"{named_devices}the log does not say how many of the layers are on the GPU"),
        (placements.has(*CACHES) and not on_card, "the log does not show the memory of the weights"),
        (_repeating_missing(placements), "llama.cpp says that it did not offload all repeating layers"),
        # Without the layers, nothing else shows what is in memory of the host.
        (0 < on_card < (in_host if named else 2 * in_host), "a large part of the weights is in memory of the host"),
    )
    first = next((said for is_missing, said in gaps if is_missing), None)
    return first or (_unnamed(placements) if named else None)


def _repeating_missing(placements: Placements) -> bool:
    """The total counts the output and, in 2023, the two halves of the cache; since 2026 it is counted before them."""
    if placements.repeating is None or placements.offloaded is None:
        return False
    return placements.repeating < placements.offloaded[1] - (3 if placements.halves else 2)


def _unnamed(placements: Placements) -> str | None:
    elsewhere = {layer.weights for layer in placements.layers if layer.weights and not on_gpu(layer.weights)}
    if elsewhere:
        return f"layers are on {', '.join(sorted(elsewhere))}"
    numbers = [layer.layer for layer in placements.layers if layer.weights is not None]
    total = placements.offloaded[1] if placements.offloaded else 0
    devices = ", ".join(_devices(placements))
    return None if numbers == list(range(total)) else f"layers are on {devices}, but the log does not name every layer"


def _cache_gap(load: Load) -> str | None:
    """Say what is missing before the cache of all layers is known to be on a GPU; ``None`` if nothing is."""
    placements = load.signs.placements
    in_host = sum(placements.size(purpose, gpu=False) for purpose in CACHES)
    kept = [layer for layer in placements.layers if layer.kv_cache is not None]
    if in_host or "CPU" in placements.halves or not all(on_gpu(layer.kv_cache) for layer in kept):
        return "not all of the cache is on a GPU"
    if kept:
        without = {*placements.without_cache, placements.layers[-1].layer}
        silent = [each.layer for each in placements.layers if each.kv_cache is None and each.layer not in without]
        if silent or (placements.has(*CACHES) and placements.cache_buffers < placements.caches):
            return f"the log does not say where the cache of {f'the layers {ranges(silent)}' if silent else 'all'} is"
    on_card = sum(placements.size(purpose, gpu=True) for purpose in CACHES)
    if on_card or placements.encoder or load.embedding or len(placements.halves) == len("kv"):
        return None
    return None if is_excerpt(load) else "the log does not say where the KV cache is"


def _only_llama(load: Load) -> bool:
    """Whether the log contains nothing else than lines of llama.cpp, as far as it is kept."""
    return len(load.log) < TAIL and all(quotation.own(line) or grammar.match(line) for line in load.log)


def is_excerpt(load: Load) -> bool:
    """Whether the log says how many layers were offloaded, but lists no memory of weights or caches at all."""
    placements = load.signs.placements
    return placements.offloaded is not None and not placements.has("model", *CACHES) and not placements.halves


def _devices(placements: Placements) -> list[str]:
    """The devices of the weights: as the layers name them, or else as the memory does."""
    named = [layer.weights for layer in placements.layers if layer.weights is not None]
    memory = [
        [buffer.name for buffer in placements.buffers if buffer.purpose == purpose and on_gpu(buffer.name)]
        for purpose in ("model", "compute")
    ]
    return [*dict.fromkeys(named or memory[0] or memory[1])]


# -------------------------------------------------------------------------------------------------------------- words


def cache(load: Load) -> str | None:
    """Name what the layers keep of a text; ``None`` for a model that keeps nothing, such as an encoder."""
    placements = load.signs.placements
    kept = [name for purpose, name in CACHES.items() if placements.has(purpose)]
    if kept or not placements.layers:  # without the layers, the log of an older llama.cpp
        return None if placements.encoder and not kept else " and ".join(kept) or CACHES["KV"]
    return CACHES["KV"] if any(layer.kv_cache is not None for layer in placements.layers) else None


def whole(load: Load) -> str:
    """Say ``all layers``, with their cache, if they have one."""
    kept = cache(load)
    return f"all layers and their {kept}" if kept else "all layers"


def where(load: Load) -> str:
    """Name the devices of the layers, with their GPUs: ``CUDA0 (NVIDIA GeForce RTX 4090)``."""
    names = dict(load.signs.in_use)
    used = _devices(load.signs.placements) or names
    return ", ".join(f"{device} ({names[device]})" if device in names else device for device in used) or "GPU"


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
