"""Write the random weights of models behind their headers: the part of ``synthetic_model`` that runs anywhere.

    python model_data.py RECIPES.json FOLDER [NAME...]

Numpy only, Python 3.9 or later. A recipe names the tensors of a model and the statistics of its types; its header is
the file NAME next to the recipes. Models are written into FOLDER.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 32
"""Each tensor begins at a multiple of this many bytes: GGUF's default."""
SCALE_AT = {"Q2_K": 80, "Q3_K": 108, "Q6_K": 208}
"""The offset of the half-precision scale in a block, in bytes, if it is not at the beginning (ggml-common.h)."""
MINIMUM_AT = {"Q4_1": 2, "Q5_1": 2, "Q2_K": 82, "Q4_K": 2, "Q5_K": 2}
"""The same for types with a second scale, which shifts the weights."""
SCATTERED = "IQ1_M"
"""Stores its scale in the top four bits of its last four 16-bit words."""
POWER_OF_TWO = "MXFP4"
"""Stores its scale as an exponent in its first byte."""
ONE = 128
"""That exponent for the scale 1."""
_SPREAD = (0.5, 1.5)
"""The scales of the blocks differ by these factors, so a kernel that uses another block's scale gives other numbers."""
_SPREAD_SQUARE = (_SPREAD[0] ** 2 + _SPREAD[0] * _SPREAD[1] + _SPREAD[1] ** 2) / 3
"""The mean square of a factor that is distributed evenly between them."""


def main(recipes_file: str, folder: str, *names: str) -> int:
    """Write the named models, or all."""
    recipes = json.loads(Path(recipes_file).read_text(encoding="utf-8"))
    for name in names or recipes:
        target = Path(folder, name)
        shutil.copyfile(Path(recipes_file).with_name(name), target)
        append(target, recipes[name])
    return 0


def append(path: Path, recipe: dict[str, Any]) -> None:
    """Append the data of all tensors to a file that ends with the header: the same recipe gives the same bytes.

    Only one tensor at a time is in memory.
    """
    random = np.random.default_rng(recipe["seed"])
    with path.open("ab") as file:
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        for tensor in recipe["tensors"]:
            file.write(_data(random, **tensor).tobytes())
            file.write(b"\0" * (-file.tell() % ALIGNMENT))


def _data(
    random: np.random.Generator, dimensions: list[int], kind: str, constant: float | None = None, **statistics: Any
) -> NDArray[Any]:
    """The stored form of a tensor: ``constant`` in every place, or random with the deviation ``1 / sqrt(inputs)``."""
    if constant is not None:
        return np.full(dimensions, constant, dtype=np.float32)
    inputs = dimensions[-1]  # a tensor of more dimensions is several matrices
    if statistics:
        return _blocks(random, math.prod(dimensions), inputs, kind, **statistics)
    weights = random.standard_normal(dimensions, dtype=np.float32)
    weights /= np.float32(np.sqrt(inputs))
    return _plain(weights, kind)


def _plain(weights: NDArray[np.float32], kind: str) -> NDArray[Any]:
    if kind == "F32":
        return weights
    if kind == "F16":
        return weights.astype(np.float16)
    bits = weights.view(np.uint32)  # BF16: the upper half, rounded to the nearest even
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def _blocks(
    random: np.random.Generator,
    weights: int,
    inputs: int,
    kind: str,
    *,
    block: int,
    size: int,
    deviation: float,
    shift: float,
) -> NDArray[np.uint8]:
    """Random codes with scales that give the wanted deviation.

    ``deviation`` is that of random codes with the scale 1, ``shift`` the minimum that makes their mean 0.
    """
    blocks = codes(random, weights // block, size)
    wanted = 1 / (np.sqrt(inputs) * deviation)
    if kind == POWER_OF_TWO:
        # Two adjacent exponents, in the proportion that gives the wanted mean square.
        lower = int(np.floor(np.log2(wanted)))
        share = ((wanted / 2.0**lower) ** 2 - 1) / 3
        blocks[:, 0] = ONE + lower + (random.random(len(blocks)) < share)
        return blocks
    scales = random.uniform(*_SPREAD, len(blocks)) * wanted / np.sqrt(_SPREAD_SQUARE)
    if kind not in MINIMUM_AT:
        # Codes from -8 to 7 have a mean, which would dominate every product; real blocks have both signs.
        scales *= random.choice((-1, 1), len(blocks))
    set_scales(blocks, kind, scales, scales * shift)
    return blocks


def codes(random: np.random.Generator, blocks: int, size: int) -> NDArray[np.uint8]:
    """Random codes, one row for each block. Every bit pattern is a valid code in all these types."""
    return random.integers(0, 256, (blocks, size), dtype=np.uint8)


def set_scales(blocks: NDArray[np.uint8], kind: str, scales: NDArray[np.float64], minima: NDArray[np.float64]) -> None:
    """Write a scale and, if the type has one, a minimum into each block."""
    halves = scales.astype("<f2")
    if kind == SCATTERED:
        words = blocks[:, -8:].copy().view("<u2")
        words &= 0x0FFF
        words |= (halves.view("<u2")[:, None] << np.array([12, 8, 4, 0], dtype="<u2")) & 0xF000
        blocks[:, -8:] = words.view(np.uint8)
        return
    places = [(SCALE_AT.get(kind, 0), halves)]
    if kind in MINIMUM_AT:
        places.append((MINIMUM_AT[kind], minima.astype("<f2")))
    for at, values in places:
        blocks[:, at : at + 2] = values.view(np.uint8).reshape(-1, 2)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
