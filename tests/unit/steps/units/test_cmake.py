import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from build_config.model import Toolchain
from build_config.steps.units import cmake, settings
from build_config.system.layout import PACKAGE
from tests.support import factories

CONFIG = settings.read(PACKAGE / "data" / "variants.toml")
LAYOUT = factories.layout(Path("/work-root"))


def core_entries(chain: Toolchain) -> dict[str, str]:
    return cmake.core_entries(CONFIG, factories.source_tree(), LAYOUT, chain)


def shard_entries(chain: Toolchain) -> dict[str, str]:
    return cmake.shard_entries(CONFIG, factories.source_tree(), LAYOUT, chain, factories.SM89)


def test_a_shard_is_configured_for_its_architectures_with_the_toolkits_own_compiler() -> None:
    entries = shard_entries(factories.toolchain(Path("/tk")))
    assert entries["CMAKE_CUDA_ARCHITECTURES"] == "89-real"
    assert entries["CMAKE_CUDA_COMPILER"] == "/tk/bin/nvcc"
    assert entries["CMAKE_CUDA_HOST_COMPILER"] == "/usr/bin/g++"
    assert entries["CUDAToolkit_ROOT"] == "/tk"
    assert entries["LCW_SHARD"] == "sm89"
    assert entries["LCW_RANDOM_SEED"] == "ON"


def test_nvcc_before_12_9_gets_no_random_seed() -> None:
    assert shard_entries(factories.toolchain(cuda="12.4.131"))["LCW_RANDOM_SEED"] == "OFF"


def test_only_a_scattered_toolkit_says_where_its_headers_are() -> None:
    """The entries are part of a unit's key: nothing may come to those of the locked toolkit."""
    chain = factories.toolchain(Path("/usr/lib/nvidia-cuda-toolkit"), cuda="11.8.89")
    scattered = dataclasses.replace(chain, cuda=dataclasses.replace(chain.cuda, headers=Path("/usr/include")))
    for toolchain, expected in ((chain, None), (scattered, "/usr/include")):
        assert shard_entries(toolchain).get("CUDAToolkit_INCLUDE_DIRECTORIES") == expected


@pytest.mark.parametrize("entries_of", [core_entries, shard_entries])
def test_what_would_make_a_wheel_depend_on_the_build_machine_is_off(
    entries_of: Callable[[Toolchain], dict[str, str]],
) -> None:
    entries = entries_of(factories.toolchain())
    assert entries["GGML_NATIVE"] == "OFF"
    assert entries["GGML_CCACHE"] == "OFF"
    assert entries["GIT_EXE"] == entries["GIT_EXECUTABLE"] == ""
    assert entries["CMAKE_DISABLE_FIND_PACKAGE_Git"] == "ON"
    assert entries["GGML_BACKEND_DL"] == "ON"
    assert entries["LLAMA_BUILD_COMMIT"] == "012345678"
    assert "--build-id=none" in entries["CMAKE_MODULE_LINKER_FLAGS"]
    assert entries["CMAKE_CXX_FLAGS"] == "-ffile-prefix-map=/work-root/="
    if entries_of is shard_entries:
        assert entries["GGML_CUDA_NCCL"] == "OFF"
        assert entries["CMAKE_CUDA_FLAGS"] == "-Xcompiler=-ffile-prefix-map=/work-root/= -DCCCL_DISABLE_NVTX"


def test_the_core_has_every_variant_and_a_baseline_for_any_processor() -> None:
    entries = core_entries(factories.toolchain())
    assert "x64" in entries["LCW_CPU_VARIANTS"].split(";")
    assert entries["GGML_CPU_ALL_VARIANTS"] == "ON"
    assert entries["GGML_CUDA"] == "OFF"


def test_only_a_compiler_that_leaves_variants_out_gets_the_file_that_helps_it() -> None:
    """The entries are part of a unit's key: nothing may come to those of compilers that know every option."""
    chain = factories.toolchain()
    gcc_10 = dataclasses.replace(chain.host, cxx=factories.program("/usr/bin/g++", "10.2.1"))
    older, newer = core_entries(dataclasses.replace(chain, host=gcc_10)), core_entries(chain)
    assert cmake.INCLUDE not in newer
    assert older[cmake.INCLUDE] == "/work-root/src/wheel_project/older_gcc.cmake"
    assert older["LCW_CPU_VARIANTS"] == "x64;sse42;haswell;cascadelake;zen4"
    assert LAYOUT.wheel_project.joinpath(cmake.OLDER_GCC).is_file()


def test_the_launcher_is_set_for_every_language_and_cleared_when_there_is_none() -> None:
    with_cache = factories.toolchain(launcher=factories.program("/work-root/tools/sccache-0.16.0/sccache"))
    assert set(cmake.launcher_entries(with_cache, cuda=True).items()) == {
        (f"CMAKE_{language}_COMPILER_LAUNCHER", "/work-root/tools/sccache-0.16.0/sccache")
        for language in ("C", "CXX", "CUDA")
    }
    cleared = cmake.launcher_entries(factories.toolchain(), cuda=False)
    assert cleared == {"CMAKE_C_COMPILER_LAUNCHER": "", "CMAKE_CXX_COMPILER_LAUNCHER": ""}


def test_command_lines() -> None:
    chain = factories.toolchain()
    argv = cmake.configure_arguments(chain, Path("/s"), Path("/b"), {"B": "2", "A": "1"}, fresh=True)
    source, build, ninja = str(Path("/s")), str(Path("/b")), chain.ninja.path
    settings = (f"-DCMAKE_MAKE_PROGRAM={ninja.as_posix()}", "-DA=1", "-DB=2")
    assert argv == (str(chain.cmake.path), "--fresh", "-S", source, "-B", build, "-G", "Ninja", *settings)
    assert cmake.build_arguments(chain, Path("/b"), jobs=2) == (str(ninja), "-C", build, "-j", "2", "lcw_unit")
    assert "-n" in cmake.build_arguments(chain, Path("/b"), jobs=2, dry_run=True)
