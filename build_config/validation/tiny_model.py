"""A language model small enough to write, load and run in a moment; what it says is noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LAYERS = 2
"""Repeating layers. llama.cpp counts the output as one more, so that ``LAYERS + 1`` are placed on devices."""

_WIDTH = 64
_FEED_FORWARD = 192
_HEADS = 4
_CONTEXT = 512
_BYTES = 256
_WORDS = ("the", "a", "card", "layer", "runs", "on", "and", "cat", "dog", "sun", "sea", "sky", "red", "blue", "tree")
_SPACE = "\u2581"
"""How SentencePiece writes a space."""


def write(path: Path, *, seed: int = 0) -> Path:
    """Write a two-layer llama with random float32 weights as GGUF (0.6 MB) and return ``path``.

    The same ``seed`` gives the same bytes. The vocabulary is SentencePiece's: three control tokens, all bytes (so that
    any text has tokens), a few words.
    """
    import gguf  # noqa: PLC0415  # takes half a second to import, and only validation needs it

    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(_BYTES)),
        *(_SPACE + word for word in _WORDS),
    ]
    kinds = [
        gguf.TokenType.UNKNOWN,
        gguf.TokenType.CONTROL,
        gguf.TokenType.CONTROL,
        *[gguf.TokenType.BYTE] * _BYTES,
        *[gguf.TokenType.NORMAL] * len(_WORDS),
    ]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random-llama")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, weights in _tensors(len(tokens), seed):
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(vocabulary: int, seed: int) -> list[tuple[str, NDArray[np.float32]]]:
    """Names and weights in file order. GGUF counts dimensions from the innermost: a matrix is (outputs, inputs)."""
    random = np.random.default_rng(seed)

    def matrix(outputs: int, inputs: int) -> NDArray[np.float32]:
        return random.standard_normal((outputs, inputs), dtype=np.float32) / np.float32(np.sqrt(inputs))

    norm = np.ones(_WIDTH, dtype=np.float32)
    tensors = [("token_embd.weight", matrix(vocabulary, _WIDTH))]
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors += [
            (f"{block}.attn_norm.weight", norm),
            (f"{block}.attn_q.weight", matrix(_WIDTH, _WIDTH)),
            (f"{block}.attn_k.weight", matrix(_WIDTH, _WIDTH)),
            (f"{block}.attn_v.weight", matrix(_WIDTH, _WIDTH)),
            (f"{block}.attn_output.weight", matrix(_WIDTH, _WIDTH)),
            (f"{block}.ffn_norm.weight", norm),
            (f"{block}.ffn_gate.weight", matrix(_FEED_FORWARD, _WIDTH)),
            (f"{block}.ffn_up.weight", matrix(_FEED_FORWARD, _WIDTH)),
            (f"{block}.ffn_down.weight", matrix(_WIDTH, _FEED_FORWARD)),
        ]
    tensors += [("output_norm.weight", norm), ("output.weight", matrix(vocabulary, _WIDTH))]
    return tensors
