"""One situation for each test: the facts, the cause that is named, and the command that fixes it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from build_config import archs
from check_gpu import coverage, log
from check_gpu.collect import TINY_MODEL
from check_gpu.diagnosis import diagnose
from check_gpu.facts import (
    CudaLibrary,
    Device,
    Driver,
    Facts,
    Installation,
    Load,
    Machine,
    NeededLibrary,
    OwnBuild,
)
from check_gpu.result import NOTHING_TO_FIX, Code

pytestmark = pytest.mark.unit

PYTHON = "/venv/bin/python"
SITE = "/venv/lib/python3.12/site-packages"
GPU = Device(index=0, name="NVIDIA GeForce RTX 4090", capability="8.9", memory=24 << 30)
NO_DRIVER = Driver(problem="libcuda.so.1: cannot open shared object file: No such file or directory")
DRIVER = Driver(version="580.65.06", cuda="13.0", devices=(GPU,), cards=(GPU.name,))

IN_USE = f"llama_model_load: using device CUDA0 ({GPU.name}) (0000:01:00.0) - 23567 MiB free"


def placed(*devices: str, cache: tuple[str, ...] = (), offloaded: tuple[int, int] | None = None) -> list[str]:
    lines = [f"load_tensors: layer {n:3} assigned to device {device}, is_swa = 0" for n, device in enumerate(devices)]
    lines += [f"llama_kv_cache: layer {n:3}: dev = {device}" for n, device in enumerate(cache or devices[:-1])]
    if offloaded:
        lines.append(f"load_tensors: offloaded {offloaded[0]}/{offloaded[1]} layers to GPU")
    return lines


ON_GPU = [IN_USE, *placed("CUDA0", "CUDA0", "CUDA0", offloaded=(3, 3))]
ON_CPU = placed("CPU", "CPU", "CPU")


def done(lines: list[str], **changes: Any) -> Load:
    load = Load(n_gpu_layers=-1, model=TINY_MODEL, stage="done", tokens=4, signs=log.read(lines))
    return dataclasses.replace(load, **changes)


def stopped(stage: str, *lines: str, **changes: Any) -> Load:
    """A load that stopped early; as in a real one, its error is in the log."""
    kept = [*lines, *([changes["error"]] if "error" in changes else [])]
    return done(kept, stage=stage, tokens=0, **changes)


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

LINUX = Machine(system="linux", distribution="ubuntu", card_on_bus=True)
HEALTHY = Facts(machine=LINUX, installation=STOCK_CUDA, driver=DRIVER, load=done(ON_GPU))


def facts(**changes: Any) -> Facts:
    return dataclasses.replace(HEALTHY, **changes)


def machine(**changes: Any) -> Machine:
    return dataclasses.replace(LINUX, **changes)


def driver(**changes: Any) -> Driver:
    return dataclasses.replace(DRIVER, **changes)


def needing(*found: NeededLibrary, of: Installation = STOCK_CUDA) -> Installation:
    return dataclasses.replace(of, needed=found)


def no_library(soname: str) -> NeededLibrary:
    return NeededLibrary(soname, error=f"{soname}: cannot open shared object file: No such file or directory")


CANNOT_IMPORT = stopped(
    "import", error="RuntimeError: Failed to load shared library: libcublas.so.12: cannot open shared object file"
)
INSUFFICIENT = "CUDA driver version is insufficient for CUDA runtime version"
HIDDEN = driver(devices=(), error=100)
CASES: dict[str, tuple[Facts, Code, tuple[str, ...], str | None]] = {
    "healthy": (HEALTHY, Code.CARD_USED, ("CUDA0 (NVIDIA GeForce RTX 4090)", "4 tokens"), None),
    "healthy, an older log that lists no layers": (
        facts(load=done([IN_USE, "llm_load_tensors: offloaded 33/33 layers to GPU"])),
        Code.CARD_USED,
        ("CUDA0",),
        None,
    ),
    "an interpreter that does not start": (
        facts(installation=Installation(python="/no", error="/no cannot be started: No such file"), load=None),
        Code.PYTHON_FAILED,
        ("/no cannot be started",),
        "--python",
    ),
    "not installed": (
        facts(installation=Installation(python=PYTHON, python_version="3.12.1"), load=None),
        Code.NOT_INSTALLED,
        ("no package llama_cpp",),
        "nox -s build_cuda_wheel -- --arch 89",
    ),
    "listed by pip but missing": (
        facts(installation=dataclasses.replace(STOCK_CPU, package=None), load=None),
        Code.NOT_INSTALLED,
        ("although pip lists llama-cpp-python 0.3.16",),
        f"{PYTHON} -m pip install --force-reinstall",
    ),
    "a CPU build on a machine with a GPU": (
        facts(installation=STOCK_CPU, load=done(ON_CPU)),
        Code.CPU_ONLY_BUILD,
        ("0.3.16 is a CPU-only build", "none of its 4 libraries", GPU.name),
        "--arch 89",
    ),
    "a CPU build on Windows": (
        facts(machine=machine(system="win32"), installation=STOCK_CPU, load=done(ON_CPU)),
        Code.CPU_ONLY_BUILD,
        ("n_gpu_layers has no effect",),
        "set CMAKE_ARGS=-DGGML_CUDA=on",
    ),
    "a Vulkan build that finds no GPU": (
        facts(installation=dataclasses.replace(STOCK_CPU, libraries=("libggml-vulkan.so",)), load=done(ON_CPU)),
        Code.CPU_ONLY_BUILD,
        ("only libggml-vulkan.so",),
        "--arch 89",
    ),
    "a CPU build on a machine without a GPU": (
        facts(machine=machine(card_on_bus=False), installation=STOCK_CPU, driver=NO_DRIVER, load=done(ON_CPU)),
        Code.NO_CARD,
        ("has no NVIDIA GPU",),
        None,
    ),
    "our wheel on a machine without a GPU": (
        facts(machine=machine(card_on_bus=False), installation=OURS, driver=NO_DRIVER, load=done(ON_CPU)),
        Code.NO_CARD,
        ("runs on the CPU",),
        None,
    ),
    "macOS": (
        facts(
            machine=Machine("darwin", card_on_bus=False), installation=STOCK_CPU, driver=NO_DRIVER, load=done(ON_CPU)
        ),
        Code.NO_CARD,
        ("macOS has no CUDA",),
        None,
    ),
    "a GPU without a driver": (
        facts(installation=OURS, driver=NO_DRIVER, load=done(ON_CPU)),
        Code.DRIVER_MISSING,
        ("libcuda.so.1: cannot open", "although this machine has an NVIDIA GPU"),
        "sudo ubuntu-drivers install",
    ),
    "no driver, another distribution": (
        facts(machine=machine(distribution="gentoo"), driver=NO_DRIVER, load=done(ON_CPU)),
        Code.DRIVER_MISSING,
        (),
        "https://www.nvidia.com/drivers",
    ),
    "no driver in WSL": (
        facts(machine=machine(wsl=True, card_on_bus=None), driver=NO_DRIVER, load=done(ON_CPU)),
        Code.DRIVER_MISSING,
        (),
        "in Windows, not in WSL",
    ),
    "a driver in WSL that the loader does not find": (
        facts(machine=machine(wsl=True, wsl_driver=True, card_on_bus=None), driver=NO_DRIVER, load=done(ON_CPU)),
        Code.DRIVER_MISSING,
        (),
        "/usr/lib/wsl/lib",
    ),
    "an old driver in WSL": (
        facts(
            machine=machine(wsl=True, wsl_driver=True, card_on_bus=None),
            installation=OURS,
            driver=driver(cuda="12.4"),
            load=done(ON_CPU),
        ),
        Code.DRIVER_TOO_OLD,
        (),
        "580 or later in Windows, not in WSL",
    ),
    "a stock CUDA build on a machine without a GPU": (
        facts(machine=machine(card_on_bus=False), driver=NO_DRIVER, load=CANNOT_IMPORT),
        Code.DRIVER_MISSING,
        ("no NVIDIA GPU", "cannot even be imported"),
        "# a CPU build",
    ),
    "a container without the NVIDIA runtime": (
        facts(machine=machine(container="/.dockerenv"), driver=NO_DRIVER, load=done(ON_CPU)),
        Code.CONTAINER_WITHOUT_DRIVER,
        ("/.dockerenv",),
        "docker run --gpus all",
    ),
    "a container that did not get a GPU": (
        facts(
            machine=machine(container="/.dockerenv", variables={"NVIDIA_VISIBLE_DEVICES": "void"}),
            driver=NO_DRIVER,
            load=done(ON_CPU),
        ),
        Code.CARD_HIDDEN,
        ("NVIDIA_VISIBLE_DEVICES='void'",),
        "-e NVIDIA_VISIBLE_DEVICES=all",
    ),
    "hidden by the environment": (
        facts(machine=machine(variables={"CUDA_VISIBLE_DEVICES": "-1"}), driver=HIDDEN, load=done(ON_CPU)),
        Code.CARD_HIDDEN,
        ("CUDA_VISIBLE_DEVICES='-1'", GPU.name),
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "hidden in a sandbox whose bus shows no GPU": (
        facts(
            machine=machine(card_on_bus=False, variables={"CUDA_VISIBLE_DEVICES": "-1"}),
            driver=driver(devices=(), error=100, cards=None),
            load=done(ON_CPU),
        ),
        Code.CARD_HIDDEN,
        ("CUDA_VISIBLE_DEVICES='-1'",),
        "unset",
    ),
    "a driver that does not start in such a sandbox": (
        facts(
            machine=machine(card_on_bus=False),
            driver=driver(devices=(), error=803, cards=None),
            load=done(ON_CPU),
        ),
        Code.DRIVER_BROKEN,
        ("CUDA error 803",),
        "nvidia-smi",
    ),
    "a driver without a GPU": (
        facts(
            machine=machine(card_on_bus=False, variables={"CUDA_VISIBLE_DEVICES": "0"}),
            driver=driver(devices=(), error=100, cards=()),
            load=done(ON_CPU),
        ),
        Code.NO_CARD,
        (),
        None,
    ),
    "hidden on Windows": (
        facts(
            machine=machine(system="win32", variables={"CUDA_VISIBLE_DEVICES": ""}), driver=HIDDEN, load=done(ON_CPU)
        ),
        Code.CARD_HIDDEN,
        (),
        "set CUDA_VISIBLE_DEVICES=",
    ),
    "an old driver": (
        facts(installation=OURS, driver=driver(version="550.54.14", cuda="12.4"), load=done(ON_CPU)),
        Code.DRIVER_TOO_OLD,
        ("550.54.14 supports CUDA 12.4 at most", "CUDA 13.0", "580 or later"),
        "ubuntu-drivers",
    ),
    "an old driver for a stock build, known by the names of its libraries": (
        facts(driver=driver(version="470.1", cuda="11.4"), load=done(ON_CPU)),
        Code.DRIVER_TOO_OLD,
        ("CUDA 12 ", "525 or later"),
        "525",
    ),
    "an old driver, reported by CUDA itself": (
        facts(
            load=done(
                [
                    f"ggml_cuda_init: failed to initialize CUDA: {INSUFFICIENT}",
                    *ON_CPU,
                ]
            )
        ),
        Code.DRIVER_TOO_OLD,
        ("this build needs CUDA 12",),
        "driver",
    ),
    "a driver that does not start": (
        facts(driver=driver(devices=(), error=803), load=done(ON_CPU)),
        Code.DRIVER_BROKEN,
        ("CUDA error 803",),
        "restart",
    ),
    "a driver that hangs": (
        facts(driver=Driver(failure="no answer within 60 seconds"), load=done(ON_CPU)),
        Code.DRIVER_BROKEN,
        ("no answer within 60 seconds",),
        "nvidia-smi",
    ),
    "a driver that does not see the GPU": (
        facts(driver=driver(devices=(), error=100), load=done(ON_CPU)),
        Code.DRIVER_BROKEN,
        ("finds no GPU, although this machine has one",),
        "nvidia-smi",
    ),
    "a stock build without cuBLAS": (
        facts(
            installation=needing(NeededLibrary("libcudart.so.12", path="/usr/lib/x"), no_library("libcublas.so.12")),
            load=CANNOT_IMPORT,
        ),
        Code.CUDA_LIBRARY_MISSING,
        ("libcublas.so.12", "cannot be imported", "No such file"),
        f"'nvidia-cublas-cu12==12.*' 'nvidia-cuda-runtime-cu12==12.*' && export LD_LIBRARY_PATH={SITE}/nvidia/cublas",
    ),
    "our wheel without cuBLAS": (
        facts(installation=needing(no_library("libcublas.so.13"), of=OURS), load=done(ON_CPU)),
        Code.CUDA_LIBRARY_MISSING,
        ("its CUDA code is not in use",),
        "'nvidia-cublas==13.*' 'nvidia-cuda-runtime==13.*' cuda-pathfinder",
    ),
    "the driver is not a library that pip installs": (
        facts(installation=needing(no_library("libcuda.so.1")), driver=NO_DRIVER, load=CANNOT_IMPORT),
        Code.DRIVER_MISSING,
        (),
        "drivers",
    ),
    "a GPU that is newer than the build": (
        facts(
            driver=driver(devices=(dataclasses.replace(GPU, name="RTX 5090", capability="12.0"),)), load=done(ON_CPU)
        ),
        Code.CARD_NOT_COVERED,
        ("86-real, 89-real", "RTX 5090 (compute capability 12.0)"),
        "--arch 120",
    ),
    "two GPUs, one of them not covered": (
        facts(driver=driver(devices=(GPU, Device(1, "Tesla T4", "7.5", 1))), load=done(ON_CPU)),
        Code.CARD_NOT_COVERED,
        ("none that Tesla T4 (compute capability 7.5) can run",),
        "--arch 75,89",
    ),
    "code that cannot be read, and CUDA reports that it does not fit": (
        facts(
            installation=dataclasses.replace(
                STOCK_CUDA, cuda=(CudaLibrary("ggml-cuda.dll", problem="cannot read it"),)
            ),
            load=stopped(
                "generate",
                "CUDA error: no kernel image is available for execution on the device",
                ended="its process was ended by SIGABRT (aborted)",
                signal="SIGABRT",
            ),
        ),
        Code.CARD_NOT_COVERED,
        (f"0.3.16 has no CUDA code that {GPU.name} (compute capability 8.9) can run",),
        "--arch 89",
    ),
    "no memory while loading": (
        facts(
            load=stopped(
                "load",
                "load_tensors:        CUDA0 model buffer size =  9000.00 MiB",
                "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 2.00 MiB on device 0: cudaMalloc "
                "failed: out of memory",
                error="ValueError: Failed to create llama_context",
            )
        ),
        Code.OUT_OF_MEMORY,
        ("had already taken 9000 MiB",),
        "n_ctx",
    ),
    "an older build that cannot be imported": (
        facts(installation=STOCK_CPU, load=stopped("import", error="OSError: undefined symbol: ggml_time_us")),
        Code.IMPORT_FAILED,
        ("cannot be imported", "undefined symbol: ggml_time_us"),
        f"{PYTHON} -m pip install --force-reinstall --no-cache-dir 'llama-cpp-python==0.3.16'",
    ),
    "a build for a newer system": (
        facts(load=stopped("import", error="OSError: /lib/libc.so.6: version `GLIBC_2.38' not found")),
        Code.IMPORT_FAILED,
        ("GLIBC_2.38",),
        "for a newer system",
    ),
    "a build for a newer compiler": (
        facts(load=stopped("import", error="OSError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found")),
        Code.IMPORT_FAILED,
        ("GLIBCXX_3.4.32",),
        "newer libstdc++",
    ),
    "a module that is missing": (
        facts(load=stopped("import", error="ModuleNotFoundError: No module named 'diskcache'")),
        Code.IMPORT_FAILED,
        (),
        f"{PYTHON} -m pip install diskcache",
    ),
    "an illegal instruction": (
        facts(
            installation=STOCK_CPU,
            load=stopped("import", ended="its process was ended by SIGILL (illegal instruction)", signal="SIGILL"),
        ),
        Code.CRASHED,
        ("while importing llama_cpp", "instructions that this CPU lacks"),
        "CMAKE_ARGS=-DGGML_NATIVE=off",
    ),
    "a CUDA error": (
        facts(
            load=stopped(
                "generate",
                "CUDA error: an illegal memory access was encountered",
                ended="its process was ended by SIGABRT (aborted)",
                signal="SIGABRT",
            )
        ),
        Code.CRASHED,
        ("while generating", "an illegal memory access"),
        "dmesg",
    ),
    "a load that does not end": (
        facts(load=stopped("load", ended="no answer within 300 seconds")),
        Code.TIMED_OUT,
        ("no answer within 300 seconds while loading the model",),
        "--timeout",
    ),
    "a file that is not a model": (
        facts(load=stopped("load", error="ValueError: Failed to load model from file: x.gguf", model="x.gguf")),
        Code.MODEL_NOT_LOADED,
        ("Could not use x.gguf: ValueError",),
        "--model",
    ),
    "a backend that does not load": (
        facts(installation=dataclasses.replace(OURS, backend_error="undefined symbol: cudaFoo"), load=done(ON_CPU)),
        Code.BACKEND_NOT_LOADED,
        ("undefined symbol: cudaFoo",),
        "--force-reinstall",
    ),
    "n_gpu_layers is 0": (
        facts(load=done([IN_USE, *placed("CPU", "CPU", "CPU", offloaded=(0, 3))], n_gpu_layers=0)),
        Code.NO_LAYERS_REQUESTED,
        ("none of the 3 layers", "default of llama-cpp-python"),
        "n_gpu_layers=-1",
    ),
    "some layers left on the CPU": (
        facts(load=done([IN_USE, *placed("CPU", "CPU", "CUDA0", "CUDA0", offloaded=(2, 4))], n_gpu_layers=2)),
        Code.LAYERS_LEFT_ON_CPU,
        ("2 of 4 layers", "(0-1)"),
        "n_gpu_layers=-1",
    ),
    "the cache on the CPU": (
        facts(load=done([IN_USE, *placed("CUDA0", "CUDA0", "CUDA0", cache=("CPU", "CPU"), offloaded=(3, 3))])),
        Code.KV_CACHE_ON_CPU,
        ("2 layers (0-1)",),
        "offload_kqv=True",
    ),
    "nothing explains it": (
        facts(load=done(ON_CPU, status_reason="the GPU was busy.")),
        Code.UNKNOWN,
        ("on CPU", "the wheel says: the GPU was busy."),
        "--json",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_cause_is_named_with_its_remedy(name: str) -> None:
    seen, code, said, command = CASES[name]
    diagnosis = diagnose(seen)
    assert diagnosis.code is code, diagnosis
    for text in said:
        assert text in diagnosis.sentence
    assert diagnosis.sentence.endswith(".")
    if command is None:
        assert diagnosis.command is None
    else:
        assert command in str(diagnosis.command)
    assert diagnosis.well is (code in NOTHING_TO_FIX)


def test_a_simulated_device_is_never_called_a_gpu() -> None:
    name = "SIMULATED device (compute capability 8.9)"
    lines = [line.replace(GPU.name, name) for line in ON_GPU]
    for seen in (
        facts(driver=driver(devices=(dataclasses.replace(GPU, name=name),)), load=done(lines)),
        facts(load=done(lines)),
        facts(driver=driver(devices=(dataclasses.replace(GPU, name=name),))),
        facts(installation=None, driver=None, load=done(lines, stage="log")),
    ):
        diagnosis = diagnose(seen)
        assert diagnosis.code is Code.SIMULATED
        assert "simulated device" in diagnosis.sentence
        assert "It is not a GPU" in diagnosis.sentence
        assert "GPU is used" not in diagnosis.sentence


def test_a_load_that_crashed_at_its_end_is_not_healthy() -> None:
    crashed = done(ON_GPU, stage="generate", ended="its process was ended by SIGSEGV (segmentation fault)")
    assert diagnose(facts(load=crashed)).code is Code.CRASHED


LOGS: dict[str, tuple[list[str], Code, tuple[str, ...], str | None]] = {
    "all on the GPU": (ON_GPU, Code.CARD_USED, ("CUDA0 (NVIDIA GeForce RTX 4090)",), None),
    "no layers": (
        [IN_USE, *placed("CPU", "CPU", "CPU", offloaded=(0, 3))],
        Code.NO_LAYERS_REQUESTED,
        ("none of the 3 layers",),
        "n_gpu_layers=-1",
    ),
    "20 of 33, without the names of layers": (
        [IN_USE, "llm_load_tensors: offloaded 20/33 layers to GPU"],
        Code.LAYERS_LEFT_ON_CPU,
        ("13 of 33 layers",),
        "n_gpu_layers=-1",
    ),
    "no memory": (
        ["ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB on device 0: cudaMalloc failed: out of memory"],
        Code.OUT_OF_MEMORY,
        ("memory of the GPU",),
        "nvidia-smi",
    ),
    "no kernel": (
        [
            "  Device 0: NVIDIA GeForce RTX 5090, compute capability 12.0, VMM: yes",
            *ON_GPU,
            "CUDA error: no kernel image is available for execution on the device",
        ],
        Code.CARD_NOT_COVERED,
        ("RTX 5090 (compute capability 12.0)",),
        "--arch 120",
    ),
    "a library": (
        ["OSError: libcudart.so.12: cannot open shared object file: No such file or directory"],
        Code.CUDA_LIBRARY_MISSING,
        ("libcudart.so.12",),
        "nvidia-cuda-runtime-cu12",
    ),
    "the driver": (
        ["OSError: libcuda.so.1: cannot open shared object file: No such file or directory"],
        Code.DRIVER_MISSING,
        ("libcuda.so.1",),
        "driver",
    ),
    "another library": (
        ["OSError: libgomp.so.1: cannot open shared object file: No such file or directory"],
        Code.IMPORT_FAILED,
        ("libgomp.so.1",),
        "--python",
    ),
    "a crash": (["Illegal instruction (core dumped)"], Code.CRASHED, ("CPU lacks",), "GGML_NATIVE=off"),
    "an old driver": (
        [f"ggml_cuda_init: failed to initialize CUDA: {INSUFFICIENT}"],
        Code.DRIVER_TOO_OLD,
        ("too old for the CUDA",),
        "driver",
    ),
    "no device": (
        ["ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", *ON_CPU],
        Code.CARD_HIDDEN,
        ("CUDA_VISIBLE_DEVICES",),
        "check_gpu.pyz",
    ),
    "a broken driver": (
        ["ggml_cuda_init: failed to initialize CUDA: unknown error", *ON_CPU],
        Code.DRIVER_BROKEN,
        ("unknown error",),
        "nvidia-smi",
    ),
    "our wheel's own message": (
        [
            "llama-cpp-python computes on the CPU although this machine has an NVIDIA GPU. The driver is old.",
            *ON_CPU,
        ],
        Code.BACKEND_NOT_LOADED,
        ("The driver is old.",),
        "check_gpu.pyz",
    ),
    "the words of our earlier wheels": (
        [
            "llama-cpp-python computes on the CPU although an NVIDIA card is there. The driver is old.",
            *ON_CPU,
        ],
        Code.BACKEND_NOT_LOADED,
        ("The driver is old.",),
        "check_gpu.pyz",
    ),
    "features without CUDA": (
        [*ON_CPU, "System Info: CPU : SSE3 = 1 | AVX2 = 1 |"],
        Code.CPU_ONLY_BUILD,
        ("not built in or not loaded",),
        "check_gpu.pyz",
    ),
    "features with CUDA": (
        [*ON_CPU, "system_info: CUDA : ARCHS = 890 | CPU : SSE3 = 1 |"],
        Code.UNKNOWN,
        ("the log does not say why",),
        "check_gpu.pyz",
    ),
    "nothing": (["Hello", ""], Code.LOG_SAYS_NOTHING, ("does not say where",), "verbose=True"),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_log_alone(name: str) -> None:
    lines, code, said, command = LOGS[name]
    load = Load(n_gpu_layers=None, model="a.log", stage="log", log=tuple(lines), signs=log.read(lines))
    diagnosis = diagnose(Facts(machine=LINUX, load=load))
    assert diagnosis.code is code, diagnosis
    for text in said:
        assert text in diagnosis.sentence
    assert (command is None) is (diagnosis.command is None)
    assert (command or "") in (diagnosis.command or "")


def test_every_diagnosis_has_a_situation() -> None:
    covered = {code for _, code, _, _ in CASES.values()} | {code for _, code, _, _ in LOGS.values()}
    assert covered == {*Code} - {Code.SIMULATED}  # which has a separate test


def test_the_oldest_drivers_are_those_of_the_pipeline() -> None:
    assert len(coverage.OLDEST_DRIVER) == 3
    for major, version in coverage.OLDEST_DRIVER.items():
        assert archs.oldest_driver(f"{major}.9") == version
