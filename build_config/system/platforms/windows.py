"""Windows on x86-64, with Microsoft's compiler.

Nothing of this has run on Windows yet (docs/windows.md); each choice names its source.
"""

from __future__ import annotations

from pathlib import PurePath, PureWindowsPath
from typing import TYPE_CHECKING

from packaging.version import Version

from build_config.system.platforms.base import WITHOUT_NVTX, Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

WORK_ROOT = PureWindowsPath(r"C:\llama-cuda-wheels")
"""Short on purpose: nvcc and the programs that it starts are limited to 260 characters."""
NOT_FOR_MSVC = frozenset({"ivybridge", "piledriver", "cooperlake", "zen4", "sapphirerapids"})
"""CPU variants that ggml/src/CMakeLists.txt leaves out for MSVC: no F16C or FMA without AVX2, no BF16, no AMX."""

OLDEST_MAJOR = 11
LAST_IMPORTED_RUNTIME = 12
CUDA_LAUNCHER_SINCE = Version("0.18.0")
"""The first sccache after https://github.com/mozilla/sccache/pull/2811 was merged (August 2026; 0.17.0 was out then).

Before, a define with escaped quotes made sccache lose every define after it, on Windows only, and with them template
instantiations, without any error. ggml passes one: ``GGML_CUDA_FA_QUANTS``.
"""

DETERMINISTIC = "/Brepro /experimental:deterministic"
"""Objects and DLLs without time stamps; both for cl, the first for link as well.

https://github.com/bazelbuild/bazel/issues/9466 (measured with MSVC 2022), https://github.com/openjdk/jdk/pull/1287
"""

# CMake's own first values for these languages (Modules/Platform/Windows-MSVC.cmake), which an entry of ours replaces.
_DEFAULTS = "/DWIN32 /D_WINDOWS"
_EXCEPTIONS = "/EHsc"


class Windows(Platform):
    """The names and flags of Windows."""

    def program(self, name: str) -> str:
        """``nvcc.exe``."""
        return f"{name}.exe"

    def library(self, name: str) -> str:
        """``llama.dll``: without ``lib`` in front, as ggml and the bindings expect it on Windows."""
        return f"{name}.dll"

    def folded(self, name: str) -> str:
        """Case does not matter."""
        return name.lower()

    def cuda_libraries(self, release: str) -> tuple[str, ...]:
        """``cublasLt64_13.dll`` before cuBLAS, which needs it: its folder is not one that Windows searches.

        Since CUDA 13 nothing is linked to ``cudart64_13.dll``: on its first call, ``cudart.lib`` loads the driver's
        ``nvcudart_hybrid64.dll`` (checked in the locked wheel; tests/integration links with it).
        """
        major = int(release.split(".", maxsplit=1)[0])
        blas = (f"cublasLt64_{major}.dll", f"cublas64_{major}.dll")
        runtime = "110" if major == OLDEST_MAJOR else str(major)  # every CUDA 11 has cudart64_110.dll
        return blas if major > LAST_IMPORTED_RUNTIME else (f"cudart64_{runtime}.dll", *blas)

    def cpu_variants(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Without those that ggml does not build with MSVC."""
        return tuple(variant for variant in wanted if variant not in NOT_FOR_MSVC)

    def flag_entries(self, work_root: PurePath) -> dict[str, str]:
        r"""No debugging information at all, and so no path of a PDB; ``__FILE__`` becomes ``.\src\llama.cpp\...``."""
        compiler = f"{DETERMINISTIC} {_path_map(work_root)}"
        linker = "/machine:x64 /INCREMENTAL:NO /Brepro"
        return {
            "CMAKE_C_FLAGS": f"{_DEFAULTS} {compiler}",
            "CMAKE_CXX_FLAGS": f"{_DEFAULTS} {_EXCEPTIONS} {compiler}",
            "CMAKE_SHARED_LINKER_FLAGS": linker,
            "CMAKE_MODULE_LINKER_FLAGS": linker,
            "CMAKE_MSVC_RUNTIME_LIBRARY": "MultiThreadedDLL",
            "CMAKE_MSVC_DEBUG_INFORMATION_FORMAT": "",
            "CMAKE_POLICY_DEFAULT_CMP0141": "NEW",
        }

    def cuda_flag_entries(self, work_root: PurePath) -> dict[str, str]:
        """One ``-Xcompiler`` for each option: nvcc splits its argument at commas."""
        options = [_EXCEPTIONS, *DETERMINISTIC.split(), _path_map(work_root)]
        compiler = (f"-Xcompiler={option}" for option in options)
        return {"CMAKE_CUDA_FLAGS": " ".join(["-D_WINDOWS", *compiler, WITHOUT_NVTX])}

    def caches_cuda(self, launcher: str, version: str) -> bool:
        """Only sccache, and only without the fault that loses instantiations."""
        return launcher == "sccache" and Version(version) >= CUDA_LAUNCHER_SINCE

    def toolkit_variables(self, root: PurePath) -> Mapping[str, str]:
        """``CUDA_PATH``, by which CMake finds a toolkit without an installer's registry entries."""
        return {"CUDA_PATH": str(root)}


def _path_map(work_root: PurePath) -> str:
    """With backslashes: the compiler compares text, and gets such paths from Ninja and the system."""
    return f"/pathmap:{work_root}=."


WINDOWS = Windows(
    name="win-amd64",
    wheel_platform="win_amd64",
    work_root=WORK_ROOT,
    scripts="Scripts",
    compiler="Microsoft Visual C++",
    git_installation="winget install Git.Git",
    # A DLL that is linked against is a "runtime" for CMake, and llama.cpp has those in bin; we add mtmd.
    output_folders=("unit", "bin", "mtmd"),
    uses_msvc=True,
    locks_open_files=True,
    has_cuda_variables=True,
    uses_dlls=True,
)
