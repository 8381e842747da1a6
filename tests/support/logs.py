"""Logs of llama.cpp, and what the check says about one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from check_gpu import log
from check_gpu.diagnosis import diagnose
from check_gpu.facts import Facts, Load, Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from check_gpu.result import Diagnosis


def judge(text: str, machine: Machine | None = None) -> Diagnosis:
    """The diagnosis of a log alone."""
    lines = tuple(text.splitlines())
    load = Load(n_gpu_layers=None, model="a.log", stage="log", log=lines, signs=log.read(lines))
    return diagnose(Facts(machine=machine or Machine(system="linux"), load=load))


def placed(*devices: str, cache: Sequence[str] = (), offloaded: tuple[int, int] | None = None) -> list[str]:
    """The lines of layers on these devices, the output last; their KV cache is there, too, or on those of ``cache``."""
    lines = [f"load_tensors: layer {n:3} assigned to device {device}, is_swa = 0" for n, device in enumerate(devices)]
    lines += [f"llama_kv_cache: layer {n:3}: dev = {device}" for n, device in enumerate(cache or devices[:-1])]
    if offloaded:
        lines.append(f"load_tensors: offloaded {offloaded[0]}/{offloaded[1]} layers to GPU")
    return lines
