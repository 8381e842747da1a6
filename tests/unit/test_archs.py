import contextlib
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_config import archs
from build_config.errors import ArchitectureError
from build_config.model import ArchSelection, CudaArch, GpuDevice, Shard
from build_config.steps import locks
from build_config.system.layout import PACKAGE
from tests.support import pairs

RELEASES = ("11.8", "12.0", "12.4", "12.6", "12.8", "12.9", "13.0", "13.2")


def resolve(requested: str, *capabilities: str, release: str = "13.0") -> ArchSelection:
    """Resolve a request on a machine with GPUs of these compute capabilities."""
    gpus = (GpuDevice(index=i, name=f"GPU {i}", capability=one, memory=24 << 30) for i, one in enumerate(capabilities))
    return archs.resolve(requested, cuda_release=release, gpus=tuple(gpus))


def shards(selection: ArchSelection) -> list[tuple[str, tuple[str, ...]]]:
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
    assert shards(resolve(requested)) == expected


@pytest.mark.parametrize(
    ("requested", "capabilities", "shard", "notices"),
    [
        ("auto", (), ("sm89", ("89-real",)), ("RTX 40", "nox -s build_cuda_wheel -- --arch 86")),
        ("auto", ("12.0",), ("sm120a", ("120a-real",)), ()),
        ("native", ("12.0",), ("sm120a", ("120a-real",)), ()),
        ("native", ("8.9", "8.6", "8.9"), ("sm86x89", ("86-real", "89-real")), ()),  # one backend uses all of them
        ("native", ("6.1", "8.6"), ("sm86", ("86-real",)), ("GPU 0 (6.1)",)),
    ],
)
def test_auto_and_native_use_the_gpus_of_the_machine_and_name_those_that_they_leave_out(
    requested: str, capabilities: tuple[str, ...], shard: tuple[str, tuple[str, ...]], notices: tuple[str, ...]
) -> None:
    selection = resolve(requested, *capabilities)
    assert shards(selection) == [shard]
    assert (selection.notice is not None) is bool(notices)
    assert all(text in str(selection.notice) for text in notices)


@pytest.mark.parametrize(
    ("requested", "release", "told"),
    [
        *(
            (requested, "13.0", r"is not a CUDA architecture.*89 or 8\.9.*portable")
            for requested in ("8.9x", "abc", "", "86,", "native,89", "8.9.1", "89_real", "-89", "89-cubin")
        ),
        ("native", "13.0", "no NVIDIA GPU.*--arch 86 for RTX 30"),
        ("50", "13.0", r"CUDA 13\.0 cannot compile for 5\.0 .*75, 80, 86.*install CUDA 12\.9.*--cuda 12\.9"),
        ("86,90", "11.8", r"11\.8 cannot compile llama\.cpp for 9\.0 .*cudaGrid.*install CUDA 12\.0 or later"),
        ("12.0", "12.4", r"CUDA 12\.8 or later"),
        ("75", "11.4", r"CUDA 11\.4 is older"),
        ("89a", "13.0", "sm_89a does not exist; the suffix a begins with 90a"),
        ("90f", "13.0", "does not know sm_90f; the suffix f begins with 100f"),
        ("100f", "12.8", r"does not know sm_100f; the suffix f begins with 100f and CUDA 12\.9"),
        ("85", "13.0", r"cannot compile for 8\.5"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason_and_the_remedy(
    requested: str, release: str, told: str
) -> None:
    with pytest.raises(ArchitectureError, match=f"(?s){told}") as caught:
        resolve(requested, release=release)
    assert caught.value.exit_code == 12


@pytest.mark.parametrize("requested", ["native", "auto"])
def test_a_gpu_that_the_toolkit_no_longer_knows_is_refused(requested: str) -> None:
    with pytest.raises(ArchitectureError, match=r"(?s)6\.1 \(GTX 10\).*CUDA 12\.9"):
        resolve(requested, "6.1")


@pytest.mark.parametrize(
    ("release", "first", "last"), [("11.8", 35, 90), ("12.4", 50, 90), ("12.9", 50, 121), ("13.0", 75, 121)]
)
def test_each_series_of_toolkits_has_its_architectures(release: str, first: int, last: int) -> None:
    series = archs.toolkit_series(release)
    assert (series.architectures[0], series.architectures[-1]) == (first, last)
    portable = {arch.number for shard in series.portable for arch in shard}
    assert portable <= set(series.architectures) - set(series.without)


def test_the_portable_shards_of_the_locked_toolkit() -> None:
    assert resolve("portable").portable
    assert shards(resolve("portable")) == [
        *((f"sm{number}", (f"{number}-real",)) for number in (75, 80, 86, 89)),
        ("sm90ptx", ("90-real", "90-virtual")),
        ("sm120a", ("120a-real",)),
    ]


@pytest.mark.parametrize("release", RELEASES)
def test_a_portable_wheel_runs_on_every_gpu_that_the_toolkit_knows_and_on_later_ones(release: str) -> None:
    series = archs.toolkit_series(release)
    compiled = list(itertools.chain.from_iterable(series.portable))
    for number in (*(n for n in series.architectures if n >= 50), 130, 200):
        assert archs.covers(compiled, pairs.capability(number)), number


@pytest.mark.parametrize("release", RELEASES)
def test_the_portable_shards_can_be_requested_by_name(release: str) -> None:
    for arch in itertools.chain.from_iterable(archs.toolkit_series(release).portable):
        assert resolve(str(arch), release=release).shards[0].archs == (arch,)


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
        ("90-virtual 90-real", "9.0", "cubin"),
        ("90-virtual 90-real", "10.0", "ptx"),
        ("", "9.0", None),
    ],
)
def test_what_runs_on_which_gpu_and_machine_code_is_preferred_to_ptx(
    compiled: str, capability: str, expected: str | None
) -> None:
    assert archs.covers(map(CudaArch.parse, compiled.split()), capability) == expected


@pytest.mark.parametrize("release", RELEASES)
def test_the_name_of_every_shard_can_be_parsed(release: str) -> None:
    made = [*resolve("portable", release=release).shards]
    for arch in map(str, pairs.CODE):
        with contextlib.suppress(ArchitectureError):
            made += resolve(arch, release=release).shards
    buildable = [n for n in pairs.NUMBERS if archs.toolkit_series(release).builds_for(n)]
    for count in (2, 3, len(buildable)):
        for numbers in itertools.islice(itertools.combinations(buildable, count), 200):
            made += resolve("native", *map(pairs.capability, numbers), release=release).shards
    assert len({shard.name for shard in made}) > 2 * len(buildable)
    made.append(Shard(name="sm90ptx80", archs=(CudaArch.parse("90-real"), CudaArch.parse("80-virtual"))))
    assert [archs.parse_shard(shard.name) for shard in made] == made


@pytest.mark.parametrize(
    "name", ["", "special", "sm", "ptx", "sm8x", "smx89", "cpu", "sm89-real", "sm90ptx90", "sm89.sm90", "SM89"]
)
def test_no_other_name_is_parsed_as_a_shard(name: str) -> None:
    assert archs.parse_shard(name) is None


known = st.sampled_from(archs.toolkit_series("13.0").architectures)


@given(st.lists(known, min_size=1, max_size=8))
def test_any_list_gives_sorted_distinct_shards_that_run_on_their_gpus(numbers: list[int]) -> None:
    selection = resolve(",".join(map(str, numbers)))
    compiled = [arch for shard in selection.shards for arch in shard.archs]
    assert [arch.number for arch in compiled] == sorted(set(numbers))
    assert len({shard.name for shard in selection.shards}) == len(selection.shards)
    assert all(archs.covers(compiled, pairs.capability(number)) == "cubin" for number in numbers)


@given(st.text(max_size=12))
def test_any_text_gives_valid_shard_names_or_an_error(text: str) -> None:
    with contextlib.suppress(ArchitectureError):
        assert all(re.fullmatch(r"[a-z0-9]+", shard.name) for shard in resolve(text).shards)


def test_the_locked_toolkit_is_the_newest_one_with_a_lock_and_begins_a_series() -> None:
    releases = locks.releases(locks.contents(PACKAGE / "data" / "locks"))
    assert releases[-1] == archs.LOCKED_CUDA
    assert archs.toolkit_series(archs.LOCKED_CUDA).since == archs.LOCKED_CUDA


def test_the_oldest_driver_and_the_gpus_are_known_for_the_locked_toolkit() -> None:
    assert archs.oldest_driver(archs.LOCKED_CUDA) == "580"
    assert archs.describe("8.9") == "8.9 (RTX 40, L4)"
    assert archs.describe("9.9") == "9.9"
