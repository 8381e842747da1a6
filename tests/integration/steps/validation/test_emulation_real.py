"""The checks on an emulated GPU with real processes: several at once, and Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import InterruptedRunError
from build_config.steps.validation import compare_with_cpu, emulation
from build_config.steps.validation.emulation import Case, EmulatedMachine, KeptRows, Prompt
from build_config.steps.validation.numerics import Measured, Plan
from build_config.system import processes
from build_config.testbed.simulated_device import SimulatedLibraries
from build_config.testbed.synthetic_model import TINY

if TYPE_CHECKING:
    from build_config.reports import EmulatedCheck

pytestmark = pytest.mark.integration

LOG = [f"load_tensors: layer {layer} assigned to device CUDA0" for layer in range(3)]
LOG += [f"llama_kv_cache: layer {layer}: dev = CUDA0" for layer in range(2)]
QUICK, SLOW = Prompt(tokens=1), Prompt(tokens=64)
CASE = Case(shape=TINY, kind="F32", prompts=(QUICK, SLOW, Prompt(tokens=32), Prompt(tokens=16)))


def measure(_python: Path, _folder: Path, plan: Plan, **_: object) -> Measured:
    """One check is quick, the others take a minute."""
    (request,) = plan.checks
    seconds = "0.5" if request.name == QUICK.name else "60"
    processes.run(processes.Command(argv=("sleep", seconds)), check=False)
    log = [line.replace("CUDA0", "CPU") for line in LOG]
    values = {"nmse": 1e-7, "scale": 1.0, "log": LOG, "reference_log": log}
    return Measured(checks={request.name: values})


def interrupt(_done: int, _all: int, _check: EmulatedCheck) -> None:
    raise KeyboardInterrupt


def test_an_interruption_waits_for_no_check_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_with_cpu, "measure", measure)
    kept = KeptRows(folder=tmp_path / "rows", key="the wheel")
    machine = EmulatedMachine(
        python=Path("/python"),
        folder=tmp_path,
        libraries=SimulatedLibraries(files=(), major=13),
        server=Path("/socket"),
        capability="8.9",
        jobs=3,
    )
    start = time.monotonic()
    with pytest.raises(InterruptedRunError):
        emulation.run(machine, (CASE,), interrupt, kept)
    assert time.monotonic() - start < 20
    assert kept.find(CASE, QUICK) is not None
    assert kept.find(CASE, SLOW) is None
