"""The placement of each layer and its KV cache, and the memory on each device, as a log tells them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Iterable

from check_gpu import grammar

_MIB = 1024 * 1024

CACHES = {"KV": "KV cache", "RS": "recurrent state"}
"""The memory of a layer for a text, by the purpose of its buffers; an encoder keeps nothing."""

_ONE_GPU = r"(?:CUDA|ROCm|MUSA|Vulkan|SYCL|CANN|MTL|Metal|Kompute|OpenCL|GPUOpenCL|WebGPU)\d*(?:_(?!Host)\w+)?"
_GPU = re.compile(rf"{_ONE_GPU}|Meta\({_ONE_GPU}(?:,{_ONE_GPU})*\)")
_HOST = re.compile(r"(?:CPU|BLAS|AMX|ACCEL)\w*|\w+_Host")
_INPUT_TENSORS = 8
"""More tensors than that do not belong to the input layer, which is always on the CPU."""


def on_gpu(name: str | None) -> bool:
    """Whether a device or memory of this name is a GPU's, of any backend. ``CUDA_Host`` is memory of the host."""
    return name is not None and _GPU.fullmatch(name) is not None


def on_host(name: str | None) -> bool:
    """Whether a device or memory of this name is the CPU's. Neither is known for others, such as another machine's."""
    return name is not None and _HOST.fullmatch(name) is not None


@dataclass(frozen=True)
class LayerPlacement:
    """The placement of one layer.

    ``weights`` and ``kv_cache`` are ggml device names (``CPU``, ``CUDA0``), or ``None`` if the log does not say. A
    recurrent layer has its state instead of a KV cache, at the same place.
    """

    layer: int
    weights: str | None
    kv_cache: str | None


@dataclass(frozen=True)
class Buffer:
    """A block of memory that llama.cpp allocated.

    ``name`` is the name of its type (``CUDA0``, ``CPU_Mapped``, ``CUDA_Host``), ``purpose`` is ``model``, ``KV``,
    ``RS``, ``compute`` or ``output``, ``size`` is in bytes, as exact as the log: to a hundredth of a mebibyte.
    """

    name: str
    purpose: str
    size: int

    @property
    def on_card(self) -> bool:
        """Whether it is memory of a CUDA device; ``CUDA_Host`` is pinned memory of the host."""
        return re.fullmatch(r"CUDA\d+", self.name) is not None


@dataclass(frozen=True)
class Placements:
    """The placements in a log. If they are empty, the log does not say; it does not mean that all is well.

    ``layers`` is in the order of the layers; the last is the output, which has no KV cache. ``offloaded`` is ``(n, m)``
    from ``offloaded n/m layers to GPU``, which only a build with a GPU backend prints, even if that found no GPU;
    ``repeating`` is the number of those that are not the output. ``without_cache`` are the layers of which the log says
    that they have no cache of their own, as in a model whose layers share one; ``encoder``: it says that the model has
    none at all. ``caches`` is the number of caches that the layers name, ``cache_buffers`` that of their buffers that
    are not empty. ``overridden`` are the tensors that an option of the user, or llama.cpp itself, kept in memory of the
    host, although their layer is on a GPU. ``halves``: where a llama.cpp of 2023 has put the two halves of the cache.
    ``of_2023``: it is of an even earlier one, which printed no total of the layers and had its cache on the CPU.
    """

    layers: tuple[LayerPlacement, ...] = ()
    offloaded: tuple[int, int] | None = None
    buffers: tuple[Buffer, ...] = ()
    without_cache: tuple[int, ...] = ()
    encoder: bool = False
    overridden: int = 0
    halves: tuple[str, ...] = ()
    of_2023: bool = False
    repeating: int | None = None
    caches: int = 0
    cache_buffers: int = 0

    def size(self, purpose: str, *, gpu: bool) -> int:
        """Return the bytes of one purpose in memory of a GPU, or in that of the host."""
        where = on_gpu if gpu else on_host
        return sum(buffer.size for buffer in self.buffers if buffer.purpose == purpose and where(buffer.name))

    def has(self, *purposes: str) -> bool:
        """Whether the log lists a buffer for one of these purposes, anywhere."""
        return any(buffer.purpose in purposes for buffer in self.buffers)


@dataclass
class Collector:
    """Collects the placements of one load from its lines. If a layer is named twice, the later line counts."""

    weights: dict[int, str] = field(default_factory=dict)
    cache: dict[int, str] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)
    in_cache: Counter[int] = field(default_factory=Counter)
    filtered: Counter[int] = field(default_factory=Counter)
    cache_buffers: int = 0
    offloaded: tuple[int, int] | None = None
    buffers: dict[tuple[str, str], int] = field(default_factory=dict)
    encoder: bool = False
    overridden: int = 0
    halves: dict[str, str] = field(default_factory=dict)
    first_layers: int | None = None
    repeating: int | None = None

    def add(self, kind: str, found: re.Match[str]) -> bool:
        """Add a line; ``False`` if its kind says nothing about a place."""
        parts = found.groupdict()
        if kind == "weights":
            self.weights[int(parts["layer"])] = parts["device"]
        elif kind == "cache":
            self.cache[int(parts["layer"])] = parts["device"]
            self.in_cache[int(parts["layer"])] += 1
        elif kind == "filtered":
            self.filtered[int(parts["layer"])] += 1
        elif kind == "no_cache":
            self.left_out.add(int(parts["layer"]))
        elif kind == "offloaded":
            self.offloaded = (int(parts["on_gpu"]), int(parts["total"]))
        elif kind == "encoder":
            self.encoder = True
        elif kind in {"cache_2023", "host_cache_2023"}:
            self.halves[parts["half"]] = "CUDA" if kind == "cache_2023" else "CPU"
        elif kind in {"first_layers", "repeating"}:
            setattr(self, kind, int(parts["count"]))
        elif kind in _MEMORY:
            name, purpose = _MEMORY[kind]
            self._buffer(parts.get("name", name), parts.get("purpose", purpose), float(parts["size"]))
        else:
            return self._override(kind, parts)
        return True

    def _buffer(self, name: str, purpose: str, size: float) -> None:
        before = self.buffers.get((name, purpose), 0)
        self.buffers[name, purpose] = before + round(size * _MIB)
        self.cache_buffers += purpose in CACHES and size > 0

    def _override(self, kind: str, parts: dict[str, str]) -> bool:
        if kind == "overrides":
            self.overridden += 1
        elif kind == "overridden":
            self.overridden += on_host(parts["name"])
        elif kind == "moved":
            many = int(parts["others"]) > _INPUT_TENSORS and not parts["wanted"].startswith("CPU")
            wanted_gpu = on_gpu(parts["wanted"]) and on_host(parts["name"])
            self.overridden += int(parts["others"]) + 1 if many or wanted_gpu else 0
        else:
            return False
        return True

    @property
    def empty(self) -> bool:
        """Whether no line said where anything is."""
        somewhere = self.weights or self.cache or self.buffers or self.offloaded or self.overridden
        return not somewhere and self.first_layers is None

    def placements(self) -> Placements:
        """Return what was collected."""
        layers = tuple(
            LayerPlacement(layer=layer, weights=self.weights.get(layer), kv_cache=self.cache.get(layer))
            for layer in sorted(self.weights.keys() | self.cache.keys())
        )
        # A model with two caches names each layer in both: in one with its device, in the other as filtered.
        caches = max((self.in_cache + self.filtered).values(), default=0)
        left_out = self.left_out | {layer for layer, times in self.filtered.items() if times >= caches}
        return Placements(
            layers=layers,
            offloaded=self.offloaded,
            buffers=tuple(Buffer(name, purpose, size) for (name, purpose), size in self.buffers.items()),
            without_cache=tuple(sorted(left_out - self.cache.keys())),
            encoder=self.encoder,
            overridden=self.overridden,
            halves=tuple(self.halves.values()),
            of_2023=self.first_layers is not None,
            repeating=self.repeating,
            caches=caches,
            cache_buffers=self.cache_buffers,
        )


# The names and purposes of memory whose lines do not give them: those of 2023.
_MEMORY = {
    "buffer": ("", "model"),
    "host_memory": ("CPU", "host"),
    "gpu_memory": ("CUDA", "model"),
    "gpu_cache": ("CUDA", "KV"),
    "state": ("", "RS"),
}


def parse(lines: Iterable[str]) -> Placements:
    """Read the lines of one model load, of all levels including debug."""
    collector = Collector()
    for line in lines:
        for kind, found in grammar.match(line):
            collector.add(kind, found)
    return collector.placements()
