"""The order of the steps; the only module that imports them all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from build_config import archs, inputs
from build_config.errors import SettingsError, StepResultError
from build_config.formats import wheelfile
from build_config.model import ArchSelection, BuildUnit, SourceTree, Toolchain, UnitKey, Wheel, WheelDeclaration
from build_config.reports import BuildRecord, InspectionReport, ValidationReport, Verdict
from build_config.steps import inspection, locks, sources, toolchain, validation
from build_config.steps.toolchain.windows import msvc
from build_config.steps.units import cmake, compilation, settings, store, transfer
from build_config.steps.units.spec import core_spec, shard_spec
from build_config.steps.wheel import assemble, repair, sbom
from build_config.steps.wheelhouse import build_record, publication, signature
from build_config.system import jsonio, machine, workroot
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE

if TYPE_CHECKING:
    from build_config.model import Machine
    from build_config.steps.wheel.assemble import WheelPlan
    from build_config.steps.wheel.sbom.ingredients import Ingredients
    from build_config.system.console import Console
    from build_config.system.layout import Layout

LauncherChoice = Literal["auto", "sccache", "ccache", "none"]
WHEEL_DIGEST = "wheel.json"
"""Beside a wheel in the store: its digest when it was put there."""
VERDICT_NOTES = {
    Verdict.SIMULATED_DEVICE_VERIFIED: " (no card: the CUDA backend came up on a simulated device, where kernels do"
    " nothing)",
    Verdict.CPU_FALLBACK_VERIFIED: " (the CUDA backend was not in use)",
}
NOT_IN_EVERY_UNIT = ("python", "licences", cmake.OLDER_GCC)
"""Parts of our CMake project that no compiler sees, and one that counts where it is included (units.core_spec)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What the user asked for. ``jobs`` is ``None`` where the machine decides, ``sign_key`` a private key's file.

    ``units`` is a folder with units that other machines built; with ``require_units`` nothing is compiled here.
    """

    arch: str = "auto"
    cuda: str = inputs.LOCKED_CUDA
    llama_cpp: Path | None = None
    launcher: LauncherChoice = "auto"
    jobs: int | None = None
    require_gpu: bool = False
    sign_key: Path | None = None
    units: Path | None = None
    require_units: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledUnits:
    """The first half of the main job. ``project_digest`` is that of our part of the wheel's project."""

    tree: SourceTree
    toolchain: Toolchain
    selection: ArchSelection
    units: tuple[BuildUnit, ...]
    project_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the main job ends with."""

    path: Path
    record: BuildRecord
    wheel: Wheel


def build(request: BuildRequest, layout: Layout, console: Console) -> Published:
    """The main job: from locks to a published wheel.

    Raises a ``PipelineError`` of the step that failed; what was finished is kept for the next run.
    """
    started = datetime.now(UTC)
    here = machine.describe()
    config = settings.read(layout.data / "variants.toml")
    check_request(request, here, layout)
    key = None if request.sign_key is None else signature.read_private_key(request.sign_key)
    locked = inputs.locked_toolkit(request.cuda, layout)
    with workroot.claim(layout, purpose=f"build --arch {request.arch}", console=console):
        compiled = compile_units(request, here, layout, console)
        tree, chain, selection, built = compiled.tree, compiled.toolchain, compiled.selection, compiled.units
        with console.step("wheel", "Wheel"):
            oldest = archs.oldest_driver(chain.cuda.release)
            plan = assemble.plan(tree, chain.cuda, selection, oldest_driver=oldest)
            ingredients = inputs.ingredients(plan.version, selection.shards, tree, chain, locked, layout)
            finished = make_wheel(plan, built, tree, chain, layout, compiled.project_digest, ingredients)
            console.note(f"{finished.path.name}, {finished.size / 1e6:.1f} MB")
        declaration = WheelDeclaration(
            version=plan.version,
            shards=selection.shards,
            cuda=chain.cuda.release,
            forbidden_paths=forbidden_paths(layout),
            max_size=config.wheel.max_size_one_arch if len(selection.shards) == 1 else None,
        )
        with console.step("inspect", "Inspection: reading the wheel, running nothing"):
            inspected = inspect_wheel(finished, declaration, chain, layout)
            console.findings(inspected.findings)
            console.note(f"{len(inspected.checks)} checks, {'passed' if inspected.passed else 'FAILED'}")
        with console.step("validate", "Validation: installing the wheel and running it"):
            simulation = None  # there are no doubles of CUDA's DLLs for Windows
            if chain.platform != "win-amd64":
                simulation = validation.Simulation(include=chain.cuda.include, cc=str(chain.host.cc.path))
            validated = validate_wheel(finished, here, layout, console, simulation, require_gpu=request.require_gpu)
            show_validation(validated, console)
        with console.step("publish", "Publishing"):
            record = build_record.make_record(
                wheel=finished,
                tree=tree,
                toolchain=chain,
                units=built,
                locks=locks.lock_digests(layout),
                steps=console.timings,
                inspection=inspected,
                validation=validated,
                pipeline=build_record.pipeline_version(layout.checkout),
                request=inputs.parameters(
                    layout,
                    arch=request.arch,
                    cuda=request.cuda,
                    launcher=request.launcher,
                    own_llama_cpp=request.llama_cpp is not None,
                    require_gpu=request.require_gpu,
                ),
                materials=inputs.materials(tree, chain, locked, layout),
                started=started,
                created=datetime.now(UTC),
            )
            path = publication.publish(finished, record, inspected, validated, layout.wheelhouse, key=key)
    return Published(path=path, record=record, wheel=finished)


def check_request(request: BuildRequest, here: Machine, layout: Layout) -> None:
    """Say what is wrong with the request or the machine before anything is created or downloaded."""
    if inputs.is_locked(request.cuda, layout):
        toolchain.find_host(None, os.environ)
        locks.read_toolkit_lock(layout, request.cuda, inputs.PLATFORM)
        archs.resolve(request.arch, cuda_release=request.cuda, gpus=here.gpus)
        return
    toolkit = inputs.installed_toolkit(request.cuda, layout)
    archs.resolve(request.arch, cuda_release=toolkit.release, gpus=here.gpus)
    toolchain.find_host(toolkit, os.environ)


def compile_units(
    request: BuildRequest, here: Machine, layout: Layout, console: Console, *, only: tuple[str, ...] = ()
) -> CompiledUnits:
    """Sources, toolchain, units: from the store what is there. ``only`` names the units that are wanted.

    The caller has claimed the work root. Raises ``SettingsError`` for a unit that this request has not.
    """
    config = settings.read(layout.data / "variants.toml")
    with console.step("sources", "Sources of llama-cpp-python"):
        tree = inputs.provide_sources(request.llama_cpp, layout, console)
        note = "locked" if tree.locked else "NOT the locked one: a checkout of your own"
        console.note(f"llama-cpp-python {tree.version}, llama.cpp {tree.commit[:9]} ({note})")
    with console.step("toolchain", "Toolchain"):
        toolkit = inputs.provide_toolkit(request.cuda, layout, console)
        chain = toolchain.assemble(toolkit, environ=os.environ, launcher=request.launcher, layout=layout)
        for line in inputs.describe_toolchain(chain):
            console.note(line)
    selection = archs.resolve(request.arch, cuda_release=toolkit.release, gpus=here.gpus)
    if selection.notice:
        console.warn(selection.notice)
    if too_new := cmake.too_new_variants(config, chain):
        names = ", ".join(too_new)
        console.warn(f"GCC {chain.host.cxx.version} cannot compile for all processors: without the variants {names}")
    with console.step("build", f"Building for {', '.join(shard.name for shard in selection.shards)}"):
        compiled_digest, project_digest = stage_wheel_project(layout)
        specs = (
            core_spec(config, tree, layout, chain, compiled_digest),
            *(shard_spec(config, tree, layout, chain, compiled_digest, shard) for shard in selection.shards),
        )
        unknown = set(only) - {spec.name for spec in specs}
        if unknown:
            names = ", ".join(spec.name for spec in specs)
            raise SettingsError(f"there is no unit {', '.join(sorted(unknown))} in this build", remedy=f"name {names}")
        wanted = tuple(spec for spec in specs if not only or spec.name in only)
        if request.units is not None or request.require_units:
            transfer.take(wanted, request.units, layout, console, required=request.require_units)
        if any(store.find(spec, layout) is None for spec in wanted):
            workroot.require_space(layout, workroot.COLD_BUILD_BYTES)
        built = compilation.build_units(wanted, chain, layout, console, jobs=request.jobs or default_jobs())
    return CompiledUnits(tree=tree, toolchain=chain, selection=selection, units=built, project_digest=project_digest)


def stage_wheel_project(layout: Layout) -> tuple[str, str]:
    """Mirror our CMake project to its canonical path; returns the digest of what is compiled, and of the whole.

    A change to the loader makes another wheel of the same units.
    """
    target = layout.staged / "wheel_project"
    sources.mirror(layout.wheel_project, target)
    return store.folder_digest(target, without=NOT_IN_EVERY_UNIT), store.folder_digest(target)


def default_jobs() -> int:
    """As many compilers as there are cores, and as memory allows."""
    cores = len(psutil.Process().cpu_affinity())
    return max(1, min(cores, psutil.virtual_memory().total // machine.MEMORY_PER_JOB))


def make_wheel(
    plan: WheelPlan,
    built: tuple[BuildUnit, ...],
    tree: SourceTree,
    chain: Toolchain,
    layout: Layout,
    project_digest: str,
    ingredients: Ingredients,
) -> Wheel:
    """Assemble, repair and list what is in it, unless the store has the wheel that these inputs give."""
    policy = repair.load_policy(layout, chain.platform)
    made_of = {
        "plan": jsonio.dumps(plan),
        "units": json.dumps([unit.key.digest for unit in built]),
        "bindings": tree.bindings_digest,
        "wheel project": project_digest,
        "policy": jsonio.dumps(policy),
        "sbom": jsonio.dumps(ingredients) + sbom.source_digest(),
        **{tool: metadata.version(tool) for tool in inputs.PACKING_TOOLS},
    }
    folder = layout.store / "wheel" / UnitKey.of(made_of).digest[:32]
    kept = stored_wheel(folder)
    if kept is not None:
        return kept
    assembled = assemble.assemble(plan, built, tree, chain, layout)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if chain.platform == "win-amd64":
        folders = msvc.runtime_folders(chain.host)
        log = layout.logs / "repair.log"
        repaired = repair.repair_windows(assembled, partial / "repaired", policy=policy, folders=folders, log=log)
    else:
        repaired = repair.repair(assembled, partial / "repaired", policy=policy, log=layout.logs / "repair.log")
    listed = sbom.add(repaired, ingredients, partial)
    shutil.rmtree(repaired.path.parent)
    jsonio.write(partial / WHEEL_DIGEST, listed.sha256)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return wheelfile.read(folder / listed.path.name)


def stored_wheel(folder: Path) -> Wheel | None:
    """The wheel that the store keeps in ``folder``; ``None`` where there is none, or its bytes have changed."""
    try:
        digest = jsonio.read(folder / WHEEL_DIGEST, str)
        (path,) = folder.glob("*.whl")
    except (StepResultError, ValueError):
        return None
    kept = wheelfile.read(path)
    return kept if kept.sha256 == digest else None


def forbidden_paths(layout: Layout) -> tuple[str, ...]:
    """Paths that no file of a wheel may hold.

    A home like ``/`` or ``/root`` is no sign of this machine: such short paths stand in upstream's own texts.
    """
    homes = (os.environ.get("HOME", ""), os.environ.get("USERPROFILE", ""))
    candidates = (CANONICAL_WORK_ROOT, layout.work_root, layout.checkout, *homes)
    forms = {form for path in candidates for form in (str(path), str(path).replace("\\", "/"))}  # on Windows two
    return tuple(sorted(form for form in forms if len(form) > len("/root")))


def inspect_wheel(finished: Wheel, declaration: WheelDeclaration, chain: Toolchain, layout: Layout) -> InspectionReport:
    """Inspect, unless this very wheel was inspected against this very declaration before."""
    digest = hashlib.sha256(jsonio.dumps(declaration).encode()).hexdigest()
    path = layout.state / "inspection" / f"{finished.sha256}-{digest[:16]}.json"
    try:
        report = jsonio.read(path, InspectionReport)
    except StepResultError:
        report = inspection.inspect(
            finished,
            declaration,
            policy=repair.load_policy(layout, chain.platform),
            cuobjdump=chain.cuobjdump,
            workdir=layout.work_root / "inspection",
        )
        if report.passed:
            jsonio.write(path, report)
    return report


def validate_wheel(
    finished: Wheel,
    here: Machine,
    layout: Layout,
    console: Console,
    simulation: validation.Simulation | None,
    *,
    require_gpu: bool,
) -> ValidationReport:
    """Validate, unless this very wheel passed this very validation on this very machine before."""
    seen = (
        jsonio.dumps(here),
        store.folder_digest(PACKAGE / "steps" / "validation") + store.folder_digest(PACKAGE / "testbed"),
    )
    digest = hashlib.sha256("".join(seen).encode()).hexdigest()
    path = layout.state / "validation" / f"{finished.sha256}-{digest[:16]}.json"
    try:
        report = jsonio.read(path, ValidationReport)
    except StepResultError:
        report = None
    if report is None or (require_gpu and report.verdict is not Verdict.GPU_VERIFIED):
        report = validation.validate(
            finished,
            wheels_folder=finished.path.parent,
            downloads=layout.downloads,
            layout=layout,
            machine=here,
            simulation=simulation,
            require_gpu=require_gpu,
            console=console,
        )
        if report.verdict is not Verdict.FAILED:
            jsonio.write(path, report)
    return report


def show_validation(report: ValidationReport, console: Console) -> None:
    """What was tried and what came of it, then the verdict in its own words."""
    console.scenarios(report.scenarios)
    for scenario in report.scenarios:
        if scenario.name == report.decisive:
            console.note(f"where the layers are, in {scenario.name!r}:")
            console.placements(scenario)
    console.findings(report.findings)
    console.note(f"verdict: {report.verdict}{VERDICT_NOTES.get(report.verdict, '')}")


def newest_wheel(layout: Layout) -> Path:
    """The wheel of the wheelhouse that was written last. Raises ``SettingsError`` when there is none."""
    wheels = sorted(layout.wheelhouse.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        raise SettingsError("the wheelhouse holds no wheel", remedy="nox -s build_cuda_wheel, or name a wheel file")
    return wheels[-1]
