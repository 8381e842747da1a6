"""A kit of the newest wheel, run without a network on a simulated GPU, in an environment with older CUDA libraries."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from build_config.errors import VerificationError
from build_config.formats import build_facts
from build_config.steps.units import sandbox
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.tasks.gpu_kit import contents, record
from build_config.tasks.gpu_kit.evidence import GpuReport
from build_config.testbed import simulated_device
from build_config.testbed.simulated_device import SimulatedMachine

if TYPE_CHECKING:
    from build_config.model import Wheel
    from build_config.steps.validation import Simulation
    from build_config.system.layout import Layout
    from build_config.testbed.simulated_device import SimulatedLibraries

pytestmark = pytest.mark.wheel

NEEDS_NUMBERS = "test_embeddings_are_finite_and_repeat"
"""The test that kernels that do nothing cannot pass."""
MARK = """
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) {
    FILE * file = fopen(LOADED, "w");
    if (file != NULL) {
        fclose(file);
    }
}
"""


@pytest.fixture(name="kit", scope="module")
def _kit(wheel: Wheel, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit, with fewer types of weights and shorter answers: seconds instead of minutes."""
    folder = tmp_path_factory.mktemp("gpu-kit")
    own = dataclasses.replace(layout, work_root=folder / "root")
    kit = contents.make(folder / "kit", own, Console(terminal=False), wheel=wheel.path)
    size = sum(path.stat().st_size for path in kit.rglob("*") if path.is_file())
    assert wheel.size < size <= contents.MAX_BYTES
    description = json.loads((kit / "kit.json").read_text(encoding="utf-8"))
    kept = [check for check in description["checks"] if check["kind"] in {"F32", "Q4_K"}]
    assert 0 < len(kept) < len(description["checks"])
    description["checks"] = kept
    description["bench"] |= {"rounds": 1, "prompt_tokens": 16, "tokens": 4}
    jsonio.write(kit / "kit.json", description)
    return kit


@pytest.fixture(name="doubles", scope="module")
def _doubles(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> SimulatedLibraries:
    return simulated_device.build(tmp_path_factory.mktemp("doubles"), include=simulation.include, major=13)


@pytest.fixture(name="base", scope="module")
def _base(doubles: SimulatedLibraries, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's packages as PyTorch leaves them: numpy, cuBLAS 12 of an earlier PyTorch, and CUDA 13 in its folder.

    CUDA 12's cuBLAS leaves a mark if it is loaded.
    """
    base = tmp_path_factory.mktemp("base")
    site = base / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    new, old = site / "nvidia" / "cu13" / "lib", site / "nvidia" / "cublas" / "lib"
    for folder in (new, old):
        folder.mkdir(parents=True)
    numpy = Path(np.__file__).parent
    for package in (numpy, *numpy.parent.glob("numpy.libs")):
        (site / package.name).symlink_to(package)
    for double in doubles.files[1:]:
        shutil.copy(double, new)
    source = base / "old.c"
    source.write_text(MARK, encoding="utf-8")
    for library, mark in ((new / "libcublasLt.so.13", "lt"), (old / "libcublas.so.12", "old")):
        soname, loaded = f"-Wl,-soname,{library.name}", f'-DLOADED="{base / mark}"'
        subprocess.run(["cc", "-shared", "-fPIC", loaded, soname, str(source), "-o", str(library)], check=True)
    return base


@pytest.fixture(name="python", scope="module")
def _python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that sees the packages of the system and of the user, without pip."""
    folder = tmp_path_factory.mktemp("environment")
    options = ("--without-pip", "--system-site-packages")
    subprocess.run([sys.executable, "-m", "venv", *options, str(folder / "venv")], check=True)
    return folder / "venv" / "bin" / "python"


@pytest.fixture(name="machine", scope="module")
def _machine(wheel: Wheel) -> SimulatedMachine:
    facts = build_facts.read(wheel.path)
    assert facts is not None
    if facts.major != 13:
        pytest.skip("NVIDIA's wheels of earlier CUDA releases have no common folder")
    return SimulatedMachine(capabilities=(facts.shards[0].archs[0].capability,))


def run_kit(
    kit: Path, out: Path, python: Path, base: Path, doubles: SimulatedLibraries, machine: SimulatedMachine
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run it without a network. Only the driver is simulated by preloading it: the rest must be found."""
    variables = {**doubles.environment(machine), "LD_PRELOAD": str(doubles.files[0]), "PYTHONUSERBASE": str(base)}
    inherited = {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "CUDA_VISIBLE_DEVICES"}
    }
    command = [*sandbox.isolation().prefix, str(python), str(kit / "run.py"), "--out", str(out), "--quick"]
    done = subprocess.run(
        command,
        env={**inherited, **variables},
        cwd=out.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done, json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(name="simulated", scope="module")
def _simulated(
    kit: Path,
    python: Path,
    base: Path,
    doubles: SimulatedLibraries,
    machine: SimulatedMachine,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    """The folder of the report, and its content."""
    out = tmp_path_factory.mktemp("report") / "report"
    before = sorted(path.relative_to(base) for path in base.rglob("*"))
    done, report = run_kit(kit, out, python, base, doubles, machine)
    assert done.returncode == 1, done.stdout + done.stderr
    assert {name: part["failed"] for name, part in report["parts"].items() if part["failed"]} == {
        "tests": f"failed: {NEEDS_NUMBERS}"
    }, done.stdout
    assert {*base.rglob("*")} - {base / "lt"} == {base / path for path in before}, "nothing was installed"
    return out, report


def test_every_part_runs_without_a_network(simulated: tuple[Path, dict[str, Any]]) -> None:
    out, report = simulated
    assert report["evidence"]["check_gpu"]["result"]["diagnosis"]["code"] == "simulated-device"
    assert [ran["device"] for ran in report["evidence"]["bench"]] == ["cpu", "gpu"]
    assert list(report["evidence"]["comparison"]) == ["CUDA0"]
    assert (out / "report.md").read_text(encoding="utf-8").startswith("# SIMULATED GPU")


def test_the_libraries_of_cuda_13_are_found_next_to_older_ones(
    simulated: tuple[Path, dict[str, Any]], base: Path
) -> None:
    _, report = simulated
    status = report["evidence"]["scenarios"][0]["result"][0]["cuda_status"]
    assert status["loaded"]
    assert {Path(library["path"]).parent.name for library in status["libraries"]} == {"lib"}
    assert all("/nvidia/cu13/lib/" in library["path"] for library in status["libraries"])
    assert not (base / "old").exists(), "the cuBLAS of CUDA 12 was loaded"


def test_the_evidence_is_judged_as_that_of_a_validation(simulated: tuple[Path, dict[str, Any]], wheel: Wheel) -> None:
    """Under another name of the GPU every scenario passes, and the numbers of kernels that do nothing do not."""
    out, _ = simulated
    text = (out / "report.json").read_text(encoding="utf-8").replace("SIMULATED device", "device")
    report = jsonio.from_data(json.loads(text), GpuReport)
    facts = build_facts.read(wheel.path)
    assert facts is not None
    judged = record.judge(report, facts)
    assert {one.name: one.findings for one in judged.scenarios if one.findings} == {}
    assert judged.scenarios[0].on_gpu
    failed = {check.name for check in judged.device_checks if not check.passed}
    assert {"CUDA0, logits F32", "CUDA0, logits Q4_K", "CUDA0, logits Q8_0"} <= failed
    assert {check.name for check in judged.device_checks} - failed >= {"CUDA0, memory"}


def test_a_simulated_gpu_is_never_recorded(simulated: tuple[Path, dict[str, Any]], layout: Layout) -> None:
    out, _ = simulated
    with pytest.raises(VerificationError, match="simulated GPU, which never gives gpu-verified"):
        record.record(out, layout, Console(terminal=False))


def test_without_a_gpu_the_parts_that_need_one_say_why(
    kit: Path, python: Path, base: Path, doubles: SimulatedLibraries, machine: SimulatedMachine, tmp_path: Path
) -> None:
    none = dataclasses.replace(machine, fault="no-device")
    done, report = run_kit(kit, tmp_path / "report", python, base, doubles, none)
    assert done.returncode == 1
    failed = {name: part["failed"] for name, part in report["parts"].items() if part["failed"]}
    assert failed.keys() == {"scenarios", "comparison", "bench", "tests"}
    for name in ("scenarios", "bench"):
        assert failed[name].startswith("no layer was on a GPU: The NVIDIA driver finds no GPU")
    assert failed["comparison"] == "no GPU is in use"
    assert "test_the_loader_lists_the_gpus_of_the_driver" in failed["tests"]
