"""Reads from llama.cpp's log where each layer and its part of the KV cache are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.model import LayerPlacement

if TYPE_CHECKING:
    from collections.abc import Iterable

# Nothing is anchored on the name before the colon: it has changed between versions of llama.cpp.
_WEIGHTS = re.compile(r"\blayer\s+(\d+)\s+assigned to device\s+([^\s,]+)")
_KV_CACHE = re.compile(r"\blayer\s+(\d+):\s+dev\s*=\s*([^\s,]+)")
_OFFLOADED = re.compile(r"\boffloaded\s+(\d+)/(\d+)\s+layers to GPU\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placements:
    """What the log says. Nothing at all means that the log does not say it, not that all is well.

    ``layers`` is in the order of the layers; the last has no KV cache, it is the output. ``offloaded`` is ``(n, m)``
    from ``offloaded n/m layers to GPU``, which only a build with a GPU backend in use prints.
    """

    layers: tuple[LayerPlacement, ...] = ()
    offloaded: tuple[int, int] | None = None


def parse(lines: Iterable[str]) -> Placements:
    """Read the lines of one model load, all levels, debug included.

    Where a layer is named twice, the later line counts: it is the one that was acted on.
    """
    weights: dict[int, str] = {}
    kv_cache: dict[int, str] = {}
    offloaded = None
    for line in lines:
        if match := _WEIGHTS.search(line):
            weights[int(match[1])] = match[2]
        elif match := _KV_CACHE.search(line):
            kv_cache[int(match[1])] = match[2]
        elif match := _OFFLOADED.search(line):
            offloaded = (int(match[1]), int(match[2]))
    layers = tuple(
        LayerPlacement(layer=layer, weights=weights.get(layer), kv_cache=kv_cache.get(layer))
        for layer in sorted(weights.keys() | kv_cache.keys())
    )
    return Placements(layers=layers, offloaded=offloaded)
