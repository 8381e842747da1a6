"""Reads the placement of each layer and its KV cache, and the memory on each device, from llama.cpp's log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable

# No pattern contains the name before the colon: it has changed between versions of llama.cpp.
_WEIGHTS = re.compile(r"\blayer\s+(\d+)\s+assigned to device\s+([^\s,]+)")
_KV_CACHE = re.compile(r"\blayer\s+(\d+):\s+dev\s*=\s*([^\s,]+)")
_OFFLOADED = re.compile(r"\boffloaded\s+(\d+)/(\d+)\s+layers to GPU\b")
_NO_OWN_CACHE = re.compile(
    r"\blayer\s+(\d+):\s+(?:does not have KV cache|filtered|skipped|sharing with layer|reuse layer)\b"
)
_BUFFER = re.compile(r"(\S+)\s+(model|KV|compute|output|RS) buffer size\s*=\s*([\d.]+) MiB")
_MIB = 1024 * 1024

CACHES = {"KV": "KV cache", "RS": "recurrent state"}
"""What a layer keeps of a text, by the purpose of its buffers; an encoder keeps nothing."""


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
    from ``offloaded n/m layers to GPU``, which only a build with a GPU backend in use prints. ``without_cache`` are the
    layers of which the log says that they have no cache of their own, as in a model whose layers share one.
    """

    layers: tuple[LayerPlacement, ...] = ()
    offloaded: tuple[int, int] | None = None
    buffers: tuple[Buffer, ...] = ()
    without_cache: tuple[int, ...] = ()


def parse(lines: Iterable[str]) -> Placements:
    """Read the lines of one model load, of all levels including debug.

    If a layer is named twice, the later line counts: llama.cpp acted on that one.
    """
    weights: dict[int, str] = {}
    kv_cache: dict[int, str] = {}
    left_out: set[int] = set()
    offloaded = None
    buffers = []
    for line in lines:
        if match := _WEIGHTS.search(line):
            weights[int(match[1])] = match[2]
        elif match := _KV_CACHE.search(line):
            kv_cache[int(match[1])] = match[2]
        elif match := _NO_OWN_CACHE.search(line):
            left_out.add(int(match[1]))
        elif match := _OFFLOADED.search(line):
            offloaded = (int(match[1]), int(match[2]))
        elif match := _BUFFER.search(line):
            buffers.append(Buffer(name=match[1], purpose=match[2], size=round(float(match[3]) * _MIB)))
    layers = tuple(
        LayerPlacement(layer=layer, weights=weights.get(layer), kv_cache=kv_cache.get(layer))
        for layer in sorted(weights.keys() | kv_cache.keys())
    )
    return Placements(
        layers=layers,
        offloaded=offloaded,
        buffers=tuple(buffers),
        # A model with two caches names each layer in both: in one with its device, in the other as filtered.
        without_cache=tuple(sorted(left_out - kv_cache.keys())),
    )
