"""Language models with random weights, of any size and weight type. They generate noise.

They run the same code as a trained model of their shape and type, and are written in seconds without a download.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from build_config.errors import SettingsError
from build_config.testbed import model_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import gguf
    from numpy.typing import NDArray

_BYTES = 256
_CONTROLS = ("<unk>", "<s>", "</s>")
_WORDS = ("the", "a", "card", "layer", "runs", "on", "and", "cat", "dog", "sun", "sea", "sky", "red", "blue", "tree")
_SPACE = "\u2581"
"""How SentencePiece writes a space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The shape of a llama model.

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
        """The number of weights in the model."""
        return sum(outputs * inputs for _, outputs, inputs in _tensors(self))


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


def write(path: Path, shape: ModelShape = TINY, *, kind: str = "F32", seed: int = 0) -> Path:
    """Write a model as GGUF and return ``path``; the same arguments give the same bytes.

    The weights are random with the deviation ``1 / sqrt(inputs)``, so numbers keep their size from layer to layer. For
    types that store blocks, the codes are random and the scales are chosen for that deviation. Norms are float32. The
    vocabulary is SentencePiece's: three control tokens, all bytes (so any text has tokens), words. Only one tensor at
    a time is in memory, and only a finished file has the name ``path``.

    Raises ``SettingsError`` for a ``kind`` that is not in ``KINDS`` or whose blocks do not fit the rows of ``shape``.
    """
    partial = path.with_name(f"{path.name}.partial")
    model_data.append(write_header(partial, shape, kind=kind), recipe(shape, kind=kind, seed=seed))
    return partial.replace(path)


def write_header(path: Path, shape: ModelShape, *, kind: str = "F32") -> Path:
    """Write the part of a model in front of its weights, and return ``path``. Raises as ``write`` does."""
    import gguf  # noqa: PLC0415  # takes half a second to import, and few steps need it

    check(shape, kind)
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape)
    for name, outputs, inputs in _tensors(shape):
        of, block, size = _type(_kind_of(name, shape, kind))
        dimensions = (outputs, inputs) if outputs > 1 else (inputs,)
        length = outputs * inputs // block * size
        writer.add_tensor_info(name, dimensions, np.dtype(np.float32), length, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def recipe(shape: ModelShape, *, kind: str = "F32", seed: int = 0) -> dict[str, Any]:
    """Describe the weights for ``model_data``, which needs neither this package nor gguf."""
    tensors = []
    for name, outputs, inputs in _tensors(shape):
        stored = _kind_of(name, shape, kind)
        tensor: dict[str, Any] = {"outputs": outputs, "inputs": inputs, "kind": stored}
        if stored not in _PLAIN:
            _, block, size = _type(stored)
            deviation, shift = _codes_spread(stored)
            tensor |= {"block": block, "size": size, "deviation": deviation, "shift": shift}
        tensors.append(tensor)
    return {"seed": seed, "tensors": tensors}


def check(shape: ModelShape, kind: str) -> None:
    """Raise ``SettingsError`` if ``kind`` is not in ``KINDS`` or its blocks do not fit the rows of ``shape``."""
    if kind not in KINDS:
        raise SettingsError(f"{kind!r} is not a type of weights", remedy=f"pass one of {', '.join(KINDS)}")
    for name, _, inputs in _tensors(shape):
        of, block, _ = _type(_kind_of(name, shape, kind))
        if inputs % block:
            rows = f"{name} of the shape {shape.name!r} has rows of {inputs} weights"
            remedy = f"use the shape {SMALL.name!r}, which fits every type"
            raise SettingsError(f"{rows}, but a block of {of.name} has {block}", remedy=remedy)


def _type(kind: str) -> tuple[gguf.GGMLQuantizationType, int, int]:
    """A type of weights, with the weights and the bytes of one of its blocks."""
    import gguf  # noqa: PLC0415  # see write_header

    of = gguf.GGMLQuantizationType[kind]
    return of, *gguf.GGML_QUANT_SIZES[of]


def _describe(writer: Any, shape: ModelShape) -> None:
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
    writer.add_name(f"{shape.name}-random-llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _tensors(shape: ModelShape) -> Iterator[tuple[str, int, int]]:
    """Names, outputs and inputs in file order. A norm has one output."""
    kv_width = shape.head_size * shape.kv_heads
    yield "token_embd.weight", shape.vocabulary, shape.width
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", 1, shape.width
        yield f"{block}.attn_q.weight", shape.width, shape.width
        yield f"{block}.attn_k.weight", kv_width, shape.width
        yield f"{block}.attn_v.weight", kv_width, shape.width
        yield f"{block}.attn_output.weight", shape.width, shape.width
        yield f"{block}.ffn_norm.weight", 1, shape.width
        yield f"{block}.ffn_gate.weight", shape.feed_forward, shape.width
        yield f"{block}.ffn_up.weight", shape.feed_forward, shape.width
        yield f"{block}.ffn_down.weight", shape.width, shape.feed_forward
    yield "output_norm.weight", 1, shape.width
    yield "output.weight", shape.vocabulary, shape.width


def _kind_of(name: str, shape: ModelShape, kind: str) -> str:
    """The type of one tensor. Mixes are as in llama.cpp's own quantisation (``llama-quant.cpp``)."""
    if "norm" in name:
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
