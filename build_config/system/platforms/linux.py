"""Linux on x86-64, with glibc and GCC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING

from build_config.model import PlatformName
from build_config.system.platforms.flags import WITHOUT_NVTX

if TYPE_CHECKING:
    from collections.abc import Mapping

WORK_ROOT = PurePosixPath("/var/tmp/llama-cuda-wheels")  # noqa: S108  # fixed on purpose; workroot.py checks its owner
SONAME_VERSIONS = {"11": "11.0"}
"""The version after ``libcudart.so.`` if it is not the major release."""
STRIP = "-Wl,-s -Wl,--build-id=none"
"""Link without symbol table and build-id: both can differ although the code is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linux:
    """The platform protocol for Linux."""

    name: PlatformName = "linux-x86_64"
    wheel_platform: str = "linux_x86_64"
    work_root: PurePath = WORK_ROOT
    scripts: str = "bin"
    compiler: str = "GCC"
    uses_msvc: bool = False
    has_glibc: bool = True
    has_modes: bool = True
    has_unix_sockets: bool = True
    has_simulated_device: bool = True
    has_cuda_variables: bool = False
    uses_dlls: bool = False
    output_folders: tuple[str, ...] = ("unit",)

    def program(self, name: str) -> str:
        """``nvcc``."""
        return name

    def library(self, name: str) -> str:
        """``libllama.so``."""
        return f"lib{name}.so"

    def folded(self, name: str) -> str:
        """Case matters."""
        return name

    def cuda_libraries(self, release: str) -> tuple[str, ...]:
        """``libcudart.so.13`` and ``libcublas.so.13``; cuBLAS finds cuBLASLt itself."""
        major = release.split(".", maxsplit=1)[0]
        return (f"libcudart.so.{SONAME_VERSIONS.get(major, major)}", f"libcublas.so.{major}")

    def cpu_variants(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """All of them."""
        return wanted

    def flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """``__FILE__`` in messages and assertions becomes ``src/llama.cpp/...``, for any work root."""
        prefix_map = _prefix_map(work_root)
        return {
            "CMAKE_C_FLAGS": prefix_map,
            "CMAKE_CXX_FLAGS": prefix_map,
            "CMAKE_SHARED_LINKER_FLAGS": STRIP,
            "CMAKE_MODULE_LINKER_FLAGS": STRIP,
        }

    def cuda_flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """The same for the host half of CUDA files."""
        return {"CMAKE_CUDA_FLAGS": f"-Xcompiler={_prefix_map(work_root)} {WITHOUT_NVTX}"}

    def caches_cuda(self, launcher: str, version: str) -> bool:  # noqa: ARG002  # the protocol's form
        """Every launcher can."""
        return True

    def toolkit_variables(self, root: PurePath) -> Mapping[str, str]:  # noqa: ARG002  # the protocol's form
        """Nothing: the compilers are called by their paths and find the rest from there."""
        return {}


def _prefix_map(work_root: PurePath) -> str:
    return f"-ffile-prefix-map={work_root}/="


LINUX = Linux()
