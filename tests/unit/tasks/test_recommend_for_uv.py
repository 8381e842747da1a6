"""The line for the client that is there, and what variant wheels are for."""

from dataclasses import replace

import pytest

from build_config.model import Machine
from build_config.tasks import recommend
from check_gpu import shell
from tests.support.users_machines import machine, named, python_on

TAG = "py3-none-manylinux_2_35_x86_64"
VARIANT = replace(
    named(f"llama_cpp_python-0.3.36+cu130-{TAG}-cu130_sm89.whl", address="https://example.org/whl/files/variant.whl"),
    index="https://example.org/whl/variants/",
)
INDEXED = replace(named(f"llama_cpp_python-0.3.36+cu130.sm89-{TAG}.whl"), index="https://example.org/whl/cu130-sm89/")


def with_uv(here: Machine, *candidates: recommend.Candidate, uv: bool = True) -> recommend.Recommendation:
    python = replace(python_on(here), uv=uv)
    return recommend.recommend(here, python, candidates, ("--find-links", "/wheels of mine"))


def test_the_line_is_for_the_client_that_is_there_and_names_the_index_of_the_wheel() -> None:
    answer = with_uv(machine("8.9"), INDEXED)
    requirement = shell.quote(["llama-cpp-python==0.3.36+cu130.sm89"])
    expected = f"--extra-index-url https://example.org/whl/cu130-sm89/ {requirement}"
    assert answer.uv == f"uv pip install --python python {expected}"
    assert answer.pip == f"python -m pip install {expected}"
    assert answer.uv in recommend.text(answer)
    assert answer.pip not in recommend.text(answer)
    without = with_uv(machine("8.9"), INDEXED, uv=False)
    assert (without.uv, without.pip) == (None, answer.pip)
    assert answer.pip in recommend.text(without)


def test_an_ordinary_wheel_is_better_than_its_variant_which_uv_may_choose_by_itself() -> None:
    answer = with_uv(machine("8.9"), VARIANT, INDEXED)
    assert answer.chosen is not None
    assert answer.chosen.candidate == INDEXED
    assert answer.variants == (
        "uv pip install --python python --index https://example.org/whl/variants/ "
        "--preview-features wheel-variants llama-cpp-python"
    )
    said = recommend.text(answer)
    assert answer.variants in said
    assert "fits too, and is a variant wheel, a preview" in said


def test_a_variant_wheel_is_recommended_by_its_address_if_it_is_the_only_one() -> None:
    answer = with_uv(machine("8.9"), VARIANT)
    assert answer.uv == (
        "uv pip install --python python --preview-features wheel-variants "
        + shell.quote(["llama-cpp-python @ https://example.org/whl/files/variant.whl"])
    )
    assert answer.pip is None


@pytest.mark.parametrize(
    ("capabilities", "uv", "reason"),
    [
        (("8.9",), False, "only uv installs it, since 0.13.6"),
        ((), True, "uv does not take for a machine without a GPU"),
        (("9.0",), True, "uv does not take for a machine whose highest GPU is 9.0"),
        (("8.9", "12.0"), True, "uv does not take for a machine whose highest GPU is 12.0"),
    ],
)
def test_a_variant_wheel_that_would_not_be_installed_is_not_recommended(
    capabilities: tuple[str, ...], reason: str, *, uv: bool
) -> None:
    answer = with_uv(machine(*capabilities), VARIANT, uv=uv)
    assert answer.chosen is None
    assert reason in str(answer.others[0].reason)
