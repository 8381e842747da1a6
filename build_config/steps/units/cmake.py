"""CMake's arguments and cache entries as pure functions: a test asserts them without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.system import platforms

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Shard, SourceTree, Toolchain
    from build_config.steps.units.settings import Settings
    from build_config.system.layout import Layout

UNIT_TARGET = "lcw_unit"
INCLUDE = "CMAKE_PROJECT_llama_cuda_wheel_INCLUDE"
"""CMake's own entry: a file that ``project(llama_cuda_wheel)`` includes."""
OLDER_GCC = "older_gcc.cmake"
"""A file of our CMake project, for compilers that do not know every option of llama.cpp's list of CPU variants."""


def cpu_variants(settings: Settings, toolchain: Toolchain) -> tuple[str, ...]:
    """The CPU variants that this toolchain builds."""
    too_new = too_new_variants(settings, toolchain)
    wanted = platforms.of(toolchain.platform).cpu_variants(settings.core.cpu_variants)
    return tuple(variant for variant in wanted if variant not in too_new)


def too_new_variants(settings: Settings, toolchain: Toolchain) -> tuple[str, ...]:
    """CPU variants with instructions that this GCC does not know."""
    msvc = platforms.of(toolchain.platform).uses_msvc
    return () if msvc else settings.core.too_new_for(toolchain.host.cxx.version)


def core_entries(settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain) -> dict[str, str]:
    """Cache entries of the core unit."""
    # As an entry and not in core.cmake: the keys for compilers that know every option must stay the same.
    file = (layout.staged / "wheel_project" / OLDER_GCC).as_posix()
    older = {INCLUDE: file} if too_new_variants(settings, toolchain) else {}
    return {
        **_common_entries(settings, tree, layout, toolchain),
        **settings.core.defines,
        **older,
        "LCW_UNIT": "core",
        "LCW_CPU_VARIANTS": ";".join(cpu_variants(settings, toolchain)),
    }


def shard_entries(
    settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain, shard: Shard
) -> dict[str, str]:
    """Cache entries of one CUDA shard."""
    cuda = toolchain.cuda
    # CMake finds headers outside the root only after it has tried the compiler, and ggml needs them before that.
    include = cuda.include.as_posix()
    scattered = {} if cuda.include.is_relative_to(cuda.root) else {"CUDAToolkit_INCLUDE_DIRECTORIES": include}
    return {
        **_common_entries(settings, tree, layout, toolchain),
        **settings.cuda.defines,
        "LCW_UNIT": "cuda",
        "LCW_SHARD": shard.name,
        "LCW_RANDOM_SEED": "ON" if cuda.has_random_seed else "OFF",
        "CMAKE_CUDA_ARCHITECTURES": shard.cmake_architectures,
        **platforms.of(toolchain.platform).cuda_flag_entries(layout.work_root),
        "CMAKE_CUDA_COMPILER": cuda.nvcc.path.as_posix(),
        "CMAKE_CUDA_HOST_COMPILER": toolchain.host.cxx.path.as_posix(),
        "CMAKE_CUDA_RUNTIME_LIBRARY": "Shared",
        "CUDAToolkit_ROOT": cuda.root.as_posix(),
        **scattered,
    }


def launcher_entries(toolchain: Toolchain, *, cuda: bool) -> dict[str, str]:
    """Entries for the compiler launcher. They are not part of a unit's key: a launcher does not change the bytes."""
    launcher = toolchain.launcher
    path = "" if launcher is None else launcher.path.as_posix()
    entries = {f"CMAKE_{language}_COMPILER_LAUNCHER": path for language in ("C", "CXX")}
    if cuda:
        platform = platforms.of(toolchain.platform)
        caches = launcher is not None and platform.caches_cuda(launcher.path.stem, launcher.version)
        entries["CMAKE_CUDA_COMPILER_LAUNCHER"] = path if caches else ""
    return entries


def configure_arguments(
    toolchain: Toolchain, source: Path, build: Path, entries: dict[str, str], *, fresh: bool
) -> tuple[str, ...]:
    """The call that configures a build tree. ``fresh`` forgets an earlier configuration but keeps the objects."""
    return (
        str(toolchain.cmake.path),
        *(("--fresh",) if fresh else ()),
        *("-S", str(source), "-B", str(build), "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={toolchain.ninja.path.as_posix()}",
        *(f"-D{name}={value}" for name, value in sorted(entries.items())),
    )


def build_arguments(toolchain: Toolchain, build: Path, *, jobs: int, dry_run: bool = False) -> tuple[str, ...]:
    """The call that builds a unit, or (``dry_run``) lists what it would do."""
    mode = ("-n",) if dry_run else ()
    return (str(toolchain.ninja.path), *mode, "-C", str(build), "-j", str(jobs), UNIT_TARGET)


def headers_arguments(toolchain: Toolchain, build: Path) -> tuple[str, ...]:
    """The call that lists the files of which a finished unit was compiled; ``system_headers.parse`` reads it."""
    return (str(toolchain.ninja.path), "-C", str(build), "-t", "deps")


def _common_entries(settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain) -> dict[str, str]:
    return {
        **settings.common.defines,
        **platforms.of(toolchain.platform).flag_entries(layout.work_root),
        "LCW_LLAMA_CPP": tree.llama_cpp.as_posix(),
        "LLAMA_BUILD_COMMIT": tree.commit[:9],
        "LLAMA_BUILD_NUMBER": "0",
        "CMAKE_C_COMPILER": toolchain.host.cc.path.as_posix(),
        "CMAKE_CXX_COMPILER": toolchain.host.cxx.path.as_posix(),
    }
