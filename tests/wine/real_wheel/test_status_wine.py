"""What a user of the wheel is told under Wine in each situation, by the loader and by check_gpu.

The driver is simulated. NVIDIA's own cudart.lib and cuda.lib, which are in the shard, look for it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from build_config.testbed import synthetic_model
from build_config.testbed.simulated_device import SimulatedMachine
from check_gpu.result import Code
from tests.wine.real_wheel.conftest import CHECKOUT, QUIET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.wine.real_wheel.conftest import Installed

pytestmark = [pytest.mark.wine, pytest.mark.long]

STATUS = "import dataclasses, llama_cpp; answer = dataclasses.asdict(llama_cpp.cuda_status())"
CUBLAS = "nvidia/cu13/bin/x86_64/cublas64_13.dll"
SHARD = "llama_cpp/lib/ggml-cuda-sm89.dll"
GPU = r"HKLM\SYSTEM\CurrentControlSet\Enum\PCI\VEN_10DE&DEV_28E0&SUBSYS_00000000&REV_A1"
"""Where Windows lists a GeForce RTX 4060 Laptop."""
MINUTES = 60.0


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A machine, files of the environment that are not there, and the words with which the user is told."""

    machine: SimulatedMachine | None = field(default_factory=SimulatedMachine)
    without: tuple[str, ...] = ()
    visible: str | None = None
    said: tuple[str, ...]
    code: Code
    command: str | None

    def variables(self, installed: Installed) -> dict[str, str]:
        hidden = {"CUDA_VISIBLE_DEVICES": self.visible} if self.visible is not None else {}
        return (installed.on(self.machine) if self.machine is not None else {}) | hidden


BUILD = "nox -s build_cuda_wheel -- --arch 75"
SITUATIONS = {
    "no driver": Situation(
        machine=None,
        said=("No NVIDIA driver can be loaded", "nvcuda.dll", "install the GPU's driver"),
        code=Code.DRIVER_MISSING,
        command="https://www.nvidia.com/drivers",
    ),
    "no cuBLAS": Situation(
        without=(CUBLAS,),
        said=("CUDA's libraries are missing", "cublas64_13.dll", "pip install", "nvidia-cublas==13.*"),
        code=Code.CUDA_LIBRARY_MISSING,
        command="nvidia-cublas",
    ),
    "driver too old": Situation(
        machine=SimulatedMachine(fault="driver-too-old"),
        said=("runs CUDA 12.8 at most", "needs CUDA 13.0", "install driver 580 or later"),
        code=Code.DRIVER_TOO_OLD,
        command="https://www.nvidia.com/drivers",
    ),
    "GPU without code": Situation(
        machine=SimulatedMachine(capabilities=("7.5",)),
        said=("has code for 89-real", "(compute capability 7.5)", BUILD),
        code=Code.CARD_NOT_COVERED,
        command="build_cuda_wheel -- --arch 75",
    ),
    "shard missing": Situation(
        without=(SHARD,),
        said=("ggml-cuda-sm89.dll cannot be loaded", "install the wheel again"),
        code=Code.CPU_ONLY_BUILD,
        command="build_cuda_wheel -- --arch 89",
    ),
    "hidden": Situation(
        visible="-1",
        said=("CUDA_VISIBLE_DEVICES='-1' hides every GPU", "unset it"),
        code=Code.CARD_HIDDEN,
        command="set CUDA_VISIBLE_DEVICES=",
    ),
}
every_situation = pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)


@contextlib.contextmanager
def without(installed: Installed, *names: str) -> Iterator[None]:
    """The environment without some of its files."""
    files = [installed.site / name for name in names]
    for file in files:
        file.rename(file.with_name(f"{file.name}.away"))
    try:
        yield
    finally:
        for file in files:
            file.with_name(f"{file.name}.away").rename(file)


@every_situation
def test_the_loader_says_why_cuda_is_not_in_use_and_what_to_do(installed: Installed, situation: Situation) -> None:
    with without(installed, *situation.without):
        status = installed.answer(STATUS, situation.variables(installed))
    assert not status["loaded"]
    assert status["cpu_variant"] == "haswell"
    assert [words for words in situation.said if words not in status["reason"]] == [], status["reason"]
    assert not any(words in status["reason"] for words in ("docker", "container", "constructor syntax"))


def test_with_everything_the_shard_is_in_use_with_its_gpus_only(installed: Installed) -> None:
    machine = SimulatedMachine(capabilities=("7.5", "8.9"))
    status = installed.answer(STATUS, installed.on(machine))
    assert (status["loaded"], status["shard"], status["reason"]) == (True, "sm89", None)
    assert status["cpu_variant"] == "haswell"
    assert status["driver_cuda"] == "13.0"
    assert [device["capability"] for device in status["left_out"]] == ["7.5"]
    blas = installed.path(installed.site / "nvidia" / "cu13" / "bin" / "x86_64" / "cublas")
    assert [library["path"].lower() for library in status["libraries"]] == [
        f"{blas}{name}".lower() for name in ("Lt64_13.dll", "64_13.dll")
    ]


# ------------------------------------------------------------------------------------------------------------ check_gpu


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_model.write(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(name="gpu_on_bus", scope="module")
def _gpu_on_bus(installed: Installed) -> None:
    installed.prefix.run("reg", "add", GPU, "/f", timeout=MINUTES)


def check_gpu(installed: Installed, model: Path, variables: dict[str, str], *options: str) -> tuple[int, Any]:
    """The status and the document of check_gpu, which looks at the environment from outside."""
    target = installed.folder / "check.json"
    code = f"""
import contextlib, sys
from check_gpu.__main__ import main
with open({installed.path(target)!r}, "w", encoding="utf-8") as sys.stdout:
    status = main(sys.argv[1:])
sys.exit(status)
"""
    asked = ("--python", installed.python, "--model", installed.path(model), "--json", *options)
    changes = {**QUIET, **variables}
    command = ("python", "-c", code, *asked)
    done = installed.prefix.run(*command, folder=CHECKOUT, changes=changes, timeout=5 * MINUTES, check=False)
    assert target.stat().st_size, done.output
    return done.returncode, json.loads(target.read_text(encoding="utf-8"))["diagnosis"]


@pytest.mark.usefixtures("gpu_on_bus")
@every_situation
def test_check_gpu_finds_the_cause_and_the_command_for_windows(
    installed: Installed, model: Path, situation: Situation
) -> None:
    with without(installed, *situation.without):
        status, found = check_gpu(installed, model, situation.variables(installed))
    assert (found["code"], status) == (situation.code.value, 1), found
    assert situation.command is None or situation.command in found["command"]


@pytest.mark.usefixtures("gpu_on_bus")
def test_check_gpu_sees_every_layer_on_the_simulated_gpu(installed: Installed, model: Path) -> None:
    status, found = check_gpu(installed, model, installed.on(SimulatedMachine()))
    assert (found["code"], status) == (Code.SIMULATED.value, 0), found


def test_check_gpu_on_a_machine_without_a_gpu_has_nothing_to_fix(installed: Installed, model: Path) -> None:
    installed.prefix.run("reg", "delete", GPU, "/f", timeout=MINUTES, check=False)
    status, found = check_gpu(installed, model, {})
    assert (found["code"], status) == (Code.NO_CARD.value, 0), found
