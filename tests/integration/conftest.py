"""What tests of several folders use: the locked toolkit without cuBLAS, environments without pip, wheels of doubles."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import platformdirs
import pytest

from build_config.steps import locks
from build_config.steps.locks import download
from build_config.steps.toolchain import gcc, locked_cuda
from build_config.system.console import Console
from build_config.system.files import file_sha256
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout
from tests.support import client_environment, wheel_modules, wheels
from tests.support.doubles import BACKEND, CARD, DRIVER, GGML, GGML_BASE, compile_double

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import CudaToolkit, LockedFile, ToolkitLock, Wheel
    from tests.support.client_environment import Environment

# Everything but cuBLAS, which is five sixths of the whole.
WITHOUT_CUBLAS = {
    "nvidia-cuda-nvcc",
    "nvidia-cuda-crt",
    "nvidia-nvvm",
    "nvidia-cuda-cccl",
    "nvidia-cuda-runtime",
    "nvidia-cuda-cuobjdump",
}


def locked_wheel(file: LockedFile) -> Path:
    """The wheel from the real work root where that has it, else fetched once for all runs of the tests."""
    at_hand = CANONICAL_WORK_ROOT / "downloads" / file.filename
    if at_hand.is_file() and file_sha256(at_hand) == file.sha256:
        return at_hand
    shared = platformdirs.user_cache_path("llama-cuda-wheels") / "test-downloads"
    shared.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(shared / "lock"):  # tests run in several processes
        (wheel,) = download.fetch((file,), shared, Console(terminal=False))
    return wheel


@pytest.fixture(name="reduced_lock", scope="session")
def _reduced_lock() -> ToolkitLock:
    whole = locks.read_toolkit_lock(
        Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT), "13.0", "linux-x86_64"
    )
    return dataclasses.replace(whole, files=tuple(file for file in whole.files if file.name in WITHOUT_CUBLAS))


@pytest.fixture(name="toolkit_wheels", scope="session")
def _toolkit_wheels(reduced_lock: ToolkitLock) -> tuple[Path, ...]:
    return tuple(locked_wheel(file) for file in reduced_lock.files)


@pytest.fixture(name="toolkit", scope="session")
def _toolkit(
    reduced_lock: ToolkitLock, toolkit_wheels: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CudaToolkit]:
    layout = Layout(checkout=PACKAGE.parent, work_root=tmp_path_factory.mktemp("toolkit"))
    yield locked_cuda.provide(reduced_lock, toolkit_wheels, layout, cc=str(gcc.find(None, os.environ).cc.path))
    shutil.rmtree(layout.toolkits, ignore_errors=True)  # hundreds of megabytes, which pytest would keep


# ----------------------------------------------------------------------------------------- environments and doubles

CUDA_13 = ("libcudart.so.13", "libcublas.so.13")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OwnLocks(Layout):
    """A layout with the test's own locks."""

    @property
    def locks(self) -> Path:
        return self.work_root / "locks"


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> OwnLocks:
    layout = OwnLocks(checkout=PACKAGE.parent, work_root=tmp_path / "work")
    layout.locks.mkdir(parents=True)
    layout.downloads.mkdir()
    (layout.locks / "validation.txt").write_text("# nothing\n", encoding="utf-8")
    return layout


def run(*command: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its status is."""
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **how)


def script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def bare_environment(folder: Path) -> tuple[Path, Path]:
    """Make an environment without pip; returns its interpreter and its site-packages."""
    venv.create(folder, with_pip=False, symlinks=sys.platform != "win32")
    return folder / "bin" / "python", next((folder / "lib").glob("python*")) / "site-packages"


def copy_pathfinder(site: Path) -> None:
    """Copy the real cuda.pathfinder from this environment."""
    pathfinder = pytest.importorskip("cuda.pathfinder")
    shutil.copytree(Path(pathfinder.__file__).parent, site / "cuda" / "pathfinder")


def double_wheel(folder: Path, source: str, members: dict[str, bytes] | None = None, *, requires: str = "") -> Wheel:
    """Write a wheel with ``source`` as ``llama_cpp``, which pip installs."""
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {wheels.VERSION}\n{requires}"
    tag = "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n"
    own = {"llama_cpp/__init__.py": source, f"{wheels.DIST_INFO}/METADATA": metadata, f"{wheels.DIST_INFO}/WHEEL": tag}
    encoded = {name: text.encode() for name, text in own.items()}
    return wheels.write(folder, encoded | (members or {}), wheels.wheel_name("linux_x86_64"))


def compile_cuda(root: Path) -> None:
    """Compile doubles of the driver and of CUDA's libraries into folders of their own."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is needed to build the doubles")
    compile_double(root / "driver" / "libcuda.so.1", DRIVER, f'-DCARD="{CARD}"')
    compile_double(root / "cuda" / "libcudart.so.13", "int cudart_double;")
    compile_double(root / "cuda" / "libcublas.so.13", "int cublas_double(void) { return 0; }")


def write_own_modules(lib: Path) -> None:
    """Compile ggml's doubles into ``lib``; next to it write our modules, and upstream's that loads the libraries."""
    compile_double(lib / "libggml-base.so", GGML_BASE)
    compile_double(lib / "libggml.so", GGML, f"-L{lib}", "-l:libggml-base.so", "-Wl,-rpath,$ORIGIN")
    compile_double(lib / "libggml-cpu-x64.so", BACKEND, '-DNAME="CPU"', "-DSCORE=1")
    wheel_modules.copy_to(lib.parent)
    load = "import ctypes\ndef load_shared_library(name, folder):\n    return ctypes.CDLL(f'{folder}/lib{name}.so')\n"
    (lib.parent / "_ctypes_extensions.py").write_text(load, encoding="utf-8")


def describe_build(
    package: Path, *shards: tuple[str, str], cuda: str = "13.0", libraries: tuple[str, ...] = CUDA_13
) -> None:
    """Write what a wheel says of itself; each shard has a name and one architecture."""
    data = {
        "version": "0.3.36+cu130.sm89",
        "cuda": cuda,
        "shards": [{"name": n, "file": f"libggml-cuda-{n}.so", "archs": [arch]} for n, arch in shards],
        "oldest_driver": "580",
        "libraries": libraries,
        "build_command": "nox -s build_cuda_wheel -- --arch {arch}",
    }
    (package / "_cuda_build.json").write_text(json.dumps(data), encoding="utf-8")


@pytest.fixture(name="installers", scope="module")
def _installers(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The locked pip, uv, Poetry and PDM."""
    folder = tmp_path_factory.mktemp("installers")
    layout = Layout(checkout=PACKAGE.parent, work_root=folder)
    return client_environment.make(folder, layout.locks / "installers.txt", layout)
