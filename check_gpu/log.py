"""Reads the signs that decide a diagnosis from llama.cpp's log, including the traces of a failed import or a crash."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable

from check_gpu import placement
from check_gpu.placement import Placements

_IN_USE = re.compile(r"using device (\w+) \((.+?)\)(?: \(|\s+-)")
_FOUND = re.compile(r"\bDevice (\d+): (.+?), compute capability (\d+\.\d+)")
_INIT_FAILED = re.compile(r"failed to initialize CUDA: (.+)")
_SYSTEM_INFO = re.compile(r"\bSystem Info:|\bsystem_info:|\bCPU : ", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"cudaMalloc failed: out of memory|CUDA error: out of memory|ErrorOutOfDeviceMemory")
_NO_KERNEL = re.compile(
    r"no kernel image is available|no device code compatible with CUDA arch|device kernel image is invalid"
)
_CUDA_ERROR = re.compile(r"CUDA error: (.+)")
_MISSING_LIBRARY = re.compile(r"([\w.+-]+\.so[\w.]*): cannot open shared object file")
_ILLEGAL_INSTRUCTION = re.compile(r"\bIllegal instruction\b|SIGILL", re.IGNORECASE)
_WHEEL_REASON = re.compile(
    r"computes on the CPU although (?:this machine has an NVIDIA GPU|an NVIDIA card is there)\. (.+)"
)  # the second in wheels before December 2026
_DRIVER_TOO_OLD = re.compile(r"driver version is insufficient for CUDA runtime version")


@dataclass(frozen=True)
class FoundDevice:
    """A device that the CUDA backend listed. ``capability`` is like ``8.9``."""

    name: str
    capability: str


@dataclass(frozen=True)
class Signs:
    """The contents of a log; each field is ``None``, ``False`` or empty if the log does not mention it.

    ``in_use`` pairs ggml's name and the GPU's name of each device of the model, ``found`` lists the devices that the
    backend found at its start, ``cuda_built_in``: whether the features in the log name CUDA. ``init_error`` is why CUDA
    did not start, ``cuda_error`` its later failure. ``wheel_reason`` is the warning of a wheel of this project.
    """

    placements: Placements = Placements()  # noqa: RUF009  # frozen
    in_use: tuple[tuple[str, str], ...] = ()
    found: tuple[FoundDevice, ...] = ()
    cuda_built_in: bool | None = None
    init_error: str | None = None
    cuda_error: str | None = None
    missing_library: str | None = None
    wheel_reason: str | None = None
    out_of_memory: bool = False
    no_kernel: bool = False
    driver_too_old: bool = False
    illegal_instruction: bool = False

    @property
    def device_names(self) -> tuple[str, ...]:
        """The names of the GPUs, in use or only listed."""
        return tuple(dict.fromkeys([*(name for _, name in self.in_use), *(device.name for device in self.found)]))


def read(lines: Iterable[str]) -> Signs:
    """Read the lines of a log: from llama.cpp, from a Python that failed to import it, or from both."""
    kept = list(lines)
    text = "\n".join(kept)
    info = [line for line in kept if _SYSTEM_INFO.search(line)]
    return Signs(
        placements=placement.parse(kept),
        in_use=tuple(dict.fromkeys((match[1], match[2]) for match in _IN_USE.finditer(text))),
        found=tuple(dict.fromkeys(FoundDevice(match[2], match[3]) for match in _FOUND.finditer(text))),
        cuda_built_in=any(re.search(r"\bCUDA\b", line) for line in info) if info else None,
        init_error=_first(_INIT_FAILED, text),
        cuda_error=_first(_CUDA_ERROR, text),
        missing_library=_first(_MISSING_LIBRARY, text),
        wheel_reason=_first(_WHEEL_REASON, text),
        out_of_memory=_OUT_OF_MEMORY.search(text) is not None,
        no_kernel=_NO_KERNEL.search(text) is not None,
        driver_too_old=_DRIVER_TOO_OLD.search(text) is not None,
        illegal_instruction=_ILLEGAL_INSTRUCTION.search(text) is not None,
    )


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1].strip() if match else None
