"""``variants.toml`` as frozen values. An unknown key is an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.errors import SettingsError
from build_config.system import tomlio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from build_config.model import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """The core unit: its CPU variants, the GCC major versions that variants need, and CMake cache entries."""

    cpu_variants: tuple[str, ...]
    oldest_gcc: dict[str, int]
    defines: dict[str, str]

    def too_new_for(self, gcc: str) -> tuple[str, ...]:
        """Variants that GCC of version ``gcc`` (``12.2.0``) cannot compile."""
        major = int(gcc.partition(".")[0])
        return tuple(name for name in self.cpu_variants if major < self.oldest_gcc.get(name, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSettings:
    """CMake cache entries."""

    defines: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelSettings:
    """Limits of the finished wheel; sizes in bytes."""

    max_size_one_arch: int

    def max_size(self, shards: Sequence[Shard]) -> int:
        """The most that a wheel with these shards may have: as many times one architecture's as they have code for."""
        return self.max_size_one_arch * sum(len(shard.archs) for shard in shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything in ``variants.toml``."""

    core: CoreSettings
    cuda: UnitSettings
    common: UnitSettings
    wheel: WheelSettings


def read(path: Path) -> Settings:
    """Read the settings. Raises ``SettingsError`` for a missing file, bad TOML, or a missing or unknown key."""
    return tomlio.read(path, Settings, error=SettingsError)
