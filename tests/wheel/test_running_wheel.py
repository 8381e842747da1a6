"""`check_gpu --pid` on a program with the finished wheel: llama.cpp keeps mapped what the CPU computes, and no more."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config.testbed import synthetic_model
from build_config.testbed.synthetic_model import SMALL
from check_gpu import running, running_diagnosis
from check_gpu.facts import Driver, Facts, Machine
from check_gpu.result import Code

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine

pytestmark = pytest.mark.wheel

PROGRAM = """
import sys, time
import llama_cpp
llm = llama_cpp.Llama(sys.argv[1], n_gpu_layers=int(sys.argv[2]), n_ctx=64, verbose=False)
print("ready", flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("n_gpu_layers", [-1, 3, 0])
def test_the_layers_that_the_cpu_computes_are_seen_from_outside(
    python: Path, doubles: SimulatedLibraries, machine: SimulatedMachine, tmp_path: Path, n_gpu_layers: int
) -> None:
    model = synthetic_model.write(tmp_path / "small.gguf", SMALL)
    environment = {**os.environ, **doubles.environment(machine)}
    command = [str(python), "-I", "-c", PROGRAM, str(model), str(n_gpu_layers)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        (tmp_path / "check").mkdir()
        seen = running.examine(program.pid, tmp_path / "check")
        diagnosis = running_diagnosis.diagnose(
            Facts(machine=Machine(system="linux", card_on_bus=True), driver=Driver(), running=seen)
        )
        program.kill()
    (mapped,) = seen.models
    # Of n layers on the GPU, one is the output.
    left = len(mapped.layers) if n_gpu_layers == 0 else len(mapped.layers) - n_gpu_layers + 1 if n_gpu_layers > 0 else 0
    assert mapped.in_memory == mapped.layers[:left]
    assert (mapped.mapped < mapped.size // 4) is (left == 0)
    assert any("libggml-cuda" in file for file in seen.libraries)
    assert diagnosis.code is Code.UNKNOWN
    assert "simulated driver" in diagnosis.sentence
