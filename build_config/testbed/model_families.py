"""Families of models: what llama.cpp needs in a file of each, and what it keeps for a text of one.

Each family is one frozen description. Names of keys and tensors are those of llama.cpp (``llama-arch.cpp``,
``models/*.cpp``); a size is a number, or the name of one of the sizes of a model's shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Size = str | int
Tensor = tuple[str, *tuple[Size, ...]]
"""A name and the dimensions, the innermost last: the inputs of a matrix. A vector has one dimension."""
Key = tuple[str, str | float]
"""A name without that of the architecture, and a value: the name of a size, a number, or a truth value."""
Cache = Literal["KV", "RS"]
"""The names in the log for the memory of a layer for a text: keys and values, or the state of a recurrent layer."""

_EXPERTS = 4
_CONVOLUTION = 4
STATE = 16
"""Numbers in the state of one channel of a recurrent layer."""
TOKEN_TYPES = 2
"""The kinds of tokens that an encoder tells apart: those of a first and of a second text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """A family of models as llama.cpp knows it: its ``architecture``, and the tensors and keys of its files.

    ``shows`` says in a few words what is special about it. llama.cpp keeps the tensors of ``inputs`` on the CPU
    wherever the layers are. Each layer has those of ``block``; ``outputs`` belong to no layer. ``cache`` is ``None`` if
    nothing is kept from token to token. A model that ``embeds`` answers with the embedding of a text; the others
    generate.
    """

    architecture: str
    shows: str
    keys: tuple[Key, ...]
    inputs: tuple[Tensor, ...]
    block: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    cache: Cache | None = "KV"
    embeds: bool = False

    def tensors(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and dimensions in file order."""
        blocks = ((f"blk.{layer}.", self.block) for layer in range(sizes["layers"]))
        for prefix, group in (("", self.inputs), *blocks, ("", self.outputs)):
            for name, *dimensions in group:
                yield f"{prefix}{name}", _numbers(dimensions, sizes)

    def input_bytes(self, sizes: Mapping[str, int]) -> int:
        """The size of ``inputs`` in float32."""
        return 4 * sum(math.prod(_numbers(dimensions, sizes)) for _, *dimensions in self.inputs)

    def metadata(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, float]]:
        """Full names and values of the keys in file order."""
        for name, value in self.keys:
            yield f"{self.architecture}.{name}", sizes[value] if isinstance(value, str) else value


def _numbers(dimensions: list[Size], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[each] if isinstance(each, str) else each for each in dimensions)


_SHAPE: tuple[Key, ...] = (
    ("context_length", "context"),
    ("embedding_length", "width"),
    ("block_count", "layers"),
)
_TRANSFORMER: tuple[Key, ...] = (
    *_SHAPE,
    ("feed_forward_length", "feed_forward"),
    ("attention.head_count", "heads"),
    ("attention.head_count_kv", "kv_heads"),
)
_RMS: Key = ("attention.layer_norm_rms_epsilon", 1e-5)
_DECODER: tuple[Key, ...] = (*_TRANSFORMER, _RMS, ("rope.dimension_count", "head_size"), ("vocab_size", "vocabulary"))

_EMBEDDING: Tensor = ("token_embd.weight", "vocabulary", "width")
_OUTPUT_NORM: Tensor = ("output_norm.weight", "width")
_OUTPUT: Tensor = ("output.weight", "vocabulary", "width")
_NORM: Tensor = ("attn_norm.weight", "width")
_ATTENTION: tuple[Tensor, ...] = (
    ("attn_q.weight", "width", "width"),
    ("attn_k.weight", "kv_width", "width"),
    ("attn_v.weight", "kv_width", "width"),
    ("attn_output.weight", "width", "width"),
)
_BIASES: tuple[Tensor, ...] = (
    ("attn_q.bias", "width"),
    ("attn_k.bias", "kv_width"),
    ("attn_v.bias", "kv_width"),
)
_FEED_FORWARD: tuple[Tensor, ...] = (
    ("ffn_norm.weight", "width"),
    ("ffn_gate.weight", "feed_forward", "width"),
    ("ffn_up.weight", "feed_forward", "width"),
    ("ffn_down.weight", "width", "feed_forward"),
)

LLAMA = ModelFamily(
    architecture="llama",
    shows="a plain decoder",
    keys=_DECODER,
    inputs=(_EMBEDDING,),
    block=(_NORM, *_ATTENTION, *_FEED_FORWARD),
    outputs=(_OUTPUT_NORM, _OUTPUT),
)
QWEN2 = ModelFamily(
    architecture="qwen2",
    shows="attention with biases",
    keys=_DECODER,
    inputs=(_EMBEDDING,),
    block=(_NORM, *_ATTENTION, *_BIASES, *_FEED_FORWARD),
    outputs=(_OUTPUT_NORM, _OUTPUT),
)
GEMMA2 = ModelFamily(
    architecture="gemma2",
    shows="a sliding window in every second layer",
    keys=(*_DECODER, ("attention.sliding_window", 64)),
    inputs=(_EMBEDDING,),
    block=(
        *(_NORM, *_ATTENTION, ("post_attention_norm.weight", "width")),
        *(*_FEED_FORWARD, ("post_ffw_norm.weight", "width")),
    ),
    outputs=(_OUTPUT_NORM,),
)
"""Has a cache for the layers with a window and one for the others. The embedding is the output's matrix, too."""
QWEN2MOE = ModelFamily(
    architecture="qwen2moe",
    shows="a mixture of experts",
    keys=(
        *(*_DECODER, ("expert_count", _EXPERTS), ("expert_used_count", 2)),
        *(("expert_feed_forward_length", "width"), ("expert_shared_feed_forward_length", "feed_forward")),
    ),
    inputs=(_EMBEDDING,),
    block=(
        *(_NORM, *_ATTENTION, *_BIASES, ("ffn_norm.weight", "width")),
        ("ffn_gate_inp.weight", _EXPERTS, "width"),
        ("ffn_gate_exps.weight", _EXPERTS, "width", "width"),
        ("ffn_down_exps.weight", _EXPERTS, "width", "width"),
        ("ffn_up_exps.weight", _EXPERTS, "width", "width"),
        ("ffn_gate_inp_shexp.weight", "width"),
        ("ffn_gate_shexp.weight", "feed_forward", "width"),
        ("ffn_down_shexp.weight", "width", "feed_forward"),
        ("ffn_up_shexp.weight", "feed_forward", "width"),
    ),
    outputs=(_OUTPUT_NORM, _OUTPUT),
)
"""Chooses two of four experts for each token, and has one more for all tokens."""
BERT = ModelFamily(
    architecture="bert",
    shows="an encoder, which embeds a text",
    keys=(*_TRANSFORMER, ("attention.layer_norm_epsilon", 1e-5), ("attention.causal", False), ("pooling_type", 1)),
    inputs=(
        _EMBEDDING,
        ("token_types.weight", TOKEN_TYPES, "width"),
        ("position_embd.weight", "context", "width"),
    ),
    block=(
        *(*_ATTENTION, *_BIASES, ("attn_output.bias", "width")),
        *(("attn_output_norm.weight", "width"), ("attn_output_norm.bias", "width")),
        *(("ffn_up.weight", "feed_forward", "width"), ("ffn_up.bias", "feed_forward")),
        *(("ffn_down.weight", "width", "feed_forward"), ("ffn_down.bias", "width")),
        *(("layer_output_norm.weight", "width"), ("layer_output_norm.bias", "width")),
    ),
    outputs=(("token_embd_norm.weight", "width"), ("token_embd_norm.bias", "width")),
    cache=None,
    embeds=True,
)
"""Sees the whole text at once, keeps nothing, and gives the mean of its tokens."""
MAMBA = ModelFamily(
    architecture="mamba",
    shows="a recurrent model",
    keys=(
        *(*_SHAPE, ("feed_forward_length", 0), ("attention.head_count", 0), _RMS, ("vocab_size", "vocabulary")),
        *(("ssm.conv_kernel", _CONVOLUTION), ("ssm.inner_size", "inner"), ("ssm.state_size", STATE)),
        ("ssm.time_step_rank", "time_steps"),
    ),
    inputs=(_EMBEDDING,),
    block=(
        _NORM,
        ("ssm_in.weight", "inner_twice", "width"),
        ("ssm_conv1d.weight", "inner", _CONVOLUTION),
        ("ssm_conv1d.bias", "inner"),
        ("ssm_x.weight", "time_steps_and_states", "inner"),
        ("ssm_dt.weight", "inner", "time_steps"),
        ("ssm_dt.bias", "inner"),
        ("ssm_a", "inner", STATE),
        ("ssm_d", "inner"),
        ("ssm_out.weight", "width", "inner"),
    ),
    outputs=(_OUTPUT_NORM, _OUTPUT),
    cache="RS",
)
"""Has a state of fixed size instead of a cache that grows with the text."""
FAMILIES = (LLAMA, QWEN2, GEMMA2, QWEN2MOE, BERT, MAMBA)
"""The first is the family of every model that does not name one."""
