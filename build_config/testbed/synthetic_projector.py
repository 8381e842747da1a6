"""A vision encoder with random weights for a synthetic model: images become embeddings that mean nothing.

llama.cpp loads it as the second file of a multimodal model (``mmproj``), with the code of a trained LLaVA 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from build_config.testbed import synthetic_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.testbed.synthetic_model import ModelShape

_CHANNELS = 3
_MEAN, _DEVIATION = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
"""Of each channel of an image, about as for CLIP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorShape:
    """The shape of a vision encoder: ``image`` and ``patch`` in pixels, ``width`` and ``feed_forward`` in weights.

    llama.cpp leaves out the last of ``blocks``, as LLaVA does: with fewer than two, no block computes anything.
    """

    image: int = 32
    patch: int = 8
    width: int = 32
    feed_forward: int = 64
    heads: int = 2
    blocks: int = 2

    @property
    def tokens(self) -> int:
        """The number of tokens that an image becomes."""
        return (self.image // self.patch) ** 2


TINY = ProjectorShape()
"""For checking where the encoder runs: loads in milliseconds, and an image becomes 16 tokens."""


def write(path: Path, shape: ProjectorShape = TINY, *, model: ModelShape = synthetic_model.TINY, seed: int = 0) -> Path:
    """Write an encoder for models of the shape ``model`` as GGUF, and return ``path``.

    The weights are float32 and random with the deviation ``1 / sqrt(inputs)``; the same arguments give the same bytes.
    Only a finished file has the name ``path``.
    """
    import gguf  # noqa: PLC0415  # takes half a second to import, and few steps need it

    partial = path.with_name(f"{path.name}.partial")
    writer = gguf.GGUFWriter(partial, "clip")
    _describe(writer, shape, model)
    random = np.random.default_rng(seed)
    for name, dimensions in _tensors(shape, model):
        if name.endswith("bias"):
            weights = np.zeros(dimensions, dtype=np.float32)
        elif len(dimensions) == 1:
            weights = np.ones(dimensions, dtype=np.float32)
        else:
            weights = random.standard_normal(dimensions, dtype=np.float32)
            weights /= np.float32(np.sqrt(np.prod(dimensions[1:])))
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return partial.replace(path)


def _describe(writer: Any, shape: ProjectorShape, model: ModelShape) -> None:
    writer.add_name("random-projector")
    writer.add_string("clip.projector_type", "mlp")
    writer.add_clip_has_vision_encoder(value=True)
    writer.add_vision_image_size(shape.image)
    writer.add_vision_patch_size(shape.patch)
    writer.add_vision_embedding_length(shape.width)
    writer.add_vision_feed_forward_length(shape.feed_forward)
    writer.add_vision_block_count(shape.blocks)
    writer.add_vision_head_count(shape.heads)
    writer.add_vision_projection_dim(model.width)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean(_MEAN)
    writer.add_vision_image_std(_DEVIATION)


def _tensors(shape: ProjectorShape, model: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and dimensions in file order, the outermost dimension first."""
    width = shape.width
    yield "v.patch_embd.weight", (width, _CHANNELS, shape.patch, shape.patch)
    yield "v.class_embd", (width,)
    yield "v.position_embd.weight", (shape.tokens + 1, width)
    yield from _linear("v.pre_ln", width)
    for block in range(shape.blocks):
        name = f"v.blk.{block}"
        yield from _linear(f"{name}.ln1", width)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _linear(f"{name}.{part}", width, width)
        yield from _linear(f"{name}.ln2", width)
        yield from _linear(f"{name}.ffn_up", shape.feed_forward, width)
        yield from _linear(f"{name}.ffn_down", width, shape.feed_forward)
    yield from _linear("mm.0", model.width, width)
    yield from _linear("mm.2", model.width, model.width)


def _linear(name: str, *dimensions: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A matrix or, with one dimension, a norm; both have a bias."""
    yield f"{name}.weight", dimensions
    yield f"{name}.bias", dimensions[:1]
