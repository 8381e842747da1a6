from __future__ import annotations

import contextlib
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_config import archs
from build_config.errors import ArchitectureError
from build_config.model import CudaArch, GpuDevice
from build_config.steps import locks
from build_config.system.layout import PACKAGE
from tests.support import pairs

pytestmark = pytest.mark.unit

RELEASES = ("11.8", "12.0", "12.4", "12.6", "12.8", "12.9", "13.0", "13.2")


def gpu(capability: str, index: int = 0) -> GpuDevice:
    return GpuDevice(index=index, name=f"GPU {index}", capability=capability, memory=24 << 30)


def shards(
    requested: str, *, release: str = "13.0", gpus: tuple[GpuDevice, ...] = ()
) -> list[tuple[str, tuple[str, ...]]]:
    selection = archs.resolve(requested, cuda_release=release, gpus=gpus)
    return [(shard.name, tuple(map(str, shard.archs))) for shard in selection.shards]


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ("89", [("sm89", ("89-real",))]),
        ("8.9", [("sm89", ("89-real",))]),
        ("89-real", [("sm89", ("89-real",))]),
        ("90-virtual", [("ptx90", ("90-virtual",))]),
        ("89, 86,8.9", [("sm86", ("86-real",)), ("sm89", ("89-real",))]),
        ("100,89", [("sm89", ("89-real",)), ("sm100", ("100-real",))]),
        ("120", [("sm120a", ("120a-real",))]),
        ("12.1", [("sm121a", ("121a-real",))]),
        ("120,120a-real", [("sm120a", ("120a-real",))]),
        ("120-virtual", [("ptx120a", ("120a-virtual",))]),
        ("90a", [("sm90a", ("90a-real",))]),
        ("100f", [("sm100f", ("100f-real",))]),
    ],
)
def test_each_named_architecture_is_a_separate_shard(
    requested: str, expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert shards(requested) == expected


def test_without_a_gpu_auto_builds_for_rtx_40_and_names_the_option() -> None:
    selection = archs.resolve("auto", cuda_release="13.0", gpus=())
    assert [shard.name for shard in selection.shards] == ["sm89"]
    assert selection.notice is not None
    assert "RTX 40" in selection.notice
    assert "nox -s build_cuda_wheel -- --arch 86" in selection.notice


def test_auto_and_native_use_the_gpus_of_the_machine() -> None:
    for requested in ("auto", "native"):
        assert shards(requested, gpus=(gpu("12.0"),)) == [("sm120a", ("120a-real",))]
        assert archs.resolve(requested, cuda_release="13.0", gpus=(gpu("8.6"),)).notice is None


def test_gpus_of_one_machine_share_a_shard_because_one_backend_uses_all_of_them() -> None:
    gpus = (gpu("8.9"), gpu("8.6", 1), gpu("8.9", 2))
    assert shards("native", gpus=gpus) == [("sm86x89", ("86-real", "89-real"))]


def test_native_names_the_gpu_that_it_leaves_out() -> None:
    selection = archs.resolve("native", cuda_release="13.0", gpus=(gpu("6.1"), gpu("8.6", 1)))
    assert [shard.name for shard in selection.shards] == ["sm86"]
    assert selection.notice is not None
    assert "GPU 0 (6.1)" in selection.notice


def test_native_without_a_gpu_names_the_remedy() -> None:
    with pytest.raises(ArchitectureError, match="no NVIDIA GPU") as caught:
        archs.resolve("native", cuda_release="13.0", gpus=())
    assert "--arch 86 for RTX 30" in str(caught.value)


@pytest.mark.parametrize("requested", ["native", "auto"])
def test_a_gpu_that_the_toolkit_no_longer_knows_is_refused(requested: str) -> None:
    with pytest.raises(ArchitectureError, match=r"6\.1 \(GTX 10\)") as caught:
        archs.resolve(requested, cuda_release="13.0", gpus=(gpu("6.1"),))
    assert "CUDA 12.9" in str(caught.value.remedy)


@pytest.mark.parametrize("requested", ["8.9x", "abc", "", "86,", "native,89", "8.9.1", "89_real", "-89", "89-cubin"])
def test_another_form_is_refused_with_the_accepted_ones(requested: str) -> None:
    with pytest.raises(ArchitectureError, match="is not a CUDA architecture") as caught:
        archs.resolve(requested, cuda_release="13.0", gpus=())
    assert caught.value.exit_code == 12
    assert "89 or 8.9" in str(caught.value.remedy)
    assert "portable" in str(caught.value.remedy)


def test_for_a_dropped_architecture_the_supported_ones_and_the_last_toolkit_for_it_are_named() -> None:
    with pytest.raises(ArchitectureError, match=r"CUDA 13\.0 cannot compile for 5\.0 .*75, 80, 86") as caught:
        archs.resolve("50", cuda_release="13.0", gpus=())
    assert "install CUDA 12.9" in str(caught.value.remedy)
    assert "--cuda 12.9" in str(caught.value.remedy)


def test_an_architecture_that_only_nvcc_supports_is_refused_with_the_reason_and_another_toolkit() -> None:
    with pytest.raises(ArchitectureError, match=r"CUDA 11\.8 cannot compile llama\.cpp for 9\.0 .*cudaGrid") as caught:
        archs.resolve("86,90", cuda_release="11.8", gpus=())
    assert "install CUDA 12.0 or later" in str(caught.value.remedy)
    assert archs.resolve("90", cuda_release="12.4", gpus=()).shards


@pytest.mark.parametrize(
    ("release", "first", "last"), [("11.8", 35, 90), ("12.4", 50, 90), ("12.9", 50, 121), ("13.0", 75, 121)]
)
def test_each_series_of_toolkits_has_its_architectures(release: str, first: int, last: int) -> None:
    numbers = archs.toolkit_series(release).architectures
    assert (numbers[0], numbers[-1]) == (first, last)
    for series in (archs.toolkit_series(release),):
        portable = {arch.number for shard in series.portable for arch in shard}
        assert portable <= set(numbers) - set(series.without)


def test_for_a_new_architecture_the_toolkit_that_supports_it_is_named() -> None:
    with pytest.raises(ArchitectureError) as caught:
        archs.resolve("12.0", cuda_release="12.4", gpus=())
    assert "CUDA 12.8 or later" in str(caught.value.remedy)


@pytest.mark.parametrize(("requested", "release"), [("89a", "13.0"), ("90f", "13.0"), ("100f", "12.8"), ("85", "13.0")])
def test_an_architecture_that_does_not_exist_is_refused(requested: str, release: str) -> None:
    with pytest.raises(ArchitectureError):
        archs.resolve(requested, cuda_release=release, gpus=())


def test_a_toolkit_older_than_all_known_ones_is_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"CUDA 11\.4 is older"):
        archs.resolve("75", cuda_release="11.4", gpus=())


def test_the_portable_shards_of_the_locked_toolkit() -> None:
    assert archs.resolve("portable", cuda_release="13.0", gpus=()).portable
    assert shards("portable") == [
        ("sm75", ("75-real",)),
        ("sm80", ("80-real",)),
        ("sm86", ("86-real",)),
        ("sm89", ("89-real",)),
        ("sm90ptx", ("90-real", "90-virtual")),
        ("sm120a", ("120a-real",)),
    ]


@pytest.mark.parametrize("release", RELEASES)
def test_a_portable_wheel_runs_on_every_gpu_that_the_toolkit_knows_and_on_later_ones(release: str) -> None:
    series = archs.toolkit_series(release)
    compiled = list(itertools.chain.from_iterable(series.portable))
    for number in (*(n for n in series.architectures if n >= 50), 130, 200):
        assert archs.covers(compiled, f"{number // 10}.{number % 10}"), number


@pytest.mark.parametrize("release", RELEASES)
def test_the_portable_shards_can_be_requested_by_name(release: str) -> None:
    for arch in itertools.chain.from_iterable(archs.toolkit_series(release).portable):
        assert archs.resolve(str(arch), cuda_release=release, gpus=()).shards[0].archs == (arch,)


@pytest.mark.parametrize(
    ("compiled", "capability", "expected"),
    [
        ("86-real", "8.6", "cubin"),
        ("86-real", "8.9", "cubin"),
        ("89-real", "8.6", None),
        ("89-real", "9.0", None),
        ("90a-real", "9.0", "cubin"),
        ("120a-real", "12.1", None),
        ("120f-real", "12.1", "cubin"),
        ("100f-real", "12.0", None),
        ("90-virtual", "12.0", "ptx"),
        ("90-virtual", "8.9", None),
        ("90a-virtual", "10.0", None),
        ("100f-virtual", "10.3", "ptx"),
        ("100f-virtual", "12.0", None),
    ],
)
def test_what_runs_on_which_gpu(compiled: str, capability: str, expected: str | None) -> None:
    assert archs.covers([CudaArch.parse(compiled)], capability) == expected


def test_machine_code_is_preferred_to_ptx() -> None:
    both = [CudaArch.parse("90-virtual"), CudaArch.parse("90-real")]
    assert archs.covers(both, "9.0") == "cubin"
    assert archs.covers(both, "10.0") == "ptx"
    assert archs.covers([], "9.0") is None


@pytest.mark.parametrize("release", RELEASES)
def test_the_name_of_every_shard_can_be_parsed(release: str) -> None:
    made = [*archs.resolve("portable", cuda_release=release, gpus=()).shards]
    for arch in map(str, pairs.CODE):
        with contextlib.suppress(ArchitectureError):
            made += archs.resolve(arch, cuda_release=release, gpus=()).shards
    buildable = [n for n in pairs.NUMBERS if archs.toolkit_series(release).builds_for(n)]
    for count in (2, 3, len(buildable)):
        for numbers in itertools.islice(itertools.combinations(buildable, count), 200):
            gpus = tuple(gpu(pairs.capability(number), index) for index, number in enumerate(numbers))
            made += archs.resolve("native", cuda_release=release, gpus=gpus).shards
    assert len({shard.name for shard in made}) > 2 * len(buildable)
    assert [archs.parse_shard(shard.name) for shard in made] == made


def test_the_name_of_a_shard_with_ptx_of_another_architecture_can_be_parsed() -> None:
    shard = archs.parse_shard("sm90ptx80")
    assert shard is not None
    assert shard.archs == (CudaArch.parse("90-real"), CudaArch.parse("80-virtual"))


@pytest.mark.parametrize(
    "name", ["", "special", "sm", "ptx", "sm8x", "smx89", "cpu", "sm89-real", "sm90ptx90", "sm89.sm90", "SM89"]
)
def test_no_other_name_is_parsed_as_a_shard(name: str) -> None:
    assert archs.parse_shard(name) is None


known = st.sampled_from(archs.toolkit_series("13.0").architectures)


@given(st.lists(known, min_size=1, max_size=8))
def test_any_list_gives_sorted_distinct_shards_that_run_on_their_gpus(numbers: list[int]) -> None:
    selection = archs.resolve(",".join(map(str, numbers)), cuda_release="13.0", gpus=())
    compiled = [arch for shard in selection.shards for arch in shard.archs]
    assert [arch.number for arch in compiled] == sorted(set(numbers))
    assert len({shard.name for shard in selection.shards}) == len(selection.shards)
    for number in numbers:
        assert archs.covers(compiled, f"{number // 10}.{number % 10}") == "cubin"


@given(st.text(max_size=12))
def test_any_text_gives_valid_shard_names_or_an_error(text: str) -> None:
    with contextlib.suppress(ArchitectureError):
        for shard in archs.resolve(text, cuda_release="13.0", gpus=()).shards:
            assert re.fullmatch(r"[a-z0-9]+", shard.name)


def test_the_locked_toolkit_is_the_newest_one_with_a_lock_and_begins_a_series() -> None:
    releases = locks.toolkits(PACKAGE / "data" / "locks")
    assert releases[-1] == archs.LOCKED_CUDA
    assert archs.toolkit_series(archs.LOCKED_CUDA).since == archs.LOCKED_CUDA


def test_the_oldest_driver_and_the_gpus_are_known_for_the_locked_toolkit() -> None:
    assert archs.oldest_driver(archs.LOCKED_CUDA) == "580"
    assert archs.describe("8.9") == "8.9 (RTX 40, L4)"
    assert archs.describe("9.9") == "9.9"
