"""Which wheel is for which machine."""

import re

import pytest
from packaging.version import Version

from build_config import archs
from build_config.model import Machine
from build_config.steps.wheel.assemble import wheel_version
from build_config.system import jsonio
from build_config.system.layout import PACKAGE
from build_config.tasks import recommend
from build_config.tasks.recommend import gpu_table, judge
from check_gpu import shell
from tests.support.users_machines import GPUS, machine, named, python_on

BUILD = "nox -s build_cuda_wheel -- --arch"
INSTALL_12_9 = "Install CUDA 12.9 first: it compiles for these GPUs, and this driver runs it."


def wheel(version: str, platform: str = "manylinux_2_35_x86_64", python: str = "py3-none") -> recommend.Candidate:
    found = recommend.candidate(f"llama_cpp_python-{version}-{python}-{platform}.whl")
    assert found is not None
    return found


SM75, SM86, SM89, SM120 = (wheel(f"0.3.36+cu130.sm{number}") for number in ("75", "86", "89", "120a"))
SM86_89, SM75_89 = wheel("0.3.36+cu130.sm86.sm89"), wheel("0.3.36+cu130.sm75.sm89")
BOTH = wheel("0.3.36+cu130.sm75x89")
PORTABLE, PORTABLE_12 = wheel("0.3.36+cu130"), wheel("0.3.36+cu129")
PASCAL = wheel("0.3.36+cu129.sm61")
SM100 = wheel("0.3.36+cu130.sm100")
WINDOWS = wheel("0.3.36+cu130.sm89", "win_amd64")
OLD_GLIBC = wheel("0.3.35+cu130.sm89", "manylinux2014_x86_64")
ALL = (SM75, SM86, SM89, SM120, SM86_89, BOTH, PORTABLE, PASCAL)


def recommended(here: Machine, *candidates: recommend.Candidate) -> recommend.Recommendation:
    answer = recommend.recommend(here, python_on(here), candidates, ("--find-links", "/wheels of mine"))
    assert len(answer.others) + (answer.chosen is not None) == len(candidates)
    return answer


def assessed(here: Machine, candidate: recommend.Candidate) -> judge.Assessment:
    return judge.assess(candidate, here, python_on(here))


# ------------------------------------------------------------------------------------------------------- one is taken


@pytest.mark.parametrize(
    ("here", "candidates", "expected"),
    [
        (machine("7.5"), ALL, SM75),
        (machine("8.6"), ALL, SM86),
        (machine("8.9"), ALL, SM89),
        (machine("12.0"), ALL, SM120),
        (machine("9.0"), ALL, PORTABLE),
        (machine("7.5", "8.9"), ALL, BOTH),
        (machine("8.9", "8.9"), ALL, SM89),
        (machine("8.6", "8.9"), ALL, SM86),  # runs on both: machine code runs on later minor versions
        (machine("6.1"), ALL, PASCAL),
        (machine("8.9", driver="525.60.13"), (PORTABLE_12,), PORTABLE_12),  # the machine code of its major release
        (machine("8.9", glibc="2.31"), (SM89, OLD_GLIBC), OLD_GLIBC),
        (machine("8.9", system="Windows AMD64", glibc=""), (SM89, WINDOWS), WINDOWS),
        (machine("8.9"), (SM89, WINDOWS), SM89),
        # The newest release goes before the closer fit, and no pre-release before a release.
        (machine("8.9"), (SM89, wheel("0.3.37+cu130"), wheel("0.4.0rc1+cu130.sm89")), wheel("0.3.37+cu130")),
        (machine("8.9"), (wheel("0.3.36+cu129.sm89"), SM89), SM89),
        # Machine code goes before PTX, even older code before PTX of exactly the GPU.
        (machine("10.0"), (PORTABLE, SM100), SM100),
        (machine("10.3"), (wheel("0.3.36+cu130.ptx103"), SM100), SM100),
    ],
)
def test_the_wheel_that_uses_most_of_the_machine_is_taken_then_the_newest_then_the_best_fit(
    here: Machine, candidates: tuple[recommend.Candidate, ...], expected: recommend.Candidate
) -> None:
    for order in (candidates, candidates[::-1]):
        answer = recommended(here, *order)
        assert answer.chosen is not None
        assert (answer.chosen.candidate, answer.chosen.use, answer.chosen.reason) == (expected, "every GPU", None)
        assert (answer.build, answer.advice) == (None, ())
        wanted = ["--find-links", "/wheels of mine", f"llama-cpp-python=={expected.version}"]
        assert answer.pip == shell.install(wanted)


def test_a_wheel_that_runs_by_ptx_is_taken_with_a_word_on_its_first_start() -> None:
    answer = recommended(machine("10.0"), PORTABLE_12)
    assert answer.chosen is not None
    assert (answer.chosen.use, answer.chosen.just_in_time) == ("every GPU", True)
    assert "PTX" in answer.advice[0]


@pytest.mark.parametrize("driver", ["470.1", "525.60", "580.65.06"])
@pytest.mark.parametrize("first", GPUS)
@pytest.mark.parametrize("second", [None, *GPUS])
def test_a_wheel_uses_every_gpu_exactly_when_one_shard_has_code_for_all_and_the_driver_runs_it(
    first: str, second: str | None, driver: str
) -> None:
    here = machine(*(each for each in (first, second) if each), driver=driver)
    for candidate in ALL:
        ways = [[archs.covers(shard.archs, gpu.capability) for gpu in here.gpus] for shard in candidate.shards]
        new_enough = int(driver.split(".", maxsplit=1)[0]) >= int(archs.oldest_driver(candidate.cuda or ""))
        if assessed(here, candidate).use == "every GPU":
            assert new_enough
            assert any(all(each) for each in ways)
        else:
            assert not (new_enough and any(set(each) == {"cubin"} for each in ways))


# ------------------------------------------------------------------------------------------- none is, or not for all

NOT_COVERED = (("Windows AMD64", "8.9"), ("Linux aarch64", "8.7"), ("Linux aarch64", "12.1"), ("Darwin arm64", "8.9"))
"""Systems that this project does not build on, and a GPU in each."""


@pytest.mark.parametrize(
    ("here", "candidates", "use", "build", "advice"),
    [
        (machine(driver=None), (), None, "portable", ()),
        (machine(driver=None), (SM89,), "the CPU", None, ("computes on the CPU",)),
        (machine("7.5"), (SM89,), None, "75", ()),
        (machine("8.9", glibc="2.31"), (SM89,), None, "89", ()),
        # Two GPUs need one shard for both, and a build makes it.
        (machine("7.5", "8.9"), (SM75_89,), "some GPUs", "75+89", ("The others are left out",)),
        (machine("6.1", "8.9"), (SM89,), "some GPUs", "61+89 --cuda 12.9", ("GTX 1080 (6.1) can run", INSTALL_12_9)),
        (machine("6.1"), (PORTABLE,), None, "61 --cuda 12.9", (INSTALL_12_9,)),
        (machine("6.1", "8.8"), (), None, "88", ("for all of these GPUs at once: it leaves out NVIDIA GeForce GTX",)),
        # A driver that is too old: what fits after an update, and what can be built now, if anything.
        (
            machine("8.9", driver="550.54.14"),
            (SM75, SM89),
            None,
            "89 --cuda 12.9",
            (f"Update the driver to 580 or later, and {SM89.file_name} fits.", INSTALL_12_9),
        ),
        (
            machine("12.0", driver="470.1"),
            (SM120,),
            None,
            "120",
            (f"Update the driver to 580 or later, and {SM120.file_name} fits.", "before the driver is 580 or later"),
        ),
        (machine("10.0", driver="525.60.13"), (PORTABLE_12,), None, "100 --cuda 12.9", (INSTALL_12_9,)),  # no PTX
        (machine("6.1", driver="390.1"), (), None, None, ("No toolkit that is known compiles for NVIDIA GeForce GTX",)),
        (machine("8.9", glibc=""), (SM89,), None, None, ("need glibc",)),  # this project does not build on it
        *(
            (machine(capability, system=system), (SM89, PORTABLE), None, None, (f"{system} is not covered",))
            for system, capability in NOT_COVERED
        ),
    ],
)
def test_if_no_wheel_is_for_the_whole_machine_the_advice_and_the_command_to_build_one_are_given(
    here: Machine,
    candidates: tuple[recommend.Candidate, ...],
    use: str | None,
    build: str | None,
    advice: tuple[str, ...],
) -> None:
    answer = recommended(here, *candidates)
    assert (answer.chosen.use if answer.chosen else None) == use
    assert (answer.pip is None) == (answer.chosen is None)
    assert answer.build == (f"{BUILD} {build}" if build else None)
    assert len(answer.advice) == len(advice)
    assert all(expected in line for expected, line in zip(advice, answer.advice, strict=True))


@pytest.mark.parametrize(
    ("here", "candidate", "use", "reason"),
    [
        (machine("7.5"), SM89, "the CPU", "code for 89-real and none that NVIDIA GeForce RTX 2080 (7.5) can run"),
        (machine("7.5", "8.9"), SM75_89, "some GPUs", "no one shard of it has code for all GPUs"),
        (machine("6.1", "8.9"), SM89, "some GPUs", "none that NVIDIA GeForce GTX 1080 (6.1) can run"),
        (machine("8.9", driver="550.5"), SM89, "the CPU", "CUDA 13.0 needs driver 580 or later, here is driver 550.5"),
        (machine("8.9", driver=None), SM89, "the CPU", "CUDA 13.0 needs driver 580 or later, here is no driver"),
        (machine(driver=None), SM89, "the CPU", "there is no NVIDIA GPU here"),
        (machine("8.9", glibc="2.31"), SM89, "nothing", "it needs glibc 2.35 or later, here is 2.31"),
        (machine("8.9", glibc="2.12"), OLD_GLIBC, "nothing", "it needs glibc 2.17 or later, here is 2.12"),
        (machine("8.9", glibc=""), SM89, "nothing", "it needs glibc 2.35 or later, here is another C library"),
        (machine("8.7", system="Linux aarch64"), SM89, "nothing", "manylinux_2_35_x86_64, this is Linux aarch64"),
        (machine("8.9", system="Darwin arm64"), SM89, "nothing", "manylinux_2_35_x86_64, this is Darwin arm64"),
        (machine("8.9"), WINDOWS, "nothing", "it is for win_amd64, this is Linux x86_64"),
        (machine("8.9"), named(SM89.file_name, yanked=True), "nothing", "it was withdrawn"),
        (machine("8.9"), named(SM89.file_name, requires_python="<3.12"), "nothing", "it needs Python <3.12"),
        (machine("8.9"), wheel("0.3.36", python="cp311-cp311"), "nothing", "it is for cp311, this is cp312"),
        # The wheels of others do not say what they have for a GPU.
        (machine("8.9"), wheel("0.3.36"), "the CPU", "does not say which CUDA"),
        (machine("8.9"), wheel("0.3.36+cpu"), "the CPU", "does not say which CUDA"),
        (machine("8.9"), wheel("0.3.36+cu130.special"), "the CPU", "does not say which CUDA"),
        (machine("8.9"), wheel("0.3.36+cu100"), "the CPU", "not known which driver"),
        (machine("8.9"), wheel("0.3.36+cu140"), "the CPU", "of CUDA 14.0 it is not known which driver"),
    ],
)
def test_why_a_wheel_does_not_use_every_gpu_is_said(
    here: Machine, candidate: recommend.Candidate, use: str, reason: str
) -> None:
    found = assessed(here, candidate)
    assert found.use == use
    assert reason in str(found.reason)


# -------------------------------------------------------------------------------------- wheels of other publishers

CP311, CP312, LINUX = "cp311-cp311", "cp312-cp312", "linux_x86_64"
UPSTREAM = "https://github.com/abetlen/llama-cpp-python/releases/download"
OTHERS = (
    wheel("0.2.26+cu121", LINUX, CP312),
    wheel("0.3.16+cu1210", LINUX, CP312),
    wheel("0.3.16+cu1210"),
    wheel("0.3.99+cu130", LINUX, CP312),  # named as our portable wheel is, and newer
    wheel("0.3.99+cu130", LINUX),
    wheel("0.3.99+cu130.sm89", "manylinux_2_35_x86_64", CP312),
    wheel("0.3.99+cu130.basic"),
    wheel("0.3.99+cuda13.0.sm89.ada", LINUX, CP312),
    wheel("0.3.99+cu128.sm120", "win_amd64", CP312),
    wheel("0.3.99+rocm6.3", LINUX, CP312),
    wheel("0.3.99+vulkan", LINUX, CP312),
    named("llama_cpp_python-0.3.99-cp312-cp312-linux_x86_64.whl", address=f"{UPSTREAM}/v0.3.99-cu124/x.whl"),
    named("llama_cpp_python-0.3.99-py3-none-linux_x86_64.whl", address="https://example.org/whl/cu130/x.whl"),
)


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: f"{other.version}-{other.tags[0]}")
@pytest.mark.parametrize("gpu", ["7.5", "8.9", "12.0", None])
def test_a_wheel_of_another_publisher_is_not_taken_for_ours_and_does_not_beat_it(
    other: recommend.Candidate, gpu: str | None
) -> None:
    here = machine(gpu) if gpu else machine(driver=None)
    assert recommended(here, other).chosen is None
    for order in ((other, PORTABLE), (PORTABLE, other)):
        answer = recommended(here, *order)
        assert answer.chosen is not None
        assert answer.chosen.candidate is PORTABLE
        assert answer.others[0].reason
    assert (other.cuda, other.shards, other.portable) == (None, (), False)


@pytest.mark.parametrize("name", ["0.3.99", "0.3.99+cpu", "0.3.99+cpu.avx2"])
def test_a_cpu_wheel_of_another_publisher_is_for_machines_without_a_gpu_if_ours_is_not_there(name: str) -> None:
    other, here = wheel(name, LINUX, CP312), machine(driver=None)
    answer = recommended(here, other)
    assert (answer.chosen and answer.chosen.candidate) == other
    answer = recommended(here, other, PORTABLE)
    assert (answer.chosen and answer.chosen.candidate) == PORTABLE
    assert recommended(machine("8.9"), other).chosen is None


def test_metal_and_an_address_that_only_resembles_cuda_are_no_gpu_builds() -> None:
    name = "llama_cpp_python-0.3.99-py3-none-any.whl"
    for address in ("https://example.org/cucumber/x.whl", "https://example.org/whl/cpu/x.whl", ""):
        assert not named(name, address=address).needs_driver
    assert not wheel("0.3.99+metal", "macosx_11_0_arm64").needs_driver


# --------------------------------------------------------------------------------------------------- names and pages


@pytest.mark.parametrize("name", ["numpy-2.0-py3-none-any.whl", "llama_cpp_python-0.3.36.tar.gz", "readme.html"])
def test_anything_but_a_wheel_of_llama_cpp_python_is_passed_over(name: str) -> None:
    assert recommend.candidate(name) is None


@pytest.mark.parametrize("requested", ["89", "86,89", "90-virtual", "120", "portable"])
def test_the_version_of_a_wheel_is_read_back(requested: str) -> None:
    selection = archs.resolve(requested, cuda_release="13.0", gpus=())
    found = wheel(str(wheel_version(Version("0.3.36"), "cu130", selection)))
    assert (found.cuda, found.shards, found.portable) == ("13.0", selection.shards, selection.portable)


def test_the_answer_is_there_in_words_and_for_programs() -> None:
    answer = recommended(machine("7.5", driver="580.65.06"), SM75, SM89)
    said = recommend.text(answer)
    assert "take: llama_cpp_python-0.3.36+cu130.sm75-" in said
    assert "computes on every GPU" in said
    assert "NVIDIA GeForce RTX 2080, compute capability 7.5" in said
    assert "NVIDIA driver 580.65.06, which runs CUDA 13.0 at the newest" in said
    assert "none that NVIDIA GeForce RTX 2080 (7.5) can run" in said
    assert f'"file_name": "{SM75.file_name}"' in jsonio.dumps(answer)
    nothing = recommend.text(recommended(machine("6.1"), SM89))
    assert "None of the wheels" in nothing
    assert f"build: {BUILD} 61 --cuda 12.9" in nothing


PAGE = (PACKAGE.parent / "docs" / "choosing.md").read_text(encoding="utf-8")
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")


def test_the_page_has_the_table_that_the_data_give() -> None:
    """To fix it: put the output of `nox -s doctor -- --gpus` into the page."""
    assert f"\n\n{recommend.table()}\n" in PAGE


@pytest.mark.parametrize(
    "name", ["RTX 20", "RTX 30", "RTX 40", "RTX 50", "A100", "L4", "H100", "H200", "B200", "GTX 10", "V100", "Jetson"]
)
def test_the_table_names_the_gpus_that_people_have(name: str) -> None:
    assert any(name in row.gpus for row in gpu_table.rows())


def test_the_gpus_that_are_not_covered_have_no_option_and_all_others_one_that_the_build_takes() -> None:
    for row in gpu_table.rows():
        option = re.fullmatch(r"`--arch (\d+)( --cuda 12\.9)?`", row.option)
        assert (option is None) == row.gpus.startswith(("Jetson", "DGX"))
        if option is not None:
            release = "12.9" if option[2] else "13.0"
            (shard,) = archs.resolve(option[1], cuda_release=release, gpus=()).shards
            assert (f"`{shard.name}`", archs.oldest_driver(release)) == (row.shard, row.driver)


def test_the_readme_says_of_every_gpu_what_the_table_says() -> None:
    rows = {row.capability: row for row in gpu_table.rows()}
    listed = re.findall(r"^\| ([^|]+) \| (\d+\.\d) \| (`--arch \d+`)", README, re.MULTILINE)
    assert len(listed) >= 7
    for names, capability, option in listed:
        assert (rows[capability].gpus, rows[capability].option) == (names, option)
    (jetson,) = re.findall(r"^\| Jetson \| ([^|]+) \| not covered", README, re.MULTILINE)
    assert all(rows[capability].option == "not covered" for capability in jetson.split(", "))
