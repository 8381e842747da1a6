"""The differences between the systems on which wheels are built: names, paths, flags. Nothing is looked up here.

``of`` returns a platform by its name; ``HERE`` is the platform of this machine. A step takes its platform as a value,
so all of Windows can be tested on Linux.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from build_config.system.platforms.base import Platform
from build_config.system.platforms.linux import LINUX
from build_config.system.platforms.windows import WINDOWS

if TYPE_CHECKING:
    from build_config.model import PlatformName

__all__ = ["HERE", "PLATFORMS", "Platform", "of", "of_tags"]

PLATFORMS: dict[PlatformName, Platform] = {"linux-x86_64": LINUX, "win-amd64": WINDOWS}
HERE: Platform = WINDOWS if sys.platform == "win32" else LINUX


def of(name: PlatformName) -> Platform:
    """The platform of a name."""
    return PLATFORMS[name]


def of_tags(tags: tuple[str, ...]) -> Platform:
    """The platform that a wheel with these tags is for."""
    return WINDOWS if any(tag.endswith(f"-{WINDOWS.wheel_platform}") for tag in tags) else LINUX
