"""What each platform is called and given; the keys of units on Linux, pinned."""

from pathlib import Path, PureWindowsPath

import pytest

from build_config.steps.units import settings
from build_config.steps.units.spec import core_spec, shard_spec
from build_config.system import machine, platforms
from build_config.system.layout import PACKAGE
from build_config.system.platforms.linux import LINUX
from build_config.system.platforms.windows import WINDOWS
from tests.support import factories


def test_the_keys_of_linux_are_those_of_before_there_were_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key would make everybody compile everything again. The digests were taken before platforms came."""
    monkeypatch.setattr(machine, "glibc_version", lambda: "2.36")
    small = settings.Settings(
        core=settings.CoreSettings(cpu_variants=("x64", "zen4"), oldest_gcc={"zen4": 10}, defines={"GGML_CUDA": "OFF"}),
        cuda=settings.UnitSettings(defines={"GGML_CUDA": "ON"}),
        common=settings.UnitSettings(defines={"CMAKE_BUILD_TYPE": "Release"}),
        wheel=settings.WheelSettings(max_size_one_arch=1),
    )
    layout = factories.layout(Path(LINUX.work_root))
    tree, chain = factories.source_tree(layout.staged), factories.toolchain(Path("/tk"))
    core = core_spec(small, tree, layout, chain, "p")
    shard = shard_spec(small, tree, layout, chain, "p", factories.SM89)
    assert core.key.digest == "b5825926f3bcc63e94b7fbf5ef7d5bef3824583e46ffc875ad5ab9ee72ff5f4e"
    assert shard.key.digest == "014606395a69803cc52cf8a1e9f34b3ff5c033bdbc87dcd9f23743e1c8f812a9"


def test_names_of_files() -> None:
    libraries = [each.library("ggml-cuda-sm89") for each in (LINUX, WINDOWS)]
    assert libraries == ["libggml-cuda-sm89.so", "ggml-cuda-sm89.dll"]
    assert [each.program("nvcc") for each in (LINUX, WINDOWS)] == ["nvcc", "nvcc.exe"]
    assert PureWindowsPath(r"C:\llama-cuda-wheels") == WINDOWS.work_root


@pytest.mark.parametrize(
    ("release", "libraries"),
    [
        ("11.8", ("cudart64_110.dll", "cublasLt64_11.dll", "cublas64_11.dll")),
        ("12.4", ("cudart64_12.dll", "cublasLt64_12.dll", "cublas64_12.dll")),
        ("13.0", ("cublasLt64_13.dll", "cublas64_13.dll")),
    ],
)
def test_cuda_libraries_of_windows(release: str, libraries: tuple[str, ...]) -> None:
    assert WINDOWS.cuda_libraries(release) == libraries


def test_variants_that_msvc_cannot_build_are_left_out_and_others_remain() -> None:
    wanted = settings.read(PACKAGE / "data" / "variants.toml").core.cpu_variants
    assert LINUX.cpu_variants(wanted) == wanted
    assert WINDOWS.cpu_variants(wanted) == ("x64", "sse42", "haswell", "alderlake", "cascadelake")


@pytest.mark.parametrize(
    ("launcher", "version", "caches"),
    [
        ("sccache", "0.16.0", False),
        ("sccache", "0.17.0", False),
        ("sccache", "0.18.0", True),
        ("ccache", "4.12", False),
    ],
)
def test_on_windows_only_an_sccache_without_the_fault_stands_before_nvcc(
    launcher: str, version: str, *, caches: bool
) -> None:
    assert WINDOWS.caches_cuda(launcher, version) is caches
    assert LINUX.caches_cuda(launcher, version)


def test_every_platform_of_the_locks_is_there() -> None:
    known = ["linux-x86_64", "win-amd64"]
    assert [*platforms.PLATFORMS] == [platforms.of(name).name for name in platforms.PLATFORMS] == known


@pytest.mark.parametrize(
    ("tags", "platform"),
    [
        (("py3-none-win_amd64",), WINDOWS),
        (("py3-none-linux_x86_64",), LINUX),
        (("py3-none-manylinux2014_x86_64", "py3-none-manylinux_2_17_x86_64"), LINUX),
        ((), LINUX),
    ],
)
def test_the_platform_of_a_wheel(tags: tuple[str, ...], platform: platforms.Platform) -> None:
    assert platforms.of_tags(tags) is platform
