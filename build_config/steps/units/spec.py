"""The specification of each build unit, core or CUDA shard: its key, its CMake entries and its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.model import Shard, SourceTree, Toolchain, UnitKey
from build_config.steps.units import cmake
from build_config.system import machine, platforms
from build_config.system.files import file_sha256

if TYPE_CHECKING:
    from build_config.steps.units.settings import Settings
    from build_config.system.layout import Layout


KEY_FORMAT = "2"
"""Increased when the inputs of a key change, so that no unit with an older kind of key is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """A required unit: its name, key, CMake entries, the shard if it is one, and the names of its files."""

    name: str
    key: UnitKey
    entries: dict[str, str]
    shard: Shard | None
    expected: tuple[str, ...]


def core_spec(
    settings: Settings, tree: SourceTree, layout: Layout, toolchain: Toolchain, project_digest: str
) -> UnitSpec:
    """The core unit for these inputs."""
    entries = cmake.core_entries(settings, tree, layout, toolchain)
    platform = platforms.of(toolchain.platform)
    variants = cmake.cpu_variants(settings, toolchain)
    names = ["ggml-base", "ggml", "llama", "mtmd", *(f"ggml-cpu-{variant}" for variant in variants)]
    included = (cmake.OLDER_GCC,) if cmake.INCLUDE in entries else ()
    older = {name: file_sha256(layout.wheel_project / name) for name in included}
    return UnitSpec(
        name="core",
        key=UnitKey.of(_common_inputs(tree, toolchain, project_digest) | older | _entry_inputs(entries)),
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
        key=UnitKey.of(_common_inputs(tree, toolchain, project_digest) | cuda | _entry_inputs(entries)),
        entries=entries,
        shard=shard,
        expected=(platforms.of(toolchain.platform).library(f"ggml-cuda-{shard.name}"),),
    )


def _common_inputs(tree: SourceTree, toolchain: Toolchain, project_digest: str) -> dict[str, str]:
    return {
        "key format": KEY_FORMAT,
        "llama.cpp": tree.llama_cpp_digest,
        "wheel project": project_digest,
        "host compiler": toolchain.host.identity,
        "host compiler version": toolchain.host.cxx.version,
        "binutils": toolchain.host.binutils,
        **(dict(toolchain.host.system) or {"glibc": f"glibc {machine.glibc_version() or 'unknown'}"}),
        "cmake": toolchain.cmake.version,
        "ninja": toolchain.ninja.version,
    }


def _entry_inputs(entries: dict[str, str]) -> dict[str, str]:
    return {f"-D{name}": value for name, value in entries.items()}
