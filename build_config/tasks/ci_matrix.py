"""Turn ``ci/matrix.toml`` into a plan: which units to build, which wheels to make of them, on which GPUs to try these.

A unit that several wheels need is built once for each platform and release of CUDA. The plan is data; the jobs of a
CI service call the same commands as every user.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from build_config import archs
from build_config.errors import SettingsError
from build_config.model import ArchSelection, PlatformName
from build_config.system import jsonio, platforms, tomlio

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_PLATFORM: PlatformName = "linux-x86_64"
CORE = "core"
GITLAB_JOBS = "ci/gitlab-jobs.yml"
"""The file with the templates of the generated jobs."""
_RELEASE = re.compile(r"[1-9][0-9]*\.[0-9]+")
_GPU_RUNNER = re.compile(r"(?P<capability>[1-9][0-9]?\.[0-9])=(?P<label>[A-Za-z0-9._-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine of a platform's jobs: GitHub's label, the image of GitLab's container (empty: GitLab has no jobs).

    ``disabled`` is the reason why there are no jobs for the platform, and empty if there are.
    """

    runner: str
    image: str
    disabled: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelEntry:
    """One wheel: ``cuda`` is ``major.minor``, ``arch`` a value of ``--arch``."""

    platform: PlatformName
    cuda: str
    arch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The whole file."""

    platforms: dict[PlatformName, Host]
    wheels: tuple[WheelEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRunner:
    """A machine with a GPU: the compute capability (``8.9``), and the label by which jobs find the machine."""

    capability: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _CpuJob(WheelEntry):
    """What is made for an entry, and where; caches are kept of ``work_root``."""

    id: str
    runner: str
    image: str
    work_root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitJob(_CpuJob):
    """``nox -s units -- --arch ARCH --cuda CUDA --only UNIT``."""

    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelJob(_CpuJob):
    """``nox -s build_cuda_wheel -- --arch ARCH --cuda CUDA``; ``units`` are the ids of the jobs to wait for."""

    units: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuJob:
    """A wheel, by the id of its job, that is validated on a GPU for which it has code."""

    id: str
    wheel: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All jobs of one run."""

    units: tuple[UnitJob, ...]
    wheels: tuple[WheelJob, ...]
    cards: tuple[GpuJob, ...]


def read(path: Path) -> Matrix:
    """Read the list. Raises ``SettingsError`` for a missing file, bad TOML, or a missing or unknown key."""
    matrix = tomlio.read(path, Matrix, error=SettingsError)
    if not matrix.wheels:
        raise SettingsError(f"{path.name} contains no wheel")
    return matrix


def select(matrix: Matrix, *, arch: str = "", cuda: str = "", platform: str = "") -> Matrix:
    """Select a part of the list; with ``arch`` one wheel for these architectures instead, listed or not.

    An empty text selects everything. Raises ``SettingsError`` if nothing is left, or for a platform without a machine
    in the list.
    """
    if platform and platform not in matrix.platforms:
        known = ", ".join(matrix.platforms)
        raise SettingsError(f"the matrix has no machine for {platform}", remedy=f"pass --platform {known}")
    for name, host in matrix.platforms.items():
        if name == platform and host.disabled:
            message = f"{name} is disabled: {host.disabled}"
            raise SettingsError(message, remedy=f"remove that line of [platforms.{name}] in ci/matrix.toml")
    if arch:
        chosen = next(known for known in matrix.platforms if known == (platform or DEFAULT_PLATFORM))
        wheel = WheelEntry(platform=chosen, cuda=cuda or archs.LOCKED_CUDA, arch=arch)
        return Matrix(platforms=matrix.platforms, wheels=(wheel,))
    wheels = tuple(
        wheel
        for wheel in matrix.wheels
        if (not cuda or wheel.cuda == cuda) and (not platform or wheel.platform == platform)
    )
    if not wheels:
        raise SettingsError(f"the matrix has no such wheel of CUDA {cuda}", remedy="add one, or also pass --arch")
    return Matrix(platforms=matrix.platforms, wheels=wheels)


def read_gpu_runners(text: str) -> tuple[GpuRunner, ...]:
    """Read ``8.9=label 12.0=label``: the machines with GPUs. Raises ``SettingsError`` for anything else."""
    found = []
    for entry in text.split():
        match = _GPU_RUNNER.fullmatch(entry)
        if match is None:
            raise SettingsError(f"{entry!r} is not a GPU runner", remedy="pass CAPABILITY=LABEL, such as 8.9=rtx4090")
        found.append(GpuRunner(capability=match["capability"], label=match["label"]))
    return tuple(found)


def plan(matrix: Matrix, runners: tuple[GpuRunner, ...] = ()) -> Plan:
    """Plan the jobs that make the wheels of the list, and validate each on every runner whose GPU it supports.

    A platform that is disabled has none. Raises ``SettingsError`` for an entry that depends on the current machine, is
    listed twice or has no platform, and ``ArchitectureError`` for an architecture that its toolkit cannot compile for.
    """
    units: dict[str, UnitJob] = {}
    wheels: dict[str, WheelJob] = {}
    gpu_jobs: list[GpuJob] = []
    for entry in matrix.wheels:
        selection = _resolve(entry)
        host = matrix.platforms.get(entry.platform)
        if host is None:
            message = f"the matrix has a wheel for {entry.platform}, but no machine to build it"
            raise SettingsError(message, remedy=f"add [platforms.{entry.platform}]")
        if host.disabled:
            continue
        work_root = str(platforms.of(entry.platform).work_root)
        shared = {**dataclasses.asdict(entry), "runner": host.runner, "image": host.image, "work_root": work_root}
        prefix = f"{entry.platform}-cuda{entry.cuda}"
        names = {f"{prefix}-{name}": name for name in (CORE, *(shard.name for shard in selection.shards))}
        for job, name in names.items():
            units.setdefault(job, UnitJob(id=job, unit=name, **shared))
        kind = "portable" if selection.portable else "-".join(shard.name for shard in selection.shards)
        wheel = WheelJob(id=f"{prefix}-{kind}", units=tuple(names), **shared)
        if wheel.id in wheels:
            raise SettingsError(f"the matrix lists the wheel {wheel.id} twice", remedy="remove one of the two entries")
        wheels[wheel.id] = wheel
        gpu_jobs += [
            GpuJob(id=f"{wheel.id}-on-{runner.label}", wheel=wheel.id, label=runner.label)
            for runner in runners
            if any(archs.covers(shard.archs, runner.capability) for shard in selection.shards)
        ]
    return Plan(units=tuple(units.values()), wheels=tuple(wheels.values()), cards=tuple(gpu_jobs))


def github_output(made: Plan) -> str:
    """Format the plan as outputs of a step: three lines ``NAME=JSON``."""
    data = jsonio.to_data(made)
    return "".join(f"{name}={json.dumps(data[name], separators=(',', ':'))}\n" for name in ("units", "wheels", "cards"))


def gitlab_pipeline(made: Plan) -> dict[str, Any]:
    """Format the plan as GitLab's child pipeline: names, variables and order; ``GITLAB_JOBS`` has the commands."""
    jobs: dict[str, Any] = {"include": [{"local": GITLAB_JOBS}]}
    for unit in (unit for unit in made.units if unit.image):
        variables = {"ARCH": unit.arch, "CUDA": unit.cuda, "UNIT": unit.unit, "JOB": unit.id}
        jobs[f"unit {unit.id}"] = {"extends": ".unit", "image": unit.image, "variables": variables}
    wheels = [wheel for wheel in made.wheels if wheel.image]
    for wheel in wheels:
        jobs[f"wheel {wheel.id}"] = {
            "extends": ".wheel",
            "image": wheel.image,
            "variables": {"ARCH": wheel.arch, "CUDA": wheel.cuda},
            "needs": [f"unit {unit}" for unit in wheel.units],
        }
    cards = [gpu for gpu in made.cards if f"wheel {gpu.wheel}" in jobs]
    for gpu in cards:
        jobs[f"card {gpu.id}"] = {"extends": ".card", "tags": [gpu.label], "needs": [f"wheel {gpu.wheel}"]}
    needed = [f"wheel {wheel.id}" for wheel in wheels]
    waits = [{"job": f"card {gpu.id}", "artifacts": False} for gpu in cards]
    jobs["publish"] = {"extends": ".publish", "image": wheels[0].image, "needs": [*needed, *waits]}
    return jobs


def _resolve(entry: WheelEntry) -> ArchSelection:
    if not _RELEASE.fullmatch(entry.cuda):
        raise SettingsError(f"{entry.cuda!r} is not a release of CUDA", remedy=f"pass one such as {archs.LOCKED_CUDA}")
    if entry.arch.strip().lower() in {"auto", "native"}:
        message = f"--arch {entry.arch} depends on the machine, but the jobs run on several"
        raise SettingsError(message, remedy="name the architectures, such as 86,89")
    return archs.resolve(entry.arch, cuda_release=entry.cuda, gpus=())
