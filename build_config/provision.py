"""What a build takes in: the sources, and the CUDA toolkit that ``--cuda`` names, locked or installed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from build_config import clean_environment, cmake, fetch, lock, platforms, sources, toolchain, wheelfile
from build_config.errors import SettingsError
from build_config.toolchain import cuda_pypi, cuda_system, cuda_windows

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.console import Console
    from build_config.layout import Layout
    from build_config.model import CudaToolkit, LockedFile, SourceTree, Toolchain, ToolkitLock

SYSTEM = "system"
"""``--cuda`` for the toolkit that is installed on this machine."""
LOCKED_CUDA = "13.0"
"""``--cuda`` where nothing was asked for."""
PLATFORM = platforms.HERE.name


def provide_sources(llama_cpp: Path | None, layout: Layout, console: Console) -> SourceTree:
    """Fetch, unpack and stage the locked sources; ``llama_cpp`` takes the place of the locked llama.cpp."""
    vendor(layout, console)
    return sources.stage(lock.read_source_lock(layout), layout, llama_cpp=llama_cpp)


def vendor(layout: Layout, console: Console) -> None:
    """Fetch the locked source distribution and unpack it below ``vendor/``."""
    locked = lock.read_source_lock(layout)
    (archive,) = fetch.fetch((locked.file,), layout.downloads, console)
    sources.vendor(locked, archive, layout)


def provide_toolkit(cuda: str, layout: Layout, console: Console) -> CudaToolkit:
    """The locked toolkit of a release, or the one of that release (``system``: of any) that is installed here."""
    if not is_locked(cuda, layout):
        return installed_toolkit(cuda, layout)
    toolkit_lock = lock.read_toolkit_lock(layout, cuda, PLATFORM)
    wheels = fetch.fetch(toolkit_lock.files, layout.downloads, console)
    compiler = toolchain.find_host(None, os.environ)
    return cuda_pypi.provide(toolkit_lock, wheels, layout, cc=str(compiler.cc.path))


def is_locked(cuda: str, layout: Layout) -> bool:
    """Whether ``--cuda`` names a toolkit that is fetched by a lock. Any other has to be on this machine."""
    return cuda in lock.toolkits(layout.locks)


def locked_toolkit(cuda: str, layout: Layout) -> ToolkitLock | None:
    """The lock of a toolkit; ``None`` for one that has to be installed."""
    return lock.read_toolkit_lock(layout, cuda, PLATFORM) if is_locked(cuda, layout) else None


def installed_toolkit(cuda: str, layout: Layout) -> CudaToolkit:
    """The toolkit on this machine that ``--cuda`` names.

    Raises ``SettingsError`` for what is neither ``system`` nor a release, ``ToolkitMissingError`` where there is none.
    """
    if cuda != SYSTEM and not re.fullmatch(r"[1-9][0-9]*\.[0-9]+", cuda):
        raise SettingsError(
            f"--cuda {cuda}: not a release of CUDA",
            remedy=f"pass {', '.join(lock.toolkits(layout.locks))} (fetched), or one that is installed here such as"
            " 12.4, or system for any",
        )
    release = None if cuda == SYSTEM else cuda
    if PLATFORM == "win-amd64":
        return cuda_windows.find(os.environ, release)
    return cuda_system.find(os.environ, release, cublas=True)


def describe_toolchain(chain: Toolchain) -> tuple[str, ...]:
    """One line a program."""
    host = chain.host.cxx
    launcher = chain.launcher
    weaker = () if cmake.has_random_seed(chain.cuda) else (cmake.NO_RANDOM_SEED,)
    return (
        f"CUDA {chain.cuda.version} ({chain.cuda.nvcc.found_via})",
        *weaker,
        f"{host.path.name} {host.version} ({host.found_via})",
        f"CMake {chain.cmake.version}, Ninja {chain.ninja.version}",
        f"launcher: {f'{launcher.path.name} {launcher.version}' if launcher else 'none'}",
    )


def runtime_files(wheel: Path, layout: Layout) -> tuple[LockedFile, ...]:
    """NVIDIA's wheels that ``wheel`` needs at run time, from the toolkit's lock.

    None for a wheel of an earlier CUDA: pip fetches those itself, by the digests of their lock.
    """
    if clean_environment.requirements(wheelfile.read(wheel), layout.locks).name != "validation.txt":
        return ()
    names = {"nvidia-cuda-runtime", "nvidia-cublas"}
    locked: ToolkitLock = lock.read_toolkit_lock(layout, LOCKED_CUDA, PLATFORM)
    return tuple(file for file in locked.files if file.name in names)
