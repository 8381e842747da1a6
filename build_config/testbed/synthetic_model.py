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
from build_config.testbed import model_data
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
_MIXES = {"Q4_K_M": ("Q4_K", "Q6_K")}
"""Two types under the name that users know: most tensors have the first, the more important ones the second."""
KINDS = (*_PLAIN, *_BLOCKS, model_data.SCATTERED, model_data.POWER_OF_TWO, *_MIXES)
"""Every type of weights that upstream's CUDA backend supports, and the mix that most people download."""

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
    partial = path.with_name(f"{path.name}.partial")
    header = write_header(partial, shape, family=family, kind=kind)
    model_data.append(header, recipe(shape, family=family, kind=kind, seed=seed))
    return partial.replace(path)


def write_header(path: Path, shape: ModelShape, *, family: ModelFamily = LLAMA, kind: str = "F32") -> Path:
    """Write the part of a model in front of its weights, and return ``path``. Raises as ``write`` does."""
    import gguf  # noqa: PLC0415  # takes half a second to import, and few steps need it

    check(shape, kind, family)
    writer = gguf.GGUFWriter(path, family.architecture)
    _describe(writer, shape, family)
    for name, dimensions in family.tensors(shape.sizes):
        of, block, size = _type(_kind_of(name, shape, kind))
        length = math.prod(dimensions) // block * size
        writer.add_tensor_info(name, dimensions, np.dtype(np.float32), length, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def recipe(shape: ModelShape, *, family: ModelFamily = LLAMA, kind: str = "F32", seed: int = 0) -> dict[str, Any]:
    """Describe the weights for ``model_data``, which needs neither this package nor gguf."""
    tensors = []
    for name, dimensions in family.tensors(shape.sizes):
        stored = _kind_of(name, shape, kind)
        tensor: dict[str, Any] = {"dimensions": dimensions, "kind": stored}
        constant = next((value for ending, value in _CONSTANTS.items() if name.endswith(ending)), None)
        if constant is not None:
            tensor["constant"] = constant
        elif stored not in _PLAIN:
            _, block, size = _type(stored)
            deviation, shift = _codes_spread(stored)
            tensor |= {"block": block, "size": size, "deviation": deviation, "shift": shift}
        tensors.append(tensor)
    return {"seed": seed, "tensors": tensors}


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
    import gguf  # noqa: PLC0415  # see write_header

    of = gguf.GGMLQuantizationType[kind]
    return of, *gguf.GGML_QUANT_SIZES[of]


def _describe(writer: Any, shape: ModelShape, family: ModelFamily) -> None:
    import gguf  # noqa: PLC0415  # see write_header

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


@functools.cache
def _codes_spread(kind: str) -> tuple[float, float]:
    """The deviation of weights with random codes and the scale 1, and the minimum that makes their mean 0."""
    import gguf  # noqa: PLC0415  # see write_header

    of, _, size = _type(kind)
    blocks = model_data.codes(np.random.default_rng(0), _SAMPLE, size)

    def weights(scale: float, minimum: float) -> NDArray[np.float32]:
        if kind == model_data.POWER_OF_TWO:
            blocks[:, 0] = model_data.ONE
        else:
            model_data.set_scales(blocks, kind, np.full(_SAMPLE, scale), np.full(_SAMPLE, minimum))
        values: NDArray[np.float32] = gguf.quants.dequantize(blocks, of)
        return values

    shift = -float(weights(1, 0).mean() / weights(0, 1).mean()) if kind in model_data.MINIMUM_AT else 0.0
    return float(weights(1, shift).std()), shift
