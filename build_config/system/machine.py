"""Describe this machine: processor, C library, NVIDIA driver and GPUs. No host name, no path."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pynvml

from build_config.model import Driver, GpuDevice, Machine

MEMORY_PER_JOB = 1_000_000_000
"""Bytes to allow for a compiler: the largest CUDA files need 0.7 GB (``docs/measurements/main-job.md``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaState:
    """The answers of the driver. ``problem`` says why it did not answer although parts of it exist."""

    driver: Driver | None = None
    gpus: tuple[GpuDevice, ...] = ()
    problem: str | None = None


def describe() -> Machine:
    """Describe the machine for a record. A missing or broken driver raises nothing."""
    state = nvidia()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        glibc=glibc_version(),
        driver=state.driver,
        gpus=state.gpus,
    )


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(psutil.Process().cpu_affinity())


def nvidia() -> NvidiaState:
    """Ask the driver through NVML. Never raises: a broken driver is an answer, with the reason in ``problem``."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = error.value in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return NvidiaState(problem=None if absent else _reason(error))
    try:
        return _ask()
    except pynvml.NVMLError as error:
        return NvidiaState(problem=_reason(error))
    finally:
        pynvml.nvmlShutdown()


def gpu_memory_used() -> int | None:
    """Bytes in use on all GPUs, by any process; ``None`` if the driver does not answer."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles) if handles else None
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def cpu_model() -> str:
    """The name of the processor, or the architecture if the system gives no name."""
    try:
        return parse_cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8")) or platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def parse_cpu_model(cpuinfo: str) -> str | None:
    """The first ``model name`` in the text of ``/proc/cpuinfo``."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return " ".join(value.split())
    return None


def glibc_version() -> str:
    """``2.36``; empty for another C library."""
    try:
        # Ask the library in use. platform.libc_ver would search the text of the Python executable instead.
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError, OSError):
        name, version = platform.libc_ver()
    return version if name == "glibc" else ""


def cuda_release(number: int) -> str:
    """Convert CUDA's number of a version to the usual form: ``13000`` -> ``13.0``."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _ask() -> NvidiaState:
    driver = Driver(
        version=str(pynvml.nvmlSystemGetDriverVersion()), cuda=cuda_release(pynvml.nvmlSystemGetCudaDriverVersion())
    )
    found = []
    problems = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            found.append(_device(index))
        except pynvml.NVMLError as error:  # one GPU that fell off the bus must not hide the others
            problems.append(f"GPU {index}: {_reason(error)}")
    return NvidiaState(driver=driver, gpus=tuple(found), problem="; ".join(problems) or None)


def _device(index: int) -> GpuDevice:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return GpuDevice(
        index=index, name=str(pynvml.nvmlDeviceGetName(handle)), capability=f"{major}.{minor}", memory=_memory(handle)
    )


def _memory(handle: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:  # GPUs that share the machine's memory (DGX Spark) have none of their own
        return 0


def _reason(error: pynvml.NVMLError) -> str:
    if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the driver's library and its kernel module have different versions (updated without a restart)"
    return str(error)
