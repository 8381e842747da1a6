"""CMake's arguments and cache entries as pure functions: a test asserts them without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.layout import Layout
    from build_config.model import CudaToolkit, Shard, SourceTree, Toolchain
    from build_config.settings import Settings

UNIT_TARGET = "lcw_unit"
INCLUDE = "CMAKE_PROJECT_llama_cuda_wheel_INCLUDE"
"""CMake's own entry: a file that ``project(llama_cuda_wheel)`` includes."""
OLDER_GCC = "older_gcc.cmake"
"""In our CMake project, for compilers that do not know every option of llama.cpp's list of CPU variants."""
STRIP = "-Wl,-s -Wl,--build-id=none"
"""A link without symbol table and build-id: both differ where nothing that runs differs."""
RANDOM_SEED_SINCE = (12, 9)
"""The first CUDA release whose nvcc knows ``--frandom-seed``."""
WITHOUT_NVTX = "-DCCCL_DISABLE_NVTX"
"""CUB marks ranges for NVIDIA's profilers where it finds ``nvtx3/nvToolsExt.h``. The locked wheels have none, but an
installed CUDA toolkit puts one into ``/usr/include``: there the same inputs would give another library."""
NO_RANDOM_SEED = (
    "NOT reproducible byte for byte: before CUDA 12.9 nvcc has no --frandom-seed, so that names in device code are"
    " other ones in every build"
)


def has_random_seed(cuda: CudaToolkit) -> bool:
    """Whether two builds with this toolkit can give the same bytes."""
    return tuple(int(part) for part in cuda.release.split(".")) >= RANDOM_SEED_SINCE


def core_entries(settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain) -> dict[str, str]:
    """Cache entries of the core unit."""
    variants = settings.core.variants(toolchain.host.cxx.version)
    # By an entry and not in core.cmake, so that the units of compilers that know every option are what they were.
    older = (
        {} if variants == settings.core.cpu_variants else {INCLUDE: str(layout.staged / "wheel_project" / OLDER_GCC)}
    )
    return {
        **_common_entries(settings, tree, layout, toolchain),
        **settings.core.defines,
        **older,
        "LCW_UNIT": "core",
        "LCW_CPU_VARIANTS": ";".join(variants),
    }


def shard_entries(
    settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain, shard: Shard
) -> dict[str, str]:
    """Cache entries of one CUDA shard."""
    cuda = toolchain.cuda
    # Headers that are not below the root CMake finds only after it has tried the compiler, and ggml asks before that.
    scattered = {} if cuda.include.is_relative_to(cuda.root) else {"CUDAToolkit_INCLUDE_DIRECTORIES": str(cuda.include)}
    return {
        **_common_entries(settings, tree, layout, toolchain),
        **settings.cuda.defines,
        "LCW_UNIT": "cuda",
        "LCW_SHARD": shard.name,
        "LCW_RANDOM_SEED": "ON" if has_random_seed(cuda) else "OFF",
        "CMAKE_CUDA_ARCHITECTURES": shard.cmake_architectures,
        "CMAKE_CUDA_COMPILER": str(cuda.nvcc.path),
        "CMAKE_CUDA_HOST_COMPILER": str(toolchain.host.cxx.path),
        "CMAKE_CUDA_FLAGS": f"-Xcompiler={_prefix_map(layout)} {WITHOUT_NVTX}",
        "CMAKE_CUDA_RUNTIME_LIBRARY": "Shared",
        "CUDAToolkit_ROOT": str(cuda.root),
        **scattered,
    }


def launcher_entries(toolchain: Toolchain, *, cuda: bool) -> dict[str, str]:
    """Entries for the compiler launcher. They are no part of a unit's key: a launcher does not change the bytes."""
    launcher = "" if toolchain.launcher is None else str(toolchain.launcher.path)
    languages = ("C", "CXX", "CUDA") if cuda else ("C", "CXX")
    return {f"CMAKE_{language}_COMPILER_LAUNCHER": launcher for language in languages}


def configure_arguments(
    toolchain: Toolchain, source: Path, build: Path, entries: dict[str, str], *, fresh: bool
) -> tuple[str, ...]:
    """The call that configures a build tree. ``fresh`` forgets an earlier configuration but keeps the objects."""
    return (
        str(toolchain.cmake.path),
        *(("--fresh",) if fresh else ()),
        "-S",
        str(source),
        "-B",
        str(build),
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={toolchain.ninja.path}",
        *(f"-D{name}={value}" for name, value in sorted(entries.items())),
    )


def build_arguments(toolchain: Toolchain, build: Path, *, jobs: int, dry_run: bool = False) -> tuple[str, ...]:
    """The call that builds a unit, or (``dry_run``) lists what it would do."""
    mode = ("-n",) if dry_run else ()
    return (str(toolchain.ninja.path), *mode, "-C", str(build), "-j", str(jobs), UNIT_TARGET)


def _common_entries(settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain) -> dict[str, str]:
    prefix_map = _prefix_map(layout)
    return {
        **settings.common.defines,
        "LCW_LLAMA_CPP": str(tree.llama_cpp),
        "LLAMA_BUILD_COMMIT": tree.commit[:9],
        "LLAMA_BUILD_NUMBER": "0",
        "CMAKE_C_COMPILER": str(toolchain.host.cc.path),
        "CMAKE_CXX_COMPILER": str(toolchain.host.cxx.path),
        "CMAKE_C_FLAGS": prefix_map,
        "CMAKE_CXX_FLAGS": prefix_map,
        "CMAKE_SHARED_LINKER_FLAGS": STRIP,
        "CMAKE_MODULE_LINKER_FLAGS": STRIP,
    }


def _prefix_map(layout: Layout) -> str:
    """``__FILE__`` in messages and assertions: ``src/llama.cpp/...``, wherever the work root is."""
    return f"-ffile-prefix-map={layout.work_root}/="
