"""``nox -s reproduce``: build again in an environment where everything differs that must not matter, and compare."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import pipeline
from build_config.errors import ReproductionError
from build_config.model import NO_RANDOM_SEED, BuildUnit, Program
from build_config.plan import BuildPlan, BuildRequest, ToolkitPlan, default_jobs, resolve
from build_config.reports import BuildRecord, Compared, ReproductionReport
from build_config.steps import locks
from build_config.steps.toolchain import gcc
from build_config.steps.toolchain.programs import Launcher, find_cuobjdump
from build_config.system import jsonio, machine, redaction, workroot
from build_config.system.files import file_sha256
from build_config.tasks.reproduce import difference, second_build

if TYPE_CHECKING:
    from build_config.system.console import Console
    from build_config.system.layout import Layout

LOG = "reproduce.log"
STORED = "unknown: an earlier build filled the store"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceRequest:
    """The build to repeat, or only ``units`` of it, with each of ``launchers``, by ``user``.

    The ``record`` of a published wheel determines the build, which must give the wheel's digest.
    """

    build: BuildRequest = field(default_factory=BuildRequest)
    units: tuple[str, ...] = ()
    launchers: tuple[Launcher, ...] = ("none",)
    record: Path | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """The first build: names and digests, and the files if they are on this machine."""

    subject: str
    digests: tuple[tuple[str, str], ...]
    host_compiler: str
    launcher: str
    wheel: Path | None = None
    units: tuple[BuildUnit, ...] = ()
    cuobjdump: Program | None = None


def reproduce(request: ReproduceRequest, layout: Layout, console: Console) -> tuple[ReproductionReport, ...]:
    """Build again, with each launcher, and compare. A statement is written next to the wheel or its record.

    Raises ``ReproductionError`` if the bytes differ, with the places and causes, or if the result would prove nothing:
    another host compiler, other locks.
    """
    if request.record is not None:
        request, first = _recorded(request, request.record, layout)
    else:
        plan = resolve(request.build, machine.describe(), layout)
        _require_seed(request.units, plan.toolkit)
        if request.units:
            first = _first_units(request.units, plan, console)
        else:
            published = pipeline.build(plan, console)
            first = _first_wheel(published.record, published.path)
    reports = []
    for launcher in request.launchers:
        with console.step("reproduce", f"Building {first.subject} again with launcher {launcher}"):
            report = _again(request, first, launcher, layout, console)
        _show(report, console)
        _keep(report, request, layout)
        reports.append(report)
    if not all(report.equal for report in reports):
        why = "\n  ".join(line for report in reports for line in report.why)
        raise ReproductionError(f"{first.subject}: a second build gave other bytes\n  {why}", log=layout.logs / LOG)
    return tuple(reports)


def _require_seed(units: tuple[str, ...], planned: ToolkitPlan) -> None:
    """Raise ``ReproductionError`` before anything is built if the bytes cannot be the same."""
    toolkit = planned.installed
    if toolkit is not None and set(units) != {"core"} and not toolkit.has_random_seed:
        message = f"CUDA {toolkit.version}: {NO_RANDOM_SEED}"
        raise ReproductionError(message, remedy="--units core compares the unit without device code")


def _first_wheel(record: BuildRecord, wheel: Path) -> _First:
    toolchain = dict(record.toolchain)
    return _First(
        subject=record.wheel,
        digests=((record.wheel, record.sha256),),
        host_compiler=toolchain["host.identity"],
        launcher=toolchain["launcher"],
        wheel=wheel if wheel.is_file() else None,
    )


def _first_units(units: tuple[str, ...], plan: BuildPlan, console: Console) -> _First:
    with workroot.claim(plan.layout, purpose=f"reproduce {', '.join(units)}", console=console):
        compiled = pipeline.compile_units(plan, console, only=units)
    return _First(
        subject=f"unit {', '.join(units)}",
        digests=tuple((file.name, file.sha256) for unit in compiled.units for file in unit.files),
        host_compiler=compiled.toolchain.host.identity,
        launcher="; ".join(dict.fromkeys(unit.launcher or STORED for unit in compiled.units)),
        units=compiled.units,
        cuobjdump=compiled.toolchain.cuobjdump,
    )


def _recorded(request: ReproduceRequest, file: Path, layout: Layout) -> tuple[ReproduceRequest, _First]:
    """Make the request of a record. Raises ``ReproductionError`` if this machine cannot repeat that build."""
    record = jsonio.read(file, BuildRecord)
    toolchain = dict(record.toolchain)
    here = dict(locks.lock_digests(layout))
    if differing := [name for name, digest in record.locks if here.get(name) != digest]:
        message = f"{file.name} was made with other locks than those of this checkout: {', '.join(differing)}"
        raise ReproductionError(message, remedy=f"check out the version of the record: {record.pipeline}")
    if not record.sources_locked or toolchain["cuda.locked"] != "yes":
        message = f"the sources or the toolkit of {file.name} are not the locked ones"
        remedy = "another machine cannot download an installed toolkit by a lock: docs/toolkits.md"
        raise ReproductionError(message, remedy=remedy)
    host = gcc.find(None, os.environ)
    if host.identity != toolchain["host.identity"]:
        raise ReproductionError(
            f"the result would not be comparable: {file.name} was built with {toolchain['cxx']}; this machine has "
            f"{host.cxx.path.name} {host.cxx.version}, or the same version from another distribution",
            remedy="build on a machine with that compiler; CXX selects one of several",
        )
    arch = ",".join(str(arch) for shard in record.shards for arch in shard.archs)
    release = ".".join(toolchain["cuda"].split(".")[:2])
    build = BuildRequest(arch=arch, cuda=release, jobs=request.build.jobs)
    first = _first_wheel(record, file.with_name(record.wheel))
    return dataclasses.replace(request, build=build, units=()), first


def _again(
    request: ReproduceRequest, first: _First, launcher: Launcher, layout: Layout, console: Console
) -> ReproductionReport:
    start = time.monotonic()
    jobs = request.build.jobs or default_jobs()
    environment = second_build.second_environment(
        layout, jobs=(jobs, jobs + 1), launchers=(first.launcher, launcher), user=request.user
    )
    # Also claimed during the second build: the first one is in the work root and must not change.
    with workroot.claim(layout, purpose=f"reproduce {first.subject}", console=console), environment as second:
        only = tuple(part for unit in request.units for part in ("--only", unit))
        step = ("units", *only) if request.units else ("build",)
        what = ("--arch", request.build.arch, "--cuda", request.build.cuda)
        how = ("--launcher", launcher, "--jobs", str(jobs + 1))
        second_build.run(second, (*step, *what, *how), layout, console, log=layout.logs / LOG)
        seconds = time.monotonic() - start
        units = [unit.folder for unit in first.units]  # with another key it is missing in the second store
        folders = {unit: second.work_root / unit.relative_to(unit.parents[3]) for unit in units}
        places = [folder.glob("*.so") for folder in folders.values()] or [second.checkout.glob("wheelhouse/*.whl")]
        found = {file.name: file for place in places for file in place}
        compared = tuple(
            Compared(name=name, first=digest, second=file_sha256(found[name]) if name in found else None)
            for name, digest in first.digests
        )
        equal = all(one.equal for one in compared)
        return ReproductionReport(
            subject=first.subject,
            launcher=launcher,
            compared=compared,
            varied=second.varied,
            host_compiler=first.host_compiler,
            machine=machine.describe(),
            why=() if equal else _explained(first, folders, tuple(found.values()), layout),
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            seconds=round(seconds, 1),
        )


def _explained(first: _First, folders: dict[Path, Path], found: tuple[Path, ...], layout: Layout) -> tuple[str, ...]:
    if not found:
        return ("the second build has no file of that name: its inputs were different",)
    if not folders and first.wheel is None:
        return ("the wheel is not next to its record, so the differences cannot be located",)
    roots = sorted(layout.toolkits.glob("cuda-*"))
    cuobjdump = first.cuobjdump or (find_cuobjdump(roots[-1]) if roots else None)
    compare = difference.compare_wheels if first.wheel else difference.compare_folders
    pairs = {first.wheel: found[0]} if first.wheel else folders
    folder = layout.work_root / "differences"
    differences = (compare(*pair, cuobjdump=cuobjdump, folder=folder) for pair in pairs.items())
    return difference.explain([*itertools.chain.from_iterable(differences)])


def _show(report: ReproductionReport, console: Console) -> None:
    rows = tuple((one.what, one.first, one.second) for one in report.varied)
    console.table("", rows, header=("varied", "first", "second"))
    for one in report.compared:
        console.note(f"{'equal' if one.equal else 'DIFFERENT'}: {one.name}")
        console.note(f"  {one.first}")
        if not one.equal:
            console.note(f"  {one.second or 'missing'}")
    for line in report.why:
        console.warn(line)


def _keep(report: ReproductionReport, request: ReproduceRequest, layout: Layout) -> None:
    """Write the statement next to the wheel or record, without paths of this machine; for units to the state folder."""
    folder, ending = request.record.parent if request.record else layout.wheelhouse, "rebuild"
    if request.units:
        folder, ending = layout.state / "reproduction", report.launcher
    name = f"{report.subject.replace(' ', '-').replace(',', '')}.{ending}.json"
    jsonio.write(folder / name, redaction.without_paths(jsonio.to_data(report)))
