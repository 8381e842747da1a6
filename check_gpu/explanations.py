"""The meaning of each diagnosis and its fix, in general. ``docs/check_gpu.md`` is compared with this table."""

from __future__ import annotations

from dataclasses import dataclass

from check_gpu.result import Code


@dataclass(frozen=True)
class Explanation:
    """``searched`` are the sentences that people search for if this is the cause, as programs print them."""

    meaning: str
    fix: str
    searched: tuple[str, ...] = ()


EXPLANATIONS = {
    Code.CARD_USED: Explanation(
        meaning="all layers and their KV cache or state, if they have one, are on the GPU", fix="nothing to fix"
    ),
    Code.SIMULATED: Explanation(
        meaning="they are on a simulated GPU, which tests without a GPU use",
        fix="nothing to fix; this says nothing about a real GPU",
    ),
    Code.NO_CARD: Explanation(
        meaning="the machine has no NVIDIA GPU, and the model runs on the CPU", fix="nothing to fix"
    ),
    Code.NOT_INSTALLED: Explanation(
        meaning="this interpreter has no package `llama_cpp`",
        fix="install it; the usual cause is another interpreter: `--python`",
    ),
    Code.PYTHON_FAILED: Explanation(
        meaning="the interpreter could not be started, or is older than 3.8", fix="`--python` with another one"
    ),
    Code.CPU_ONLY_BUILD: Explanation(
        meaning=(
            "none of its libraries has CUDA code: what `pip install llama-cpp-python` compiles without further options"
        ),
        fix="`nox -s build_cuda_wheel`, then install the wheel from `wheelhouse`",
        searched=("llama-cpp-python not using GPU", "BLAS = 0"),
    ),
    Code.CONTAINER_WITHOUT_DRIVER: Explanation(
        meaning="the container was started without the driver of its host",
        fix="`docker run --gpus all`, or `podman run --device nvidia.com/gpu=all`",
    ),
    Code.DRIVER_MISSING: Explanation(
        meaning="`libcuda.so.1` (`nvcuda.dll`) cannot be loaded",
        fix=(
            "install the driver: in Windows for WSL, on the host for a container; on a machine without a GPU, "
            "install a CPU build"
        ),
    ),
    Code.DRIVER_BROKEN: Explanation(
        meaning="the driver crashes, hangs, returns an error, or does not see the GPU of the machine",
        fix="`nvidia-smi`; restart after an update; install the driver again",
    ),
    Code.DRIVER_TOO_OLD: Explanation(
        meaning=(
            "the build needs a newer CUDA than the driver supports, or has PTX of a newer one; or the "
            "container brings a newer CUDA than the driver of its host supports"
        ),
        fix="update the driver: 580 for CUDA 13, 525 for CUDA 12, 450 for CUDA 11",
        searched=("CUDA driver version is insufficient for CUDA runtime version",),
    ),
    Code.CARD_HIDDEN: Explanation(
        meaning="`CUDA_VISIBLE_DEVICES`, or `NVIDIA_VISIBLE_DEVICES` of a container, hides every GPU",
        fix="`unset CUDA_VISIBLE_DEVICES`; start the container with `--gpus all`",
        searched=("no CUDA-capable device is detected",),
    ),
    Code.CUDA_LIBRARY_MISSING: Explanation(
        meaning="the loader does not find libcudart or libcublas",
        fix=("install NVIDIA's wheels; for a stock build also set `LD_LIBRARY_PATH`, the command names the folder"),
        searched=("libcudart.so.12: cannot open shared object file",),
    ),
    Code.CARD_NOT_COVERED: Explanation(
        meaning="the build has no machine code and no PTX that the GPU can run",
        fix=("build for the GPU: `nox -s build_cuda_wheel -- --arch 120`; for a GPU before Turing with `--cuda 12.9`"),
        searched=("no kernel image is available for execution on the device",),
    ),
    Code.IMPORT_FAILED: Explanation(
        meaning="`import llama_cpp` raises another error, which is shown",
        fix=(
            "depends on the error: a system library, a missing module, a build for a newer system, or a new "
            "installation"
        ),
        searched=("Could not find module ... (or one of its dependencies)",),
    ),
    Code.CRASHED: Explanation(
        meaning="a signal ended the process, such as an illegal instruction, or the GPU failed",
        fix=(
            "for an illegal instruction, a build that does not use the instructions of its build machine: "
            "ours, or `CMAKE_ARGS=-DGGML_NATIVE=off`; for an error of CUDA, the kernel's log shows whether "
            "the GPU failed"
        ),
        searched=("Illegal instruction (core dumped)",),
    ),
    Code.TIMED_OUT: Explanation(
        meaning="no answer in time", fix="`--timeout`; `nvidia-smi` shows whether the GPU hangs"
    ),
    Code.OUT_OF_MEMORY: Explanation(
        meaning="the memory of the GPU is too small for the model and its context",
        fix="fewer layers, a smaller `n_ctx`, a smaller quantisation",
        searched=("cudaMalloc failed: out of memory",),
    ),
    Code.MODEL_NOT_LOADED: Explanation(
        meaning="llama.cpp cannot read the file or cannot create a context for it",
        fix="`--model` with another one, or a newer llama-cpp-python",
    ),
    Code.BACKEND_NOT_LOADED: Explanation(
        meaning=(
            "driver, GPU, libraries and code are there, but the CUDA backend does not load; the loader's "
            "message is shown"
        ),
        fix="install it again",
    ),
    Code.NO_LAYERS_REQUESTED: Explanation(
        meaning=(
            "the GPU could be used, but no layer was requested there: `n_gpu_layers` is 0, the default of "
            "llama-cpp-python"
        ),
        fix="`Llama(..., n_gpu_layers=-1)`",
        searched=("offloaded 0/33 layers to GPU",),
    ),
    Code.LAYERS_LEFT_ON_CPU: Explanation(
        meaning=(
            "some layers are on the GPU; others, some of their tensors or the part for images (CLIP) are not; these "
            "are named"
        ),
        fix="`n_gpu_layers=-1`; if memory does not allow it, a smaller quantisation or `n_ctx`",
    ),
    Code.KV_CACHE_ON_CPU: Explanation(
        meaning="all weights are on the GPU, but the KV cache or the recurrent state is not",
        fix="`Llama(..., offload_kqv=True)`",
    ),
    Code.SOFTWARE_DEVICE: Explanation(
        meaning="the device of the layers is a renderer that computes on the CPU, such as llvmpipe",
        fix="install the GPU's driver for Vulkan or OpenCL, or a build with CUDA",
    ),
    Code.LOG_SAYS_NOTHING: Explanation(
        meaning="the log shows no layer, no memory and no error", fix="log with `verbose=True`"
    ),
    Code.UNKNOWN: Explanation(
        meaning="none of the above explains it, or the log does not show the weights and the cache on a GPU",
        fix="report it with the output of `--json`; for a log, run the check where it was written",
    ),
}
