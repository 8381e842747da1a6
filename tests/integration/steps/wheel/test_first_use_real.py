"""``import llama_cpp`` starts nothing; the first use loads the backends. With the doubles of the loader's tests."""

from __future__ import annotations

import re

import pytest

from tests.integration.steps.wheel.conftest import A_GPU, Bench

pytestmark = pytest.mark.integration

STARTED = "started = lambda: 'libcuda.so' in open('/proc/self/maps').read()\n"
FIRST_USES = (
    "llama_cpp.Llama('m')",
    "llama_cpp.cuda_status()",
    "llama_cpp.llama_backend_init()",
    "llama_cpp.llama_model_load_from_file(3)",
    "llama_cpp.llama_cpp._lib.llama_model_load_from_file(3)",
    "llama_cpp.llama_cpp._lib.llama_later()",  # a function that upstream does not bind
    "llama_cpp.llama_cpp._lib._FuncPtr(('llama_later', llama_cpp.llama_cpp._lib))()",  # it has no name
)
NO_USES = ("llama_cpp.llama_max_devices()", "llama_cpp.llama_supports_mmap()", "llama_cpp.LLAMA_MAX_DEVICES")
FORK = """
import os
{before}
child = os.fork()
if child == 0:
    try:
        print(llama_cpp.cuda_status().loaded, llama_cpp.cuda_status().reason, flush=True)
        print(llama_cpp.Llama("m", n_gpu_layers=-1).made, flush=True)
    except RuntimeError as error:
        print("refused:", error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent:", llama_cpp.cuda_status().loaded)
"""


@pytest.mark.parametrize("use", FIRST_USES)
def test_the_first_use_loads_the_backends(bench: Bench, use: str) -> None:
    code = f"{STARTED}print(started())\n{use}\nprint(started(), llama_cpp.cuda_status().shard)"
    assert bench.execute("driver", "cuda", code=code, **A_GPU).stdout.split() == ["False", "True", "sm89"]


@pytest.mark.parametrize("use", ["0", *NO_USES])
def test_an_import_and_constants_load_nothing(bench: Bench, use: str) -> None:
    code = f"{STARTED}{use}\nprint(started(), 'ggml-cpu' in open('/proc/self/maps').read())"
    assert bench.execute("driver", "cuda", code=code, **A_GPU).stdout.split() == ["False", "False"]


def test_if_upstreams_package_is_built_differently_the_import_loads_the_backends(bench: Bench) -> None:
    bindings = bench.lib.parent / "llama_cpp.py"
    text = re.sub(r"\b_lib\b", "_renamed", bindings.read_text(encoding="utf-8"))
    bindings.write_text(text, encoding="utf-8")
    code = f"{STARTED}print(started(), llama_cpp.llama_backend_init(), llama_cpp.cuda_status().shard)"
    assert bench.execute("driver", "cuda", code=code, **A_GPU).stdout.split() == ["True", "1", "sm89"]


def test_functions_keep_their_identity_their_types_and_their_class(bench: Bench) -> None:
    code = """
import ctypes, inspect
load, native = llama_cpp.llama_model_load_from_file, llama_cpp.llama_cpp._lib
print(load.argtypes == [ctypes.c_int], load(3), load(4), load is native.llama_model_load_from_file)
print(type(load) is native._FuncPtr, type(native.llama_later) is native._FuncPtr, native._FuncPtr.__name__)
print(inspect.signature(llama_cpp.Llama), llama_cpp.Llama.__init__.__doc__)
try:
    load("no number")
except ctypes.ArgumentError:
    print("refused")
"""
    assert bench.execute(code=code).stdout.splitlines() == [
        "True 3 4 True",
        "True True _FuncPtr",
        "(model_path, *, n_gpu_layers=0) Load a model.",
        "refused",
    ]


def test_several_threads_load_once(bench: Bench) -> None:
    code = """
import threading
from llama_cpp import _cuda_loader, _first_use
calls, load = [], _first_use.load_safely
_first_use.load_safely = lambda: (calls.append(1), load())[1]
threads = [threading.Thread(target=llama_cpp.llama_backend_init) for _ in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(len(calls))
"""
    assert bench.execute("driver", "cuda", code=code, **A_GPU).stdout == "1\n"


def test_a_process_that_is_forked_before_the_first_use_has_the_gpu(bench: Bench) -> None:
    said = bench.execute("driver", "cuda", code=FORK.format(before=""), **A_GPU).stdout.splitlines()
    assert said == ["True None", "('m', -1, 1)", "parent: True"]


@pytest.mark.parametrize(
    "before", ["llama_cpp.cuda_status()", "llama_cpp.Llama('m')", "llama_cpp.llama_backend_init()"]
)
def test_a_process_that_is_forked_afterwards_is_told_so_and_not_ended(bench: Bench, before: str) -> None:
    done = bench.execute("driver", "cuda", code=FORK.format(before=before), **A_GPU)
    said = done.stdout.splitlines()
    assert done.stderr == ""  # nothing from Llama.__del__
    assert said[0].startswith("False CUDA was started before this process was forked")
    assert said[1].startswith("refused: CUDA was started before this process was forked")
    assert "call Llama() and cuda_status() only after the fork" in said[1]
    assert said[2] == "parent: True"


def test_without_a_gpu_a_process_may_be_forked_at_any_time(bench: Bench) -> None:
    said = bench.execute(code=FORK.format(before="llama_cpp.Llama('m')")).stdout.splitlines()
    assert said[0].startswith("False No NVIDIA driver")
    assert said[1:] == ["('m', -1, 1)", "parent: False"]


def test_a_gpu_that_is_not_used_does_not_keep_a_forked_process_from_the_cpu(bench: Bench) -> None:
    (bench.root / "cuda" / "libcublas.so.13").unlink()
    code = FORK.format(before="llama_cpp.Llama('m')")
    said = bench.execute("driver", "cuda", code=code, **A_GPU).stdout.splitlines()
    assert said[0].startswith("False CUDA's libraries are missing")
    assert said[1:] == ["('m', -1, 1)", "parent: False"]


def test_if_another_package_started_cuda_before_a_fork_the_reason_says_so(bench: Bench) -> None:
    """CUDA's own answer in such a process is error 3."""
    status = bench.run("driver", "cuda", **A_GPU, DOUBLE_INIT="3").status
    assert status["reason"].startswith("CUDA was started, perhaps by another package, before this process was forked")


def test_a_process_that_is_forked_while_another_thread_loads_does_not_wait_for_it(bench: Bench) -> None:
    code = """
import os, signal, threading
from llama_cpp import _first_use
loading, forked, load = threading.Event(), threading.Event(), _first_use.load_safely
def slow():
    loading.set(), forked.wait()
    return load()
_first_use.load_safely = slow
thread = threading.Thread(target=llama_cpp.cuda_status)
thread.start(), loading.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    _first_use.load_safely = load
    print(llama_cpp.cuda_status().loaded, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1])
forked.set(), thread.join()
"""
    assert bench.execute("driver", "cuda", code=code, **A_GPU).stdout.split() == ["True", "0"]


def test_a_log_handler_may_ask_for_the_status_and_may_fail(bench: Bench) -> None:
    (bench.root / "cuda" / "libcublas.so.13").unlink()
    code = """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        print("status:", llama_cpp.cuda_status().cpu_variant)
        raise RuntimeError
logging.getLogger("llama_cpp.cuda").addHandler(Handler())
print(llama_cpp.cuda_status().reason)
"""
    said = bench.execute("driver", "cuda", code=code, **A_GPU).stdout.splitlines()
    assert said[0] == "status: haswell"
    assert said[1].startswith("CUDA's libraries are missing")
    assert len(said) == 2


def test_a_warning_is_printed_though_upstream_silences_its_own_logger(bench: Bench) -> None:
    """``Llama(verbose=False)`` sets that to ERROR, and discards what its first low-level call prints."""
    (bench.root / "cuda" / "libcublas.so.13").unlink()
    code = "import logging\nlogging.getLogger('llama-cpp-python').setLevel(logging.ERROR)\nllama_cpp.Llama('m')\n"
    done = bench.execute("driver", "cuda", code=code, **A_GPU)
    assert done.stderr.startswith("llama-cpp-python computes on the CPU although this machine has an NVIDIA GPU")
