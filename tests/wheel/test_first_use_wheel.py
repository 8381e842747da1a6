"""``import llama_cpp`` of the finished wheel starts nothing, so a forked process computes on the simulated GPU."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config.testbed import synthetic_model

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine

pytestmark = pytest.mark.wheel

MAPPED = """
def mapped():
    names = [line.split()[-1].rpartition("/")[2] for line in open("/proc/self/maps") if ".so" in line]
    return sorted({name for name in names if name.startswith(("libggml-c", "libcublas"))})
"""
IMPORTS = f"""{MAPPED}
import llama_cpp, llama_cpp.mtmd_cpp
before = mapped()
print(before, llama_cpp.llama_supports_gpu_offload(), len([name for name in mapped() if "ggml" in name]))
"""
FORKS = """
import multiprocessing, sys
import llama_cpp

def generate(answers):
    llm = llama_cpp.Llama(sys.argv[1], n_gpu_layers=-1, n_ctx=64, verbose=False)
    tokens = [token for token, _ in zip(llm.generate([1, 2, 3], temp=0.0), range(4))]
    llm.close()
    answers.put((llama_cpp.cuda_status().shard, len(tokens)))

def refused(answers):
    try:
        llama_cpp.Llama(sys.argv[1])
    except RuntimeError as error:
        answers.put(str(error).partition(",")[0])

context = multiprocessing.get_context("fork")
answers = context.Queue()
for target in (generate, generate, refused):
    if target is refused:
        llama_cpp.cuda_status()
    process = context.Process(target=target, args=(answers,))
    process.start()
    print(answers.get(timeout=60))
    process.join()
"""


def run(python: Path, code: str, *arguments: str, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    command = [str(python), "-I", "-c", code, *arguments]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_import_loads_no_backend_and_no_library_of_cuda(
    python: Path, doubles: SimulatedLibraries, machine: SimulatedMachine
) -> None:
    assert run(python, IMPORTS) == "[] False 1\n"  # afterwards: one CPU variant
    preloaded = {f"'{file.name}'" for file in doubles.files if file.name.startswith("libcublas")}
    seen, offload, count = run(python, IMPORTS, **doubles.environment(machine)).rsplit(maxsplit=2)
    assert seen == f"[{', '.join(sorted(preloaded))}]"
    assert (offload, count) == ("True", "2")  # a shard as well


def test_processes_forked_after_the_import_use_the_gpu_and_one_forked_after_the_start_is_told(
    python: Path, doubles: SimulatedLibraries, machine: SimulatedMachine, tmp_path: Path
) -> None:
    model = synthetic_model.write(tmp_path / "tiny.gguf")
    first, second, third = run(python, FORKS, str(model), **doubles.environment(machine)).splitlines()
    assert first == second
    assert first.startswith(("('sm", "('ptx"))
    assert first.endswith(", 4)")
    assert third == "CUDA was started before this process was forked"
