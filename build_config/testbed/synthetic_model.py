"""Language models with random weights, of any family, size and weight type. They generate noise.

They run the same code as a trained model of their shape and type, and are written in seconds without a download.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from build_config.errors import SettingsError
from build_config.testbed.model_families import LLAMA, STATE, TOKEN_TYPES

if TYPE_CHECKING:
    from pathlib import Path

    import gguf
    from numpy.typing import NDArray

    from build_config.testbed.model_families import ModelFamily

_BYTES = 256
_CONTROLS = ("<unk>", "<s>", "</s>")
_WORDS = ("the", "a", "card", "layer", "runs", "on", "and", "cat", "dog", "sun", "sea", "sky", "red", "blue", "tree")
_SPACE = "\u2581"
"""How SentencePiece writes a space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The shape of a model.

    ``layers`` counts the repeating layers: llama.cpp counts the output as one more, so ``layers + 1`` are placed on
    devices. ``width`` and ``feed_forward`` are counts of weights in a row of a matrix, ``context`` and ``vocabulary``
    of tokens. Several of ``heads`` share one of ``kv_heads``.
    """

    name: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    context: int
    vocabulary: int

    @property
    def head_size(self) -> int:
        """Weights in a row of one head."""
        return self.width // self.heads

    @property
    def weights(self) -> int:
        """The number of weights in a llama model."""
        return sum(math.prod(dimensions) for _, dimensions in LLAMA.tensors(self.sizes))

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that a family names. Those of a recurrent layer follow from the width as in Mamba's own models."""
        inner, time_steps = 2 * self.width, self.width // 16
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "name"}
        return {
            **own,
            "head_size": self.head_size,
            "kv_width": self.head_size * self.kv_heads,
            "inner": inner,
            "inner_twice": 2 * inner,
            "time_steps": time_steps,
            "time_steps_and_states": time_steps + 2 * STATE,
        }


TINY = ModelShape(
    name="tiny",
    layers=2,
    width=64,
    feed_forward=192,
    heads=4,
    kv_heads=4,
    context=512,
    vocabulary=len(_CONTROLS) + _BYTES + len(_WORDS),
)
"""For checking where the layers run: loads in milliseconds. Too narrow for types with 256 weights in a block."""
SMALL = ModelShape(
    name="small",
    layers=4,
    width=512,
    feed_forward=1024,
    heads=8,
    kv_heads=2,
    context=2048,
    vocabulary=1024,
)
"""For comparing numbers: fits every type, and its heads have a size that the flash attention kernels support."""
ONE_B = ModelShape(
    name="1b",
    layers=22,
    width=2048,
    feed_forward=5632,
    heads=32,
    kv_heads=4,
    context=2048,
    vocabulary=32000,
)
"""For measuring speed: TinyLlama's shape, 1.1 billion weights."""
SHAPES = {shape.name: shape for shape in (TINY, SMALL, ONE_B)}

_PLAIN = ("F32", "F16", "BF16")
_BLOCKS = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
)
"""The types whose blocks contain a half-precision scale as such."""
_SCALE_AT = {"Q2_K": 80, "Q3_K": 108, "Q6_K": 208}
"""The offset of that scale in a block, in bytes, if it is not at the beginning (ggml-common.h)."""
_MINIMUM_AT = {"Q4_1": 2, "Q5_1": 2, "Q2_K": 82, "Q4_K": 2, "Q5_K": 2}
"""The same for types with a second scale, which shifts the weights."""
_SCATTERED = "IQ1_M"
"""Stores its scale in the top four bits of its last four 16-bit words."""
_POWER_OF_TWO = "MXFP4"
"""Stores its scale as an exponent in its first byte."""
_ONE = 128
"""That exponent for the scale 1."""
_MIXES = {"Q4_K_M": ("Q4_K", "Q6_K")}
"""Two types under the name that users know: most tensors have the first, the more important ones the second."""
KINDS = (*_PLAIN, *_BLOCKS, _SCATTERED, _POWER_OF_TWO, *_MIXES)
"""Every type of weights that upstream's CUDA backend supports, and the mix that most people download."""

_SPREAD = (0.5, 1.5)
"""The scales of the blocks differ by these factors, so a kernel that uses another block's scale gives other numbers."""
_SPREAD_SQUARE = (_SPREAD[0] ** 2 + _SPREAD[0] * _SPREAD[1] + _SPREAD[1] ** 2) / 3
"""The mean square of a factor that is distributed evenly between them."""
_SAMPLE = 2048
"""The number of blocks from which the spread of a type's codes is measured."""
_CONSTANTS = {"norm.weight": 1, ".bias": 0, ".ssm_a": -1, ".ssm_d": 1}
"""Tensors with one value in every place, by the end of their names: they keep the size of numbers, and a recurrent
state must fade."""
_ALWAYS_F32 = (
    *(*_CONSTANTS, "ssm_conv1d.weight", "ssm_dt.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"),
    *("position_embd.weight", "token_types.weight"),
)
"""llama.cpp's own quantisation leaves these alone, too, or their rows are shorter than a block."""


def write(
    path: Path, shape: ModelShape = TINY, *, family: ModelFamily = LLAMA, kind: str = "F32", seed: int = 0
) -> Path:
    """Write a model as GGUF and return ``path``; the same arguments give the same bytes.

    The weights are random with the deviation ``1 / sqrt(inputs)``, so numbers keep their size from layer to layer. For
    types that store blocks, the codes are random and the scales are chosen for that deviation. Norms are float32. The
    vocabulary is SentencePiece's: three control tokens, all bytes (so any text has tokens), words. Only one tensor at
    a time is in memory, and only a finished file has the name ``path``.

    Raises ``SettingsError`` for a ``kind`` that is not in ``KINDS`` or whose blocks do not fit the rows of ``shape``.
    """
    import gguf  # noqa: PLC0415  # takes half a second to import, and few steps need it

    check(shape, kind, family)
    partial = path.with_name(f"{path.name}.partial")
    writer = gguf.GGUFWriter(partial, family.architecture)
    _describe(writer, shape, family)
    tensors = tuple(family.tensors(shape.sizes))
    for name, dimensions in tensors:
        of, block, size = _type(_kind_of(name, shape, kind))
        length = math.prod(dimensions) // block * size
        writer.add_tensor_info(name, dimensions, np.dtype(np.float32), length, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(seed)
    for name, dimensions in tensors:
        constant = next((value for ending, value in _CONSTANTS.items() if name.endswith(ending)), None)
        if constant is not None:
            writer.write_tensor_data(np.full(dimensions, constant, dtype=np.float32))
        else:
            inputs = dimensions[-1]
            outputs = math.prod(dimensions) // inputs
            writer.write_tensor_data(_matrix(random, outputs, inputs, _kind_of(name, shape, kind)))
    writer.close()
    return partial.replace(path)


def check(shape: ModelShape, kind: str, family: ModelFamily = LLAMA) -> None:
    """Raise ``SettingsError`` if ``kind`` is not in ``KINDS`` or its blocks do not fit the rows of ``shape``."""
    if kind not in KINDS:
        raise SettingsError(f"{kind!r} is not a type of weights", remedy=f"pass one of {', '.join(KINDS)}")
    for name, dimensions in family.tensors(shape.sizes):
        of, block, _ = _type(_kind_of(name, shape, kind))
        if dimensions[-1] % block:
            rows = f"{name} of the shape {shape.name!r} has rows of {dimensions[-1]} weights"
            remedy = f"use the shape {SMALL.name!r}, which fits every type"
            raise SettingsError(f"{rows}, but a block of {of.name} has {block}", remedy=remedy)


def _type(kind: str) -> tuple[gguf.GGMLQuantizationType, int, int]:
    """A type of weights, with the weights and the bytes of one of its blocks."""
    import gguf  # noqa: PLC0415  # see write

    of = gguf.GGMLQuantizationType[kind]
    return of, *gguf.GGML_QUANT_SIZES[of]


def _describe(writer: Any, shape: ModelShape, family: ModelFamily) -> None:
    import gguf  # noqa: PLC0415  # see write

    words = (*_WORDS, *(f"w{number}" for number in range(len(_WORDS), shape.vocabulary)))
    words = words[: shape.vocabulary - len(_CONTROLS) - _BYTES]
    tokens = [*_CONTROLS, *(f"<0x{byte:02X}>" for byte in range(_BYTES)), *(_SPACE + word for word in words)]
    kinds = [
        gguf.TokenType.UNKNOWN,
        gguf.TokenType.CONTROL,
        gguf.TokenType.CONTROL,
        *[gguf.TokenType.BYTE] * _BYTES,
        *[gguf.TokenType.NORMAL] * len(words),
    ]
    writer.add_name(f"{shape.name}-random-{family.architecture}")
    for name, value in family.metadata(shape.sizes):
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(name, value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if family.embeds:  # a key of the vocabulary, without the name of the architecture
        writer.add_token_type_count(TOKEN_TYPES)


def _kind_of(name: str, shape: ModelShape, kind: str) -> str:
    """The type of one tensor. Mixes are as in llama.cpp's own quantisation (``llama-quant.cpp``)."""
    if name.endswith(_ALWAYS_F32):
        return "F32"
    if kind not in _MIXES:
        return kind
    most, better = _MIXES[kind]
    if name == "output.weight":
        return better
    if "attn_v" in name or "ffn_down" in name:
        layer, eighth = int(name.split(".")[1]), shape.layers // 8
        if layer < eighth or layer >= 7 * shape.layers // 8 or (layer - eighth) % 3 == 2:  # noqa: PLR2004
            return better
    return most


def _matrix(random: np.random.Generator, outputs: int, inputs: int, kind: str) -> NDArray[Any]:
    """Random weights. GGUF counts dimensions from the innermost: a matrix is (outputs, inputs)."""
    import gguf  # noqa: PLC0415  # see write

    if kind not in _PLAIN:
        return _blocks(random, outputs, inputs, kind)
    weights = random.standard_normal((outputs, inputs), dtype=np.float32)
    weights /= np.float32(np.sqrt(inputs))
    stored: NDArray[Any] = gguf.quants.quantize(weights, _type(kind)[0])
    return stored


def _blocks(random: np.random.Generator, outputs: int, inputs: int, kind: str) -> NDArray[np.uint8]:
    """Random codes with scales that give the wanted deviation."""
    blocks = _codes(random, outputs * inputs, kind)
    deviation, shift = _codes_spread(kind)
    wanted = 1 / (np.sqrt(inputs) * deviation)
    if kind == _POWER_OF_TWO:
        # Two adjacent exponents, in the proportion that gives the wanted mean square.
        lower = int(np.floor(np.log2(wanted)))
        share = ((wanted / 2.0**lower) ** 2 - 1) / 3
        blocks[:, 0] = _ONE + lower + (random.random(len(blocks)) < share)
    else:
        scales = random.uniform(*_SPREAD, len(blocks)) * wanted / np.sqrt(_SPREAD_SQUARE)
        if kind not in _MINIMUM_AT:
            # Codes from -8 to 7 have a mean, which would dominate every product; real blocks have both signs.
            scales *= random.choice((-1, 1), len(blocks))
        _set_scales(blocks, kind, scales, scales * shift)
    return blocks.reshape(outputs, -1)


def _codes(random: np.random.Generator, weights: int, kind: str) -> NDArray[np.uint8]:
    """Random codes, one row for each block. Every bit pattern is a valid code in all these types."""
    _, block, size = _type(kind)
    return random.integers(0, 256, (weights // block, size), dtype=np.uint8)


@functools.cache
def _codes_spread(kind: str) -> tuple[float, float]:
    """The deviation of weights with random codes and the scale 1, and the minimum that makes their mean 0."""
    import gguf  # noqa: PLC0415  # see write

    of, block, _ = _type(kind)
    blocks = _codes(np.random.default_rng(0), _SAMPLE * block, kind)

    def weights(scale: float, minimum: float) -> NDArray[np.float32]:
        if kind == _POWER_OF_TWO:
            blocks[:, 0] = _ONE
        else:
            _set_scales(blocks, kind, np.full(_SAMPLE, scale), np.full(_SAMPLE, minimum))
        values: NDArray[np.float32] = gguf.quants.dequantize(blocks, of)
        return values

    shift = -float(weights(1, 0).mean() / weights(0, 1).mean()) if kind in _MINIMUM_AT else 0.0
    return float(weights(1, shift).std()), shift


def _set_scales(blocks: NDArray[np.uint8], kind: str, scales: NDArray[np.float64], minima: NDArray[np.float64]) -> None:
    """Write a scale and, if the type has one, a minimum into each block."""
    halves = scales.astype("<f2")
    if kind == _SCATTERED:
        words = blocks[:, -8:].copy().view("<u2")
        words &= 0x0FFF
        words |= (halves.view("<u2")[:, None] << np.array([12, 8, 4, 0], dtype="<u2")) & 0xF000
        blocks[:, -8:] = words.view(np.uint8)
        return
    places = [(_SCALE_AT.get(kind, 0), halves)]
    if kind in _MINIMUM_AT:
        places.append((_MINIMUM_AT[kind], minima.astype("<f2")))
    for at, values in places:
        blocks[:, at : at + 2] = values.view(np.uint8).reshape(-1, 2)
