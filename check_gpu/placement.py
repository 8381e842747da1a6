"""Reads from llama.cpp's log where each layer and its KV cache are, and how much memory each device holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable

# Nothing is anchored on the name before the colon: it has changed between versions of llama.cpp.
_WEIGHTS = re.compile(r"\blayer\s+(\d+)\s+assigned to device\s+([^\s,]+)")
_KV_CACHE = re.compile(r"\blayer\s+(\d+):\s+dev\s*=\s*([^\s,]+)")
_OFFLOADED = re.compile(r"\boffloaded\s+(\d+)/(\d+)\s+layers to GPU\b")
_BUFFER = re.compile(r"(\S+)\s+(model|KV|compute|output|RS) buffer size\s*=\s*([\d.]+) MiB")
_MIB = 1024 * 1024


@dataclass(frozen=True)
class LayerPlacement:
    """Where one layer is.

    ``weights`` and ``kv_cache`` are ggml device names (``CPU``, ``CUDA0``), or ``None`` where the log did not say.
    """

    layer: int
    weights: str | None
    kv_cache: str | None


@dataclass(frozen=True)
class Buffer:
    """A block of memory that llama.cpp took.

    ``name`` is that of its type (``CUDA0``, ``CPU_Mapped``, ``CUDA_Host``), ``purpose`` is ``model``, ``KV``, ``RS``,
    ``compute`` or ``output``, ``size`` is in bytes, as exact as the log: to a hundredth of a mebibyte.
    """

    name: str
    purpose: str
    size: int

    @property
    def on_card(self) -> bool:
        """Whether it is memory of a CUDA device; ``CUDA_Host`` is the machine's own, pinned."""
        return re.fullmatch(r"CUDA\d+", self.name) is not None


@dataclass(frozen=True)
class Placements:
    """What the log says. Nothing at all means that the log does not say it, not that all is well.

    ``layers`` is in the order of the layers; the last has no KV cache, it is the output. ``offloaded`` is ``(n, m)``
    from ``offloaded n/m layers to GPU``, which only a build with a GPU backend in use prints.
    """

    layers: tuple[LayerPlacement, ...] = ()
    offloaded: tuple[int, int] | None = None
    buffers: tuple[Buffer, ...] = ()


def parse(lines: Iterable[str]) -> Placements:
    """Read the lines of one model load, all levels, debug included.

    Where a layer is named twice, the later line counts: it is the one that was acted on.
    """
    weights: dict[int, str] = {}
    kv_cache: dict[int, str] = {}
    offloaded = None
    buffers = []
    for line in lines:
        if match := _WEIGHTS.search(line):
            weights[int(match[1])] = match[2]
        elif match := _KV_CACHE.search(line):
            kv_cache[int(match[1])] = match[2]
        elif match := _OFFLOADED.search(line):
            offloaded = (int(match[1]), int(match[2]))
        elif match := _BUFFER.search(line):
            buffers.append(Buffer(name=match[1], purpose=match[2], size=round(float(match[3]) * _MIB)))
    layers = tuple(
        LayerPlacement(layer=layer, weights=weights.get(layer), kv_cache=kv_cache.get(layer))
        for layer in sorted(weights.keys() | kv_cache.keys())
    )
    return Placements(layers=layers, offloaded=offloaded, buffers=tuple(buffers))
