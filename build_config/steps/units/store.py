"""Build units: the core and the CUDA shards, what makes each what it is, and the store of finished ones.

A unit whose key is in the store is taken from there, with no compiler run at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.errors import BuildError, StepResultError
from build_config.model import (
    BuildUnit,
    BuiltFile,
    CacheStatistics,
    Shard,
    SourceTree,
    SystemHeaders,
    Toolchain,
    UnitKey,
)
from build_config.steps.units import cmake
from build_config.system import jsonio, platforms

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.steps.units.settings import Settings
    from build_config.system.layout import Layout

DESCRIPTION = "unit.json"
"""Beside the files of a unit."""
KEY_FORMAT = "2"
"""Raised when what a key covers changes, so that no unit of an older form is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """A unit to be had: its name, its key, CMake's entries, and the shard where it is one."""

    name: str
    key: UnitKey
    entries: dict[str, str]
    shard: Shard | None
    expected: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUnit:
    """What the store keeps beside the files of a unit."""

    name: str
    key: UnitKey
    files: tuple[BuiltFile, ...]
    shard: Shard | None
    network: str
    headers: SystemHeaders | None = None
    launcher: str | None = None


def core_spec(
    settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain, project_digest: str
) -> UnitSpec:
    """The core unit for these inputs."""
    entries = cmake.core_entries(settings, tree, layout, toolchain)
    platform = platforms.of(toolchain.platform)
    variants = cmake.cpu_variants(settings, toolchain)
    names = ["ggml-base", "ggml", "llama", "mtmd", *(f"ggml-cpu-{variant}" for variant in variants)]
    older = (layout.wheel_project / cmake.OLDER_GCC).read_bytes() if cmake.INCLUDE in entries else None
    included = {} if older is None else {cmake.OLDER_GCC: hashlib.sha256(older).hexdigest()}
    return UnitSpec(
        name="core",
        key=make_key(_common_inputs(tree, toolchain, project_digest) | included | _entry_inputs(entries)),
        entries=entries,
        shard=None,
        expected=tuple(sorted(map(platform.library, names))),
    )


def shard_spec(
    settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain, project_digest: str, shard: Shard
) -> UnitSpec:
    """The unit of one CUDA shard for these inputs."""
    entries = cmake.shard_entries(settings, tree, layout, toolchain, shard)
    cuda = {"cuda": toolchain.cuda.identity, "nvcc": toolchain.cuda.version}
    return UnitSpec(
        name=shard.name,
        key=make_key(_common_inputs(tree, toolchain, project_digest) | cuda | _entry_inputs(entries)),
        entries=entries,
        shard=shard,
        expected=(platforms.of(toolchain.platform).library(f"ggml-cuda-{shard.name}"),),
    )


def make_key(inputs: dict[str, str]) -> UnitKey:
    """The digest over sorted name-value pairs."""
    pairs = tuple(sorted(inputs.items()))
    digest = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    return UnitKey(digest=digest, inputs=pairs)


def find(spec: UnitSpec, layout: Layout) -> BuildUnit | None:
    """The unit from the store, every file checked against its digest; ``None`` where it is not there or not whole."""
    folder = _folder(spec, layout)
    try:
        known = jsonio.read(folder / DESCRIPTION, StoredUnit)
        files = tuple(describe(folder / "lib" / name) for name in spec.expected)
    except (StepResultError, OSError):
        return None
    if known.key != spec.key or known.files != files:
        return None
    return BuildUnit(
        name=spec.name,
        key=spec.key,
        folder=folder / "lib",
        files=files,
        shard=spec.shard,
        network=known.network,
        from_store=True,
        compiled=0,
        seconds=0.0,
        headers=known.headers,
        launcher=known.launcher,
    )


def keep(  # noqa: PLR0913  # one keyword for each thing that the store remembers
    spec: UnitSpec,
    built: Path,
    layout: Layout,
    *,
    network: str,
    compiled: int,
    seconds: float,
    cache: CacheStatistics,
    headers: SystemHeaders | None = None,
    launcher: str | None = None,
    declared: tuple[BuiltFile, ...] | None = None,
) -> BuildUnit:
    """Put a finished unit into the store, whole or not at all.

    ``built`` is the folder with the unit's libraries; what ``network``, ``headers`` and ``launcher`` are, ``BuildUnit``
    says. ``declared`` is what the files have to be, where that is known. Raises ``BuildError`` when a library is
    missing and ``StepResultError`` when one is not as declared.
    """
    missing = [name for name in spec.expected if not (built / name).is_file()]
    if missing:
        raise BuildError(f"unit {spec.name} was built, but {', '.join(missing)} is not there")
    folder = _folder(spec, layout)
    temporary = folder.with_name(folder.name + ".partial")
    for old in (temporary, folder):
        shutil.rmtree(old, ignore_errors=True)
    library_folder = temporary / "lib"
    library_folder.mkdir(parents=True)
    for name in spec.expected:
        shutil.copyfile(built / name, library_folder / name)
        (library_folder / name).chmod(0o644)
    files = tuple(describe(library_folder / name) for name in spec.expected)
    if declared is not None and files != declared:
        shutil.rmtree(temporary)
        changed = ", ".join(file.name for file in files if file not in declared)
        raise StepResultError(f"{changed} of unit {spec.name}: not the SHA-256 that it was built with")
    unit = BuildUnit(
        name=spec.name,
        key=spec.key,
        folder=folder / "lib",
        files=files,
        shard=spec.shard,
        network=network,
        from_store=False,
        compiled=compiled,
        seconds=round(seconds, 3),
        cache=cache,
        headers=headers,
        launcher=launcher,
    )
    jsonio.write(temporary / DESCRIPTION, stored(unit))
    temporary.rename(folder)
    return unit


def stored(unit: BuildUnit) -> StoredUnit:
    """What is written beside the files of a unit, in the store and where it is handed over."""
    return StoredUnit(
        name=unit.name,
        key=unit.key,
        files=unit.files,
        shard=unit.shard,
        network=unit.network,
        headers=unit.headers,
        launcher=unit.launcher,
    )


def folder_digest(folder: Path, *, without: tuple[str, ...] = ()) -> str:
    """SHA-256 over the names and contents of the files below a folder, but for those in the folders ``without``."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        left_out = {"__pycache__", *without} & set(path.relative_to(folder).parts)
        if path.is_file() and not left_out:
            name = path.relative_to(folder).as_posix()
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _folder(spec: UnitSpec, layout: Layout) -> Path:
    return layout.store / spec.name / spec.key.digest[:32]


def describe(path: Path) -> BuiltFile:
    """A file's name, digest and size. Raises ``OSError`` where it cannot be read."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return BuiltFile(name=path.name, sha256=digest, size=path.stat().st_size)


def _common_inputs(tree: SourceTree, toolchain: Toolchain, project_digest: str) -> dict[str, str]:
    return {
        "key format": KEY_FORMAT,
        "llama.cpp": tree.llama_cpp_digest,
        "wheel project": project_digest,
        "host compiler": toolchain.host.identity,
        "host compiler version": toolchain.host.cxx.version,
        "binutils": toolchain.host.binutils,
        **(dict(toolchain.host.system) or {"glibc": os.confstr("CS_GNU_LIBC_VERSION") or "unknown"}),
        "cmake": toolchain.cmake.version,
        "ninja": toolchain.ninja.version,
    }


def _entry_inputs(entries: dict[str, str]) -> dict[str, str]:
    return {f"-D{name}": value for name, value in entries.items()}
