"""The check on real environments: real interpreters, real ELF files, real messages of the loader, real crashes.

Small doubles take the place of llama.cpp and of CUDA. They bring the check into each situation; nothing here shows
that anything ran on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.steps.inspection import device_code as cubins
from build_config.steps.toolchain import programs
from build_config.tasks import check_gpu_file
from build_config.testbed import synthetic_model
from check_gpu import collect, device_code, elf, report
from check_gpu.diagnosis import diagnose
from check_gpu.facts import Facts, Installation, Load, Machine
from check_gpu.result import Code, Diagnosis
from tests.integration import conftest
from tests.support.doubles import BACKEND, CARD, compile_double

if TYPE_CHECKING:
    from build_config.model import CudaToolkit

pytestmark = pytest.mark.integration

LINUX = Machine(system="linux", card_on_bus=True)
ORIGIN = "-Wl,-rpath,$ORIGIN"

# A fat binary with a cubin for 8.9, as nvcc puts it into a library.
CUDA_CODE = r"""
__asm__(".pushsection .nv_fatbin,\"a\"\n .balign 8\n"
        ".long 0xBA55ED50\n .short 1\n .short 16\n .quad 72\n"
        ".short 2\n .short 0x101\n .long 64\n .quad 8\n .long 0,0\n .short 8,1\n .long 89,0,0\n .quad 0x11,0,0\n"
        ".quad 0\n .popsection\n");
"""
# The question of llama_cpp to its library: how many devices can be used. The CUDA build asks the driver.
CUDA_BACKEND = (
    CUDA_CODE
    + r"""
int cuInit(unsigned);
int cuDeviceGetCount(int *);
int cublas_double(void);
int llama_devices(void) { int n = 0; cublas_double(); return cuInit(0) || cuDeviceGetCount(&n) ? 0 : n; }
"""
)
CPU_BACKEND = "int llama_devices(void) { return 0; }\n"
LLAMA = r"""
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int llama_devices(void);
__attribute__((constructor)) static void start(void) {
    if (getenv("DOUBLE_ILLEGAL")) __builtin_trap();
    if (getenv("DOUBLE_HANG")) sleep(60);
}
int llama_usable_devices(void) { return llama_devices(); }
void llama_abort(void) { abort(); }
"""
# Like upstream's package: it loads the library at import, and wraps the loader's message.
PACKAGE_CODE = """
import ctypes, os, pathlib

__version__ = "0.3.16"
_path = pathlib.Path(__file__).parent / "lib" / "libllama.so"
try:
    _lib = ctypes.CDLL(str(_path))
except Exception as e:
    raise RuntimeError(f"Failed to load shared library '{_path}': {e}")

def _device():
    return "CUDA0" if _lib.llama_usable_devices() else "CPU"
"""
OUR_PACKAGE_CODE = """
import ctypes, functools, os, pathlib
from ._cuda_loader import load_safely

__version__ = "0.3.36"
cuda_status = functools.cache(lambda: load_safely()[0])

def _device():
    return "CUDA0" if cuda_status().loaded else "CPU"
"""
LLAMA_CODE = """
import types

if "DOUBLE_MEMORY_OF_A_TEXT" in os.environ:  # older versions have no such function
    def llama_get_memory(context):
        return None if os.environ["DOUBLE_MEMORY_OF_A_TEXT"] == "none" else 1

def llama_set_embeddings(context, embeddings):
    context.append(embeddings)

llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_sink = []

def llama_log_set(callback, data):
    _sink.append(callback)

def llama_print_system_info():
    return b"CPU : SSE3 = 1 | "

class Llama:
    def __init__(self, model_path, *, n_gpu_layers=0, n_ctx=512, seed=0, verbose=True):
        if open(model_path, "rb").read(4) != b"GGUF":
            raise ValueError(f"Failed to load model from file: {model_path}")
        device, layers = _device(), 3
        offloaded = 0 if device == "CPU" else layers if n_gpu_layers < 0 else min(n_gpu_layers, layers)
        where = ["CPU"] * (layers - offloaded) + [device] * offloaded
        if device != "CPU":
            self._say(f"llama_model_load: using device {device} (NVIDIA Double 4090) (0000:01:00.0) - 24000 MiB free")
        for layer, name in enumerate(where):
            self._say(f"load_tensors: layer {layer:3} assigned to device {name}, is_swa = 0")
        if device != "CPU":
            self._say(f"load_tensors: offloaded {offloaded}/{layers} layers to GPU")
        if "DOUBLE_MEMORY" in os.environ and device != "CPU":
            self._say("alloc_buffer: allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory")
            raise ValueError(f"Failed to load model from file: {model_path}")
        for layer, name in enumerate(where[:-1]):
            self._say(f"llama_kv_cache: layer {layer:3}: dev = {name}")
        self.ctx = []
        self.context_params = types.SimpleNamespace(embeddings=False)
    def embed(self, text):
        assert self.ctx == [True]
        if not self.context_params.embeddings:
            raise RuntimeError("Llama model must be created with embedding=True to call this method")
        return [[0.5] * 48] * 7 if os.environ["DOUBLE_POOLING"] == "none" else [0.5] * 48
    def _say(self, text):
        for part in (text[:20], text[20:] + "\\n"):
            _sink[-1](1, part.encode(), None)
    def tokenize(self, text):
        return [1, 2]
    def generate(self, tokens, temp):
        if "DOUBLE_ABORT" in os.environ:
            assert os.environ["GGML_NO_BACKTRACE"]
            self._say("CUDA error: an illegal memory access was encountered")
            _lib.llama_abort()
        while True:
            yield 2
"""


@dataclass(frozen=True)
class Bench:
    """An environment without pip, and folders of doubles to put on the loader's path."""

    root: Path
    python: Path
    site: Path

    @property
    def lib(self) -> Path:
        return self.site / "llama_cpp" / "lib"

    def install(self, code: str, version: str) -> None:
        self.lib.mkdir(parents=True)
        (self.lib.parent / "__init__.py").write_text(code + LLAMA_CODE, encoding="utf-8")
        metadata = self.site / f"llama_cpp_python-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {version}\n", encoding="utf-8")

    def install_stock(self, *, cuda: bool) -> None:
        """Install it as upstream builds it: libllama needs the backend, and the backend needs CUDA."""
        self.install(PACKAGE_CODE, "0.3.16")
        near = (f"-L{self.lib}", ORIGIN, "-Wl,--no-as-needed")
        backend = "libggml-cuda.so" if cuda else "libggml-cpu.so"
        compile_double(self.lib / "libggml-base.so", "int ggml_base;")
        needs = self.cuda_options if cuda else ()
        source = CUDA_BACKEND if cuda else CPU_BACKEND
        compile_double(self.lib / backend, source, *near, "-l:libggml-base.so", *needs)
        compile_double(self.lib / "libllama.so", LLAMA, *near, f"-l:{backend}")

    def install_linked(self) -> None:
        """Install it like an older release: one library next to the package's modules, with CUDA linked into it."""
        self.install(PACKAGE_CODE.replace(' / "lib"', ""), "0.2.90")
        compile_double(self.lib.parent / "libllama.so", CUDA_BACKEND + LLAMA, *self.cuda_options)

    def install_ours(self) -> None:
        """Install the real loader, with one CUDA module for 8.9 and one for the CPU."""
        self.install(OUR_PACKAGE_CODE, "0.3.36+cu130.sm89")
        conftest.write_own_modules(self.lib)
        conftest.describe_build(self.lib.parent, ("sm89", "89-real"))
        defines = ("-DCUDA", '-DNAME="CUDA"', "-DSCORE=2000")
        compile_double(self.lib / "libggml-cuda-sm89.so", CUDA_CODE + BACKEND, *defines, *self.cuda_options)

    @property
    def cuda_options(self) -> tuple[str, ...]:
        folders = (f"-L{self.root / 'cuda'}", f"-L{self.root / 'driver'}")
        return ("-Wl,--no-as-needed", *folders, "-l:libcudart.so.13", "-l:libcublas.so.13", "-l:libcuda.so.1")


@pytest.fixture(name="template", scope="module")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    conftest.compile_cuda(root)
    return root


@pytest.fixture(name="bench")
def _bench(template: Path, tmp_path: Path) -> Bench:
    root = tmp_path / "bench"
    shutil.copytree(template, root)
    return Bench(root, *conftest.bare_environment(root / "venv"))


@dataclass(frozen=True)
class Checked:
    facts: Facts
    diagnosis: Diagnosis

    @property
    def installation(self) -> Installation:
        assert self.facts.installation is not None
        return self.facts.installation

    @property
    def load(self) -> Load:
        assert self.facts.load is not None
        return self.facts.load


@dataclass(frozen=True)
class Checker:
    """Checks an environment with chosen folders on the loader's path and chosen variables."""

    bench: Bench
    patch: pytest.MonkeyPatch
    n_gpu_layers: int = -1
    timeout: float = 60.0

    def __call__(self, *folders: str, **variables: str) -> Checked:
        for name in (name for name in os.environ if name.startswith(("CUDA_", "NVIDIA_", "DOUBLE_"))):
            self.patch.delenv(name)
        self.patch.setenv("LD_LIBRARY_PATH", os.pathsep.join(str(self.bench.root / folder) for folder in folders))
        for name, value in variables.items():
            self.patch.setenv(name, value)
        request = collect.Request(python=str(self.bench.python), n_gpu_layers=self.n_gpu_layers, timeout=self.timeout)
        facts = collect.collect(request, synthetic_model.write)
        # The GPUs of the machine that runs the test must not count.
        facts = dataclasses.replace(facts, machine=dataclasses.replace(LINUX, variables=facts.machine.variables))
        return Checked(facts, diagnose(facts))


@pytest.fixture(name="check")
def _check(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Checker:
    return Checker(bench, monkeypatch)


def skip_where_found(soname: str) -> None:
    """The real loader would find the library of this machine."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(soname)
        pytest.skip(f"this machine has {soname}")


NEW_DRIVER = {"DOUBLE_CUDA": "13000", "DOUBLE_CAPABILITY": "89"}
OTHER_GPU = {"DOUBLE_CUDA": "13000", "DOUBLE_CAPABILITY": "75", "DOUBLE_MEMORY": "none"}
NO_GPU = {"DOUBLE_CUDA": "13000", "DOUBLE_INIT": "100"}


# ------------------------------------------------------------------------------------------------------------ stock


def test_nothing_is_installed(check: Checker) -> None:
    checked = check()
    assert checked.diagnosis.code is Code.NOT_INSTALLED
    assert checked.facts.load is None


def test_a_folder_that_an_uninstalled_package_left_is_not_an_installation(check: Checker, bench: Bench) -> None:
    bench.lib.mkdir(parents=True)
    assert check().diagnosis.code is Code.NOT_INSTALLED


def test_a_cpu_build_is_recognised_by_its_libraries(check: Checker, bench: Bench) -> None:
    bench.install_stock(cuda=False)
    checked = check("driver", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CPU_ONLY_BUILD
    assert "llama-cpp-python 0.3.16" in checked.diagnosis.sentence
    assert CARD in checked.diagnosis.sentence
    installation = checked.installation
    assert installation.libraries == ("libggml-base.so", "libggml-cpu.so", "libllama.so")
    assert installation.package == str(bench.lib.parent)
    placed = [(layer.weights, layer.kv_cache) for layer in checked.load.signs.placements.layers]
    assert placed == [("CPU", "CPU"), ("CPU", "CPU"), ("CPU", None)]


def test_a_complete_stock_cuda_build_uses_the_gpu(check: Checker, bench: Bench) -> None:
    bench.install_stock(cuda=True)
    checked = check("driver", "cuda", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CARD_USED
    assert checked.diagnosis.command is None
    assert checked.facts.driver is not None
    assert checked.facts.driver.cuda == "13.0"
    (device,) = checked.facts.driver.devices
    assert (device.name, device.capability, device.memory) == (CARD, "8.9", 24 << 30)
    assert checked.installation.code == ("89-real",)
    assert checked.installation.cuda_version == "13"
    found = {needed.soname: needed.path for needed in checked.installation.needed}
    assert found["libcublas.so.13"] == str(bench.root / "cuda" / "libcublas.so.13")


def test_cuda_that_is_linked_into_an_older_release_is_seen(check: Checker, bench: Bench) -> None:
    skip_where_found("libcublas.so.13")
    bench.install_linked()
    checked = check("driver", "cuda", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CARD_USED
    (library,) = checked.installation.cuda
    assert library.file == str(bench.lib.parent / "libllama.so")
    assert library.code == ("89-real",)
    (bench.root / "cuda" / "libcublas.so.13").unlink()
    assert check("driver", "cuda", **NEW_DRIVER).diagnosis.code is Code.CUDA_LIBRARY_MISSING


def test_a_stock_cuda_build_without_cublas_cannot_be_imported(check: Checker, bench: Bench) -> None:
    skip_where_found("libcublas.so.13")
    bench.install_stock(cuda=True)
    (bench.root / "cuda" / "libcublas.so.13").unlink()
    checked = check("driver", "cuda", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CUDA_LIBRARY_MISSING
    assert "libcublas.so.13: cannot open shared object file" in checked.diagnosis.sentence
    assert "cannot be imported" in checked.diagnosis.sentence
    assert f"LD_LIBRARY_PATH={bench.site}/nvidia/cu13/lib" in str(checked.diagnosis.command)
    assert checked.load.stage == "import"
    assert "Failed to load shared library" in str(checked.load.error)


def test_libraries_next_to_the_backend_are_found_by_its_runpath(check: Checker, bench: Bench) -> None:
    bench.install_stock(cuda=True)
    for library in (bench.root / "cuda").iterdir():
        library.rename(bench.lib / library.name)
    checked = check("driver", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CARD_USED
    paths = {Path(needed.path).parent for needed in checked.installation.needed if needed.path}
    assert paths == {bench.lib, bench.root / "driver"}


def test_a_stock_cuda_build_without_a_driver_cannot_be_imported(check: Checker, bench: Bench) -> None:
    skip_where_found("libcuda.so.1")
    bench.install_stock(cuda=True)
    checked = check("cuda")
    assert checked.diagnosis.code is Code.DRIVER_MISSING
    assert "libcuda.so.1: cannot open shared object file" in checked.diagnosis.sentence
    assert "libcuda.so.1" in str(checked.load.error)


@pytest.mark.parametrize(
    ("cuda", "variables", "code", "said", "command"),
    [
        (True, OTHER_GPU, Code.CARD_NOT_COVERED, "89-real", ".*--arch 75.*"),
        (True, {**NEW_DRIVER, "DOUBLE_MEMORY": "none"}, Code.OUT_OF_MEMORY, "", ".*"),
        (True, {**NO_GPU, "CUDA_VISIBLE_DEVICES": "-1"}, Code.CARD_HIDDEN, "", "unset CUDA_VISIBLE_DEVICES"),
        (False, {"DOUBLE_ILLEGAL": "1"}, Code.CRASHED, "SIGILL (illegal instruction)", ".*GGML_NATIVE=off.*"),
    ],
    ids=["uncovered GPU: the code in the library", "no memory", "hidden GPUs", "illegal instruction at import"],
)
def test_a_stock_build_that_cannot_use_the_gpu(
    check: Checker, bench: Bench, variables: dict[str, str], code: Code, said: str, command: str, *, cuda: bool
) -> None:
    bench.install_stock(cuda=cuda)
    checked = check(*(("driver", "cuda") if cuda else ()), **variables)
    assert checked.diagnosis.code is code
    assert said in checked.diagnosis.sentence
    assert re.fullmatch(command, str(checked.diagnosis.command), re.DOTALL)


def test_layers_that_were_not_requested_and_layers_that_were_left(check: Checker, bench: Bench) -> None:
    bench.install_stock(cuda=True)
    none = dataclasses.replace(check, n_gpu_layers=0)("driver", "cuda", **NEW_DRIVER)
    assert none.diagnosis.code is Code.NO_LAYERS_REQUESTED
    some = dataclasses.replace(check, n_gpu_layers=1)("driver", "cuda", **NEW_DRIVER)
    assert some.diagnosis.code is Code.LAYERS_LEFT_ON_CPU
    assert "2 of 3 layers are on the CPU (0-1)" in some.diagnosis.sentence


@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_a_model_that_keeps_nothing_of_a_text_embeds_one(check: Checker, bench: Bench, pooling: str) -> None:
    bench.install_stock(cuda=True)
    checked = check("driver", "cuda", DOUBLE_MEMORY_OF_A_TEXT="none", DOUBLE_POOLING=pooling, **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CARD_USED
    assert checked.diagnosis.sentence.endswith("; a text was embedded.")
    assert checked.facts.load is not None
    assert (checked.facts.load.embedding, checked.facts.load.tokens) == (48, 0)


def test_a_model_that_keeps_something_generates(check: Checker, bench: Bench) -> None:
    bench.install_stock(cuda=True)
    checked = check("driver", "cuda", DOUBLE_MEMORY_OF_A_TEXT="yes", **NEW_DRIVER)
    assert checked.facts.load is not None
    assert (checked.facts.load.embedding, checked.facts.load.tokens) == (0, 4)


def test_an_abort_keeps_the_log_that_was_written_before(check: Checker, bench: Bench) -> None:
    bench.install_stock(cuda=True)
    checked = check("driver", "cuda", DOUBLE_ABORT="1", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CRASHED
    assert "SIGABRT" in checked.diagnosis.sentence
    assert "an illegal memory access" in checked.diagnosis.sentence
    assert checked.load.signs.placements.offloaded == (3, 3)


def test_a_load_without_end_is_ended(check: Checker, bench: Bench) -> None:
    bench.install_stock(cuda=False)
    checked = dataclasses.replace(check, timeout=2.0)(DOUBLE_HANG="1")
    assert checked.diagnosis.code is Code.TIMED_OUT
    assert "no answer within 2 seconds while importing llama_cpp" in checked.diagnosis.sentence


def test_a_driver_that_crashes_takes_nothing_down(check: Checker, bench: Bench) -> None:
    bench.install_ours()
    compile_double(bench.root / "driver" / "libcuda.so.1", "int cuDriverGetVersion(int * v) { __builtin_trap(); }")
    checked = check("driver", "cuda")
    assert checked.diagnosis.code is Code.DRIVER_BROKEN
    assert "SIGILL" in checked.diagnosis.sentence


# ------------------------------------------------------------------------------------------------------- our wheel


def test_our_complete_wheel_uses_the_gpu(check: Checker, bench: Bench) -> None:
    bench.install_ours()
    checked = check("driver", "cuda", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CARD_USED
    assert checked.installation.own is not None
    assert checked.installation.cuda_version == "13.0"


def test_our_wheel_with_an_old_driver(check: Checker, bench: Bench) -> None:
    bench.install_ours()
    compile_double(bench.lib / "libggml-cuda-sm89.so", CUDA_CODE, *bench.cuda_options)  # its score would be 0
    checked = check("driver", "cuda", DOUBLE_CUDA="12080", DOUBLE_CAPABILITY="89")
    assert checked.diagnosis.code is Code.DRIVER_TOO_OLD
    assert "CUDA 12.8 at most" in checked.diagnosis.sentence
    assert "580 or later" in checked.diagnosis.sentence
    assert "580 or later" in str(checked.load.status_reason)


def test_our_wheel_without_cublas_still_computes(check: Checker, bench: Bench) -> None:
    skip_where_found("libcublas.so.13")
    bench.install_ours()
    (bench.root / "cuda" / "libcublas.so.13").unlink()
    checked = check("driver", "cuda", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CUDA_LIBRARY_MISSING
    assert "its CUDA code is not in use" in checked.diagnosis.sentence
    command = str(checked.diagnosis.command)  # which of the two depends on this machine: the environment has no pip
    assert command.startswith(("uv pip install --python", f"{bench.python} -m ensurepip && "))
    assert command.endswith(" 'nvidia-cublas==13.*' 'nvidia-cuda-runtime==13.*' cuda-pathfinder")
    assert checked.load.tokens == collect.TOKENS


def test_a_module_that_does_not_load_is_named_with_the_linkers_message(check: Checker, bench: Bench) -> None:
    bench.install_ours()
    broken = CUDA_CODE + "int not_there(void); int f(void) { return not_there(); }"
    compile_double(bench.lib / "libggml-cuda-sm89.so", broken, *bench.cuda_options)
    checked = check("driver", "cuda", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.BACKEND_NOT_LOADED
    assert "undefined symbol: not_there" in checked.diagnosis.sentence


def test_libraries_are_found_where_pip_installs_them(check: Checker, bench: Bench) -> None:
    conftest.copy_pathfinder(bench.site)
    bench.install_ours()
    folder = bench.site / "nvidia" / "cu13" / "lib"
    shutil.move(bench.root / "cuda", folder)
    compile_double(folder / "libcublasLt.so.13", "int double_of_cuda;")
    checked = check("driver", **NEW_DRIVER)
    assert checked.diagnosis.code is Code.CARD_USED
    paths = {needed.soname: needed.path for needed in checked.installation.needed}
    assert paths["libcublas.so.13"] == str(folder / "libcublas.so.13")


# --------------------------------------------------------------------------------------------------------- one file


@pytest.fixture(name="one_file", scope="module")
def _one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return check_gpu_file.make(tmp_path_factory.mktemp("file") / "check_gpu.pyz")


def interpreter(version: str) -> str:
    """An interpreter of this version, from the path or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [*map(str, sorted(pyenv.glob(f"{version}.*/bin/python"))), shutil.which(f"python{version}")]
    for python in filter(None, found):
        if conftest.run(python, "-c", "").returncode == 0:
            return python
    pytest.skip(f"there is no Python {version}")


def test_the_file_is_the_same_every_time(one_file: Path, tmp_path: Path) -> None:
    again = check_gpu_file.make(tmp_path / "deep" / "other.pyz")
    assert again.read_bytes() == one_file.read_bytes()
    assert os.access(again, os.X_OK)
    assert [path.name for path in again.parent.iterdir()] == ["other.pyz"]


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_the_file_checks_another_environment(one_file: Path, bench: Bench, version: str, tmp_path: Path) -> None:
    """Started from a folder where a planted package must not be taken for the installed one."""
    bench.install_stock(cuda=False)
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("raise SystemExit('planted')", encoding="utf-8")
    done = conftest.run(interpreter(version), "-W", "error", one_file, "--python", bench.python, "--json", cwd=tmp_path)
    assert done.stderr == ""
    data = json.loads(done.stdout)
    assert data["installation"]["package"] == str(bench.lib.parent)
    assert data["load"]["stage"] == "done"
    assert data["load"]["tokens"] == collect.TOKENS
    assert data["diagnosis"]["code"] in {"no-card", "cpu-only-build"}
    assert done.returncode == (0 if data["diagnosis"]["nothing_to_mend"] else 1)


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_the_file_checks_the_interpreter_that_runs_it(one_file: Path, version: str, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([interpreter(version), "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    done = conftest.run(python, one_file)
    assert f"not-installed: {python} (Python {version}." in done.stdout
    assert "\033" not in done.stdout
    assert done.returncode == 1


def test_a_log_is_judged_without_an_installation(one_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(
        "load_tensors: layer   0 assigned to device CPU, is_swa = 0\n"
        "load_tensors: layer   1 assigned to device CUDA0, is_swa = 0\n"
        "load_tensors: offloaded 1/2 layers to GPU\n",
        encoding="utf-8",
    )
    done = conftest.run(sys.executable, one_file, "--log", log)
    assert "layers-left-on-cpu: 1 of 2 layers are on the CPU (0)" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("option", ["--log", "--model"])
def test_a_file_that_is_not_there_is_a_wrong_option(one_file: Path, option: str, tmp_path: Path) -> None:
    done = conftest.run(sys.executable, one_file, option, tmp_path / "missing")
    assert f"{option}: there is no file" in done.stderr
    assert done.returncode == 2


def test_a_log_that_is_damaged_is_a_wrong_option(one_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "a.log.gz"
    log.write_bytes(gzip.compress(b"load_tensors: offloaded 33/33 layers to GPU\n")[:-9])
    done = conftest.run(sys.executable, one_file, "--log", log)
    session = conftest.run(
        sys.executable, "-m", "build_config", "check_gpu", "--log", log, cwd=Path(report.__file__).parents[1]
    )
    assert (done.returncode, session.returncode) == (2, 3)
    for said in (done.stderr, session.stderr + session.stdout):
        assert "its compressed data is damaged or cut" in " ".join(said.split())
        assert "Traceback" not in said


@pytest.mark.parametrize("named", ["venv", "venv/bin/python", "./venv/../venv/bin/python"])
def test_an_environment_can_be_named_from_here(bench: Bench, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.chdir(bench.root)
    bench.lib.parent.mkdir()
    (bench.lib.parent / "__init__.py").write_text(
        "__version__ = '0.2.90'\nraise ImportError('a double')\n", encoding="utf-8"
    )
    facts = collect.collect(collect.Request(python=named), synthetic_model.write)
    assert facts.installation is not None
    assert facts.installation.python == str(bench.python)
    assert facts.installation.package == str(bench.lib.parent)
    assert facts.installation.version == "0.2.90"
    assert diagnose(facts).code is Code.IMPORT_FAILED


def test_an_interpreter_that_does_not_start(tmp_path: Path) -> None:
    facts = collect.collect(collect.Request(python=str(tmp_path / "python")), synthetic_model.write)
    assert diagnose(facts).code is Code.PYTHON_FAILED
    assert "cannot be started" in report.text(facts, diagnose(facts))


# ------------------------------------------------------------------------------------------------------ device code

KERNEL = "__global__ void scale(float *a) { a[threadIdx.x] *= 2.0f; }\n"
TARGETS = ("75,sm_75", "89,sm_89", "90,sm_90", "90a,sm_90a", "100f,sm_100f", "120a,sm_120a", "80,compute_80",
           "90a,compute_90a", "100f,compute_100f")  # fmt: skip


@pytest.mark.parametrize("compression", ["default", "none"])
def test_the_reader_agrees_with_nvidias_cuobjdump(toolkit: CudaToolkit, tmp_path: Path, compression: str) -> None:
    (tmp_path / "kernel.cu").write_text(KERNEL, encoding="utf-8")
    library = tmp_path / "libkernel.so"
    targets = [target.split(",") for target in TARGETS]
    codes = [f"-gencode=arch=compute_{arch},code={code}" for arch, code in targets]
    how = ["-no-compress"] if compression == "none" else []
    nvcc = [str(toolkit.nvcc.path), "-shared", "-Xcompiler=-fPIC", "-cudart=none", *codes, *how]
    subprocess.run([*nvcc, "kernel.cu", "-o", str(library)], cwd=tmp_path, check=True)

    data = library.read_bytes()
    found = device_code.architectures(data, elf.read(data))
    cuobjdump = programs.find_cuobjdump(toolkit.root)
    assert cuobjdump is not None
    listed = cubins.list_device_code(cuobjdump, library)
    # cuobjdump leaves the f of a cubin out.
    mine = {re.sub(r"f$", "", f"sm_{arch[:-5]}") for arch in found if arch.endswith("-real")}
    mine |= {f"compute_{arch[:-8]}" for arch in found if arch.endswith("-virtual")}
    assert mine == {*listed}
    assert len(found) == len(TARGETS)
    assert "100f-real" in found
