"""One situation for each test: the facts, the cause that is named, and the command that fixes it."""

import re
from dataclasses import replace
from typing import Any

import pytest

from build_config import archs
from check_gpu import coverage, log
from check_gpu.collect import TINY_MODEL
from check_gpu.diagnosis import diagnose
from check_gpu.facts import CudaLibrary, Device, Driver, Facts, Installation, Load, Machine, NeededLibrary, OwnBuild
from check_gpu.result import NOTHING_TO_FIX, Code
from tests.support.logs import placed

PYTHON = "/venv/bin/python"
SITE = "/venv/lib/python3.12/site-packages"
GPU = Device(index=0, name="NVIDIA GeForce RTX 4090", capability="8.9", memory=24 << 30)
SIMULATED = replace(GPU, name="SIMULATED device (compute capability 8.9)")
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
STOCK_CUDA = replace(STOCK_CPU, cuda=(BACKEND,))
OWN = OwnBuild("13.0", "580", ("libcudart.so.13", "libcublas.so.13"), "nox -s build_cuda_wheel -- --arch {arch}")
OURS = replace(
    STOCK_CPU,
    version="0.3.36+cu130.sm89",
    own=OWN,
    cuda=(CudaLibrary(f"{SITE}/llama_cpp/lib/libggml-cuda-sm89.so", code=("89-real",), needs=("libcublas.so.13",)),),
)


IN_USE = f"llama_model_load: using device CUDA0 ({GPU.name}) (0000:01:00.0) - 23567 MiB free"
ON_GPU = [IN_USE, *placed("CUDA0", "CUDA0", "CUDA0", offloaded=(3, 3))]
ON_CPU = placed("CPU", "CPU", "CPU")
NO_LAYERS = [IN_USE, *placed("CPU", "CPU", "CPU", offloaded=(0, 3))]
ON_SIMULATED = [line.replace(GPU.name, SIMULATED.name) for line in ON_GPU]
NO_MEMORY = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 2 MiB on device 0: cudaMalloc failed: out of memory"
BUFFER = "load_tensors:        CUDA0 model buffer size =  9000.00 MiB"
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
NOT_INITIALIZED = "ggml_cuda_init: failed to initialize CUDA:"
INSUFFICIENT = f"{NOT_INITIALIZED} CUDA driver version is insufficient for CUDA runtime version"
ABORTED = {"ended": "its process was ended by SIGABRT (aborted)", "signal": "SIGABRT"}


def done(*lines: str, **changes: Any) -> Load:
    load = Load(n_gpu_layers=-1, model=TINY_MODEL, stage="done", tokens=4, signs=log.read(lines))
    return replace(load, **changes)


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
    return Facts(replace(LINUX, **machine), installation, replace(driver, **changes), load)


def import_fails(error: str, installation: Installation = STOCK_CUDA) -> Facts:
    return facts(installation, stopped("import", error=error))


def loaded(*lines: str, **changes: Any) -> Facts:
    return facts(load=done(*lines, **changes))


def log_alone(*lines: str) -> Facts:
    return Facts(
        machine=LINUX, load=Load(n_gpu_layers=None, model="a.log", stage="log", log=lines, signs=log.read(lines))
    )


def without(*sonames: str, of: Installation = STOCK_CUDA) -> Installation:
    found = (NeededLibrary("libcudart.so.12", path="/usr/lib/x"), *(no_library(soname) for soname in sonames))
    return replace(of, needed=found)


def no_library(soname: str) -> NeededLibrary:
    return NeededLibrary(soname, error=f"{soname}: cannot open shared object file: No such file or directory")


NO_GPU: dict[str, Any] = {"card_on_bus": False, "driver": NO_DRIVER}
WSL: dict[str, Any] = {"wsl": True, "card_on_bus": None}
HIDDEN: dict[str, Any] = {"devices": (), "error": 100}
REINSTALL = f"{PYTHON} -m pip install --force-reinstall --no-cache-dir 'llama-cpp-python==0.3.16'"
CUBLAS_12 = (
    f"'nvidia-cublas-cu12==12.*' 'nvidia-cuda-runtime-cu12==12.*' && export LD_LIBRARY_PATH={SITE}/nvidia/cublas"
)
CUBLAS_13 = "'nvidia-cublas==13.*' 'nvidia-cuda-runtime==13.*' cuda-pathfinder"
# The expected diagnosis: its code, parts of its sentence, and after the arrow a part of the command, if there is one.
SITUATIONS: dict[str, tuple[Facts, str]] = {
    "healthy": (HEALTHY, "card-used: CUDA0 (NVIDIA GeForce RTX 4090) ... 4 tokens"),
    "healthy, an older log that lists no layers": (
        loaded(IN_USE, "llm_load_tensors: offloaded 33/33 layers to GPU"),
        "card-used: CUDA0",
    ),
    "an interpreter that does not start": (
        facts(Installation(python="/no", error="/no does not start"), None),
        "python-failed: /no does not start -> --python",
    ),
    "not installed": (
        facts(Installation(python=PYTHON, python_version="3.12.1"), None),
        "not-installed: no package llama_cpp -> nox -s build_cuda_wheel -- --arch 89",
    ),
    "listed by pip but missing": (
        facts(replace(STOCK_CPU, package=None), None),
        f"not-installed: although pip lists llama-cpp-python 0.3.16 -> {PYTHON} -m pip install --force-reinstall",
    ),
    "a CPU build on a machine with a GPU": (
        facts(STOCK_CPU),
        f"cpu-only-build: 0.3.16 is a CPU-only build ... none of its 4 libraries ... {GPU.name} -> --arch 89",
    ),
    "a CPU build on Windows": (
        facts(STOCK_CPU, system="win32"),
        "cpu-only-build: n_gpu_layers has no effect -> set CMAKE_ARGS=-DGGML_CUDA=on",
    ),
    "a Vulkan build that finds no GPU": (
        facts(replace(STOCK_CPU, libraries=("libggml-vulkan.so",))),
        "cpu-only-build: only libggml-vulkan.so -> --arch 89",
    ),
    "a CPU build on a machine without a GPU": (facts(STOCK_CPU, **NO_GPU), "no-card: has no NVIDIA GPU"),
    "our wheel on a machine without a GPU": (facts(OURS, **NO_GPU), "no-card: runs on the CPU"),
    "macOS": (facts(STOCK_CPU, system="darwin", **NO_GPU), "no-card: macOS has no CUDA"),
    "a GPU without a driver": (
        facts(OURS, driver=NO_DRIVER),
        "driver-missing: libcuda.so.1: cannot open ... although this machine has an NVIDIA GPU -> sudo ubuntu-drivers",
    ),
    "no driver, another distribution": (
        facts(driver=NO_DRIVER, distribution="gentoo"),
        "driver-missing -> https://www.nvidia.com/drivers",
    ),
    "no driver in WSL": (facts(driver=NO_DRIVER, **WSL), "driver-missing -> in Windows, not in WSL"),
    "a driver in WSL that the loader does not find": (
        facts(driver=NO_DRIVER, wsl_driver=True, **WSL),
        "driver-missing -> /usr/lib/wsl/lib",
    ),
    "an old driver in WSL": (
        facts(OURS, cuda="12.4", wsl_driver=True, **WSL),
        "driver-too-old -> 580 or later in Windows, not in WSL",
    ),
    "a stock CUDA build on a machine without a GPU": (
        facts(load=CANNOT_IMPORT, **NO_GPU),
        "driver-missing: no NVIDIA GPU ... cannot even be imported -> # a CPU build",
    ),
    "a container without the NVIDIA runtime": (
        facts(driver=NO_DRIVER, container="/.dockerenv"),
        "container-without-driver: /.dockerenv -> docker run --gpus all",
    ),
    "a container that did not get a GPU": (
        facts(driver=NO_DRIVER, container="/.dockerenv", variables={"NVIDIA_VISIBLE_DEVICES": "void"}),
        "card-hidden: NVIDIA_VISIBLE_DEVICES='void' -> -e NVIDIA_VISIBLE_DEVICES=all",
    ),
    "hidden by the environment": (
        facts(variables={"CUDA_VISIBLE_DEVICES": "-1"}, **HIDDEN),
        f"card-hidden: CUDA_VISIBLE_DEVICES='-1' ... {GPU.name} -> unset CUDA_VISIBLE_DEVICES",
    ),
    "hidden in a sandbox whose bus shows no GPU": (
        facts(card_on_bus=False, variables={"CUDA_VISIBLE_DEVICES": "-1"}, cards=None, **HIDDEN),
        "card-hidden: CUDA_VISIBLE_DEVICES='-1' -> unset",
    ),
    "hidden on Windows": (
        facts(system="win32", variables={"CUDA_VISIBLE_DEVICES": ""}, **HIDDEN),
        "card-hidden -> set CUDA_VISIBLE_DEVICES=",
    ),
    "a driver that does not start in such a sandbox": (
        facts(card_on_bus=False, devices=(), error=803, cards=None),
        "driver-broken: CUDA error 803 -> nvidia-smi",
    ),
    "a driver without a GPU": (
        facts(card_on_bus=False, variables={"CUDA_VISIBLE_DEVICES": "0"}, cards=(), **HIDDEN),
        "no-card",
    ),
    "an old driver": (
        facts(OURS, version="550.54.14", cuda="12.4"),
        "driver-too-old: 550.54.14 supports CUDA 12.4 at most ... CUDA 13.0 ... 580 or later -> ubuntu-drivers",
    ),
    "an old driver for a stock build, known by the names of its libraries": (
        facts(version="470.1", cuda="11.4"),
        "driver-too-old: needs CUDA 12 (driver 525 or later) -> 525",
    ),
    "an old driver, reported by CUDA itself": (
        loaded(INSUFFICIENT, *ON_CPU),
        "driver-too-old: this build needs CUDA 12 -> driver",
    ),
    "a driver that does not start": (facts(devices=(), error=803), "driver-broken: CUDA error 803 -> restart"),
    "a driver that hangs": (
        facts(driver=Driver(failure="no answer within 60 seconds")),
        "driver-broken: no answer within 60 seconds -> nvidia-smi",
    ),
    "a driver that does not see the GPU": (
        facts(**HIDDEN),
        "driver-broken: finds no GPU, although this machine has one -> nvidia-smi",
    ),
    "a stock build without cuBLAS": (
        facts(without("libcublas.so.12"), CANNOT_IMPORT),
        f"cuda-library-missing: libcublas.so.12 ... cannot be imported ... No such file -> {CUBLAS_12}",
    ),
    "our wheel without cuBLAS": (
        facts(without("libcublas.so.13", of=OURS)),
        f"cuda-library-missing: its CUDA code is not in use -> {CUBLAS_13}",
    ),
    "the driver is not a library that pip installs": (
        facts(without("libcuda.so.1"), CANNOT_IMPORT, driver=NO_DRIVER),
        "driver-missing -> drivers",
    ),
    "a GPU that is newer than the build": (
        facts(devices=(Device(0, "RTX 5090", "12.0", 1),)),
        "card-not-covered: 86-real, 89-real ... RTX 5090 (compute capability 12.0) -> --arch 120",
    ),
    "two GPUs, one of them not covered": (
        facts(devices=(GPU, Device(1, "Tesla T4", "7.5", 1))),
        "card-not-covered: none that Tesla T4 (compute capability 7.5) can run -> --arch 75+89",
    ),
    "two GPUs, of which a shard that leaves out the others uses one": (
        facts(
            replace(OURS, own=replace(OWN, leaves_out=True)),
            done(*ON_GPU, status_note="sm89 has no code for Tesla T4. To use all GPUs: `nox`."),
            devices=(GPU, Device(1, "Tesla T4", "7.5", 1)),
        ),
        "card-used: on CUDA0 ... sm89 has no code for Tesla T4. To use all GPUs: `nox`.",
    ),
    "two GPUs, and a shard that leaves out the others has code for none": (
        facts(
            replace(OURS, own=replace(OWN, leaves_out=True)),
            devices=(Device(0, "GTX 1080", "6.1", 1), Device(1, "Tesla T4", "7.5", 1)),
        ),
        "card-not-covered: GTX 1080 (compute capability 6.1), Tesla T4 -> --cuda 12.9 --arch 61+75",
    ),
    "code that cannot be read, and CUDA reports that it does not fit": (
        facts(
            replace(STOCK_CUDA, cuda=(CudaLibrary("ggml-cuda.dll", problem="cannot read it"),)),
            stopped("generate", NO_KERNEL, **ABORTED),
        ),
        f"card-not-covered: 0.3.16 has no CUDA code that {GPU.name} (compute capability 8.9) can run -> --arch 89",
    ),
    "no memory while loading": (
        facts(load=stopped("load", BUFFER, NO_MEMORY, error="ValueError: no context")),
        "out-of-memory: had already taken 9000 MiB -> n_ctx",
    ),
    "an older build that cannot be imported": (
        import_fails("OSError: undefined symbol: ggml_time_us", STOCK_CPU),
        f"import-failed: cannot be imported ... undefined symbol: ggml_time_us -> {REINSTALL}",
    ),
    "a build for a newer system": (
        import_fails("OSError: libc.so.6: version `GLIBC_2.38' not found"),
        "import-failed: GLIBC_2.38 -> for a newer system",
    ),
    "a build for a newer compiler": (
        import_fails("OSError: libstdc++.so.6: version `GLIBCXX_3.4.32' not found"),
        "import-failed: GLIBCXX_3.4.32 -> newer libstdc++",
    ),
    "a module that is missing": (
        import_fails("ModuleNotFoundError: No module named 'diskcache'"),
        f"import-failed -> {PYTHON} -m pip install diskcache",
    ),
    "an illegal instruction": (
        facts(STOCK_CPU, stopped("import", ended="its process was ended by SIGILL", signal="SIGILL")),
        "crashed: while importing llama_cpp ... instructions that this CPU lacks -> CMAKE_ARGS=-DGGML_NATIVE=off",
    ),
    "a CUDA error": (
        facts(load=stopped("generate", "CUDA error: an illegal memory access was encountered", **ABORTED)),
        "crashed: while generating ... an illegal memory access -> dmesg",
    ),
    "a load that crashed at its end": (
        loaded(*ON_GPU, stage="generate", ended="its process was ended by SIGSEGV"),
        "crashed -> pip",
    ),
    "a load that does not end": (
        facts(load=stopped("load", ended="no answer within 300 seconds")),
        "timed-out: no answer within 300 seconds while loading the model -> --timeout",
    ),
    "a file that is not a model": (
        facts(load=stopped("load", error="ValueError: not a GGUF file", model="x.gguf")),
        "model-not-loaded: Could not use x.gguf: ValueError -> --model",
    ),
    "a backend that does not load": (
        facts(replace(OURS, backend_error="undefined symbol: cudaFoo")),
        "backend-not-loaded: undefined symbol: cudaFoo -> --force-reinstall",
    ),
    "n_gpu_layers is 0": (
        loaded(*NO_LAYERS, n_gpu_layers=0),
        "no-layers-requested: none of the 3 layers ... default of llama-cpp-python -> n_gpu_layers=-1",
    ),
    "some layers left on the CPU": (
        loaded(IN_USE, *placed("CPU", "CPU", "CUDA0", "CUDA0", offloaded=(2, 4)), n_gpu_layers=2),
        "layers-left-on-cpu: 2 of 4 layers ... (0-1) -> n_gpu_layers=-1",
    ),
    "the cache on the CPU": (
        loaded(IN_USE, *placed("CUDA0", "CUDA0", "CUDA0", cache=("CPU", "CPU"), offloaded=(3, 3))),
        "kv-cache-on-cpu: 2 layers (0-1) -> offload_kqv=True",
    ),
    "a renderer on the CPU": (
        loaded(
            "using device Vulkan0 (llvmpipe (LLVM 17.0.6, 256 bits)) - 15900 MiB free",
            *placed("Vulkan0", "Vulkan0", "Vulkan0", offloaded=(3, 3)),
        ),
        "software-device: llvmpipe -> Vulkan",
    ),
    "all layers offloaded, but only memory of the host": (
        loaded(IN_USE, "load_tensors: offloaded 33/33 layers to GPU", BUFFER.replace("CUDA0", "  CPU")),
        "unknown: It is not known ... all memory with weights is the host's (9000.00 MiB) -> --json",
    ),
    "PTX of a newer toolkit": (
        facts(load=stopped("generate", "CUDA error: the provided PTX was compiled with an unsupported toolchain.")),
        "driver-too-old: PTX of a newer CUDA toolkit -> # driver (a newer version), then restart",
    ),
    "a container with a newer CUDA than its host": (
        facts(devices=(), error=804, container="/.dockerenv"),
        "driver-too-old: the container brings a newer CUDA -> driver (a newer version) on the host of the container",
    ),
    "a Jetson": (
        facts(STOCK_CPU, devices=(Device(0, "Orin", "8.7", 1),)),
        f"cpu-only-build: Orin -> CMAKE_ARGS=-DGGML_CUDA=on {PYTHON} -m pip install",
    ),
    "a GPU for which no toolkit compiles": (
        facts(STOCK_CPU, devices=(Device(0, "GTX 770", "3.0", 1),)),
        "cpu-only-build: GTX 770 -> no CUDA toolkit",
    ),
    "nothing explains it": (
        loaded(*ON_CPU, status_reason="the GPU was busy."),
        "unknown: on CPU ... the wheel says: the GPU was busy. -> --json",
    ),
    **{
        f"a simulated device, {name}": (seen, "simulated-device: a simulated device ... It is not a GPU")
        for name, seen in {
            "of the driver and in the log": facts(devices=(SIMULATED,), load=done(*ON_SIMULATED)),
            "in the log": loaded(*ON_SIMULATED),
            "of the driver": facts(devices=(SIMULATED,), load=done(*ON_GPU)),
            "in a log alone": log_alone(*ON_SIMULATED),
        }.items()
    },
    "a log: all on the GPU": (log_alone(*ON_GPU), "card-used: CUDA0 (NVIDIA GeForce RTX 4090)"),
    "a log: no layers": (log_alone(*NO_LAYERS), "no-layers-requested: none of the 3 layers -> n_gpu_layers=-1"),
    "a log: 20 of 33, without the names of layers": (
        log_alone(IN_USE, "llm_load_tensors: offloaded 20/33 layers to GPU"),
        "layers-left-on-cpu: 13 of 33 layers -> n_gpu_layers=-1",
    ),
    "a log: no memory": (log_alone(NO_MEMORY), "out-of-memory: memory of the GPU -> nvidia-smi"),
    "a log: no kernel": (
        log_alone("  Device 0: NVIDIA GeForce RTX 5090, compute capability 12.0, VMM: yes", *ON_GPU, NO_KERNEL),
        "card-not-covered: RTX 5090 (compute capability 12.0) -> --arch 120",
    ),
    **{
        f"a log: {soname} is missing": (log_alone(f"OSError: {no_library(soname).error}"), f"{code}: {soname} -> {fix}")
        for soname, code, fix in (
            ("libcudart.so.12", "cuda-library-missing", "nvidia-cuda-runtime-cu12"),
            ("libcuda.so.1", "driver-missing", "driver"),
            ("libgomp.so.1", "import-failed", "libgomp1"),
        )
    },
    "a log: a crash": (log_alone("Illegal instruction (core dumped)"), "crashed: CPU lacks -> GGML_NATIVE=off"),
    "a log: an old driver": (log_alone(INSUFFICIENT), "driver-too-old: too old for the CUDA -> driver"),
    "a log: no device": (
        log_alone(f"{NOT_INITIALIZED} no CUDA-capable device is detected", *ON_CPU),
        "card-hidden: CUDA_VISIBLE_DEVICES -> check_gpu.pyz",
    ),
    "a log: a broken driver": (
        log_alone(f"{NOT_INITIALIZED} unknown error", *ON_CPU),
        "driver-broken: unknown error -> nvidia-smi",
    ),
    **{
        f"a log: our wheel's own message, {said}": (
            log_alone(f"llama-cpp-python computes on the CPU although {said}. The driver is old.", *ON_CPU),
            "backend-not-loaded: The driver is old. -> check_gpu.pyz",
        )
        for said in ("this machine has an NVIDIA GPU", "an NVIDIA card is there")  # the second in earlier wheels
    },
    "a log: features without CUDA": (
        log_alone(*ON_CPU, "System Info: AVX = 1 | CPU : SSE3 = 1 | LLAMAFILE = 1"),
        "cpu-only-build: not built in or not loaded -> check_gpu.pyz",
    ),
    "a log: features with CUDA": (
        log_alone(*ON_CPU, "system_info: CUDA : ARCHS = 890 | CPU : SSE3 = 1 |"),
        "unknown: the log does not say why -> check_gpu.pyz",
    ),
    "a log: nothing about features": (log_alone(*ON_CPU), "unknown: the log does not say why -> check_gpu.pyz"),
    "a log: nothing": (log_alone("Hello", ""), "log-says-nothing: does not say where -> verbose=True"),
}


@pytest.mark.parametrize(("seen", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_the_first_cause_is_named_with_its_remedy(seen: Facts, expected: str) -> None:
    told, _, command = expected.partition(" -> ")
    code, _, sentence = told.partition(": ")
    diagnosis = diagnose(seen)
    assert diagnosis.code is Code(code), diagnosis
    assert all(part in diagnosis.sentence for part in sentence.split(" ... ")), diagnosis
    assert diagnosis.sentence.endswith(".")
    assert (re.search("GPU (is|was) used", diagnosis.sentence) is not None) is (diagnosis.code is Code.CARD_USED)
    assert (diagnosis.command is None) is (command == "")
    assert command in (diagnosis.command or "")
    assert diagnosis.well is (diagnosis.code in NOTHING_TO_FIX)


def test_every_diagnosis_has_a_situation() -> None:
    assert {re.split(": | ->", expected)[0] for _, expected in SITUATIONS.values()} == {code.value for code in Code}


def test_the_oldest_drivers_are_those_of_the_pipeline() -> None:
    assert len(coverage.OLDEST_DRIVER) == 3
    for major, version in coverage.OLDEST_DRIVER.items():
        assert archs.oldest_driver(f"{major}.9") == version
