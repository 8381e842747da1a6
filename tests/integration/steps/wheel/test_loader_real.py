"""The loader in a process of its own, with small C libraries in the place of ggml, the driver and the CUDA libraries.

They are doubles: they bring the loader into each situation, they compute nothing, and nothing here says that anything
ran on a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from build_config.system.layout import PACKAGE
from tests.integration import conftest
from tests.support.doubles import BACKEND, CARD, compile_double

pytestmark = pytest.mark.integration

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
        """Import the package in a process that has ``folders`` on its library path; the status, and what it printed."""
        script = (
            f"import sys; sys.path.insert(0, {str(self.root / 'site')!r})\n"
            "import dataclasses, json, llama_cpp\n"
            "print(json.dumps(dataclasses.asdict(llama_cpp.cuda_status())))\n"
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(str(self.root / folder) for folder in folders)
        isolated = ["-S"] if self.python == sys.executable else []  # without site-packages: without cuda.pathfinder
        done = conftest.run(self.python, *isolated, "-c", script + code, env={**environment, **variables})
        assert done.returncode == 0, done.stderr
        status, *output = done.stdout.splitlines()
        return Run(json.loads(status), tuple(output), done.stderr)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bench = Bench(tmp_path_factory.mktemp("template"))
    conftest.compile_cuda(bench.root)
    conftest.write_own_modules(bench.lib)
    compile_double(bench.lib / "libggml-cpu-haswell.so", BACKEND, '-DNAME="CPU"', "-DSCORE=5")
    bench.shard("sm89", score=2000)
    conftest.describe_build(bench.lib.parent, ("sm89", "89-real"))
    (bench.lib.parent / "__init__.py").write_text("from ._cuda_loader import CudaStatus, cuda_status\n", "utf-8")
    return bench.root


@pytest.fixture
def bench(template: Path, tmp_path: Path) -> Bench:
    shutil.copytree(template, tmp_path / "bench")
    return Bench(tmp_path / "bench")


def test_a_machine_without_driver_computes_on_its_best_cpu_variant_and_prints_nothing(bench: Bench) -> None:
    run = bench.run("cuda")
    assert not run.status["loaded"]
    assert run.status["cpu_variant"] == "haswell"
    assert "libcuda.so.1" in run.status["reason"]
    assert run.status["libraries"] == []
    assert run.stderr == ""


def test_a_covered_card_is_used_and_nothing_is_printed(bench: Bench) -> None:
    run = bench.run("driver", "cuda", **A_GPU)
    assert run.status["loaded"]
    assert run.status["reason"] is None
    assert run.status["shard"] == "sm89"
    assert run.status["cpu_variant"] == "haswell"
    assert run.status["driver_cuda"] == "13.0"
    assert run.status["devices"] == [{"index": 0, "name": CARD, "capability": "8.9", "memory": 24 << 30}]
    assert [library["path"] for library in run.status["libraries"]] == [
        str(bench.root / "cuda" / name) for name in conftest.CUDA_13
    ]
    assert run.stderr == ""


def test_the_shard_in_use_is_named_not_one_that_was_tried(bench: Bench) -> None:
    """A module that ggml tries and leaves can stay mapped."""
    bench.shard("aaa", score=1000)
    bench.shard("zzz", score=1999)
    conftest.describe_build(bench.lib.parent, ("aaa", "80-virtual"), ("sm89", "89-real"), ("zzz", "86-real"))
    run = bench.run("driver", "cuda", **A_GPU)
    assert run.status["shard"] == "sm89"
    assert run.status["covered_archs"] == ["80-virtual", "89-real", "86-real"]


@pytest.mark.parametrize(
    ("visible", "said"),
    [({}, "finds no GPU"), ({"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES='-1' hides every GPU")],
    ids=["absent", "hidden"],
)
def test_a_driver_without_a_card_is_no_reason_to_warn(bench: Bench, visible: dict[str, str], said: str) -> None:
    run = bench.run("driver", "cuda", DOUBLE_CUDA="13000", DOUBLE_INIT="100", **visible)
    assert said in run.status["reason"]
    assert run.stderr == ""


def test_a_driver_that_does_not_start_is_reported_with_its_error(bench: Bench) -> None:
    run = bench.run("driver", "cuda", DOUBLE_CUDA="13000", DOUBLE_INIT="803")
    assert "does not start (CUDA error 803)" in run.status["reason"]


def _assert_one_warning(run: Run) -> None:
    assert not run.status["loaded"]
    assert len(run.stderr.splitlines()) == 1
    assert "on the CPU although this machine has an NVIDIA GPU" in run.stderr
    assert run.status["reason"] in run.stderr


@pytest.mark.parametrize(
    ("cuda", "capability", "said"),
    [
        ("12080", "89", ("install driver 580 or later",)),
        ("13000", "75", (f"{CARD} (compute capability 7.5)", "nox -s build_cuda_wheel -- --arch 75")),
        ("13000", "89", ("CUDA backend does not start",)),
    ],
    ids=["driver too old: the driver to install", "uncovered: the build command", "fits and stays away"],
)
def test_a_shard_that_does_not_start_is_one_warning(
    bench: Bench, cuda: str, capability: str, said: tuple[str, ...]
) -> None:
    bench.shard("sm89", score=0)
    run = bench.run("driver", "cuda", DOUBLE_CUDA=cuda, DOUBLE_CAPABILITY=capability)
    assert run.status["driver_cuda"] == f"{cuda[:2]}.{cuda[3]}"
    assert [part for part in said if part not in run.status["reason"]] == []
    _assert_one_warning(run)


def test_missing_cuda_libraries_are_one_warning_that_names_them(bench: Bench) -> None:
    (bench.root / "cuda" / "libcublas.so.13").unlink()
    run = bench.run("driver", "cuda", **A_GPU)
    assert "missing, libcublas.so.13: cannot open" in run.status["reason"]
    assert [library["error"] is None for library in run.status["libraries"]] == [True, False]
    _assert_one_warning(run)


def test_a_shard_that_does_not_load_is_one_warning_with_the_linkers_words(bench: Bench) -> None:
    (bench.lib / "libggml-cuda-sm89.so").write_text("not a library" * 100, encoding="utf-8")
    run = bench.run("driver", "cuda", **A_GPU)
    assert "libggml-cuda-sm89.so cannot be loaded" in run.status["reason"]
    assert "invalid ELF header" in run.status["reason"]
    _assert_one_warning(run)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_damaged_wheel_still_imports_and_loads_its_cpu_backend(bench: Bench, content: str | None) -> None:
    description = bench.lib.parent / "_cuda_build.json"
    description.unlink()
    if content is not None:
        description.write_text(content, encoding="utf-8")
    count = "import ctypes; print(ctypes.CDLL(str(llama_cpp._cuda_loader.LIB / 'libggml.so')).ggml_backend_reg_count())"
    run = bench.run(code=count)
    assert run.output == ("1",)
    assert not run.status["loaded"]
    assert "install the wheel again" in run.status["reason"]
    assert len(run.stderr.splitlines()) == 1


def test_a_driver_that_lacks_functions_does_not_break_the_import(bench: Bench) -> None:
    compile_double(bench.root / "driver" / "libcuda.so.1", "int nothing;")
    run = bench.run("driver", "cuda")
    assert "cuDriverGetVersion" in run.status["reason"]
    assert run.status["cpu_variant"] == "haswell"


def test_the_log_callback_is_given_back(bench: Bench) -> None:
    """Upstream has set its own by then, and users may have set theirs."""
    code = (
        "from llama_cpp import _cuda_loader as c\n"
        "from llama_cpp._ctypes_extensions import load_shared_library\n"
        "load_shared_library('ggml-base', c.LIB).ggml_say(b'heard again')\n"
    )
    assert bench.run(code=code).stderr == "heard again"


def test_libraries_are_found_where_pip_installs_them(bench: Bench) -> None:
    """With the real cuda.pathfinder and doubles at the places of NVIDIA's wheels, and nothing on the library path."""
    python, site = conftest.bare_environment(bench.root / "venv")
    conftest.copy_pathfinder(site)
    folder = site / "nvidia" / "cu13" / "lib"
    shutil.move(bench.root / "cuda", folder)
    compile_double(folder / "libcublasLt.so.13", "int double_of_cuda;")
    run = Bench(bench.root, str(python)).run("driver", **A_GPU)
    assert run.status["loaded"], run.status["reason"]
    assert {Path(library["path"]).parent for library in run.status["libraries"]} == {folder}
    assert run.stderr == ""


# ------------------------------------------------------------------------------------------------------------ conda


@dataclass(frozen=True)
class Prefix:
    """A folder that the interpreter in it takes for its conda environment."""

    bench: Bench
    path: Path

    @property
    def lib(self) -> Path:
        return self.path / "lib"

    def run(self) -> Run:
        """Import the package on a machine with a card, while another environment is the activated one."""
        inside = Bench(self.bench.root, str(self.path / "bin" / "python"))
        return inside.run("driver", **A_GPU, CONDA_PREFIX=str(self.bench.root))


@pytest.fixture
def prefix(bench: Bench) -> Prefix:
    """With the real cuda.pathfinder, and CUDA's libraries in ``lib``, as the conda packages put them there.

    The activated environment has another copy of them, which ``cuda.pathfinder`` would take.
    """
    path = bench.root / "prefix"
    _, site = conftest.bare_environment(path)
    (path / "conda-meta").mkdir()
    conftest.copy_pathfinder(site)
    targets = path / "targets" / "x86_64-linux" / "lib"
    shutil.copytree(bench.root / "cuda", targets)
    for library in targets.iterdir():
        (path / "lib" / library.name).symlink_to(Path("..", "targets", "x86_64-linux", "lib", library.name))
    shutil.copytree(bench.root / "cuda", bench.root / "lib")
    shutil.rmtree(bench.root / "cuda")
    return Prefix(bench, path)


def test_in_conda_the_libraries_are_those_of_the_interpreters_own_environment(prefix: Prefix) -> None:
    run = prefix.run()
    assert run.status["loaded"], run.status["reason"]
    found = {Path(library["path"]).parent for library in run.status["libraries"]}
    assert found == {prefix.path / "targets" / "x86_64-linux" / "lib"}
    assert run.stderr == ""


def test_in_conda_a_library_that_is_not_there_is_looked_for_elsewhere(prefix: Prefix) -> None:
    (prefix.lib / "libcublas.so.13").unlink()
    compile_double(prefix.bench.root / "lib" / "libcublasLt.so.13", "int double_of_cuda;")
    cudart, cublas = prefix.run().status["libraries"]
    assert Path(cudart["path"]).is_relative_to(prefix.path)
    assert Path(cublas["path"]).parent == prefix.bench.root / "lib"


def test_in_conda_missing_libraries_are_to_be_installed_with_conda(prefix: Prefix) -> None:
    for folder in (prefix.lib, prefix.bench.root / "lib"):
        (folder / "libcublas.so.13").unlink()
    run = prefix.run()
    assert "conda install -c conda-forge 'libcublas=13' 'cuda-cudart=13'" in run.status["reason"]
    _assert_one_warning(run)


def test_the_library_folder_of_an_interpreter_that_is_not_condas_is_not_searched(prefix: Prefix) -> None:
    (prefix.path / "conda-meta").rmdir()
    shutil.rmtree(prefix.bench.root / "lib")
    run = prefix.run()
    assert not any((library["path"] or "").startswith(str(prefix.path)) for library in run.status["libraries"])
    assert "missing, libc" in run.status["reason"]
    assert "pip install" in run.status["reason"]


@pytest.mark.parametrize(
    ("record", "winner"), [("llama-cpp-python-0.3.36-cuda130.json", "environment"), ("numpy-2.json", "system")]
)
def test_the_environments_cpp_library_comes_first_where_conda_installed_the_package(
    prefix: Prefix, record: str, winner: str
) -> None:
    """A copy of the system's, in the place of conda's newer one; a library that needs one gets whichever came first."""
    cc = ["gcc", "-print-file-name=libstdc++.so.6"]
    system = Path(subprocess.run(cc, capture_output=True, text=True, check=True).stdout.strip()).resolve()
    shutil.copyfile(system, prefix.lib / "libstdc++.so.6")
    (prefix.path / "conda-meta" / record).touch()
    needs_cpp = prefix.bench.root / "libneeds.so"
    compile_double(needs_cpp, "int nothing;", "-Wl,--no-as-needed", "-l:libstdc++.so.6")
    shutil.copy(PACKAGE / "wheel_project" / "python" / "_conda_libraries.py", prefix.bench.root)
    code = f"import ctypes, _conda_libraries; ctypes.CDLL({str(needs_cpp)!r}); print(open('/proc/self/maps').read())"
    command = [str(prefix.path / "bin" / "python"), "-c", code]
    maps = subprocess.check_output(command, cwd=prefix.bench.root, text=True, env={})
    loaded = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "libstdc++" in line}
    assert loaded == {str({"environment": prefix.lib / "libstdc++.so.6", "system": system}[winner])}


@pytest.mark.parametrize(
    ("cuda", "driver", "libraries"),
    [
        ("11.8", "11080", ("libcudart.so.11.0", "libcublas.so.11")),
        ("12.4", "12040", ("libcudart.so.12", "libcublas.so.12")),
    ],
)
def test_libraries_of_an_earlier_cuda_are_found_beside_those_of_another(
    bench: Bench, cuda: str, driver: str, libraries: tuple[str, str]
) -> None:
    """At the places of the wheels for CUDA 11 and 12, without cuda.pathfinder, which does not know 11."""
    for soname in libraries:
        compile_double(bench.root / "cuda" / soname, "int double_of_cuda;")
    bench.shard("sm89", score=2000, libraries=libraries)
    conftest.describe_build(bench.lib.parent, ("sm89", "89-real"), cuda=cuda, libraries=libraries)
    python, site = conftest.bare_environment(bench.root / "venv")
    folders = [site / "nvidia" / name / "lib" for name in ("cuda_runtime", "cublas")]
    for folder, soname in zip(folders, libraries, strict=True):
        folder.mkdir(parents=True)
        shutil.move(bench.root / "cuda" / soname, folder)
    shutil.move(bench.root / "cuda", site / "nvidia" / "cu13" / "lib")
    run = Bench(bench.root, str(python)).run("driver", DOUBLE_CUDA=driver, DOUBLE_CAPABILITY="89")
    assert run.status["loaded"], run.status["reason"]
    assert [Path(library["path"]) for library in run.status["libraries"]] == [
        folder / soname for folder, soname in zip(folders, libraries, strict=True)
    ]
    assert run.stderr == ""
