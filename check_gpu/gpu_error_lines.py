"""The lines of a GPU, a driver or a library of the GPU that failed, and what each error means."""

from __future__ import annotations

import re

from check_gpu.lines import CUDA_2023, line

LINES = (
    line(
        "gpu_error",
        "0.2.56 to 0.3.36",
        "CUDA error: |ROCm error: |MUSA error: |HIP error: ",
        r"\b(?:CUDA|ROCm|MUSA|HIP) error: (?P<said>.+)",
    ),
    line(
        "gpu_error",
        CUDA_2023,
        "CUDA error |hipBLAS error |cuBLAS error ",
        r"\b(?:CUDA|cuBLAS|hipBLAS) error (?P<number>\d+) at [^ ]+:\d+(?:: (?P<said>.+))?",
    ),
    line(
        "gpu_error",
        "PyTorch, CuPy and others in the same process",
        "CUBLAS_STATUS_",
        r"(?P<said>CUBLAS_STATUS_(?:ALLOC_FAILED|NOT_INITIALIZED|ARCH_MISMATCH|EXECUTION_FAILED))",
    ),
    line(
        "gpu_error",
        "CUDA's and ROCm's own texts, whatever prints them",
        "driver version is insufficient|unsupported toolchain|forward compatibility was|-capable device",
        r"(?P<said>CUDA driver version is insufficient for CUDA runtime version|forward compatibility was attempted.*"
        r"|(?:the )?provided PTX was compiled with an unsupported toolchain"
        r"|no (?:CUDA|ROCm)-capable device is detected)",
    ),
    line(
        "out_of_memory",
        "0.2.56 to 0.3.36",
        "Malloc failed: out of memory|ErrorOutOfDeviceMemory|Device memory allocation of size",
        r"(?:cuda|hip)Malloc failed: out of memory|ErrorOutOfDeviceMemory|Device memory allocation of size \d+ failed",
    ),
    line(
        "out_of_memory",
        "0.2.75 to 0.3.36",
        "failed to allocate|unable to allocate",
        r"(?:failed|unable) to allocate (?:CUDA|ROCm|Vulkan|SYCL)\d+ buffer",
    ),
    line(
        "no_kernel",
        "0.2.56 to 0.3.36",
        "device code compatible|compiled with any CUDA arch",
        r"has no device code compatible with (?P<kind>CUDA|HIP) arch (?P<arch>\d+)"
        r"|not compiled with any CUDA arch <= (?P<at_most>\d+)",
    ),
    line(
        "no_kernel",
        "0.2.56 to 0.3.36",
        "kernel image|invalid device function",
        r"no kernel image is available|device kernel image is invalid|\binvalid device function",
    ),
    line("out_of_memory", "Metal", "CallbackErrorOutOfMemory", r"kIOGPUCommandBufferCallbackErrorOutOfMemory"),
    line("no_kernel", "ROCm", "hipErrorNoBinaryForGpu", r"hipErrorNoBinaryForGpu"),
    line(
        "no_kernel",
        "rocBLAS",
        "TensileLibrary",
        r"rocBLAS error: Cannot read \S*TensileLibrary\S* (?:for GPU arch|.*Illegal seek for GPU arch) ?: ?\w+",
    ),
    line(
        "out_of_memory",
        "PyTorch, CuPy and others in the same process, and SYCL",
        "OutOfMemoryError|CUDA out of memory|HIP out of memory|XPU out of memory|OUT_OF_DEVICE_MEMORY|UT_OF_MEMORY"
        "|ErrorMemoryAllocation|aclrtMalloc failed",
        r"\b(?:torch|cupy)\S*\.OutOfMemoryError|\b(?:CUDA|HIP|XPU) out of memory\b|_OUT_OF_DEVICE_MEMORY"
        r"|\bCUDA_ERROR_OUT_OF_MEMORY|\b(?:cuda|hip)ErrorMemoryAllocation|aclrtMalloc failed",
    ),
    line(
        "gpu_error",
        "the names of CUDA's and ROCm's errors, whatever prints them",
        "CUDA_ERROR_|cudaError|hipError",
        r"(?P<said>\b(?:CUDA_ERROR_(?!OUT_OF_MEMORY|NO_DEVICE)[A-Z_]{4,}"
        r"|(?:cuda|hip)Error(?:Illegal|Launch|Hardware|Unknown|ECC|Assert|Misaligned)\w+))",
    ),
    line(
        "gpu_error",
        "0.3.2 to 0.3.36: SYCL, CANN, OpenCL and Metal",
        "SYCL error: |Exception caught at file:|CANN error: |ggml_opencl: |command buffer|in error state from",
        r"(?P<said>SYCL error: .+|.{0,200}Exception caught at file:.+|CANN error: .+|ggml_opencl: \S+ error -?\d+ at .+"
        r"|command buffer \d+ failed with status \d+|backend is in error state from a previous .+)",
    ),
    line(
        "gpu_failed",
        "Vulkan, ROCm, Metal, Mesa, Windows, and Linux' drivers of GPUs of AMD and Intel",
        "ErrorDeviceLost|DeviceLostError|Memory access fault by GPU|HSA_STATUS_ERROR|ring |amdgpu|GPU HANG|GPU hung"
        "|GPU Hang|nvlddmkm|amdkmdag|VIDEO_TDR|DEVICE_LOST|CallbackError|engine reset|evice lost",
        r"(?P<said>(?:vk::)?\S{0,60}(?:ErrorDeviceLost|DeviceLostError)|Memory access fault by GPU.*"
        r"|HSA_STATUS_ERROR\w*|\bring \S+ timeout\b.*|amdgpu_job_timedout.*|amdgpu: GPU (?:reset|recovery)\b.*"
        r"|amdgpu\b.{0,80}(?:page fault|VRAM is lost|context is lost|CS has been rejected).*"
        r"|\bGPU (?:HANG|[Hh]ang|hung)\b.*|\b(?:nvlddmkm|amdkmdag)\b.{0,40}stopped responding.*|VIDEO_TDR\w*"
        r"|\w*_DEVICE_LOST\b|kIOGPUCommandBufferCallbackError(?!OutOfMemory)\w+|\bengine reset\b.*"
        r"|\b[Dd]evice lost\b.*)",
    ),
    line(
        "gpu_lost",
        "NVIDIA's kernel module",
        "Xid|API mismatch|fallen off the bus|version mismatch|GPU is lost",
        r"(?P<said>NVRM: Xid .+|NVRM: API mismatch: .+|GPU .{0,100}\bhas fallen off the bus"
        r"|GPU has fallen off the bus|GPU is lost"
        r"|Failed to initialize NVML: Driver/library version mismatch)",
    ),
)

ERRORS = (
    ("out_of_memory", re.compile(r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|memory allocation failed")),
    ("no_kernel", re.compile(r"no kernel image|kernel image is invalid|invalid device function|ARCH_MISMATCH")),
    ("ptx_too_new", re.compile(r"provided PTX was compiled with an unsupported toolchain|unsupported PTX version")),
    ("forward_compatibility", re.compile(r"forward compatibility was attempted")),
    ("driver_too_old", re.compile(r"driver version is insufficient")),
    ("no_device", re.compile(r"no (?:CUDA|ROCm)-capable device")),
)
"""The meanings of CUDA's and ROCm's own texts, whatever printed them. Any other is an error of its own."""

NUMBERS = {2: "out_of_memory", 35: "driver_too_old", 98: "no_kernel", 100: "no_device", 200: "no_kernel"}
NUMBERS.update({209: "no_kernel", 222: "ptx_too_new", 804: "forward_compatibility"})
"""The meanings of the numbers of ``cudaError_t``, as the logs of 2023 print them."""

_CUBLAS_ALLOCATION_FAILED = 3


def meaning(found: re.Match[str], line: str) -> str:
    """Return what an error of the GPU means: a name of ``ERRORS``, or ``gpu_error`` for any other."""
    parts = found.groupdict()
    text = parts.get("said") or ""
    for name, pattern in ERRORS:
        if pattern.search(text):
            return name
    number = int(parts.get("number") or 0)
    if "BLAS error" in line:
        return "out_of_memory" if number == _CUBLAS_ALLOCATION_FAILED else "gpu_error"
    return NUMBERS.get(number, "gpu_error")
