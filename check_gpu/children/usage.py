"""Asks NVML which processes hold memory on each GPU. The driver may hang, so this is a process of its own.

python usage.py RESULT
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

MANAGEMENT = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"

_TOO_SMALL = 7  # NVML_ERROR_INSUFFICIENT_SIZE
_NOT_AVAILABLE = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE
_ROOM = 8
"""Processes that may start between counting and listing."""
_ATTEMPTS = 5


class _Process(ctypes.Structure):
    """nvmlProcessInfo_v2_t, which the third version of the functions fills, too."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def main(result_file: str) -> None:
    """Write an object with ``gpus``, or with the ``problem`` that prevents the question."""
    Path(result_file).write_text(json.dumps(_ask()) + "\n", encoding="utf-8")


def _ask() -> dict[str, Any]:
    try:
        api = ctypes.CDLL(MANAGEMENT)
        if error := api.nvmlInit_v2():
            return {"problem": f"NVML error {error}"}
        count = ctypes.c_uint()
        if error := api.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return {"problem": f"NVML error {error}"}
        gpus = [_gpu(api, index) for index in range(count.value)]
        api.nvmlShutdown()
    except (OSError, AttributeError) as missing:
        return {"problem": str(missing)}
    return {"gpus": gpus}


def _gpu(api: ctypes.CDLL, index: int) -> dict[str, Any]:
    """Return its name and the memory of each process; without ``processes`` it does not tell."""
    handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(96)
    if error := api.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
        return {"index": index, "name": f"GPU {index}", "problem": f"NVML error {error}"}
    api.nvmlDeviceGetName(handle, name, len(name))
    found: dict[str, Any] = {"index": index, "name": name.value.decode("utf-8", "replace")}
    processes: dict[int, Any] = {}
    for kind in ("Compute", "Graphics"):  # a process that does both is in both lists, with the same memory
        error, listed = _processes(api, kind, handle)
        if error:
            return {**found, "problem": f"NVML error {error}"}
        processes.update(listed)
    return {**found, "processes": [{"pid": pid, "memory": memory} for pid, memory in processes.items()]}


def _processes(api: ctypes.CDLL, kind: str, handle: ctypes.c_void_p) -> tuple[int, dict[int, int | None]]:
    """Return an error, and by process the bytes; ``None`` if the driver does not tell them."""
    ask = getattr(api, f"nvmlDeviceGet{kind}RunningProcesses_v3", None) or getattr(
        api, f"nvmlDeviceGet{kind}RunningProcesses_v2"
    )
    size, error = 0, _TOO_SMALL
    for _ in range(_ATTEMPTS):
        count, listed = ctypes.c_uint(size), (_Process * max(size, 1))()
        error = ask(handle, ctypes.byref(count), listed if size else None)
        if error == 0:
            known = listed[: min(count.value, size)]
            return 0, {each.pid: None if each.memory == _NOT_AVAILABLE else each.memory for each in known}
        if error != _TOO_SMALL:
            break
        size = count.value + _ROOM
    return error, {}


if __name__ == "__main__":
    main(*sys.argv[1:])
