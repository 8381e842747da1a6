"""The form of a platform: its values, and what follows from them."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from build_config.model import PlatformName

if TYPE_CHECKING:
    from collections.abc import Mapping

WITHOUT_NVTX = "-DCCCL_DISABLE_NVTX"
"""CUB marks ranges for NVIDIA's profilers if it finds ``nvtx3/nvToolsExt.h``. The locked wheels have none, but an
installed CUDA toolkit puts one into ``/usr/include``: with it, the same inputs would give another library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform(abc.ABC):
    """One system. Paths in CMake's entries have forward slashes everywhere: a backslash would begin an escape there."""

    name: PlatformName
    """The name in the locks of toolkits."""
    wheel_platform: str
    """The platform tag of a wheel before it is repaired: ``linux_x86_64``."""
    work_root: PurePath
    """The canonical work root."""
    scripts: str
    """The folder of a virtual environment that holds its programs: ``bin``."""
    compiler: str
    """The name of the host compiler: ``GCC``."""
    git_installation: str
    """How a user installs git."""
    output_folders: tuple[str, ...]
    """Folders of a build tree in which CMake puts libraries of a unit; in the first they are collected."""
    uses_msvc: bool = False
    """Whether the host compiler is Microsoft's; else it is GCC."""
    has_glibc: bool = False
    """Whether programs are linked to glibc, whose version decides where a wheel runs."""
    has_modes: bool = False
    """Whether a mode decides who may change a file; else an access list does."""
    locks_open_files: bool = False
    """Whether a file that a program has open cannot be renamed or removed."""
    has_change_times: bool = False
    """Whether ``st_ctime`` of a file is the time of its last change; else it is that of its creation."""
    keeps_locks: bool = False
    """Whether the file of a lock stays when the lock is released."""
    has_unix_sockets: bool = False
    """Whether a server of sccache can listen at a file; else it uses a port."""
    has_simulated_device: bool = False
    """Whether its own compiler makes the simulated CUDA libraries."""
    has_cuda_variables: bool = False
    """Whether NVIDIA's installer names the folder of each toolkit in a variable (``CUDA_PATH``)."""
    uses_dlls: bool = False
    """Whether libraries are DLLs, linked through import libraries and found by name alone; else they are ELF."""

    def program(self, name: str) -> str:
        """The file name of a program: ``nvcc``, ``nvcc.exe``."""
        return name

    @abc.abstractmethod
    def library(self, name: str) -> str:
        """The file name of a library of the wheel: ``llama`` -> ``libllama.so``, ``llama.dll``."""

    def folded(self, name: str) -> str:
        """A file name as the loader compares it: in lower case if it ignores case."""
        return name

    @abc.abstractmethod
    def cuda_libraries(self, release: str) -> tuple[str, ...]:
        """The CUDA libraries that a shard needs at run time, in the order of loading."""

    def cpu_variants(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The CPU variants in ``wanted`` that this platform's compiler can build."""
        return wanted

    @abc.abstractmethod
    def flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """CMake's entries for the flags of C, C++ and the linker: optimised, the same everywhere, without paths."""

    @abc.abstractmethod
    def cuda_flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """CMake's entries for the flags of nvcc."""

    def caches_cuda(self, launcher: str, version: str) -> bool:  # noqa: ARG002  # a platform may tell them apart
        """Whether a compiler launcher (``sccache``) of a version may be used with nvcc."""
        return True

    def toolkit_variables(self, root: PurePath) -> Mapping[str, str]:  # noqa: ARG002  # as above
        """Variables that the compilers need for a toolkit at ``root``, in addition to the host compiler's."""
        return {}
