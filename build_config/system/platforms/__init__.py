"""The differences between the systems on which wheels are built: names, paths, flags. Nothing is looked up here.

``of`` returns a platform by its name; ``HERE`` is the platform of this machine. A step takes its platform as a value,
so all of Windows can be tested on Linux.
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
        """The name of the host compiler: ``GCC``."""

    @property
    def uses_msvc(self) -> bool:
        """Whether the host compiler is Microsoft's; else it is GCC."""

    @property
    def has_glibc(self) -> bool:
        """Whether programs are linked to glibc, whose version decides where a wheel runs."""

    @property
    def has_modes(self) -> bool:
        """Whether a mode decides who may change a file; else an access list does."""

    @property
    def has_unix_sockets(self) -> bool:
        """Whether a server of sccache can listen at a file; else it uses a port."""

    @property
    def has_simulated_device(self) -> bool:
        """Whether there are simulated CUDA libraries for it."""

    @property
    def has_cuda_variables(self) -> bool:
        """Whether NVIDIA's installer names the folder of each toolkit in a variable (``CUDA_PATH``)."""

    @property
    def uses_dlls(self) -> bool:
        """Whether libraries are DLLs, linked through import libraries and found by name alone; else they are ELF."""

    @property
    def output_folders(self) -> tuple[str, ...]:
        """Folders of a build tree in which CMake puts libraries of a unit; in the first they are collected."""

    def program(self, name: str) -> str:
        """The file name of a program: ``nvcc``, ``nvcc.exe``."""

    def library(self, name: str) -> str:
        """The file name of a library of the wheel: ``llama`` -> ``libllama.so``, ``llama.dll``."""

    def folded(self, name: str) -> str:
        """A file name as the loader compares it: in lower case if it ignores case."""

    def cuda_libraries(self, release: str) -> tuple[str, ...]:
        """The CUDA libraries that a shard needs at run time, in the order of loading."""

    def cpu_variants(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The CPU variants in ``wanted`` that this platform's compiler can build."""

    def flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """CMake's entries for the flags of C, C++ and the linker: optimised, the same everywhere, without paths."""

    def cuda_flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """CMake's entries for the flags of nvcc."""

    def caches_cuda(self, launcher: str, version: str) -> bool:
        """Whether a compiler launcher (``sccache``) of a version may be used with nvcc."""

    def toolkit_variables(self, root: PurePath) -> Mapping[str, str]:
        """Variables that the compilers need for a toolkit at ``root``, in addition to the host compiler's."""


PLATFORMS: dict[PlatformName, Platform] = {"linux-x86_64": LINUX, "win-amd64": WINDOWS}
HERE: Platform = WINDOWS if sys.platform == "win32" else LINUX


def of(name: PlatformName) -> Platform:
    """The platform of a name."""
    return PLATFORMS[name]


def of_tags(tags: tuple[str, ...]) -> Platform:
    """The platform that a wheel with these tags is for."""
    return WINDOWS if any(tag.endswith(f"-{WINDOWS.wheel_platform}") for tag in tags) else LINUX
