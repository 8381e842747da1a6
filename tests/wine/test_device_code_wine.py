"""The device code of nvcc for Windows, under Wine, compared with that of nvcc for Linux.

Both are the programs of the locked wheels; in front of nvcc for Windows, a test double plays Visual C++'s preprocessor
(``tests/support/windows_doubles``).
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from build_config.steps import locks
from build_config.steps.toolchain import gcc, locked_cuda
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks.reproduce.difference import hashes
from tests.integration.conftest import WITHOUT_CUBLAS, locked_wheel
from tests.support import windows_doubles
from tests.support.windows_doubles import project
from tests.support.windows_doubles.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import PlatformName, ToolkitLock
    from ci.wine.windows import Windows

pytestmark = pytest.mark.wine

PLAIN = """
template <typename T> __global__ void scale(T * x, T by, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = x[i] * by + sqrtf(x[i]);
}
template __global__ void scale<float>(float *, float, int);
__global__ void add(const int * x, int * y, int n) {
    __shared__ int part[32];
    part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < n) y[threadIdx.x] += part[31 - threadIdx.x];
}
"""
"""Kernels without a name that is local to their file, and without a path."""
COMPILING = r"""
import os, subprocess, sys
from build_config.steps.toolchain.windows import msvc
host = dict(msvc.find(msvc.LOCKED_MSC_VER, os.environ).environment)
argv = [r"C:\toolkit\bin\nvcc.exe", *sys.argv[1:]]
raise SystemExit(subprocess.call(argv, cwd=r"C:\device", env={**os.environ, **host}))
"""
FOLLOWS = re.compile(r"\.(?:shstrtab|strtab|symtab|nv\.callgraph|nv\.info.*|rel\..*)")
"""Sections of names, and of numbers of symbols."""


def reduced_lock(platform: PlatformName) -> ToolkitLock:
    """The locked toolkit without cuBLAS."""
    layout = Layout(checkout=PACKAGE.parent, work_root=Path("/nowhere"))
    whole = locks.read_toolkit_lock(layout, "13.0", platform)
    return dataclasses.replace(whole, files=tuple(file for file in whole.files if file.name in WITHOUT_CUBLAS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilers:
    """nvcc for Linux, and a Windows with nvcc in its folder ``C:\\toolkit``."""

    linux: Path
    machine: Machine
    folder: Path

    def cubins(self, name: str, source: str) -> tuple[bytes, bytes]:
        """The device code of a source by nvcc for Linux, and by nvcc for Windows."""
        there = self.machine.prefix.drive_c / "device"
        for place in (self.folder, there):
            place.mkdir(exist_ok=True)
            (place / name).write_text(source, encoding="utf-8", newline="\n")
        options = ("-arch=sm_89", "-std=c++17", f"--frandom-seed={name}", "-cubin", name, "-o", "made.cubin")
        done = subprocess.run([self.linux, *options], cwd=self.folder, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        status, output = self.machine.run("-c", COMPILING, *options)
        assert status == 0, output
        return (self.folder / "made.cubin").read_bytes(), (there / "made.cubin").read_bytes()


@pytest.fixture(name="compilers", scope="module")
def _compilers(
    request: pytest.FixtureRequest, windows: Windows, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compilers]:
    folder = tmp_path_factory.mktemp("linux")
    layout = Layout(checkout=PACKAGE.parent, work_root=folder)
    lock = reduced_lock("linux-x86_64")
    wheels = tuple(map(locked_wheel, lock.files))
    linux = locked_cuda.provide(lock, wheels, layout, cc=str(gcc.find(None, os.environ).cc.path)).nvcc.path
    with windows.prefix() as prefix:
        windows_doubles.install(prefix, Path(request.config.getoption("--wine-cache")) / "downloads")
        for file in reduced_lock("win-amd64").files:
            locked_cuda.unpack(locked_wheel(file), prefix.drive_c / "toolkit", major="13")
        machine = Machine(prefix=prefix, checkout=prefix.drive_c / "checkout")
        project.copy_checkout(machine.checkout, project.make_sdist(tmp_path_factory.mktemp("sdist")))
        with machine.services():
            yield Compilers(linux=linux, machine=machine, folder=folder)


def test_device_code_has_the_same_bytes_as_on_linux(compilers: Compilers) -> None:
    linux, windows = compilers.cubins("plain.cu", PLAIN)
    assert linux == windows


def sections(cubin: bytes) -> dict[str, bytes]:
    """The contents of each section, by its name without the hashes of local names."""
    return {hashes.without_hashes(one.name): one.data() for one in ELFFile(io.BytesIO(cubin)).iter_sections()}


def bindings_of_kernels(cubin: bytes) -> set[str]:
    """Those of the functions with code here: ``vprintf`` is the driver's."""
    table = ELFFile(io.BytesIO(cubin)).get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    infos = [symbol["st_info"] for symbol in table.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF"]
    return {info["bind"] for info in infos if info["type"] == "STT_FUNC"}


def module_of(cubin: bytes) -> hashes.ModuleId:
    (module,) = hashes.module_ids(one.name for one in ELFFile(io.BytesIO(cubin)).iter_sections())
    return module


def test_a_kernel_that_is_local_to_its_file_differs_in_name_and_binding_alone(compilers: Compilers) -> None:
    """Its name has a hash of the source's path; in the way of Visual C++ nothing is local to a file for the linker."""
    source = (project.MINIATURE / "ggml" / "src" / "ggml-cuda" / "first.cu").read_text(encoding="utf-8")
    linux, windows = compilers.cubins("first.cu", source.replace("__FILE__", '"a file"'))
    ours, theirs = sections(linux), sections(windows)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith(".text.") for name in ours)
    assert [name for name in ours if ours[name] != theirs[name] and not FOLLOWS.fullmatch(name)] == []
    assert module_of(linux).path != module_of(windows).path
    assert module_of(linux).ending == module_of(windows).ending, "the seed has another effect"
    assert (bindings_of_kernels(linux), bindings_of_kernels(windows)) == ({"STB_LOCAL"}, {"STB_GLOBAL"})
