"""A double of the package, in which the loader of a wheel runs in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration import conftest
from tests.support.doubles import BACKEND, compile_double

if TYPE_CHECKING:
    import subprocess

LLAMA = """
int llama_backend_init(void) { return 1; }
int llama_model_load_from_file(int x) { return x; }
int llama_max_devices(void) { return 16; }
int llama_supports_mmap(void) { return 1; }
int llama_later(void) { return 9; }
"""
BINDINGS = """
import ctypes
import pathlib
from ._ctypes_extensions import load_shared_library

_lib = load_shared_library("llama", pathlib.Path(__file__).parent / "lib")
for _name in ("llama_backend_init", "llama_model_load_from_file", "llama_max_devices", "llama_supports_mmap"):
    globals()[_name] = getattr(_lib, _name)
llama_model_load_from_file.argtypes = [ctypes.c_int]
LLAMA_MAX_DEVICES = llama_max_devices()
"""
"""As upstream's: the functions are objects of ctypes, and one is called at import."""
PACKAGE = """
from .llama_cpp import *
from . import llama_cpp

class Llama:
    def __init__(self, model_path, *, n_gpu_layers=0):
        \"\"\"Load a model.\"\"\"
        self.made = (model_path, n_gpu_layers, llama_cpp.llama_backend_init())
        self.is_open = True

    def close(self):
        assert self.is_open

    def __del__(self):
        self.close()

from ._first_use import CudaStatus, cuda_status
"""

A_GPU = {"DOUBLE_CUDA": "13000", "DOUBLE_CAPABILITY": "89"}


@dataclass(frozen=True)
class Run:
    status: dict[str, Any]
    output: tuple[str, ...]
    stderr: str


@dataclass(frozen=True)
class Bench:
    """A folder with a double of the package, and one of each kind of library to put on the loader's path."""

    root: Path
    python: str = sys.executable

    @property
    def lib(self) -> Path:
        return self.root / "site" / "llama_cpp" / "lib"

    def shard(self, name: str, *, score: int, libraries: tuple[str, ...] = conftest.CUDA_13) -> None:
        folders = (f"-L{self.root / 'cuda'}", f"-L{self.root / 'driver'}")
        needed = ("-Wl,--no-as-needed", *folders, *(f"-l:{name}" for name in libraries), "-l:libcuda.so.1")
        defines = ("-DCUDA", '-DNAME="CUDA"', f"-DSCORE={score}")
        compile_double(self.lib / f"libggml-cuda-{name}.so", BACKEND, *defines, *needed)

    def run(self, *folders: str, code: str = "", **variables: str) -> Run:
        """The status in a process that has ``folders`` on its library path; what it printed, and what ``code`` did."""
        status = "import dataclasses, json\nprint(json.dumps(dataclasses.asdict(llama_cpp.cuda_status())))\n"
        done = self.execute(*folders, code=status + code, **variables)
        first, *output = done.stdout.splitlines()
        return Run(json.loads(first), tuple(output), done.stderr)

    def execute(self, *folders: str, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Import the package in a process that has ``folders`` on its library path, then execute ``code``."""
        script = f"import sys; sys.path.insert(0, {str(self.root / 'site')!r})\nimport llama_cpp\n"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(str(self.root / folder) for folder in folders)
        isolated = ["-S"] if self.python == sys.executable else []  # without site-packages: without cuda.pathfinder
        done = conftest.run(self.python, *isolated, "-c", script + code, env={**environment, **variables})
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(name="template", scope="module")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bench = Bench(tmp_path_factory.mktemp("template"))
    conftest.compile_cuda(bench.root)
    conftest.write_own_modules(bench.lib)
    compile_double(bench.lib / "libggml-cpu-haswell.so", BACKEND, '-DNAME="CPU"', "-DSCORE=5")
    bench.shard("sm89", score=2000)
    conftest.describe_build(bench.lib.parent, ("sm89", "89-real"))
    compile_double(bench.lib / "libllama.so", LLAMA)
    (bench.lib.parent / "llama_cpp.py").write_text(BINDINGS, encoding="utf-8")
    (bench.lib.parent / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    return bench.root


@pytest.fixture(name="bench")
def _bench(template: Path, tmp_path: Path) -> Bench:
    shutil.copytree(template, tmp_path / "bench")
    return Bench(tmp_path / "bench")
