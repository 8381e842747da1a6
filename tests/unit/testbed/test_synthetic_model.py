"""Read written models: shapes, weights of a plausible size in every type, equal bytes for equal arguments."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from build_config.errors import SettingsError
from build_config.testbed.synthetic_model import KINDS, ONE_B, SMALL, TINY, write

ONE_LAYER = dataclasses.replace(SMALL, layers=1)


def read(path: Path) -> dict[str, tuple[str, NDArray[np.float32]]]:
    """Name -> type and weights, decoded by the reference implementation of each type."""
    return {
        tensor.name: (tensor.tensor_type.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in gguf.GGUFReader(path).tensors
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_have_the_deviation_that_keeps_the_size_of_numbers(tmp_path: Path, kind: str) -> None:
    matrices = {
        name: pair for name, pair in read(write(tmp_path / "m", ONE_LAYER, kind=kind)).items() if "norm" not in name
    }

    assert len(matrices) == 9
    for name, (_, weights) in matrices.items():
        unit = weights * np.sqrt(weights.shape[1])
        assert np.isfinite(unit).all(), name
        assert unit.std() == pytest.approx(1, abs=0.1), name
        assert abs(unit.mean()) < 0.15, name
        assert np.abs(unit).max() < 7, name
        assert unit.std(axis=1).min() > 0.2, f"{name} has a row that is nearly constant"


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"F32", "F16", "BF16", "Q4_K_M"}))
def test_blocks_have_different_scales(tmp_path: Path, kind: str) -> None:
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    of, weights = read(write(tmp_path / "m", ONE_LAYER, kind=kind))["blk.0.ffn_down.weight"]

    assert of == kind
    deviations = weights.reshape(-1, block).std(axis=1)
    assert deviations.std() > 0.1 * deviations.mean()


def test_norms_are_ones(tmp_path: Path) -> None:
    norms = [pair for name, pair in read(write(tmp_path / "m", SMALL, kind="IQ2_XS")).items() if "norm" in name]

    assert len(norms) == 2 * SMALL.layers + 1
    assert all(of == "F32" and (weights == 1).all() for of, weights in norms)


def test_the_file_describes_the_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "m", SMALL, kind="Q8_0")
    fields = gguf.GGUFReader(path).fields
    tensors = read(path)

    def field(key: str) -> Any:
        return fields[key].contents()

    assert field("general.name") == "small-random-llama"
    assert field("llama.block_count") == SMALL.layers
    assert field("llama.attention.head_count") / field("llama.attention.head_count_kv") == SMALL.heads / SMALL.kv_heads
    assert field("llama.context_length") == SMALL.context
    tokens = field("tokenizer.ggml.tokens")
    assert len(set(tokens)) == len(tokens) == SMALL.vocabulary
    assert tensors["token_embd.weight"][1].shape == (SMALL.vocabulary, SMALL.width)
    assert tensors["blk.3.attn_k.weight"][1].shape == (SMALL.width * SMALL.kv_heads // SMALL.heads, SMALL.width)
    assert tensors["blk.3.ffn_down.weight"][1].shape == (SMALL.width, SMALL.feed_forward)
    assert sum(weights.size for _, weights in tensors.values()) == SMALL.weights


@pytest.mark.parametrize(("shape", "kind"), [(TINY, "F32"), (ONE_LAYER, "IQ1_M"), (ONE_LAYER, "MXFP4")])
def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, shape: Any, kind: str) -> None:
    digests = [
        digest(write(tmp_path / str(number), shape, kind=kind, seed=seed)) for number, seed in enumerate((0, 0, 1))
    ]

    assert digests[0] == digests[1] != digests[2]
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2"}, "temporary files were left"


def test_the_tiny_model_is_tiny(tmp_path: Path) -> None:
    assert write(tmp_path / "m").stat().st_size < 1_000_000


def test_the_mix_has_better_types_for_the_same_tensors_as_llama_cpps(tmp_path: Path) -> None:
    tensors = read(write(tmp_path / "m", dataclasses.replace(SMALL, layers=16), kind="Q4_K_M"))
    better = {name for name, (of, _) in tensors.items() if of == "Q6_K"}

    layers = {int(name.split(".")[1]) for name in better if name.startswith("blk")}
    assert layers == {0, 1, 4, 7, 10, 13, 14, 15}
    assert better == {"output.weight"} | {f"blk.{n}.{part}.weight" for n in layers for part in ("attn_v", "ffn_down")}
    assert {of for name, (of, _) in tensors.items() if "norm" not in name} == {"Q4_K", "Q6_K"}


def test_one_b_has_about_a_billion_weights() -> None:
    assert 1.0e9 < ONE_B.weights < 1.2e9


def test_a_type_whose_blocks_do_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a block of Q4_K has 256"):
        write(tmp_path / "m", TINY, kind="Q4_K")
    with pytest.raises(SettingsError, match="'Q9_K' is not a type"):
        write(tmp_path / "m", SMALL, kind="Q9_K")
    assert not list(tmp_path.iterdir())
