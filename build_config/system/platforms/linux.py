"""Linux on x86-64, with glibc and GCC."""

from __future__ import annotations

from pathlib import PurePath, PurePosixPath

from build_config.system.platforms.base import WITHOUT_NVTX, Platform

WORK_ROOT = PurePosixPath("/var/tmp/llama-cuda-wheels")  # noqa: S108  # fixed on purpose; workroot.py checks its owner
SONAME_VERSIONS = {"11": "11.0"}
"""The version after ``libcudart.so.`` if it is not the major release."""
STRIP = "-Wl,-s -Wl,--build-id=none"
"""Link without symbol table and build-id: both can differ although the code is the same."""


class Linux(Platform):
    """The names and flags of Linux."""

    def library(self, name: str) -> str:
        """``libllama.so``."""
        return f"lib{name}.so"

    def cuda_libraries(self, release: str) -> tuple[str, ...]:
        """``libcudart.so.13`` and ``libcublas.so.13``; cuBLAS finds cuBLASLt itself."""
        major = release.split(".", maxsplit=1)[0]
        return (f"libcudart.so.{SONAME_VERSIONS.get(major, major)}", f"libcublas.so.{major}")

    def flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """``__FILE__`` in messages and assertions becomes ``src/llama.cpp/...``, for any work root."""
        compiled = dict.fromkeys(("CMAKE_C_FLAGS", "CMAKE_CXX_FLAGS"), _prefix_map(work_root))
        return compiled | dict.fromkeys(("CMAKE_SHARED_LINKER_FLAGS", "CMAKE_MODULE_LINKER_FLAGS"), STRIP)

    def cuda_flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """The same for the host half of CUDA files."""
        return {"CMAKE_CUDA_FLAGS": f"-Xcompiler={_prefix_map(work_root)} {WITHOUT_NVTX}"}


def _prefix_map(work_root: PurePath) -> str:
    return f"-ffile-prefix-map={work_root.as_posix()}/="


LINUX = Linux(
    name="linux-x86_64",
    wheel_platform="linux_x86_64",
    work_root=WORK_ROOT,
    scripts="bin",
    compiler="GCC",
    git_installation="sudo apt install git (Debian, Ubuntu), sudo dnf install git (Fedora, RHEL)",
    output_folders=("unit",),
    has_glibc=True,
    has_modes=True,
    has_change_times=True,
    keeps_locks=True,
    has_unix_sockets=True,
    has_simulated_device=True,
)
