"""Read the written model of each family, and compare it with the tables of the ``gguf`` package."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest

from build_config.testbed.model_families import BERT, FAMILIES, GEMMA2, LLAMA, MAMBA, QWEN2MOE
from build_config.testbed.synthetic_model import SMALL, TINY, write

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.testbed.model_families import ModelFamily

pytestmark = pytest.mark.unit

ONE_LAYER = dataclasses.replace(SMALL, layers=1)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.architecture)


def names_of(architecture: str) -> set[str]:
    """The names of the architecture's tensors in its first layer, without ``.weight`` and ``.bias``."""
    (known,) = [arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    return {gguf.TENSOR_NAMES[tensor].format(bid=0) for tensor in gguf.MODEL_TENSORS[known]}


@each_family
def test_every_tensor_belongs_to_the_architecture(tmp_path: Path, family: ModelFamily) -> None:
    reader = gguf.GGUFReader(write(tmp_path / "m", dataclasses.replace(TINY, layers=1), family=family))

    names = {tensor.name.removesuffix(".weight").removesuffix(".bias") for tensor in reader.tensors}
    assert names <= names_of(family.architecture)
    assert {"token_embd"} < names
    assert reader.fields["general.architecture"].contents() == family.architecture


@each_family
def test_every_key_is_one_that_gguf_knows(family: ModelFamily) -> None:
    known = {
        value.replace("{arch}", family.architecture)
        for group in vars(gguf.Keys).values()
        if isinstance(group, type)
        for value in vars(group).values()
        if isinstance(value, str)
    }
    assert {name for name, _ in family.metadata(TINY.sizes)} <= known


@each_family
def test_a_tiny_model_of_every_family_is_tiny_and_always_the_same(tmp_path: Path, family: ModelFamily) -> None:
    files = [write(tmp_path / name, family=family) for name in "ab"]

    assert files[0].stat().st_size < 1_000_000
    first, second = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    assert first == second


def test_no_two_families_have_the_same_file(tmp_path: Path) -> None:
    assert FAMILIES[0] is LLAMA
    digests = {hashlib.sha256(write(tmp_path / "m", family=family).read_bytes()).digest() for family in FAMILIES}
    assert len(digests) == len(FAMILIES) == len({family.architecture for family in FAMILIES})


@each_family
def test_weights_keep_the_size_of_numbers_and_a_state_fades(tmp_path: Path, family: ModelFamily) -> None:
    tensors = gguf.GGUFReader(write(tmp_path / "m", ONE_LAYER, family=family, kind="Q4_K")).tensors

    quantised = 0
    for tensor in tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name.endswith("norm.weight"):
            assert (weights == 1).all(), tensor.name
        elif tensor.name.endswith(".bias"):
            assert (weights == 0).all(), tensor.name
        elif tensor.name.endswith("ssm_a"):
            assert (weights < 0).all(), tensor.name
        elif weights.ndim > 1:
            quantised += tensor.tensor_type.name == "Q4_K"
            unit = weights * np.sqrt(weights.shape[-1])
            assert unit.std() == pytest.approx(1, abs=0.1), tensor.name
    assert quantised >= 4


def test_what_llama_cpp_does_not_quantise_stays_in_float32(tmp_path: Path) -> None:
    def plain(family: ModelFamily) -> set[str]:
        tensors = gguf.GGUFReader(write(tmp_path / "m", ONE_LAYER, family=family, kind="Q8_0")).tensors
        return {tensor.name.removeprefix("blk.0.") for tensor in tensors if tensor.tensor_type.name == "F32"} - {
            tensor.name.removeprefix("blk.0.") for tensor in tensors if "norm" in tensor.name or "bias" in tensor.name
        }

    assert plain(LLAMA) == plain(GEMMA2) == set()
    assert plain(QWEN2MOE) == {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"}
    assert plain(BERT) == {"position_embd.weight", "token_types.weight"}
    assert plain(MAMBA) == {"ssm_conv1d.weight", "ssm_dt.weight", "ssm_a", "ssm_d"}


def test_experts_are_matrices_of_their_own(tmp_path: Path) -> None:
    tensors = gguf.GGUFReader(write(tmp_path / "m", family=QWEN2MOE)).tensors
    (gates,) = [tensor.data for tensor in tensors if tensor.name == "blk.0.ffn_gate_exps.weight"]

    assert gates.shape == (4, TINY.width, TINY.width)
    assert len({expert.tobytes() for expert in gates}) == 4


def test_the_input_tensors_are_those_that_stay_on_the_cpu() -> None:
    row = 4 * TINY.width
    assert LLAMA.input_bytes(TINY.sizes) == MAMBA.input_bytes(TINY.sizes) == TINY.vocabulary * row
    assert BERT.input_bytes(TINY.sizes) == (TINY.vocabulary + 2 + TINY.context) * row
