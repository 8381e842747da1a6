"""Read a written vision encoder: it belongs to the tiny model, and equal arguments give equal bytes."""

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import pytest

from build_config.testbed.synthetic_model import SMALL
from build_config.testbed.synthetic_model import TINY as TINY_MODEL
from build_config.testbed.synthetic_projector import TINY, write

pytestmark = pytest.mark.unit


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> dimensions, the innermost first, as llama.cpp reads them."""
    return {tensor.name: tuple(map(int, tensor.shape)) for tensor in gguf.GGUFReader(path).tensors}


def test_an_image_becomes_embeddings_of_the_width_of_the_model(tmp_path: Path) -> None:
    for model in (TINY_MODEL, SMALL):
        read = shapes(write(tmp_path / "projector", model=model))
        assert read["mm.2.weight"] == (model.width, model.width)
        assert read["mm.0.weight"] == (TINY.width, model.width)
        assert read["v.position_embd.weight"] == (TINY.width, TINY.tokens + 1), "one more for the class"
        assert read["v.patch_embd.weight"] == (TINY.patch, TINY.patch, 3, TINY.width)


def test_numbers_keep_their_size(tmp_path: Path) -> None:
    for tensor in gguf.GGUFReader(write(tmp_path / "projector")).tensors:
        weights = np.asarray(tensor.data, dtype=np.float32)
        if tensor.name.endswith("bias"):
            assert not weights.any(), tensor.name
        elif weights.ndim > 1:
            inputs = np.prod(weights.shape[1:])
            assert weights.std() * np.sqrt(inputs) == pytest.approx(1, abs=0.1), tensor.name


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "first").read_bytes()
    assert write(tmp_path / "second").read_bytes() == first
    assert write(tmp_path / "second", seed=1).read_bytes() != first
    assert write(tmp_path / "second", dataclasses.replace(TINY, blocks=3)).read_bytes() != first
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}, "nothing unfinished is left"
