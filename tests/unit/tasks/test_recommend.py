"""Which wheel is for which machine."""

from __future__ import annotations

import re

import pytest

from build_config import archs
from build_config.model import CudaArch, Driver, GpuDevice, Machine, Shard
from build_config.system import jsonio
from build_config.system.layout import PACKAGE
from build_config.tasks import recommend
from build_config.tasks.recommend import cards, installing, wheels
from build_config.tasks.recommend.recommendation import assess

pytestmark = pytest.mark.unit

HERE = recommend.Index(kind="find-links", location="/wheels")
GPUS = {
    "6.1": "NVIDIA GeForce GTX 1080",
    "7.0": "Tesla V100",
    "7.5": "NVIDIA GeForce RTX 2080",
    "8.6": "NVIDIA GeForce RTX 3090",
    "8.9": "NVIDIA GeForce RTX 4090",
    "9.0": "NVIDIA H100",
    "10.0": "NVIDIA B200",
    "12.0": "NVIDIA GeForce RTX 5090",
}


def machine(*capabilities: str, driver: str | None = "580.65.06", **changes: str) -> Machine:
    gpus = tuple(
        GpuDevice(index=number, name=GPUS.get(capability, "Orin"), capability=capability, memory=24 << 30)
        for number, capability in enumerate(capabilities)
    )
    cuda = {"580": "13.0", "550": "12.4", "525": "12.0"}.get((driver or "").split(".")[0], "13.0")
    return Machine(
        system=changes.get("system", "Linux x86_64"),
        cpu="x86-64",
        cores=8,
        glibc=changes.get("glibc", "2.36"),
        driver=Driver(version=driver, cuda=cuda) if driver else None,
        gpus=gpus,
    )


def wheel(version: str, platform: str = "manylinux_2_35_x86_64", python: str = "py3-none") -> recommend.Candidate:
    found = recommend.candidate(f"llama_cpp_python-{version}-{python}-{platform}.whl")
    assert found is not None
    return found


SM75, SM86, SM89, SM120 = (wheel(f"0.3.36+cu130.sm{number}") for number in ("75", "86", "89", "120a"))
SM86_89 = wheel("0.3.36+cu130.sm86.sm89")
BOTH = wheel("0.3.36+cu130.sm75x89")
PORTABLE = wheel("0.3.36+cu130")
PASCAL = wheel("0.3.36+cu129.sm61")
ALL = (SM75, SM86, SM89, SM120, SM86_89, BOTH, PORTABLE, PASCAL)


def recommended(here: Machine, *candidates: recommend.Candidate) -> recommend.Recommendation:
    return recommend.recommend(here, (3, 12), candidates, HERE)


def chosen(here: Machine, *candidates: recommend.Candidate) -> recommend.Candidate | None:
    answer = recommended(here, *candidates)
    assert len(answer.others) + (answer.chosen is not None) == len(candidates)
    return answer.chosen.candidate if answer.chosen else None


def reason(here: Machine, candidate: recommend.Candidate) -> str:
    return assess(candidate, here, (3, 12)).reason or ""


# --------------------------------------------------------------------------------------------------- many machines


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (("7.5",), SM75),
        (("8.6",), SM86),
        (("8.9",), SM89),
        (("12.0",), SM120),
        (("9.0",), PORTABLE),
        (("7.5", "8.9"), BOTH),
        (("8.9", "8.9"), SM89),
        (("8.6", "8.9"), SM86),  # runs on both: machine code runs on later minor versions
    ],
)
def test_the_wheel_for_exactly_these_cards_is_taken_before_a_larger_one(
    capabilities: tuple[str, ...], expected: recommend.Candidate
) -> None:
    answer = recommended(machine(*capabilities), *ALL)
    assert answer.chosen is not None
    assert answer.chosen.candidate == expected
    assert answer.chosen.use == "every card"
    assert answer.build is None
    assert answer.pip == f'python -m pip install --find-links "/wheels" "llama-cpp-python=={expected.version}"'


def test_without_a_card_a_wheel_computes_on_the_cpu_and_that_is_said() -> None:
    answer = recommended(machine(driver=None), SM89)
    assert answer.chosen is not None
    assert answer.chosen.use == "the CPU"
    assert "computes on the CPU" in answer.advice[0]


def test_no_card_and_no_wheel_gives_the_command_for_all_cards() -> None:
    answer = recommended(machine(driver=None))
    assert (answer.chosen, answer.build) == (None, "nox -s build_cuda_wheel -- --arch portable")


def test_a_card_without_code_gives_the_reason_and_the_build_command() -> None:
    answer = recommended(machine("7.5"), SM89)
    assert answer.chosen is None
    assert answer.build == "nox -s build_cuda_wheel -- --arch 75"
    assert answer.others[0].reason == "it has code for 89-real and none that NVIDIA GeForce RTX 2080 (7.5) can run"


def test_two_different_cards_need_one_shard_for_both_and_a_build_makes_it() -> None:
    answer = recommended(machine("7.5", "8.9"), wheel("0.3.36+cu130.sm75.sm89"))
    assert answer.chosen is not None
    assert answer.chosen.use == "some cards"
    assert "no one shard" in str(answer.chosen.reason)
    assert any("CUDA_VISIBLE_DEVICES" in line for line in answer.advice)
    assert answer.build == "nox -s build_cuda_wheel -- --arch native"


def test_of_two_cards_one_without_code_is_named() -> None:
    answer = recommended(machine("6.1", "8.9"), SM89)
    assert answer.chosen is not None
    assert "GTX 1080 (6.1)" in str(answer.chosen.reason)
    assert "RTX 4090" not in str(answer.chosen.reason)
    assert answer.build == "nox -s build_cuda_wheel -- --arch native --cuda 12.9"
    assert any("Install CUDA 12.9" in line for line in answer.advice)


def test_a_driver_that_is_too_old_is_told_what_would_fit_after_an_update_and_what_can_be_built_now() -> None:
    answer = recommended(machine("8.9", driver="550.54.14"), SM75, SM89)
    assert answer.chosen is None
    assert reason(machine("8.9", driver="550.54.14"), SM89) == (
        "CUDA 13.0 needs driver 580 or later, here is driver 550.54.14"
    )
    assert answer.advice[0] == f"Update the driver to 580 or later, and {SM89.file_name} fits."
    assert answer.build == "nox -s build_cuda_wheel -- --arch 89 --cuda 12.9"


def test_a_new_card_with_an_old_driver_can_only_update() -> None:
    answer = recommended(machine("12.0", driver="470.1"), SM120)
    assert answer.chosen is None
    assert answer.advice[0].startswith("Update the driver to 580")
    assert any("before the driver is 580" in line for line in answer.advice)


def test_gtx_10_needs_cuda_12() -> None:
    assert chosen(machine("6.1"), *ALL) == PASCAL
    answer = recommended(machine("6.1"), PORTABLE)
    assert answer.chosen is None
    assert answer.build == "nox -s build_cuda_wheel -- --arch 61 --cuda 12.9"
    assert answer.advice == ("Install CUDA 12.9 first: it compiles for these cards, and this driver runs it.",)


def test_an_old_driver_runs_the_machine_code_of_its_major_release_and_no_ptx() -> None:
    portable = wheel("0.3.36+cu129")
    assert chosen(machine("8.9", driver="525.60.13"), portable) == portable
    assert chosen(machine("10.0", driver="525.60.13"), portable) is None
    answer = recommended(machine("10.0", driver="580.65.06"), portable)
    assert answer.chosen is not None
    assert answer.chosen.just_in_time
    assert "PTX" in answer.advice[0]


def test_an_older_glibc_is_named() -> None:
    here = machine("8.9", glibc="2.31")
    answer = recommended(here, SM89)
    assert answer.others[0].reason == "it needs glibc 2.35 or later, here is 2.31"
    assert answer.build == "nox -s build_cuda_wheel -- --arch 89"
    assert chosen(here, SM89, wheel("0.3.35+cu130.sm89", "manylinux2014_x86_64")) is not None


def test_another_c_library_can_neither_install_nor_build() -> None:
    answer = recommended(machine("8.9", glibc=""), SM89)
    assert answer.others[0].reason == "it needs glibc 2.35 or later, here is another C library"
    assert answer.build is None
    assert "need glibc" in answer.advice[0]


@pytest.mark.parametrize(
    ("system", "capability"),
    [("Windows AMD64", "8.9"), ("Linux aarch64", "8.7"), ("Linux aarch64", "12.1"), ("Darwin arm64", "8.9")],
)
def test_another_system_is_not_covered_and_that_is_said(system: str, capability: str) -> None:
    answer = recommended(machine(capability, system=system), SM89, PORTABLE)
    assert (answer.chosen, answer.build) == (None, None)
    assert f"{system} is not covered" in answer.advice[0]
    assert all(f"this is {system}" in str(other.reason) for other in answer.others)


def test_a_wheel_for_windows_is_taken_there() -> None:
    windows = wheel("0.3.36+cu130.sm89", "win_amd64")
    assert chosen(machine("8.9", system="Windows AMD64", glibc=""), SM89, windows) == windows
    assert chosen(machine("8.9"), SM89, windows) == SM89


# --------------------------------------------------------------------------------------------------------- wheels


def test_the_newest_release_goes_before_the_closer_fit_and_no_prerelease_before_a_release() -> None:
    newer, candidate = wheel("0.3.37+cu130"), wheel("0.4.0rc1+cu130.sm89")
    assert chosen(machine("8.9"), SM89, newer, candidate) == newer


def test_machine_code_goes_before_ptx() -> None:
    sm100 = wheel("0.3.36+cu130.sm100")
    answer = recommended(machine("10.0"), PORTABLE, sm100)
    assert answer.chosen is not None
    assert (answer.chosen.candidate, answer.chosen.just_in_time) == (sm100, False)
    assert [other.candidate for other in answer.others] == [PORTABLE]


def test_older_machine_code_goes_before_ptx_of_exactly_the_card() -> None:
    sm100, ptx103 = wheel("0.3.36+cu130.sm100"), wheel("0.3.36+cu130.ptx103")
    assert chosen(machine("10.3"), ptx103, sm100) == sm100


@pytest.mark.parametrize("driver", ["470.1", "525.60", "580.65.06"])
@pytest.mark.parametrize("first", GPUS)
@pytest.mark.parametrize("second", [None, *GPUS])
def test_a_wheel_uses_every_card_exactly_when_one_shard_has_code_for_all_and_the_driver_runs_it(
    first: str, second: str | None, driver: str
) -> None:
    here = machine(*(each for each in (first, second) if each), driver=driver)
    for candidate in ALL:
        ways = [[archs.covers(shard.archs, gpu.capability) for gpu in here.gpus] for shard in candidate.shards]
        new_enough = int(driver.split(".", maxsplit=1)[0]) >= int(archs.oldest_driver(candidate.cuda or ""))
        use = assess(candidate, here, (3, 12)).use
        if use == "every card":
            assert new_enough
            assert any(all(each) for each in ways)
        else:
            assert not (new_enough and any(set(each) == {"cubin"} for each in ways))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama_cpp_python-0.3.36-cp311-cp311-linux_x86_64.whl", "it is for cp311, this is cp312"),
        ("llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl", "does not say which CUDA"),
        ("llama_cpp_python-0.3.36+cpu-py3-none-linux_x86_64.whl", "does not say which CUDA"),
        ("llama_cpp_python-0.3.36+cu130.special-py3-none-linux_x86_64.whl", "does not say which CUDA"),
        ("llama_cpp_python-0.3.36+cu100-py3-none-linux_x86_64.whl", "not known which driver"),
    ],
)
def test_somebody_elses_wheel_is_not_recommended_for_a_card(name: str, said: str) -> None:
    found = recommend.candidate(name)
    assert found is not None
    assert said in reason(machine("8.9"), found)
    assert chosen(machine("8.9"), found) is None


def test_a_withdrawn_wheel_or_one_for_other_pythons_is_not_taken() -> None:
    for changes, said in (({"yanked": True}, "withdrawn"), ({"requires_python": "<3.12"}, "needs Python <3.12")):
        found = recommend.candidate(SM89.file_name, **changes)
        assert found is not None
        assert said in reason(machine("8.9"), found)


@pytest.mark.parametrize("name", ["numpy-2.0-py3-none-any.whl", "llama_cpp_python-0.3.36.tar.gz", "readme.html"])
def test_what_is_no_wheel_of_it_is_passed_over(name: str) -> None:
    assert recommend.candidate(name) is None


@pytest.mark.parametrize("requested", ["89", "86,89", "90-virtual", "120", "103", "portable"])
def test_the_names_of_shards_are_read_back(requested: str) -> None:
    for shard in archs.resolve(requested, cuda_release="13.0", gpus=()).shards:
        assert wheels.parse_shard(shard.name) == shard


def test_a_shard_for_several_cards_is_read_back() -> None:
    gpus = machine("7.5", "8.9", "12.0").gpus
    (shard,) = archs.resolve("native", cuda_release="13.0", gpus=gpus).shards
    assert wheels.parse_shard(shard.name) == shard
    assert wheels.parse_shard("sm90ptx80") == Shard(
        name="sm90ptx80", archs=(CudaArch.parse("90-real"), CudaArch.parse("80-virtual"))
    )


@pytest.mark.parametrize("name", ["special", "sm", "ptx", "sm8x", "smx89", "cpu"])
def test_no_other_name_is_taken_for_a_shard(name: str) -> None:
    assert wheels.parse_shard(name) is None


def test_the_platforms_are_those_that_pip_knows_here() -> None:
    """On this very machine packaging can be asked."""
    from packaging.tags import platform_tags  # noqa: PLC0415

    from build_config.system import machine as this  # noqa: PLC0415

    described = this.describe()
    known = set(platform_tags())
    assert set(installing.platforms(described)) == known


# ------------------------------------------------------------------------------------------------ words and pages


def test_the_answer_is_there_in_words_and_for_programs() -> None:
    answer = recommended(machine("7.5", driver="580.65.06"), SM75, SM89)
    said = recommend.text(answer)
    assert "take: llama_cpp_python-0.3.36+cu130.sm75-" in said
    assert "NVIDIA GeForce RTX 2080, compute capability 7.5" in said
    assert "NVIDIA driver 580.65.06, which runs CUDA 13.0 at the newest" in said
    assert "none that NVIDIA GeForce RTX 2080 (7.5) can run" in said
    assert f'"file_name": "{SM75.file_name}"' in jsonio.dumps(answer)
    nothing = recommend.text(recommended(machine("6.1"), SM89))
    assert "None of the wheels" in nothing
    assert "build: nox -s build_cuda_wheel -- --arch 61 --cuda 12.9" in nothing


PAGE = (PACKAGE.parent / "docs" / "choosing.md").read_text(encoding="utf-8")
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")


def test_the_page_has_the_table_that_the_data_give() -> None:
    """To mend it: put what `nox -s doctor -- --cards` prints into the page."""
    assert f"\n\n{recommend.table()}\n" in PAGE


@pytest.mark.parametrize(
    "name", ["RTX 20", "RTX 30", "RTX 40", "RTX 50", "A100", "L4", "H100", "H200", "B200", "GTX 10", "V100", "Jetson"]
)
def test_the_table_names_the_cards_that_people_have(name: str) -> None:
    assert any(name in row.cards for row in cards.rows())


def test_what_is_not_covered_has_no_option_and_all_else_one_that_the_build_takes() -> None:
    for row in cards.rows():
        assert (row.option is None) == row.cards.startswith(("Jetson", "DGX"))
        if row.option is not None:
            _, number, *rest = row.option.split()
            release = "12.9" if rest else "13.0"
            (shard,) = archs.resolve(number, cuda_release=release, gpus=()).shards
            assert (shard.name, row.driver) == (row.shard, archs.oldest_driver(release))


def test_the_readme_says_of_every_card_what_the_table_says() -> None:
    rows = {row.capability: row for row in cards.rows()}
    listed = re.findall(r"^\| ([^|]+) \| (\d+\.\d) \| `(--arch \d+)`", README, re.MULTILINE)
    assert len(listed) >= 7
    for names, capability, option in listed:
        assert (rows[capability].cards, rows[capability].option) == (names, option)
    (jetson,) = re.findall(r"^\| Jetson \| ([^|]+) \| not covered", README, re.MULTILINE)
    assert all(rows[capability].option is None for capability in jetson.split(", "))
