"""One situation for each test: the facts, the cause that is named, and the command that fixes it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from build_config import archs
from check_gpu import coverage, log
from check_gpu.collect import TINY_MODEL
from check_gpu.diagnosis import diagnose
from check_gpu.facts import CudaLibrary, Device, Driver, Facts, Installation, Load, Machine, NeededLibrary, OwnBuild
from check_gpu.result import NOTHING_TO_FIX, Code

pytestmark = pytest.mark.unit

PYTHON = "/venv/bin/python"
SITE = "/venv/lib/python3.12/site-packages"
GPU = Device(index=0, name="NVIDIA GeForce RTX 4090", capability="8.9", memory=24 << 30)
SIMULATED = dataclasses.replace(GPU, name="SIMULATED device (compute capability 8.9)")
LINUX = Machine(system="linux", distribution="ubuntu", card_on_bus=True)
DRIVER = Driver(version="580.65.06", cuda="13.0", devices=(GPU,), cards=(GPU.name,))
NO_DRIVER = Driver(problem="libcuda.so.1: cannot open shared object file: No such file or directory")

STOCK_CPU = Installation(
    python=PYTHON,
    python_version="3.12.1",
    package=f"{SITE}/llama_cpp",
    distribution="llama-cpp-python",
    version="0.3.16",
    site=SITE,
    libraries=("libggml-base.so", "libggml-cpu.so", "libggml.so", "libllama.so"),
)
BACKEND = CudaLibrary(
    f"{SITE}/llama_cpp/lib/libggml-cuda.so",
    code=("86-real", "89-real"),
    needs=("libcudart.so.12", "libcublas.so.12", "libcuda.so.1"),
)
STOCK_CUDA = dataclasses.replace(STOCK_CPU, cuda=(BACKEND,))
OURS = dataclasses.replace(
    STOCK_CPU,
    version="0.3.36+cu130.sm89",
    own=OwnBuild("13.0", "580", ("libcudart.so.13", "libcublas.so.13"), "nox -s build_cuda_wheel -- --arch {arch}"),
    cuda=(CudaLibrary(f"{SITE}/llama_cpp/lib/libggml-cuda-sm89.so", code=("89-real",), needs=("libcublas.so.13",)),),
)


def placed(*devices: str, cache: tuple[str, ...] = (), offloaded: tuple[int, int] | None = None) -> list[str]:
    lines = [f"load_tensors: layer {n:3} assigned to device {device}, is_swa = 0" for n, device in enumerate(devices)]
    lines += [f"llama_kv_cache: layer {n:3}: dev = {device}" for n, device in enumerate(cache or devices[:-1])]
    if offloaded:
        lines.append(f"load_tensors: offloaded {offloaded[0]}/{offloaded[1]} layers to GPU")
    return lines


IN_USE = f"llama_model_load: using device CUDA0 ({GPU.name}) (0000:01:00.0) - 23567 MiB free"
ON_GPU = [IN_USE, *placed("CUDA0", "CUDA0", "CUDA0", offloaded=(3, 3))]
ON_CPU = placed("CPU", "CPU", "CPU")
NO_LAYERS = [IN_USE, *placed("CPU", "CPU", "CPU", offloaded=(0, 3))]
ON_SIMULATED = [line.replace(GPU.name, SIMULATED.name) for line in ON_GPU]
NO_MEMORY = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 2 MiB on device 0: cudaMalloc failed: out of memory"
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
NOT_INITIALIZED = "ggml_cuda_init: failed to initialize CUDA:"
INSUFFICIENT = f"{NOT_INITIALIZED} CUDA driver version is insufficient for CUDA runtime version"
ABORTED = {"ended": "its process was ended by SIGABRT (aborted)", "signal": "SIGABRT"}


def done(*lines: str, **changes: Any) -> Load:
    load = Load(n_gpu_layers=-1, model=TINY_MODEL, stage="done", tokens=4, signs=log.read(lines))
    return dataclasses.replace(load, **changes)


def stopped(stage: str, *lines: str, **changes: Any) -> Load:
    """A load that stopped early; as in a real one, its error is in the log."""
    kept = [*lines, *([changes["error"]] if "error" in changes else [])]
    return done(*kept, stage=stage, tokens=0, **changes)


LOADED_ON_CPU = done(*ON_CPU)
CANNOT_IMPORT = stopped(
    "import", error="RuntimeError: Failed to load shared library: libcublas.so.12: cannot open shared object file"
)
HEALTHY = Facts(machine=LINUX, installation=STOCK_CUDA, driver=DRIVER, load=done(*ON_GPU))


def facts(installation: Installation = STOCK_CUDA, load: Load | None = LOADED_ON_CPU, **changes: Any) -> Facts:
    """An installation on the healthy machine; ``changes`` are fields of the machine or of the driver, or ``driver``."""
    machine = {name: changes.pop(name) for name in [*changes] if hasattr(LINUX, name)}
    driver = changes.pop("driver", DRIVER)
    return Facts(
        machine=dataclasses.replace(LINUX, **machine),
        installation=installation,
        driver=dataclasses.replace(driver, **changes),
        load=load,
    )


def log_alone(*lines: str) -> Facts:
    return Facts(machine=LINUX, load=Load(n_gpu_layers=None, model="a.log", stage="log", signs=log.read(lines)))


def without(*sonames: str, of: Installation = STOCK_CUDA) -> Installation:
    found = (NeededLibrary("libcudart.so.12", path="/usr/lib/x"), *(no_library(soname) for soname in sonames))
    return dataclasses.replace(of, needed=found)


def no_library(soname: str) -> NeededLibrary:
    return NeededLibrary(soname, error=f"{soname}: cannot open shared object file: No such file or directory")


Case = tuple[Code, Facts, tuple[str, ...], "str | None"]


def case(code: Code, seen: Facts, *said: str, fix: str | None = None) -> Case:
    return code, seen, said, fix


NO_GPU: dict[str, Any] = {"card_on_bus": False, "driver": NO_DRIVER}
WSL: dict[str, Any] = {"wsl": True, "card_on_bus": None}
HIDDEN: dict[str, Any] = {"devices": (), "error": 100}
CASES: dict[str, Case] = {
    "healthy": case(Code.CARD_USED, HEALTHY, "CUDA0 (NVIDIA GeForce RTX 4090)", "4 tokens"),
    "healthy, an older log that lists no layers": case(
        Code.CARD_USED, facts(load=done(IN_USE, "llm_load_tensors: offloaded 33/33 layers to GPU")), "CUDA0"
    ),
    "an interpreter that does not start": case(
        Code.PYTHON_FAILED,
        facts(Installation(python="/no", error="/no cannot be started: No such file"), load=None),
        "/no cannot be started",
        fix="--python",
    ),
    "not installed": case(
        Code.NOT_INSTALLED,
        facts(Installation(python=PYTHON, python_version="3.12.1"), load=None),
        "no package llama_cpp",
        fix="nox -s build_cuda_wheel -- --arch 89",
    ),
    "listed by pip but missing": case(
        Code.NOT_INSTALLED,
        facts(dataclasses.replace(STOCK_CPU, package=None), load=None),
        "although pip lists llama-cpp-python 0.3.16",
        fix=f"{PYTHON} -m pip install --force-reinstall",
    ),
    "a CPU build on a machine with a GPU": case(
        Code.CPU_ONLY_BUILD,
        facts(STOCK_CPU),
        "0.3.16 is a CPU-only build",
        "none of its 4 libraries",
        GPU.name,
        fix="--arch 89",
    ),
    "a CPU build on Windows": case(
        Code.CPU_ONLY_BUILD,
        facts(STOCK_CPU, system="win32"),
        "n_gpu_layers has no effect",
        fix="set CMAKE_ARGS=-DGGML_CUDA=on",
    ),
    "a Vulkan build that finds no GPU": case(
        Code.CPU_ONLY_BUILD,
        facts(dataclasses.replace(STOCK_CPU, libraries=("libggml-vulkan.so",))),
        "only libggml-vulkan.so",
        fix="--arch 89",
    ),
    "a CPU build on a machine without a GPU": case(Code.NO_CARD, facts(STOCK_CPU, **NO_GPU), "has no NVIDIA GPU"),
    "our wheel on a machine without a GPU": case(Code.NO_CARD, facts(OURS, **NO_GPU), "runs on the CPU"),
    "macOS": case(Code.NO_CARD, facts(STOCK_CPU, system="darwin", **NO_GPU), "macOS has no CUDA"),
    "a GPU without a driver": case(
        Code.DRIVER_MISSING,
        facts(OURS, driver=NO_DRIVER),
        "libcuda.so.1: cannot open",
        "although this machine has an NVIDIA GPU",
        fix="sudo ubuntu-drivers install",
    ),
    "no driver, another distribution": case(
        Code.DRIVER_MISSING, facts(driver=NO_DRIVER, distribution="gentoo"), fix="https://www.nvidia.com/drivers"
    ),
    "no driver in WSL": case(Code.DRIVER_MISSING, facts(driver=NO_DRIVER, **WSL), fix="in Windows, not in WSL"),
    "a driver in WSL that the loader does not find": case(
        Code.DRIVER_MISSING, facts(driver=NO_DRIVER, wsl_driver=True, **WSL), fix="/usr/lib/wsl/lib"
    ),
    "an old driver in WSL": case(
        Code.DRIVER_TOO_OLD,
        facts(OURS, cuda="12.4", wsl_driver=True, **WSL),
        fix="580 or later in Windows, not in WSL",
    ),
    "a stock CUDA build on a machine without a GPU": case(
        Code.DRIVER_MISSING,
        facts(load=CANNOT_IMPORT, **NO_GPU),
        "no NVIDIA GPU",
        "cannot even be imported",
        fix="# a CPU build",
    ),
    "a container without the NVIDIA runtime": case(
        Code.CONTAINER_WITHOUT_DRIVER,
        facts(driver=NO_DRIVER, container="/.dockerenv"),
        "/.dockerenv",
        fix="docker run --gpus all",
    ),
    "a container that did not get a GPU": case(
        Code.CARD_HIDDEN,
        facts(driver=NO_DRIVER, container="/.dockerenv", variables={"NVIDIA_VISIBLE_DEVICES": "void"}),
        "NVIDIA_VISIBLE_DEVICES='void'",
        fix="-e NVIDIA_VISIBLE_DEVICES=all",
    ),
    "hidden by the environment": case(
        Code.CARD_HIDDEN,
        facts(variables={"CUDA_VISIBLE_DEVICES": "-1"}, **HIDDEN),
        "CUDA_VISIBLE_DEVICES='-1'",
        GPU.name,
        fix="unset CUDA_VISIBLE_DEVICES",
    ),
    "hidden in a sandbox whose bus shows no GPU": case(
        Code.CARD_HIDDEN,
        facts(card_on_bus=False, variables={"CUDA_VISIBLE_DEVICES": "-1"}, cards=None, **HIDDEN),
        "CUDA_VISIBLE_DEVICES='-1'",
        fix="unset",
    ),
    "hidden on Windows": case(
        Code.CARD_HIDDEN,
        facts(system="win32", variables={"CUDA_VISIBLE_DEVICES": ""}, **HIDDEN),
        fix="set CUDA_VISIBLE_DEVICES=",
    ),
    "a driver that does not start in such a sandbox": case(
        Code.DRIVER_BROKEN,
        facts(card_on_bus=False, devices=(), error=803, cards=None),
        "CUDA error 803",
        fix="nvidia-smi",
    ),
    "a driver without a GPU": case(
        Code.NO_CARD, facts(card_on_bus=False, variables={"CUDA_VISIBLE_DEVICES": "0"}, cards=(), **HIDDEN)
    ),
    "an old driver": case(
        Code.DRIVER_TOO_OLD,
        facts(OURS, version="550.54.14", cuda="12.4"),
        "550.54.14 supports CUDA 12.4 at most",
        "CUDA 13.0",
        "580 or later",
        fix="ubuntu-drivers",
    ),
    "an old driver for a stock build, known by the names of its libraries": case(
        Code.DRIVER_TOO_OLD, facts(version="470.1", cuda="11.4"), "CUDA 12 ", "525 or later", fix="525"
    ),
    "an old driver, reported by CUDA itself": case(
        Code.DRIVER_TOO_OLD, facts(load=done(INSUFFICIENT, *ON_CPU)), "this build needs CUDA 12", fix="driver"
    ),
    "a driver that does not start": case(
        Code.DRIVER_BROKEN, facts(devices=(), error=803), "CUDA error 803", fix="restart"
    ),
    "a driver that hangs": case(
        Code.DRIVER_BROKEN,
        facts(driver=Driver(failure="no answer within 60 seconds")),
        "no answer within 60 seconds",
        fix="nvidia-smi",
    ),
    "a driver that does not see the GPU": case(
        Code.DRIVER_BROKEN, facts(**HIDDEN), "finds no GPU, although this machine has one", fix="nvidia-smi"
    ),
    "a stock build without cuBLAS": case(
        Code.CUDA_LIBRARY_MISSING,
        facts(without("libcublas.so.12"), CANNOT_IMPORT),
        "libcublas.so.12",
        "cannot be imported",
        "No such file",
        fix=f"cublas-cu12==12.*' 'nvidia-cuda-runtime-cu12==12.*' && export LD_LIBRARY_PATH={SITE}/nvidia/cublas",
    ),
    "our wheel without cuBLAS": case(
        Code.CUDA_LIBRARY_MISSING,
        facts(without("libcublas.so.13", of=OURS)),
        "its CUDA code is not in use",
        fix="'nvidia-cublas==13.*' 'nvidia-cuda-runtime==13.*' cuda-pathfinder",
    ),
    "the driver is not a library that pip installs": case(
        Code.DRIVER_MISSING, facts(without("libcuda.so.1"), CANNOT_IMPORT, driver=NO_DRIVER), fix="drivers"
    ),
    "a GPU that is newer than the build": case(
        Code.CARD_NOT_COVERED,
        facts(devices=(Device(0, "RTX 5090", "12.0", 1),)),
        "86-real, 89-real",
        "RTX 5090 (compute capability 12.0)",
        fix="--arch 120",
    ),
    "two GPUs, one of them not covered": case(
        Code.CARD_NOT_COVERED,
        facts(devices=(GPU, Device(1, "Tesla T4", "7.5", 1))),
        "none that Tesla T4 (compute capability 7.5) can run",
        fix="--arch 75,89",
    ),
    "code that cannot be read, and CUDA reports that it does not fit": case(
        Code.CARD_NOT_COVERED,
        facts(
            dataclasses.replace(STOCK_CUDA, cuda=(CudaLibrary("ggml-cuda.dll", problem="cannot read it"),)),
            stopped("generate", NO_KERNEL, **ABORTED),
        ),
        f"0.3.16 has no CUDA code that {GPU.name} (compute capability 8.9) can run",
        fix="--arch 89",
    ),
    "no memory while loading": case(
        Code.OUT_OF_MEMORY,
        facts(
            load=stopped(
                "load",
                "load_tensors:        CUDA0 model buffer size =  9000.00 MiB",
                NO_MEMORY,
                error="ValueError: Failed to create llama_context",
            )
        ),
        "had already taken 9000 MiB",
        fix="n_ctx",
    ),
    "an older build that cannot be imported": case(
        Code.IMPORT_FAILED,
        facts(STOCK_CPU, stopped("import", error="OSError: undefined symbol: ggml_time_us")),
        "cannot be imported",
        "undefined symbol: ggml_time_us",
        fix=f"{PYTHON} -m pip install --force-reinstall --no-cache-dir 'llama-cpp-python==0.3.16'",
    ),
    "a build for a newer system": case(
        Code.IMPORT_FAILED,
        facts(load=stopped("import", error="OSError: /lib/libc.so.6: version `GLIBC_2.38' not found")),
        "GLIBC_2.38",
        fix="for a newer system",
    ),
    "a build for a newer compiler": case(
        Code.IMPORT_FAILED,
        facts(load=stopped("import", error="OSError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found")),
        "GLIBCXX_3.4.32",
        fix="newer libstdc++",
    ),
    "a module that is missing": case(
        Code.IMPORT_FAILED,
        facts(load=stopped("import", error="ModuleNotFoundError: No module named 'diskcache'")),
        fix=f"{PYTHON} -m pip install diskcache",
    ),
    "an illegal instruction": case(
        Code.CRASHED,
        facts(STOCK_CPU, stopped("import", ended="its process was ended by SIGILL", signal="SIGILL")),
        "while importing llama_cpp",
        "instructions that this CPU lacks",
        fix="CMAKE_ARGS=-DGGML_NATIVE=off",
    ),
    "a CUDA error": case(
        Code.CRASHED,
        facts(load=stopped("generate", "CUDA error: an illegal memory access was encountered", **ABORTED)),
        "while generating",
        "an illegal memory access",
        fix="dmesg",
    ),
    "a load that crashed at its end": case(
        Code.CRASHED, facts(load=done(*ON_GPU, stage="generate", ended="its process was ended by SIGSEGV")), fix="pip"
    ),
    "a load that does not end": case(
        Code.TIMED_OUT,
        facts(load=stopped("load", ended="no answer within 300 seconds")),
        "no answer within 300 seconds while loading the model",
        fix="--timeout",
    ),
    "a file that is not a model": case(
        Code.MODEL_NOT_LOADED,
        facts(load=stopped("load", error="ValueError: Failed to load model from file: x.gguf", model="x.gguf")),
        "Could not use x.gguf: ValueError",
        fix="--model",
    ),
    "a backend that does not load": case(
        Code.BACKEND_NOT_LOADED,
        facts(dataclasses.replace(OURS, backend_error="undefined symbol: cudaFoo")),
        "undefined symbol: cudaFoo",
        fix="--force-reinstall",
    ),
    "n_gpu_layers is 0": case(
        Code.NO_LAYERS_REQUESTED,
        facts(load=done(*NO_LAYERS, n_gpu_layers=0)),
        "none of the 3 layers",
        "default of llama-cpp-python",
        fix="n_gpu_layers=-1",
    ),
    "some layers left on the CPU": case(
        Code.LAYERS_LEFT_ON_CPU,
        facts(load=done(IN_USE, *placed("CPU", "CPU", "CUDA0", "CUDA0", offloaded=(2, 4)), n_gpu_layers=2)),
        "2 of 4 layers",
        "(0-1)",
        fix="n_gpu_layers=-1",
    ),
    "the cache on the CPU": case(
        Code.KV_CACHE_ON_CPU,
        facts(load=done(IN_USE, *placed("CUDA0", "CUDA0", "CUDA0", cache=("CPU", "CPU"), offloaded=(3, 3)))),
        "2 layers (0-1)",
        fix="offload_kqv=True",
    ),
    "nothing explains it": case(
        Code.UNKNOWN,
        facts(load=done(*ON_CPU, status_reason="the GPU was busy.")),
        "on CPU",
        "the wheel says: the GPU was busy.",
        fix="--json",
    ),
    **{
        f"a simulated device, {name}": case(Code.SIMULATED, seen, "a simulated device", "It is not a GPU")
        for name, seen in {
            "of the driver and in the log": facts(devices=(SIMULATED,), load=done(*ON_SIMULATED)),
            "in the log": facts(load=done(*ON_SIMULATED)),
            "of the driver": facts(devices=(SIMULATED,), load=done(*ON_GPU)),
            "in a log alone": log_alone(*ON_SIMULATED),
        }.items()
    },
    "a log: all on the GPU": case(Code.CARD_USED, log_alone(*ON_GPU), "CUDA0 (NVIDIA GeForce RTX 4090)"),
    "a log: no layers": case(
        Code.NO_LAYERS_REQUESTED, log_alone(*NO_LAYERS), "none of the 3 layers", fix="n_gpu_layers=-1"
    ),
    "a log: 20 of 33, without the names of layers": case(
        Code.LAYERS_LEFT_ON_CPU,
        log_alone(IN_USE, "llm_load_tensors: offloaded 20/33 layers to GPU"),
        "13 of 33 layers",
        fix="n_gpu_layers=-1",
    ),
    "a log: no memory": case(Code.OUT_OF_MEMORY, log_alone(NO_MEMORY), "memory of the GPU", fix="nvidia-smi"),
    "a log: no kernel": case(
        Code.CARD_NOT_COVERED,
        log_alone("  Device 0: NVIDIA GeForce RTX 5090, compute capability 12.0, VMM: yes", *ON_GPU, NO_KERNEL),
        "RTX 5090 (compute capability 12.0)",
        fix="--arch 120",
    ),
    **{
        f"a log: {soname} is missing": case(code, log_alone(f"OSError: {no_library(soname).error}"), soname, fix=fix)
        for soname, code, fix in (
            ("libcudart.so.12", Code.CUDA_LIBRARY_MISSING, "nvidia-cuda-runtime-cu12"),
            ("libcuda.so.1", Code.DRIVER_MISSING, "driver"),
            ("libgomp.so.1", Code.IMPORT_FAILED, "--python"),
        )
    },
    "a log: a crash": case(
        Code.CRASHED, log_alone("Illegal instruction (core dumped)"), "CPU lacks", fix="GGML_NATIVE=off"
    ),
    "a log: an old driver": case(Code.DRIVER_TOO_OLD, log_alone(INSUFFICIENT), "too old for the CUDA", fix="driver"),
    "a log: no device": case(
        Code.CARD_HIDDEN,
        log_alone(f"{NOT_INITIALIZED} no CUDA-capable device is detected", *ON_CPU),
        "CUDA_VISIBLE_DEVICES",
        fix="check_gpu.pyz",
    ),
    "a log: a broken driver": case(
        Code.DRIVER_BROKEN, log_alone(f"{NOT_INITIALIZED} unknown error", *ON_CPU), "unknown error", fix="nvidia-smi"
    ),
    "a log: our wheel's own message": case(
        Code.BACKEND_NOT_LOADED,
        log_alone(
            "llama-cpp-python computes on the CPU although an NVIDIA card is there. The driver is old: update it.",
            *ON_CPU,
        ),
        "The driver is old: update it.",
        fix="check_gpu.pyz",
    ),
    "a log: features without CUDA": case(
        Code.CPU_ONLY_BUILD,
        log_alone(*ON_CPU, "System Info: CPU : SSE3 = 1 | AVX2 = 1 |"),
        "not built in or not loaded",
        fix="check_gpu.pyz",
    ),
    "a log: features with CUDA": case(
        Code.UNKNOWN,
        log_alone(*ON_CPU, "system_info: CUDA : ARCHS = 890 | CPU : SSE3 = 1 |"),
        "the log does not say why",
        fix="check_gpu.pyz",
    ),
    "a log: nothing": case(Code.LOG_SAYS_NOTHING, log_alone("Hello", ""), "does not say where", fix="verbose=True"),
}


@pytest.mark.parametrize(("code", "seen", "said", "fix"), CASES.values(), ids=CASES)
def test_the_first_cause_is_named_with_its_remedy(
    code: Code, seen: Facts, said: tuple[str, ...], fix: str | None
) -> None:
    diagnosis = diagnose(seen)
    assert diagnosis.code is code, diagnosis
    assert all(text in diagnosis.sentence for text in said), diagnosis
    assert diagnosis.sentence.endswith(".")
    assert ("GPU is used" in diagnosis.sentence or "GPU was used" in diagnosis.sentence) is (code is Code.CARD_USED)
    assert (diagnosis.command is None) is (fix is None)
    assert (fix or "") in (diagnosis.command or "")
    assert diagnosis.well is (code in NOTHING_TO_FIX)


def test_every_diagnosis_has_a_situation() -> None:
    assert {code for code, *_ in CASES.values()} == {*Code}


def test_the_oldest_drivers_are_those_of_the_pipeline() -> None:
    assert len(coverage.OLDEST_DRIVER) == 3
    for major, version in coverage.OLDEST_DRIVER.items():
        assert archs.oldest_driver(f"{major}.9") == version
