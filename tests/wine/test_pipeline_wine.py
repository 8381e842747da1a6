"""The whole pipeline under a Windows Python, on the miniature: from doctor to a published wheel.

CMake, Ninja, sccache, delvewheel and NVIDIA's whole toolkit are the real programs for Windows; test doubles play Visual
Studio (``tests/support/windows_doubles``). What passes here ran under Wine, not on Windows.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import InterruptedRunError
from build_config.formats import pe, wheelfile
from build_config.steps import locks
from build_config.steps.inspection.libraries import INIT, SCORE
from build_config.system.layout import PACKAGE, Layout
from build_config.system.platforms import access
from build_config.system.platforms.windows import WINDOWS
from build_config.testbed.simulated_device import SimulatedMachine
from build_config.testbed.simulated_device import windows as simulated
from check_gpu import device_code
from check_gpu import pe as check_gpu_pe
from tests.integration.conftest import locked_wheel
from tests.support import windows_doubles
from tests.support.windows.mingw import products as mingw
from tests.support.windows_doubles import project
from tests.support.windows_doubles.machine import Machine

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from ci.wine.windows import Windows

pytestmark = pytest.mark.wine

USER = "jörg müller"
"""With a space and letters that are two bytes, as the profiles of many people have them."""
FETCHED = "nvidia-cuda-crt"
"""The smallest of the locked wheels: the build itself downloads it from the package index."""
BUILD = ("build", "--arch", "89", "--llama-cpp", r"C:\miniature", "--jobs", "1")
CLAIM = """
from build_config.commands.app import layout_of
from build_config.system import workroot
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT
with workroot.claim(layout_of(CANONICAL_WORK_ROOT), purpose="a test", console=Console()):
    print("claimed")
"""
LONGEST = 230
"""Characters of a path below the work root: nvcc and the programs that it starts are limited to 260."""


@pytest.fixture(name="machine", scope="module")
def _machine(
    request: pytest.FixtureRequest, windows: Windows, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    downloads = Path(request.config.getoption("--wine-cache")) / "downloads"
    with windows.prefix(user=USER) as prefix:
        windows_doubles.install(prefix, downloads)
        machine = Machine(prefix=prefix, checkout=prefix.drive_c / "users" / USER / "wheels")
        sdist = project.make_sdist(tmp_path_factory.mktemp("sdist"))
        project.copy_checkout(machine.checkout, sdist)
        project.copy_miniature(machine.miniature)
        with machine.services():
            status, output = machine.run("-c", CLAIM)
            assert (status, output.split()[-1:]) == (0, ["claimed"]), output
            _seed(machine.work_root / "downloads", sdist)
            yield machine


def _seed(downloads: Path, sdist: Path) -> None:
    """The sources, and all of the locked wheels but one: no test downloads half a gigabyte that is here already."""
    downloads.mkdir()
    shutil.copy(sdist, downloads)
    layout = Layout(checkout=PACKAGE.parent, work_root=downloads.parent)
    for file in locks.read_toolkit_lock(layout, "13.0", WINDOWS.name).files:
        if file.name != FETCHED:
            shutil.copy(locked_wheel(file), downloads)


@pytest.fixture(name="first", scope="module")
def _first(machine: Machine) -> str:
    """What the first build printed."""
    return machine.call(*BUILD)


@pytest.fixture(name="wheel", scope="module")
def _wheel(machine: Machine, first: str) -> Path:
    assert "Done" in first
    (wheel,) = (machine.checkout / "wheelhouse").glob("*.whl")
    return wheel


def in_one_line(output: str) -> str:
    """The console breaks lines, and this is about the words."""
    return " ".join(output.split())


def test_doctor_finds_the_compiler_and_says_what_can_be_built(machine: Machine) -> None:
    output = in_one_line(machine.call("doctor"))
    assert "Microsoft Visual C++ 19.44.35219" in output
    assert re.search(r"Compiler cache ok sccache [0-9.]+ \(locked\)", output)
    assert "winget install Git.Git" in output
    assert "can build for GPUs in other machines" in output


def test_the_work_root_is_for_this_user_the_system_and_administrators(machine: Machine) -> None:
    saved = machine.prefix.drive_c / "access"
    arguments = ("icacls", r"C:\llama-cuda-wheels", "/save", r"C:\access")
    status, output = machine.run("-c", f"import subprocess; raise SystemExit(subprocess.call({arguments!r}))")
    assert status == 0, output
    descriptor = access.parse_saved(saved.read_bytes())
    (own,) = access.writers(descriptor) - access.TRUSTED
    assert own.startswith("S-1-5-21-"), descriptor


def test_the_miniature_becomes_a_published_wheel(machine: Machine, first: str, wheel: Path) -> None:
    words = in_one_line(first)
    steps = ("Sources of llama-cpp-python", "Toolchain", "Building for sm89", "Wheel", "Inspection", "Validation")
    assert [step for step in (*steps, "Publishing") if f"==> {step}" not in first] == []
    assert "fetching 1 file" in words, "the build has downloaded nothing"
    assert "CUDA 13.0.88 (locked wheels, CUDA 13.0)" in words
    assert "verdict: cpu-fallback-verified" in words
    record = json.loads(wheel.with_name(f"{wheel.name}.record.json").read_text(encoding="utf-8"))
    assert record["inspection"]["findings"] == []
    assert dict(record["toolchain"])["launcher"].startswith("sccache.exe ")
    assert {one["name"] for one in record["validation"]["scenarios"]} >= {"as it is", "hidden GPUs"}
    assert machine.compiled("core") > 0
    assert machine.compiled("sm89") > 0


def test_the_record_names_the_options_of_windows_compilers_and_no_path_of_the_machine(wheel: Path) -> None:
    text = wheel.with_name(f"{wheel.name}.record.json").read_text(encoding="utf-8")
    flags = dict(json.loads(text)["units"][0]["inputs"])["-DCMAKE_C_FLAGS"].split()
    assert {"/Brepro", "/experimental:deterministic", r"/pathmap:C:\llama-cuda-wheels=."} <= {*flags}
    assert not any(part in text for part in USER.split())


def test_cublas_gets_import_libraries_of_its_dlls(machine: Machine, first: str) -> None:
    assert first
    (toolkit,) = (machine.work_root / "toolkit").glob("cuda-*")
    for name, function in (("cublas", b"cublasSgemm_v2"), ("cublasLt", b"cublasLtMatmul")):
        library = (toolkit / "lib" / "x64" / f"{name}.lib").read_bytes()
        assert library.startswith(b"!<arch>\n")
        assert b"__imp_" + function in library


def test_the_wheel_has_the_dlls_of_the_units_and_microsofts_under_names_of_its_own(wheel: Path) -> None:
    contents = wheelfile.read_contents(wheel)
    dlls = {name: pe.read(data) for name, data in contents.items() if name.endswith(".dll")}
    own = {name.removeprefix("llama_cpp/lib/"): dll for name, dll in dlls.items() if name.startswith("llama_cpp/lib/")}
    variants = ("x64", "sse42", "haswell", "alderlake", "cascadelake")
    core = ("ggml-base", "ggml", "llama", "mtmd", *(f"ggml-cpu-{variant}" for variant in variants))
    assert own.keys() == {f"{name}.dll" for name in (*core, "ggml-cuda-sm89")}
    assert all(dll.reproducible and dll.debug_file is None for dll in own.values())
    shard = own["ggml-cuda-sm89.dll"]
    assert {INIT, SCORE} <= {*shard.exports}
    vendored = {name.rpartition("/")[2] for name in dlls if name.startswith("llama_cpp_python.libs/")}
    assert {re.sub(r"-[0-9a-f]+\.dll", "", name) for name in vendored} == {"msvcp140", "vcomp140"}
    assert vendored & {*shard.needed}, "the shard uses the C++ library"
    assert {"kernel32.dll", "vcruntime140.dll"} <= {*shard.needed}
    assert not any("cu" in name for name in shard.needed), "CUDA 13 looks for its libraries when it runs"


def test_check_gpu_reads_in_the_dlls_what_others_read(wheel: Path) -> None:
    dlls = {name: data for name, data in wheelfile.read_contents(wheel).items() if name.endswith(".dll")}
    read = {name: check_gpu_pe.read(data) for name, data in dlls.items()}
    assert {name: tuple(sorted(dll.needed)) for name, dll in read.items()} == {
        name: pe.read(data).needed for name, data in dlls.items()
    }
    shard = "llama_cpp/lib/ggml-cuda-sm89.dll"
    assert {name: device_code.architectures(dlls[name], dll) for name, dll in read.items()} == {
        name: ("89-real",) if name == shard else () for name in dlls
    }


def test_file_names_in_the_code_begin_below_the_work_root(wheel: Path) -> None:
    data = wheelfile.read_contents(wheel)["llama_cpp/lib/ggml-base.dll"]
    (name,) = re.findall(rb"[\x20-\x7e]*base\.c\0", data)
    assert name.replace(b"\\", b"/").removeprefix(b"./") == b"src/llama.cpp/ggml/src/base.c\0"


def test_no_path_below_the_work_root_is_too_long(machine: Machine, first: str) -> None:
    assert first
    paths = (path.relative_to(machine.work_root) for path in machine.work_root.rglob("*"))
    longest = max((rf"C:\llama-cuda-wheels\{path}" for path in paths), key=len)
    assert len(longest) < LONGEST, longest


def test_the_published_wheel_is_verified(machine: Machine, wheel: Path) -> None:
    assert f"{wheel.name}" in in_one_line(machine.call("verify")).replace(" ", "")


def test_a_second_run_compiles_nothing_and_publishes_the_same_wheel(machine: Machine, wheel: Path) -> None:
    before = wheel.read_bytes()
    logs = [machine.work_root / "logs" / f"build-{unit}.log" for unit in ("core", "sm89")]
    for log in logs:
        log.unlink()
    words = in_one_line(machine.call(*BUILD))
    assert words.count("unchanged, taken from the store") == len(logs)
    assert words.count("unchanged: the report of an earlier run") == 2  # inspection and validation
    assert not any(log.exists() for log in logs)
    assert wheel.read_bytes() == before


@pytest.mark.long
def test_a_build_of_emptied_folders_gives_the_same_bytes(machine: Machine, wheel: Path) -> None:
    before = wheel.read_bytes()
    for name in ("build", "store"):
        shutil.rmtree(machine.work_root / name)
    machine.call(*BUILD)
    assert wheel.read_bytes() == before


LOADING = r"""
import ctypes, glob, json, os, sys
os.environ.update({name: value for name, value in json.loads(sys.argv[1]).items() if value is not None})
for path in os.environ["SIMULATED_PRELOAD"].split(";"):
    ctypes.CDLL(path)
for path in glob.glob(r"C:\loaded\llama_cpp_python.libs\*.dll"):
    ctypes.WinDLL(path)
base, ggml, shard = (
    ctypes.CDLL(rf"C:\loaded\llama_cpp\lib\{name}.dll", winmode=0) for name in ("ggml-base", "ggml", "ggml-cuda-sm89")
)
ggml.ggml_backend_load_all_from_path(rb"C:\loaded\llama_cpp\lib")
name_of = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(("ggml_backend_reg_name", base))
at = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(("ggml_backend_reg_get", ggml))
names = [name_of(at(index)).decode() for index in range(ggml.ggml_backend_reg_count())]
print(json.dumps([shard.ggml_backend_score(), names]))
"""
"""Loads the wheel's DLLs by hand, with the doubles of the driver before them, and asks for score and backends."""


@pytest.mark.parametrize(("capability", "names"), [("8.9", ["CUDA", "CPU"]), ("8.6", ["CPU"])])
def test_the_shard_scores_and_is_chosen_on_a_simulated_gpu(
    machine: Machine, wheel: Path, tmp_path: Path, capability: str, names: list[str]
) -> None:
    drive = machine.prefix.drive_c
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(drive / "loaded")
    (toolkit,) = (machine.work_root / "toolkit").glob("cuda-*")
    doubles = simulated.build(
        drive / "simulated",
        include=toolkit / "include",
        import_library=toolkit / "lib" / "x64" / "cudart.lib",
        major=13,
        cc=mingw.Compiler.of(machine.prefix.tree, tmp_path).path("gcc"),
    )
    files = tuple(Path(machine.prefix.windows_path(file)) for file in doubles.files)
    variables = dataclasses.replace(doubles, files=files).environment(SimulatedMachine(capabilities=(capability,)))
    status, output = machine.run("-c", LOADING, json.dumps(variables))
    assert status == 0, output
    score, found = json.loads(output.splitlines()[-1])
    assert (score > 0) is ("CUDA" in names)
    assert found == names


# ------------------------------------------------------------------------------------------------------- interruptions

SLOW = """
template <int N> __device__ float slow(float x) { return slow<N - 1>(sinf(x)) + slow<N - 1>(cosf(x)); }
template <> __device__ float slow<0>(float x) { return x; }
__global__ void takes_long(float * x) { *x = slow<11>(*x); }
"""
COMPILERS = ("ninja", "nvcc", "cicc", "ptxas", "cl", "zig", "sccache")
INTERRUPTING = """
import ctypes, subprocess, sys, time

kernel = ctypes.windll.kernel32
kernel.FreeConsole()
assert kernel.AllocConsole(), "no console"
build = subprocess.Popen(
    [sys.executable, "-m", "build_config", *sys.argv[1:]],
    stdin=subprocess.DEVNULL, stdout=sys.stdout, stderr=subprocess.STDOUT,  # not the new console's
)
handler = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)(lambda event: 1)
kernel.SetConsoleCtrlHandler(handler, True)  # of this process alone
sys.stdin.readline()
start = time.monotonic()
kernel.GenerateConsoleCtrlEvent(0, 0)
print("status", build.wait(), "after", time.monotonic() - start)
"""
"""Starts a build in a console of its own, and presses Ctrl-C there when it is told to."""
MINUTE = 60.0


@pytest.fixture(name="slow_source")
def _slow_source(machine: Machine, wheel: Path) -> Iterator[Path]:
    """The second CUDA file takes long to compile, and the first one is not compiled; in the end it is as it was."""
    assert wheel.is_file()
    path = machine.miniature / "ggml" / "src" / "ggml-cuda" / "second.cu"
    quick = path.read_text(encoding="utf-8")
    path.write_text(quick + SLOW, encoding="utf-8")
    object_of(machine, "first").unlink()
    yield path
    path.write_text(quick, encoding="utf-8")


def object_of(machine: Machine, name: str) -> Path:
    """The object file of a CUDA file."""
    (found,) = (machine.work_root / "build" / "sm89").rglob(f"{name}.cu.obj")
    return found


def in_the_middle(machine: Machine, build: subprocess.Popen[str]) -> int:
    """Wait until the slow file is being compiled, after the other one, and return the time of that one's object."""
    deadline = time.monotonic() + 10 * MINUTE
    while not any("second" in " ".join(process.cmdline()) for process in machine.programs("cicc")):
        assert time.monotonic() < deadline
        assert build.poll() is None, build.communicate()[0]
        time.sleep(0.1)
    return object_of(machine, "first").stat().st_mtime_ns


@pytest.mark.long
def test_a_killed_build_goes_on_where_it_stopped(machine: Machine, wheel: Path, slow_source: Path) -> None:
    with machine.start("-m", "build_config", *BUILD, "--launcher", "none") as build:
        finished = in_the_middle(machine, build)
        build.kill()  # as the task manager does: the compilers run on
        build.wait(timeout=MINUTE)
    assert machine.programs("cicc"), "nothing was left running"
    _goes_on(machine, wheel, slow_source, finished)


@pytest.mark.long
def test_ctrl_c_ends_the_compilers_and_the_same_command_goes_on(
    machine: Machine, wheel: Path, slow_source: Path
) -> None:
    with machine.start("-c", INTERRUPTING, *BUILD, "--launcher", "none") as build:
        finished = in_the_middle(machine, build)
        output, _ = build.communicate("now\n", timeout=MINUTE)
    ended = re.search(r"status (\d+) after ([0-9.]+)", output)
    assert ended is not None, output
    assert int(ended[1]) == InterruptedRunError.exit_code, output
    assert machine.programs(*COMPILERS) == []
    _goes_on(machine, wheel, slow_source, finished)


def _goes_on(machine: Machine, wheel: Path, source: Path, finished: int) -> None:
    """The same command compiles what is missing, and nothing else."""
    before = wheel.read_bytes()
    source.write_text(source.read_text(encoding="utf-8").replace(SLOW, ""), encoding="utf-8")
    shutil.rmtree(machine.work_root / "store" / "sm89")
    machine.call(*BUILD, "--launcher", "none")
    assert object_of(machine, "first").stat().st_mtime_ns == finished, "the finished file was compiled again"
    assert machine.programs(*COMPILERS) == []
    assert wheel.read_bytes() == before


@pytest.mark.long
def test_a_second_build_waits_and_names_the_first(machine: Machine, wheel: Path) -> None:
    assert wheel.is_file()
    holding = CLAIM.replace('print("claimed")', 'print("claimed", flush=True); input()')
    with machine.start("-c", holding) as holder:
        assert holder.stdout is not None
        assert next(line for line in holder.stdout if "claimed" in line)
        with machine.start("-m", "build_config", *BUILD) as waiting:
            assert waiting.stdout is not None
            said = next(line for line in waiting.stdout if "Waiting for another build" in line)
            assert "a test" in said, said
            assert waiting.poll() is None
            holder.communicate("\n", timeout=MINUTE)
            output, _ = waiting.communicate(timeout=10 * MINUTE)
    assert waiting.returncode == 0, output
