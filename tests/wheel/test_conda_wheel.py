"""The conda package of the finished wheel: installed into an environment with rattler, imported, used.

A channel of the test replaces conda-forge (``tests/support/conda_forge.py``): its CUDA libraries are doubles, Python
and its packages come from this machine and PyPI. No GPU is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rattler import install

from build_config.formats import wheelfile
from build_config.reports import BuildRecord
from build_config.steps.validation import probe
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio
from build_config.tasks import conda
from build_config.testbed import clean_environment, simulated_device, synthetic_model
from tests.support import conda_forge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import Wheel
    from build_config.steps.validation import Simulation
    from build_config.system.layout import Layout

pytestmark = pytest.mark.wheel


@dataclass(frozen=True)
class Environment:
    """A prefix with the package. ``driver`` is the double of the driver, which is never part of an environment."""

    prefix: Path
    driver: Path
    model: Path

    @property
    def python(self) -> Path:
        return self.prefix / "bin" / "python"

    def use(self, folder: Path, *, gpu_layers: int = 0, **variables: str) -> dict[str, Any]:
        """Load the tiny model, generate, return the probe's result. ``CONDA_PREFIX`` is unset: nothing is activated."""
        result = folder / "result.json"
        parts = (
            self.python,
            "-I",
            probe.__file__,
            result,
            json.dumps({"n_gpu_layers": gpu_layers}),
            "generate",
            self.model,
        )
        command = [str(part) for part in parts]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (seen,) = json.loads(result.read_text())
        return dict(seen)


@pytest.fixture(name="record", scope="module")
def _record(wheel: Wheel) -> BuildRecord:
    return jsonio.read(publication.record_path(wheel.path), BuildRecord)


@pytest.fixture(name="package", scope="module")
def _package(wheel: Wheel, record: BuildRecord, layout: Layout) -> conda.CondaPackage:
    names = conda.read_names(layout.data / "conda.toml")
    return conda.describe(wheel, wheelfile.read_contents(wheel.path), record, names)


@pytest.fixture(name="channel", scope="module")
def _channel(package: conda.CondaPackage, wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    channel = tmp_path_factory.mktemp("ours")
    conda.publish(package, wheel, channel)
    return channel


@pytest.fixture(name="environment", scope="module")
def _environment(
    channel: Path, layout: Layout, simulation: Simulation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """A prefix solved and installed by rattler, and in it a Python with the locked requirements of the wheel."""
    folder = tmp_path_factory.mktemp("conda")
    locked = (layout.locks / "validation.txt").read_text().replace("\\\n", " ").splitlines()
    lines = [line for line in locked if not line.startswith(("nvidia-", "#"))]
    (folder / "lock.txt").write_text("\n".join(lines) + "\n")
    python = clean_environment.make(folder, folder / "lock.txt", folder, folder / "pip.log")
    prefix = python.parent.parent

    doubles = simulated_device.build(folder / "doubles", include=simulation.include, major=13, cc=simulation.cc)
    driver, cudart, cublas = doubles.files
    contents = {}
    for name, library in (("cuda-cudart", cudart), ("libcublas", cublas)):
        contents[name] = folder / name
        (contents[name] / "lib").mkdir(parents=True)
        shutil.copy(library, contents[name] / "lib")
        library.unlink()  # leave a single copy
    gcc = ["gcc", "-print-file-name=libstdc++.so.6"]
    cpp = Path(subprocess.run(gcc, capture_output=True, text=True, check=True).stdout.strip()).resolve()
    (folder / "cpp" / "lib").mkdir(parents=True)
    shutil.copy(cpp, folder / "cpp" / "lib" / "libstdc++.so.6")
    forge = conda_forge.make(folder / "forge", {**contents, "libstdcxx": folder / "cpp"})

    this_python = f"python={platform.python_version()}"
    records = conda_forge.solved([channel, forge], "llama-cpp-python", this_python, on=conda_forge.machine())
    asyncio.run(install(list(records.values()), prefix, cache_dir=folder / "cache", show_progress=False))
    yield Environment(prefix, driver, synthetic_model.write(folder / "tiny.gguf"))
    shutil.rmtree(folder)


def test_the_finished_wheel_gives_the_same_package_twice(
    channel: Path, package: conda.CondaPackage, wheel: Wheel, tmp_path: Path
) -> None:
    again = conda.publish(package, wheel, tmp_path)
    first = channel / "linux-64" / package.file_name
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(first.read_bytes()).hexdigest()


def test_the_files_are_in_the_site_packages_of_the_environments_python(environment: Environment, wheel: Wheel) -> None:
    (site,) = environment.prefix.glob("lib/python3.*/site-packages")
    contents = wheelfile.read_contents(wheel.path)
    folder = wheelfile.dist_info(contents)
    for name, data in contents.items():
        if name not in {f"{folder}/METADATA", f"{folder}/RECORD"}:
            assert (site / name).read_bytes() == data, name
    assert (site / folder / "INSTALLER").read_text() == "conda\n"


def test_pip_finds_every_requirement_satisfied_and_none_of_nvidias(environment: Environment) -> None:
    pip = [str(environment.python), "-m", "pip"]
    done = subprocess.run([*pip, "check"], capture_output=True, text=True, check=False, env={})
    assert "llama-cpp-python" not in done.stdout, done.stdout
    listed = subprocess.check_output([*pip, "show", "llama-cpp-python"], text=True, env={})
    assert "nvidia" not in listed


def test_without_a_gpu_it_generates_on_the_cpu_with_the_environments_cpp_library(
    environment: Environment, tmp_path: Path
) -> None:
    seen = environment.use(tmp_path)
    assert seen["tokens"] == probe.TOKENS
    assert not seen["cuda_status"]["loaded"]
    cpp = {Path(path) for path in seen["loaded_files"] if "libstdc++" in path}
    assert cpp == {environment.prefix / "lib" / "libstdc++.so.6"}


def test_on_a_simulated_gpu_the_backend_is_loaded_with_the_environments_cuda_libraries(
    environment: Environment, record: BuildRecord, tmp_path: Path
) -> None:
    capability = record.shards[0].archs[0].capability
    machine = simulated_device.SimulatedMachine(capabilities=(capability,))
    doubles = simulated_device.SimulatedLibraries(files=(environment.driver,), major=13)
    seen = environment.use(tmp_path, gpu_layers=-1, **doubles.environment(machine))
    status = seen["cuda_status"]
    assert status["loaded"], status["reason"]
    assert {Path(library["path"]).parent for library in status["libraries"]} == {environment.prefix / "lib"}
    assert seen["tokens"] == probe.TOKENS
    assert any("offloaded 3/3 layers to GPU" in line for line in seen["log"])
