"""The main job: the order of the steps, and nothing else."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from build_config import archs, inputs
from build_config.errors import CommandError, SettingsError, StepResultError, ValidationError
from build_config.model import CompiledUnits, WheelDeclaration
from build_config.reports import (
    VERDICT_MEANINGS,
    BuildRecord,
    EmulationReport,
    InspectionReport,
    ValidationReport,
    Verdict,
)
from build_config.steps import inspection, toolchain, validation, wheel
from build_config.steps.units import cmake, compilation, shared_store, store, transfer
from build_config.steps.units.spec import core_spec, shard_spec
from build_config.steps.validation import emulated_wheel, emulation
from build_config.steps.wheel import assemble
from build_config.steps.wheelhouse import build_record, publication, signature
from build_config.system import jsonio, platforms, storage, workroot

if TYPE_CHECKING:
    from collections.abc import Callable

    from build_config.model import BuildUnit, Wheel
    from build_config.plan import BuildPlan
    from build_config.steps.units.spec import UnitSpec
    from build_config.system.console import Console

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The result of the main job."""

    path: Path
    record: BuildRecord


def build(plan: BuildPlan, console: Console) -> Published:
    """The main job: from locks to a published wheel.

    Raises a ``PipelineError`` of the step that failed; finished files are kept for the next run.
    """
    started = datetime.now(UTC)
    layout = plan.layout
    with workroot.claim(layout, purpose=f"build --arch {plan.request.arch}", console=console):
        compiled = compile_units(plan, console)
        with console.step("wheel", "Wheel"):
            finished, declaration = _make_wheel(plan, compiled)
            console.note(f"{finished.path.name}, {finished.size / 1e6:.1f} MB")
        with console.step("inspect", "Inspection: reading the wheel, running nothing"):
            inspected = _inspect(plan, compiled, finished, declaration, console)
            console.findings(inspected.findings)
            console.note(f"{len(inspected.checks)} checks, {'passed' if inspected.passed else 'FAILED'}")
        with console.step("validate", "Validation: installing the wheel and running it"):
            validated = _validate(plan, compiled, finished, console)
            validation.show(validated, console)
        if plan.request.emulate != "none" and validated.lacks_numbers and platforms.HERE.has_simulated_device:
            with console.step("emulate", "Emulation: computing with the wheel's own kernels, on the CPU"):
                validated = _emulate(plan, compiled, finished, validated, console)
        with console.step("publish", "Publishing"):
            record = build_record.make_record(
                finished,
                compiled,
                inputs.origin(plan, compiled, started),
                inspected,
                validated,
                steps=console.timings,
                created=datetime.now(UTC),
            )
            if plan.sign_key is None and publication.is_signed(layout.wheelhouse / finished.path.name):
                console.warn("the signature of the earlier record is removed: nox -s sign signs the new one")
            path = publication.publish(finished, record, inspected, validated, layout.wheelhouse, key=plan.sign_key)
    return Published(path=path, record=record)


def compile_units(
    plan: BuildPlan, console: Console, *, only: tuple[str, ...] = (), for_wheel: bool = True
) -> CompiledUnits:
    """Provide sources and toolchain, and compile the units that the store lacks; ``only`` limits the units.

    If it lacks none, no compiler is downloaded, and nothing of the toolkit unless the units are ``for_wheel``. The
    caller has claimed the work root. Raises ``SettingsError`` for a unit that is not part of this request.
    """
    request, layout, config = plan.request, plan.layout, plan.settings
    with console.step("sources", "Sources of llama-cpp-python"):
        tree = inputs.provide_sources(plan.locks.source, layout, console, llama_cpp=request.llama_cpp)
        note = "locked" if tree.locked else "NOT the locked one: your own checkout"
        console.note(f"llama-cpp-python {tree.version}, llama.cpp {tree.commit[:9]} ({note})")
    with console.step("toolchain", "Toolchain"):
        chain = inputs.plan_toolchain(plan.toolkit, request.launcher, layout, os.environ)
        compiled_digest, project_digest = inputs.stage_wheel_project(layout)
        shards = plan.selection.shards
        specs = (
            core_spec(config, tree, layout, chain, compiled_digest),
            *(shard_spec(config, tree, layout, chain, compiled_digest, shard) for shard in shards),
        )
        unknown = set(only) - {spec.name for spec in specs}
        if unknown:
            names = ", ".join(spec.name for spec in specs)
            raise SettingsError(f"there is no unit {', '.join(sorted(unknown))} in this build", remedy=f"use {names}")
        wanted = tuple(spec for spec in specs if not only or spec.name in only)
        _import_units(plan, wanted, console)
        compiles = any(store.find(spec, layout) is None for spec in wanted)
        if compiles or for_wheel:
            chain = inputs.provide_toolchain(chain, plan.toolkit, layout, console, compiles=compiles)
        for line in inputs.describe_toolchain(chain):
            console.note(line)
    if plan.selection.notice:
        console.warn(plan.selection.notice)
    if too_new := cmake.too_new_variants(config, chain):
        names = ", ".join(too_new)
        console.warn(f"GCC {chain.host.cxx.version} cannot compile all CPU variants; missing: {names}")
    with console.step("build", f"Building for {', '.join(shard.name for shard in shards)}"):
        if compiles:
            workroot.require_space(layout, workroot.COLD_BUILD_BYTES)
        built = compilation.build_units(wanted, chain, layout, console, jobs=plan.jobs)
    return CompiledUnits(tree=tree, toolchain=chain, shards=shards, units=built, project_digest=project_digest)


def push_units(plan: BuildPlan, units: tuple[BuildUnit, ...], place: storage.Bucket, console: Console) -> None:
    """Put units into a store that others share, signed with the plan's key. Raises as ``shared_store`` does."""
    assert plan.sign_key is not None  # noqa: S101  # the command requires one
    kind = shared_store.DESCRIPTION_TYPE
    shared_store.push_units(
        units,
        place,
        functools.partial(signature.seal, payload_type=kind, key=plan.sign_key),
        functools.partial(signature.payload_of_anybody, payload_type=kind),
        console,
    )


def _import_units(plan: BuildPlan, wanted: tuple[UnitSpec, ...], console: Console) -> None:
    """Take units from a store that others share, or from a folder of other jobs."""
    request, layout, required = plan.request, plan.layout, plan.request.require_units
    if plan.trusted is not None and request.units is not None:
        kind = shared_store.DESCRIPTION_TYPE
        opened = functools.partial(signature.trusted_payload, payload_type=kind, keys=plan.trusted)
        place = storage.reader(request.units)
        shared_store.discard(wanted, dict(plan.trusted.revoked), layout, console)
        shared_store.import_units(wanted, place, opened, layout, console, required=required)
    elif request.units is not None or required:
        folder = None if request.units is None else Path(request.units)
        transfer.import_units(wanted, folder, layout, console, required=required)


def _make_wheel(plan: BuildPlan, compiled: CompiledUnits) -> tuple[Wheel, WheelDeclaration]:
    chain, shards = compiled.toolchain, compiled.shards
    oldest = archs.oldest_driver(chain.cuda.release)
    wheel_plan = assemble.plan(compiled.tree, chain.cuda, plan.selection, oldest_driver=oldest)
    finished = wheel.make(
        wheel_plan,
        compiled,
        inputs.ingredients(plan, compiled, wheel_plan.version),
        policy=plan.policy,
        runtime_folders=toolchain.runtime_folders(chain),
        layout=plan.layout,
    )
    return finished, WheelDeclaration(
        version=wheel_plan.version,
        shards=shards,
        forbidden_paths=inspection.forbidden_paths(plan.layout),
        max_size=plan.settings.wheel.max_size(shards),
    )


def _inspect(
    plan: BuildPlan, compiled: CompiledUnits, finished: Wheel, declaration: WheelDeclaration, console: Console
) -> InspectionReport:
    """Inspect, unless this wheel has already passed with this declaration."""
    return _remembered(
        console,
        plan.layout.state / "inspection" / _name(finished, jsonio.dumps(declaration)),
        InspectionReport,
        lambda: inspection.inspect(
            finished,
            declaration,
            policy=plan.policy,
            cuobjdump=compiled.toolchain.cuobjdump,
            workdir=plan.layout.work_root / "inspection",
        ),
        keep=lambda report: report.passed,
    )


def _validate(plan: BuildPlan, compiled: CompiledUnits, finished: Wheel, console: Console) -> ValidationReport:
    """Validate, unless this wheel has already passed this validation on this machine."""
    chain, require_gpu = compiled.toolchain, plan.request.require_gpu
    simulation = None  # on Windows, only MinGW-w64 compiles the simulated libraries
    if platforms.of(chain.platform).has_simulated_device:
        simulation = validation.Simulation(include=chain.cuda.include, cc=str(chain.host.cc.path))
    return _remembered(
        console,
        plan.layout.state / "validation" / _name(finished, jsonio.dumps(plan.machine), inputs.tried_by()),
        ValidationReport,
        lambda: validation.validate(
            finished,
            wheels_folder=finished.path.parent,
            downloads=plan.layout.downloads,
            layout=plan.layout,
            machine=plan.machine,
            simulation=simulation,
            require_gpu=require_gpu,
            console=console,
        ),
        keep=lambda report: report.verdict is not Verdict.FAILED,
        usable=lambda report: not require_gpu or report.verdict is Verdict.GPU_VERIFIED,
    )


def _emulate(
    plan: BuildPlan, compiled: CompiledUnits, finished: Wheel, validated: ValidationReport, console: Console
) -> ValidationReport:
    """Compute on an emulated GPU, unless this wheel has already passed that on this machine.

    A wheel that cannot be emulated keeps its verdict. Raises ``ValidationError`` if it computes wrong numbers.
    """
    chain, chosen, tried_by = compiled.toolchain, plan.request.emulate, inputs.tried_by()
    name = _name(finished, jsonio.dumps(plan.machine), tried_by, chosen)

    def compute() -> EmulationReport:
        return emulated_wheel.compute(
            finished,
            emulation.CASES[chosen],
            arch=None,
            tried_by=tried_by,
            toolkit=chain.cuda,
            cc=str(chain.host.cc.path),
            layout=plan.layout,
            console=console,
        )

    try:
        report = _remembered(
            console,
            plan.layout.state / "emulation" / name,
            EmulationReport,
            compute,
            keep=lambda made: not made.problems(),
        )
    except (SettingsError, ValidationError, CommandError) as error:
        console.warn(f"nothing was computed, the verdict stays {validated.verdict}: {error.message}")
        return validated
    if wrong := report.wrong():
        message = f"{finished.path.name} computed wrong numbers: {'; '.join(wrong)}"
        raise ValidationError(message, log=plan.layout.logs / "emulation.log")
    if unknown := report.unknown():
        console.warn(f"the verdict stays {validated.verdict}: {'; '.join(unknown)}")
        return validated
    judged = validated.with_emulation(report)
    console.note(f"verdict: {judged.verdict} ({VERDICT_MEANINGS[judged.verdict]})")
    return judged


def _remembered(
    console: Console,
    path: Path,
    kind: type[T],
    make: Callable[[], T],
    *,
    keep: Callable[[T], bool],
    usable: Callable[[T], bool] = lambda _: True,
) -> T:
    """The report of an earlier run if it is usable, else a new one, which is saved if ``keep`` says so."""
    try:
        report = jsonio.read_sealed(path, kind)
    except StepResultError:
        report = None
    if report is not None and usable(report):
        console.note("unchanged: the report of an earlier run on these very bytes, nothing was run again")
        return report
    report = make()
    if keep(report):
        jsonio.write_sealed(path, report)
    return report


def _name(finished: Wheel, *inputs_of_report: str) -> str:
    digest = hashlib.sha256("".join(inputs_of_report).encode()).hexdigest()
    return f"{finished.sha256}-{digest[:16]}.json"
