"""Models that are written from recipes, without gguf: the bytes are those of the reference implementation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest

from build_config.testbed import model_data, synthetic_model
from build_config.testbed.model_families import FAMILIES, LLAMA, QWEN2MOE
from build_config.testbed.synthetic_model import SMALL, TINY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


MODELS = {
    "tiny": (TINY, LLAMA, "F32"),
    **{kind: (SMALL, LLAMA, kind) for kind in ("BF16", "Q4_K_M", "IQ1_M", "MXFP4")},
    **{family.architecture: (TINY, family, "F32") for family in FAMILIES},
    "experts": (SMALL, QWEN2MOE, "Q4_K"),
}


def test_a_recipe_gives_the_bytes_of_the_model(tmp_path: Path) -> None:
    recipes = {}
    for name, (shape, family, kind) in MODELS.items():
        synthetic_model.write_header(tmp_path / name, shape, family=family, kind=kind)
        recipes[name] = synthetic_model.recipe(shape, family=family, kind=kind, seed=3)
    (tmp_path / "recipes.json").write_text(json.dumps(recipes), encoding="utf-8")
    written = tmp_path / "written"
    written.mkdir()
    assert model_data.main(str(tmp_path / "recipes.json"), str(written)) == 0
    for name, (shape, family, kind) in MODELS.items():
        whole = synthetic_model.write(tmp_path / "whole", shape, family=family, kind=kind, seed=3)
        assert (written / name).read_bytes() == whole.read_bytes(), name


def test_only_the_named_models_are_written(tmp_path: Path) -> None:
    for name in ("one", "two"):
        synthetic_model.write_header(tmp_path / name, TINY)
    recipe = synthetic_model.recipe(TINY)
    (tmp_path / "recipes.json").write_text(json.dumps({"one": recipe, "two": recipe}), encoding="utf-8")
    written = tmp_path / "written"
    written.mkdir()
    model_data.main(str(tmp_path / "recipes.json"), str(written), "two")
    assert [path.name for path in written.iterdir()] == ["two"]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_numbers_are_rounded_as_by_gguf(tmp_path: Path, kind: str) -> None:
    path = synthetic_model.write(tmp_path / "model", SMALL, kind=kind)
    exact = synthetic_model.write(tmp_path / "exact", SMALL, kind="F32")
    of = gguf.GGMLQuantizationType[kind]
    pairs = zip(gguf.GGUFReader(path).tensors, gguf.GGUFReader(exact).tensors, strict=True)
    matrices = [(stored, weights) for stored, weights in pairs if "norm" not in weights.name]
    assert matrices
    for stored, weights in matrices:
        assert stored.tensor_type == of
        assert np.array_equal(
            gguf.quants.dequantize(stored.data, of), gguf.quants.dequantize(gguf.quants.quantize(weights.data, of), of)
        )
