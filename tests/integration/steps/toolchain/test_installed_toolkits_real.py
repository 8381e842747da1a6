"""Toolkits as distributions lay them out: the real ones of this machine, and scattered ones made here of scripts."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from build_config import archs
from build_config.errors import CompilerUnsupportedError, ToolkitMissingError
from build_config.steps.toolchain import gcc, installed_cuda, programs
from build_config.steps.units import sandbox
from build_config.system import processes
from build_config.testbed import simulated_device
from tests.integration.conftest import script
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import CudaToolkit

pytestmark = pytest.mark.integration

# ------------------------------------------------------------------------------------------------------ made here


def tool(path: Path, version: str, *, says: str = "") -> None:
    script(path, f"{says}\necho 'Cuda compilation tools, release x, V{version}'")


@pytest.fixture(name="scattered")
def _scattered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12.4 as Debian 13 has it: nvcc and cicc apart from the rest, a script for nvcc beside it, headers elsewhere."""
    inside = tmp_path / "lib" / "nvidia-cuda-toolkit" / "bin"
    says = f'case "$*" in *dryrun*) echo "#\\$ _HERE_={inside}"; echo "#\\$ PATH={inside}:$PATH"; exit 0;; esac'
    tool(inside / "nvcc", "12.4.131", says=says)
    script(inside / "cicc", "echo no version >&2")
    script(tmp_path / "bin" / "nvcc", f'exec {inside}/nvcc "$@"')
    for name in ("ptxas", "cudafe++", "fatbinary", "nvlink", "cuobjdump"):
        tool(tmp_path / "bin" / name, "12.4.127")
    for name in installed_cuda.HEADERS:
        (tmp_path / "include" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "include" / name).write_text("#define CUDART_VERSION  12040\n", encoding="utf-8")
    monkeypatch.setattr(installed_cuda, "WELL_KNOWN", ())
    monkeypatch.setattr(installed_cuda, "SYSTEM_HEADERS", tmp_path / "include")
    return tmp_path


def test_a_scattered_toolkit_is_put_together(scattered: Path) -> None:
    found = installed_cuda.find({"PATH": f"{scattered}/bin:/usr/bin:/bin"}, "12.4")
    assert found.root == scattered / "lib" / "nvidia-cuda-toolkit"
    assert found.nvcc.path == found.root / "bin" / "nvcc"
    assert found.include == scattered / "include"
    assert {path.name for path in found.programs} == {"ptxas", "cudafe++", "fatbinary", "nvlink", "cuobjdump"}
    assert {path.parent for path in found.programs} == {scattered / "bin"}


def test_another_toolkits_ptxas_in_front_of_it_on_path_is_passed_over(scattered: Path, tmp_path: Path) -> None:
    """nvcc itself would call it, and it would not know what nvcc asks of it."""
    tool(tmp_path / "other" / "ptxas", "13.0.88")
    plain = installed_cuda.find({"PATH": f"{scattered}/bin:/usr/bin:/bin"}, "12.4")
    found = installed_cuda.find({"PATH": f"{tmp_path}/other:{scattered}/bin:/usr/bin:/bin"}, "12.4")
    assert found == plain
    (scattered / "bin" / "ptxas").unlink()
    with pytest.raises(ToolkitMissingError, match=r"ptxas is missing \(.*other/ptxas is of 13\.0\.88"):
        installed_cuda.find({"PATH": f"{tmp_path}/other:{scattered}/bin:/usr/bin:/bin"}, "12.4")


def test_another_release_is_refused_and_named(scattered: Path) -> None:
    with pytest.raises(ToolkitMissingError, match=r"nvcc on PATH: that is CUDA 12\.4\.131"):
        installed_cuda.find({"PATH": f"{scattered}/bin:/usr/bin:/bin"}, "12.9")


def test_a_toolkit_without_cublas_is_passed_over_with_the_package(scattered: Path) -> None:
    environ = {"PATH": f"{scattered}/bin:/usr/bin:/bin"}
    with pytest.raises(ToolkitMissingError, match=r"CUDA 12\.4\.131 without cuBLAS, which is libcublas-dev-12-4"):
        installed_cuda.find(environ, cublas=True)
    (scattered / "include" / installed_cuda.CUBLAS_HEADER).touch()
    assert installed_cuda.find(environ, cublas=True).release == "12.4"


def test_a_changed_program_or_header_makes_another_toolkit(scattered: Path) -> None:
    environ = {"PATH": f"{scattered}/bin:/usr/bin:/bin"}
    before = installed_cuda.find(environ).identity
    assert installed_cuda.find(environ).identity == before
    tool(scattered / "bin" / "ptxas", "12.4.131")
    assert (changed := installed_cuda.find(environ).identity) != before
    (scattered / "include" / installed_cuda.CUBLAS_HEADER).write_text("#define CUBLAS_VER_MAJOR 12\n", encoding="utf-8")
    assert installed_cuda.find(environ).identity != changed


def test_compilers_see_the_scattered_programs_and_nothing_else_of_their_folder(scattered: Path) -> None:
    found = installed_cuda.find({"PATH": f"{scattered}/bin:/usr/bin:/bin"})
    layout = factories.layout(scattered / "work")
    folder = sandbox.tool_folder(gcc.find(None, os.environ), layout, os.environ, cuda=found.programs)
    names = {entry.name for entry in folder.iterdir()}
    assert names == {*sandbox.BINUTILS, *sandbox.SHELL, *(path.name for path in found.programs)}
    without = sandbox.tool_folder(gcc.find(None, os.environ), layout, os.environ)
    assert {entry.name for entry in without.iterdir()} == {*sandbox.BINUTILS, *sandbox.SHELL}


# ------------------------------------------------------------------------------------------- this machine's own


@pytest.fixture(name="installed", scope="module")
def _installed() -> CudaToolkit:
    """A scattered one: the others are laid out as the locked one is."""
    scattered = [one for one in installed_cuda.find_all(os.environ, archs.known_releases()) if one.programs]
    if not scattered:
        pytest.skip("no distribution's CUDA toolkit is installed: apt install nvidia-cuda-toolkit (docs/toolkits.md)")
    return scattered[0]


def test_the_compiler_that_nvcc_accepts_is_found_by_itself(installed: CudaToolkit) -> None:
    limit = archs.toolkit_series(installed.release).gcc
    assert gcc.supported_major(installed.root) == limit
    try:
        host = gcc.find(installed.root, os.environ)
    except CompilerUnsupportedError as refusal:
        assert f"apt install g++-{limit}" in str(refusal.remedy)  # noqa: PT017  # either is right, by what is installed
    else:
        assert int(host.cxx.version.split(".")[0]) <= limit


def test_it_compiles_what_its_own_cuobjdump_lists(installed: CudaToolkit, tmp_path: Path) -> None:
    """With nothing on PATH but what the build gets to see."""
    host = gcc.find(installed.root, os.environ)
    layout = factories.layout(tmp_path / "work")
    path = sandbox.tool_folder(host, layout, os.environ, cuda=installed.programs)
    number = archs.toolkit_series(installed.release).architectures[-1]
    (tmp_path / "k.cu").write_text("__global__ void k(float * x) { *x += 1.0f; }\n", encoding="utf-8")
    nvcc = (str(installed.nvcc.path), "-ccbin", str(host.cxx.path), "-shared", "-Xcompiler=-fPIC", "-cudart=shared")
    argv = (*nvcc, f"--generate-code=arch=compute_{number},code=sm_{number}", "-o", "libk.so", "k.cu")
    command = processes.Command(argv=argv, cwd=tmp_path, environment=sandbox.environment(path, layout))
    assert processes.run(command, check=False).output == ""
    cuobjdump = programs.find_cuobjdump(installed.root, installed.programs)
    assert cuobjdump is not None
    assert cuobjdump.version.startswith(installed.release)
    listed = processes.capture(str(cuobjdump.path), "--list-elf", str(tmp_path / "libk.so")).output
    assert f"sm_{number}.cubin" in listed


def test_a_simulated_device_is_compiled_against_its_headers(installed: CudaToolkit, tmp_path: Path) -> None:
    major = int(installed.release.split(".")[0])
    cc = shutil.which("gcc")
    assert cc is not None
    doubles = simulated_device.build(tmp_path, include=installed.include, major=major, cc=cc)
    runtime = "libcudart.so.11.0" if major == 11 else f"libcudart.so.{major}"
    assert [file.name for file in doubles.files] == ["libcuda.so.1", runtime, f"libcublas.so.{major}"]
