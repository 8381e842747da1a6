"""Asks the NVIDIA driver.

The driver can hang, or take the process down, so check_gpu runs this in a process of its own: python driver.py RESULT.
The wheel has a copy of this module for its loader.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path
from typing import Any

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MANAGEMENT = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
HINT = ". Try using the full path"
"""On Windows ctypes ends its errors with a hint for who wrote the program."""
KERNEL_MODULE = Path("/proc/driver/nvidia/version")

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_...


def main(result_file: str) -> None:
    """Write the answers of CUDA, then those of NVML: the second may fail without harm to the first."""
    for ask in (ask_cuda, _management):
        with Path(result_file).open("a", encoding="utf-8") as file:
            file.write(json.dumps(ask()) + "\n")


def ask_cuda() -> dict[str, Any]:
    """The newest CUDA that the driver runs, CUDA's error code and the visible GPUs; else ``problem`` alone."""
    try:
        api = ctypes.CDLL(DRIVER)
        version, count = ctypes.c_int(), ctypes.c_int()
        api.cuDriverGetVersion(ctypes.byref(version))
        error = api.cuInit(0) or api.cuDeviceGetCount(ctypes.byref(count))
        devices = [_device(api, index) for index in range(count.value)]
    except (OSError, AttributeError) as missing:
        return {"problem": str(missing).partition(HINT)[0]}
    return {
        "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
        "error": error,
        "devices": devices,
        "version": _kernel_module(),
    }


def _device(api: ctypes.CDLL, index: int) -> dict[str, Any]:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory = ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    api.cuDeviceGet(ctypes.byref(device), index)
    api.cuDeviceGetName(name, len(name), device)
    api.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    api.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    api.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return {
        "index": index,
        "name": name.value.decode("utf-8", "replace"),
        "capability": f"{major.value}.{minor.value}",
        "memory": memory.value,
    }


def _kernel_module() -> str | None:
    """Read the driver's version from its kernel module, for machines without NVML."""
    try:
        match = re.search(r"Kernel Module\D+?(\d+\.[\d.]+)", KERNEL_MODULE.read_text(encoding="utf-8"))
    except OSError:
        return None
    return match[1] if match else None


def _management() -> dict[str, Any]:
    """Ask NVML, which lists all GPUs whatever ``CUDA_VISIBLE_DEVICES`` hides."""
    try:
        api = ctypes.CDLL(MANAGEMENT)
        if api.nvmlInit_v2() != 0:
            return {}
        version, count = ctypes.create_string_buffer(96), ctypes.c_uint()
        found: dict[str, Any] = {}
        if api.nvmlSystemGetDriverVersion(version, len(version)) == 0:
            found["version"] = version.value.decode()
        if api.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
            found["cards"] = [_gpu_name(api, index) for index in range(count.value)]
        api.nvmlShutdown()
    except (OSError, AttributeError):
        return {}
    return found


def _gpu_name(api: ctypes.CDLL, index: int) -> str:
    handle = ctypes.c_void_p()
    name = ctypes.create_string_buffer(96)
    if api.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
        return "a GPU that does not answer"
    api.nvmlDeviceGetName(handle, name, len(name))
    return name.value.decode("utf-8", "replace")


if __name__ == "__main__":
    main(*sys.argv[1:])
