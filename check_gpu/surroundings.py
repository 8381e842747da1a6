"""Examines the machine: its system, WSL, container, and whether it has a GPU on the bus at all."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any, Mapping

from check_gpu.facts import Machine

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LLAMA_CPP_LIB_PATH",
    "CUDA_PATH",
)
"""The environment variables that decide which GPU or library is found."""

WSL_LIBRARIES = "usr/lib/wsl/lib"

_NVIDIA = "0x10de"
_DISPLAY = "0x03"  # the PCI class of display controllers, with a monitor or without one
_CONTAINER_FILES = (".dockerenv", "run/.containerenv")
_CONTAINER_GROUP = re.compile(r"/(docker|containerd|kubepods|lxc|libpod)\b")


def look(environment: Mapping[str, str], *, root: Path = Path("/"), system: str = sys.platform) -> Machine:
    """Examine this machine, whose files are below ``root``. A missing file never raises an error."""
    wsl = system == "linux" and "microsoft" in _text(root / "proc/version").lower()
    return Machine(
        system=system,
        distribution=_distribution(root),
        wsl=wsl,
        wsl_driver=wsl and (root / WSL_LIBRARIES / "libcuda.so.1").exists(),
        container=_container(root) if system == "linux" else None,
        card_on_bus=_gpu_on_bus(root, system, wsl=wsl),
        variables={name: environment[name] for name in VARIABLES if name in environment},
    )


def _distribution(root: Path) -> str:
    match = re.search(r'^ID="?([\w.-]+)', _text(root / "etc/os-release"), re.MULTILINE)
    return match[1] if match else ""


def _container(root: Path) -> str | None:
    for name in _CONTAINER_FILES:
        if (root / name).exists():
            return f"/{name}"
    match = _CONTAINER_GROUP.search(_text(root / "proc/1/cgroup"))
    return match[1] if match else None


def _gpu_on_bus(root: Path, system: str, *, wsl: bool) -> bool | None:
    if wsl:  # its bus shows no GPUs; this device represents them, NVIDIA's or not
        return None if (root / "dev/dxg").exists() else False
    if system == "win32":
        return _gpu_in_registry()
    if system == "darwin":
        return False
    bus = root / "sys/bus/pci/devices"
    if not bus.is_dir():
        return None
    devices = [*bus.iterdir()]
    if not devices:  # a sandbox that hides the bus
        return None
    return any(
        _text(device / "vendor").strip() == _NVIDIA and _text(device / "class").startswith(_DISPLAY)
        for device in devices
    )


def _gpu_in_registry() -> bool | None:
    """Whether Windows has seen an NVIDIA device on the bus; ``None`` if its registry cannot be read."""
    try:
        winreg: Any = importlib.import_module("winreg")  # exists only on Windows
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Enum\PCI") as bus:
            devices = (winreg.EnumKey(bus, index) for index in range(winreg.QueryInfoKey(bus)[0]))
            return any(name.startswith("VEN_10DE") for name in devices)
    except (ImportError, OSError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
