"""What matters of the machine at hand: processor, C library, NVIDIA driver and cards. No host name, no path."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

from build_config.model import Driver, GpuDevice, Machine

MEMORY_PER_JOB = 1_000_000_000
"""Bytes to allow for a compiler: the hungriest CUDA files take 0.7 GB (``docs/measurements/main-job.md``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaState:
    """What the driver says. ``problem`` is why it could not be asked although something of it is there."""

    driver: Driver | None = None
    gpus: tuple[GpuDevice, ...] = ()
    problem: str | None = None


def describe() -> Machine:
    """The machine for a record. Never raises because of a driver that is missing or broken."""
    state = nvidia()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        glibc=glibc_version(),
        driver=state.driver,
        gpus=state.gpus,
    )


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


def card_memory_used() -> int | None:
    """Bytes in use on all cards, by whatever process; ``None`` where the driver cannot be asked."""
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
    """The processor's own name, or the architecture where the system does not tell."""
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
    """``2.36``; empty where the C library is another one."""
    try:
        # Asks the library that runs. platform.libc_ver would search the text of the Python executable instead.
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError, OSError):
        name, version = platform.libc_ver()
    return version if name == "glibc" else ""


def cuda_release(number: int) -> str:
    """CUDA's own number for a version, as users write it: ``13000`` -> ``13.0``."""
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
        except pynvml.NVMLError as error:  # one card that fell off the bus must not hide the others
            problems.append(f"card {index}: {_reason(error)}")
    return NvidiaState(driver=driver, gpus=tuple(found), problem="; ".join(problems) or None)


def _device(index: int) -> GpuDevice:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return GpuDevice(
        index=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        capability=f"{major}.{minor}",
        memory=_memory(handle),
    )


def _memory(handle: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:  # cards that share the machine's memory (DGX Spark) have none of their own
        return 0


def _reason(error: pynvml.NVMLError) -> str:
    if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the driver's library and its kernel module have different versions (updated without a restart)"
    return str(error)
