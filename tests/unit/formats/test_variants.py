"""The form of wheel variants, as the drafts and uv have it."""

from __future__ import annotations

import json

import pytest
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from build_config import archs
from build_config.errors import PackagingError
from build_config.formats import variants
from build_config.model import CudaArch
from tests.support.indexed import TAG

SM89 = (CudaArch(number=89),)
BLACKWELL = (CudaArch(number=120, suffix="a"),)
PLAIN = f"llama_cpp_python-0.3.36+cu130-{TAG}.whl"
VARIANT = f"llama_cpp_python-0.3.36+cu130-{TAG}-cu130_sm89.whl"
TAGGED = VARIANT.replace("cu130-py3", "cu130-2-py3")


def source(shards: str, cuda: str = "cu130") -> str:
    return f"llama_cpp_python-0.3.36+{cuda}.{shards}-{TAG}.whl"


def test_a_name_is_read_with_a_label_and_without() -> None:
    for name, label in ((PLAIN, None), (VARIANT, "cu130_sm89"), (TAGGED, "cu130_sm89")):
        parsed = variants.parse(name)
        assert (parsed.name, parsed.version) == ("llama-cpp-python", Version("0.3.36+cu130"))
        assert (parsed.label, parsed.tags) == (label, (TAG,))
        assert variants.label(name) == label
    assert variants.parse(TAGGED).build == (2, "")
    assert variants.parse(PLAIN.replace("cu130-py3", "cu130-2-py3")).build == (2, ""), "a build tag is no label"


@pytest.mark.parametrize("name", ["README.md", "a-1-py3-none-any-cu130-sm89-x.whl", "a-1-py3-none-any-CU.whl", "-.whl"])
def test_other_names_have_no_label(name: str) -> None:
    assert variants.label(name) is None
    with pytest.raises(InvalidWheelFilename):
        variants.parse(name)


def test_a_build_tag_is_put_in_and_taken_out_of_both_kinds_of_names() -> None:
    for name in (PLAIN, VARIANT):
        second = variants.with_build(name, 2)
        assert variants.parse(second).build == (2, "")
        assert variants.with_build(variants.with_build(second, 3), None) == name
    assert variants.with_build(VARIANT, 2) == TAGGED


@pytest.mark.parametrize(
    ("shards", "label", "names"),
    [
        ("sm89", "cu130_sm89", ("sm89",)),
        ("sm86x120a", "cu130_sm86x120a", ("sm86x120a",)),
        ("sm86.sm120a", "cu130_sm86.120a", ("sm86", "sm120a")),
        ("sm75.sm86.sm89", "cu130_sm75.86.89", ("sm75", "sm86", "sm89")),
        ("sm90.ptx90", "cu130_sm90.ptx90", ("sm90", "ptx90")),
    ],
)
def test_the_shards_are_in_the_label_and_all_variants_have_one_version(
    shards: str, label: str, names: tuple[str, ...]
) -> None:
    name = variants.file_name(source(shards))
    assert name == PLAIN.replace(".whl", f"-{label}.whl")
    assert variants.shard_names(label) == names
    assert len(label) <= variants.LONGEST_LABEL


def test_a_build_tag_of_the_source_stays() -> None:
    assert variants.file_name(variants.with_build(source("sm89"), 2)) == TAGGED


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (PLAIN, "not a wheel for one shard set"),
        (VARIANT, "not a wheel for one shard set"),
        (PLAIN.replace("+cu130", ""), "not a wheel for one shard set"),
        (source("sm75.sm86.sm120a"), "has 18 characters; 16 are allowed"),
    ],
)
def test_what_cannot_be_a_variant_is_refused(name: str, expected: str) -> None:
    with pytest.raises(PackagingError, match=expected):
        variants.file_name(name)


def test_the_document_has_the_oldest_cuda_of_the_driver_and_the_machine_code() -> None:
    mixed = (*BLACKWELL, *SM89, CudaArch(number=89, kind="virtual"))
    text = variants.document(Version("0.3.36+cu129"), {"b": mixed, "a": SM89})
    found = json.loads(text)["variants"]
    assert found == {
        "a": {"nvidia": {"cuda_version_lower_bound": ["12.0"], "sm_arch": ["89_real"]}},
        "b": {"nvidia": {"cuda_version_lower_bound": ["12.0"], "sm_arch": ["89_real", "120_real"]}},
    }
    assert text == variants.document(Version("0.3.36+cu129"), {"a": SM89, "b": tuple(reversed(mixed))})


@pytest.mark.parametrize(
    ("code", "capability", "taken"),
    [(SM89, "8.9", True), (SM89, "8.6", False), (SM89, "9.0", False), (BLACKWELL, "12.0", True)],
)
def test_a_gpu_gets_code_of_its_major_version_that_is_not_newer(
    code: tuple[CudaArch, ...], capability: str, *, taken: bool
) -> None:
    assert variants.takes(code, capability) is taken


def test_every_shard_of_portable_wheels_can_be_a_variant() -> None:
    for release in archs.known_releases():
        for shard in archs.resolve("portable", cuda_release=release, gpus=()).shards:
            variants.check(shard.archs)


def test_code_that_uv_would_give_to_a_gpu_that_cannot_run_it_is_refused() -> None:
    with pytest.raises(PackagingError, match=r"would give code for 100a-real to 10\.3"):
        variants.check((CudaArch(number=100, suffix="a"),))
    variants.check((CudaArch(number=100, suffix="f"),))
    variants.check((CudaArch(number=100),))


def test_code_that_only_the_driver_compiles_is_refused() -> None:
    with pytest.raises(PackagingError, match="no machine code"):
        variants.check((CudaArch(number=90, kind="virtual"),))


def test_packaging_still_refuses_these_names() -> None:
    """When it does not any more, this project's own reader of names can go."""
    with pytest.raises(InvalidWheelFilename):
        parse_wheel_filename(VARIANT)
