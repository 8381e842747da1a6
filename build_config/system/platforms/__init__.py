"""What differs between the systems that wheels are built on: names, places, flags. Nothing is looked up here.

``of`` gives a platform by its name, ``HERE`` is that of the machine that runs. A step that has to do with a platform
takes it as a value, so the whole of Windows can be asserted on Linux.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from build_config.system.platforms.linux import LINUX
from build_config.system.platforms.windows import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import PurePath

    from build_config.model import PlatformName


class Platform(Protocol):
    """One system. Paths in CMake's entries have forward slashes everywhere: a backslash would begin an escape there."""

    @property
    def name(self) -> PlatformName:
        """The name in the locks of toolkits."""

    @property
    def wheel_platform(self) -> str:
        """The platform tag of a wheel before it is repaired: ``linux_x86_64``."""

    @property
    def work_root(self) -> PurePath:
        """The canonical work root."""

    @property
    def scripts(self) -> str:
        """The folder of a virtual environment that holds its programs: ``bin``."""

    @property
    def compiler(self) -> str:
        """What the host compiler is called: ``GCC``."""

    @property
    def uses_msvc(self) -> bool:
        """Whether the host compiler is Microsoft's; else it is GCC."""

    @property
    def has_glibc(self) -> bool:
        """Whether programs are linked to glibc, whose version decides where a wheel runs."""

    @property
    def has_modes(self) -> bool:
        """Whether a mode says who may change a file; else an access list does."""

    @property
    def has_unix_sockets(self) -> bool:
        """Whether a server of sccache can listen at a file; else it takes a port."""

    @property
    def has_simulated_device(self) -> bool:
        """Whether there are doubles of CUDA's libraries for it."""

    @property
    def has_cuda_variables(self) -> bool:
        """Whether NVIDIA's installer names the folder of each toolkit in a variable (``CUDA_PATH``)."""

    @property
    def uses_dlls(self) -> bool:
        """Whether libraries are DLLs, linked through import libraries and found by name alone; else they are ELF."""

    @property
    def output_folders(self) -> tuple[str, ...]:
        """Where CMake puts the libraries of a unit, below its build tree; the first is where they are wanted."""

    def program(self, name: str) -> str:
        """The file name of a program: ``nvcc``, ``nvcc.exe``."""

    def library(self, name: str) -> str:
        """The file name of a library of the wheel: ``llama`` -> ``libllama.so``, ``llama.dll``."""

    def folded(self, name: str) -> str:
        """A file name as the loader compares it: without case where that does not count."""

    def cuda_libraries(self, release: str) -> tuple[str, ...]:
        """What a shard needs of CUDA at run time, in the order in which it has to be loaded."""

    def cpu_variants(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the CPU variants that this platform's compiler can build."""

    def flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """CMake's entries for the flags of C, C++ and the linker: optimised, the same everywhere, without paths."""

    def cuda_flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """CMake's entries for the flags of nvcc."""

    def caches_cuda(self, launcher: str, version: str) -> bool:
        """Whether a compiler launcher (``sccache``) of a version may stand before nvcc."""

    def toolkit_variables(self, root: PurePath) -> Mapping[str, str]:
        """Variables that the compilers need on top of the host compiler's for a toolkit at ``root``."""


PLATFORMS: dict[PlatformName, Platform] = {"linux-x86_64": LINUX, "win-amd64": WINDOWS}
HERE: Platform = WINDOWS if sys.platform == "win32" else LINUX


def of(name: PlatformName) -> Platform:
    """The platform of a name."""
    return PLATFORMS[name]


def of_tags(tags: tuple[str, ...]) -> Platform:
    """The platform that a wheel with these tags is for."""
    return WINDOWS if any(tag.endswith(f"-{WINDOWS.wheel_platform}") for tag in tags) else LINUX
