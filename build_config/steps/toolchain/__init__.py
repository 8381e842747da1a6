"""Everything that compiles and links: the CUDA toolkit, GCC, CMake, Ninja, the compiler launcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.model import Toolchain
from build_config.steps.toolchain import gcc, programs
from build_config.steps.toolchain.windows import msvc
from build_config.system import platforms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_config.model import CudaToolkit, HostCompiler
    from build_config.system.layout import Layout


def assemble(
    cuda: CudaToolkit, *, environ: Mapping[str, str], launcher: programs.Launcher, layout: Layout
) -> Toolchain:
    """Find what goes with a CUDA toolkit.

    Raises ``CompilerMissingError`` or ``CompilerUnsupportedError`` for the host compiler, ``LockError`` for a locked
    program that is not installed, and ``SettingsError`` for a launcher that this machine does not have.
    """
    return Toolchain(
        cuda=cuda,
        host=find_host(cuda, environ),
        cmake=programs.find_cmake(),
        ninja=programs.find_ninja(),
        launcher=programs.find_launcher(launcher, environ, layout),
        cuobjdump=programs.find_cuobjdump(cuda.root, cuda.programs),
        platform=platforms.HERE.name,
    )


def find_host(cuda: CudaToolkit | None, environ: Mapping[str, str]) -> HostCompiler:
    """The host compiler of this platform that goes with a toolkit, or any without one. Raises as ``assemble`` does."""
    if platforms.HERE.name == "win-amd64":
        return msvc.find(msvc.supported(cuda.root) if cuda else None, environ)
    return gcc.find(cuda.root if cuda else None, environ)
