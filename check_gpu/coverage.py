"""Which GPU runs which code, and which driver which CUDA: NVIDIA's rules as pure functions."""

from __future__ import annotations

import math
import re
from typing import Iterable

OLDEST_DRIVER = {11: "450", 12: "525", 13: "580"}
"""The oldest Linux driver that runs the machine code of a CUDA major version."""

_ARCH = re.compile(r"(\d+)([af]?)-(real|virtual)")
_VERSIONED = re.compile(r"libcu(?:dart|blas|blasLt)\.so\.(\d+)(?:\.\d+)*|cu(?:dart|blas)64_(\d{2})")


def runs_on(arch: str, capability: str) -> bool:
    """Whether code for ``89-real``, ``90a-real`` or ``90-virtual`` runs on a GPU of ``capability`` (``8.9``)."""
    low, high = span(arch)
    return low <= int(capability.replace(".", "")) < high


def span(arch: str) -> tuple[int, float]:
    """Return the range of compute capabilities that run code for an architecture: the first, and the first too new.

    Both are ten times major plus minor; the second is infinite for code that every later GPU runs. Machine code
    (``real``) runs from its own minor version on within its major version, PTX (``virtual``) on everything later. ``a``
    binds either to exactly this architecture, ``f`` to its major version
    (https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility). No GPU runs an unknown architecture.
    """
    match = _ARCH.fullmatch(arch)
    if match is None:
        return 0, 0
    number, suffix, kind = int(match[1]), match[2], match[3]
    if suffix == "a":
        return number, number + 1
    if kind == "virtual" and not suffix:
        return number, math.inf
    return number, (number // 10 + 1) * 10


def order(arch: str) -> tuple[int, str]:
    """Return a sort key: by number, machine code before PTX."""
    number = re.match(r"\d+", arch)
    return int(number[0]) if number else 0, arch


def cuda_major(sonames: Iterable[str]) -> str | None:
    """Return the CUDA major version in the name of the runtime or of cuBLAS; ``None`` if neither is needed."""
    for soname in sonames:
        if match := _VERSIONED.fullmatch(soname.replace(".dll", "")):
            return match[1] or match[2]
    return None
