"""The record of a wheel: its inputs and the findings about it, without paths of the machine that made it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from build_config.model import NO_RANDOM_SEED
from build_config.reports import BuildRecord, Finding, Material, Severity, SourceWheel
from build_config.system import git, jsonio, platforms, redaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.model import BuildUnit, CompiledUnits, LockedFile, SourceTree, Toolchain, Wheel
    from build_config.reports import InspectionReport, StepTiming, ValidationReport

VERSION = "0.1.0"
"""The version of this pipeline; wheels have the version of upstream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of a build: the pipeline's version and commit, the request in words, locks and materials.

    ``locks`` are names and digests of the lock files. ``started`` has a time zone.
    """

    pipeline: str
    request: tuple[tuple[str, str], ...]
    locks: tuple[tuple[str, str], ...]
    materials: tuple[Material, ...]
    started: datetime


def make_record(
    wheel: Wheel,
    compiled: CompiledUnits,
    origin: Origin,
    inspection: InspectionReport,
    validation: ValidationReport,
    *,
    steps: tuple[StepTiming, ...],
    created: datetime,
) -> BuildRecord:
    """Make the record of one wheel: the same arguments give the same record.

    Times must have a time zone; they are recorded in UTC. Every absolute path anywhere in the arguments is replaced by
    ``<path>``; only the canonical work root, which is the same on every machine, stays.

    Raises ``ValueError`` for a time without a zone.
    """
    tree, toolchain, units = compiled.tree, compiled.toolchain, compiled.units
    networks = "; ".join(dict.fromkeys(unit.network for unit in units))
    record = BuildRecord(
        wheel=wheel.path.name,
        version=str(wheel.version),
        sha256=wheel.sha256,
        size=wheel.size,
        started=_moment(origin.started),
        created=_moment(created),
        pipeline=origin.pipeline,
        request=origin.request,
        materials=origin.materials,
        sources_locked=tree.locked,
        llama_cpp_commit=tree.commit,
        locks=tuple(sorted(origin.locks)),
        toolchain=(
            *_toolchain(toolchain, units),
            ("network of the compilers", networks),
            *_headers(units),
            *_origins(units),
        ),
        units=tuple(unit.key for unit in units),
        shards=tuple(unit.shard for unit in units if unit.shard is not None),
        steps=steps,
        inspection=inspection,
        validation=validation,
    )
    return jsonio.from_data(redaction.without_paths(jsonio.to_data(record)), BuildRecord)


def of_variant(wheel: Wheel, record: BuildRecord, record_file: bytes) -> BuildRecord:
    """Make the record of a variant wheel from that of its source wheel: the same arguments give the same record.

    The reports stay those about the source wheel, and a finding says so. ``record_file`` are the bytes of its record.
    """
    message = f"inspected and validated as {record.wheel} with SHA-256 {record.sha256}: only .dist-info differs"
    finding = Finding(code="variant-of", severity=Severity.NOTE, message=message)
    inspected, validated = record.inspection, record.validation
    digest = hashlib.sha256(record_file).hexdigest()
    return replace(
        record,
        wheel=wheel.path.name,
        version=str(wheel.version),
        sha256=wheel.sha256,
        size=wheel.size,
        inspection=replace(inspected, wheel_sha256=wheel.sha256, findings=(*inspected.findings, finding)),
        validation=replace(validated, wheel_sha256=wheel.sha256, findings=(*validated.findings, finding)),
        variant_of=SourceWheel(wheel=record.wheel, sha256=record.sha256, record_sha256=digest),
    )


def materials(
    *,
    source: LockedFile,
    toolkit: tuple[LockedFile, ...],
    tree: SourceTree,
    toolchain: Toolchain,
    tools: tuple[tuple[str, str, tuple[str, ...]], ...],
) -> tuple[Material, ...]:
    """The inputs and tools of a wheel. ``toolkit`` is empty for an installed one.

    ``tools`` are Python packages: name, version, and the digests of the files that their lock allows; which of those
    was installed depends on the machine.
    """
    llama_cpp = Material(
        name="llama.cpp",
        uri="git+https://github.com/ggml-org/llama.cpp" if tree.locked else None,
        digests=(("gitCommit", tree.commit),) if git.is_commit(tree.commit) else (),
        annotations=(("tree-sha256", (tree.llama_cpp_digest,)), ("locked", ("yes" if tree.locked else "no",))),
    )
    installed = _unlocked(
        f"CUDA toolkit {toolchain.cuda.version}",
        ("identity", (toolchain.cuda.identity,)),
        ("locked", ("no",)),
        ("source", ("an installed toolkit: its files are in no lock",)),
    )
    compiler = f"{platforms.of(toolchain.platform).compiler} {toolchain.host.cxx.version}"
    return (
        _locked(source),
        llama_cpp,
        *(_locked(file) for file in toolkit),
        *(() if toolkit else (installed,)),
        _unlocked(compiler, ("identity", (toolchain.host.identity,))),
        *(
            Material(
                name=f"{name} {version}",
                uri=f"pkg:pypi/{name}@{version}",
                digests=(),
                annotations=(("one-of-sha256", tuple(sorted(hashes))),),
            )
            for name, version, hashes in tools
        ),
    )


def pipeline_version(checkout: Path) -> str:
    """The version of this pipeline and the commit that is checked out: ``0.1.0 (commit 1f0c...)``.

    The commit is read from git's files without running git, so changes of the working tree are not noticed. A commit
    that cannot be read is ``unknown``.
    """
    return f"{VERSION} (commit {git.commit(checkout)})"


# ------------------------------------------------------------------------------------------------------- details


def _locked(file: LockedFile) -> Material:
    return Material(name=file.filename, uri=f"pkg:pypi/{file.name}@{file.version}", digests=(("sha256", file.sha256),))


def _unlocked(name: str, *annotations: tuple[str, tuple[str, ...]]) -> Material:
    return Material(name=name, uri=None, digests=(), annotations=annotations)


def _moment(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError("a time in a record must have a time zone")
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _toolchain(toolchain: Toolchain, units: tuple[BuildUnit, ...]) -> tuple[tuple[str, str], ...]:
    cuda, host = toolchain.cuda, toolchain.host
    return (
        ("cuda", cuda.version),
        ("cuda.identity", cuda.identity),
        ("cuda.locked", "yes" if cuda.locked else "no"),
        ("cuda.found-via", cuda.nvcc.found_via),
        *(() if cuda.has_random_seed else (("reproducibility", NO_RANDOM_SEED),)),
        ("cc", host.cc.described),
        ("cxx", host.cxx.described),
        ("host.identity", host.identity),
        ("cmake", toolchain.cmake.described),
        ("ninja", toolchain.ninja.described),
        ("launcher", _launchers(toolchain, units)),
        ("cuobjdump", "none" if toolchain.cuobjdump is None else toolchain.cuobjdump.described),
    )


def _launchers(toolchain: Toolchain, units: tuple[BuildUnit, ...]) -> str:
    """The launchers with which the units were compiled, in this run or an earlier one."""
    here = "none" if toolchain.launcher is None else toolchain.launcher.described
    return "; ".join(dict.fromkeys(unit.launcher or here for unit in units)) or here


def _origins(units: tuple[BuildUnit, ...]) -> Iterator[tuple[str, str]]:
    for unit in units:
        yield f"origin of {unit.name}", unit.origin or "the store of this machine"


def _headers(units: tuple[BuildUnit, ...]) -> Iterator[tuple[str, str]]:
    """Without the folders of the unexpected headers: what is published names none of this machine."""
    for unit in units:
        if unit.headers is not None:
            yield f"system headers of {unit.name}", f"{unit.headers.number}, sha256 {unit.headers.sha256}"
            if unit.headers.unexpected:
                names = sorted({"/".join(path.parts[-2:]) for path in unit.headers.unexpected})
                yield f"headers of others in {unit.name}", ", ".join(names)
