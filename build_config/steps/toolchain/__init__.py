"""The programs that compile and link: the CUDA toolkit, GCC, CMake, Ninja, the compiler launcher."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from build_config.model import Toolchain
from build_config.steps.toolchain import gcc, installed_cuda, programs
from build_config.steps.toolchain.windows import installed_cuda as installed_cuda_windows
from build_config.steps.toolchain.windows import msvc
from build_config.system import platforms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from build_config.model import CudaToolkit, HostCompiler
    from build_config.system.layout import Layout


def assemble(
    cuda: CudaToolkit, host: HostCompiler, *, environ: Mapping[str, str], launcher: programs.Launcher, layout: Layout
) -> Toolchain:
    """Complete a CUDA toolkit and a host compiler with the other programs of the toolchain.

    Raises ``LockError`` for a locked program that is not installed, and ``SettingsError`` for a launcher that this
    machine does not have.
    """
    return Toolchain(
        cuda=cuda,
        host=host,
        cmake=programs.find_cmake(),
        ninja=programs.find_ninja(),
        launcher=programs.find_launcher(launcher, environ, layout),
        cuobjdump=programs.find_cuobjdump(cuda.root, cuda.programs),
        platform=platforms.HERE.name,
    )


def with_toolkit(chain: Toolchain, cuda: CudaToolkit) -> Toolchain:
    """The toolchain with a toolkit that is there now."""
    return replace(chain, cuda=cuda, cuobjdump=programs.find_cuobjdump(cuda.root, cuda.programs))


def host_for_locked(newest_gcc: int, environ: Mapping[str, str]) -> HostCompiler:
    """Find the host compiler for a locked toolkit that supports GCC up to ``newest_gcc``, before it is downloaded.

    Raises ``CompilerMissingError`` or ``CompilerUnsupportedError``.
    """
    if platforms.HERE.uses_msvc:
        return msvc.find(msvc.LOCKED_MSC_VER, environ)
    return gcc.choose(newest_gcc, environ)


def host_for_installed(cuda: CudaToolkit, environ: Mapping[str, str]) -> HostCompiler:
    """Find the host compiler that an installed toolkit supports according to its own header. Raises as above."""
    if platforms.HERE.uses_msvc:
        return msvc.find(msvc.supported(cuda.root), environ)
    return gcc.find(cuda.root, environ)


def find_installed_cuda(release: str | None, environ: Mapping[str, str]) -> CudaToolkit:
    """Find the installed toolkit of a release, or the first of any release. Raises ``ToolkitMissingError``."""
    if platforms.HERE.has_cuda_variables:
        return installed_cuda_windows.find(environ, release)
    return installed_cuda.find(environ, release, cublas=True)


def runtime_folders(chain: Toolchain) -> tuple[Path, ...]:
    """Folders with libraries of the host compiler that a wheel must contain; none on Linux."""
    return msvc.runtime_folders(chain.host) if platforms.of(chain.platform).uses_msvc else ()
