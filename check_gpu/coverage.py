"""Which GPU runs which code, and which driver which CUDA: NVIDIA's rules as pure functions."""

from __future__ import annotations

import math
import re
from typing import Iterable

LOCKED_CUDA = "13.0"
"""The release of the locked toolkit, which a build downloads; every other one has to be installed."""
COMPILES_FOR = {
    "13.0": (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121),
    "12.9": (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121),
    "12.8": (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 120),
    "12.4": (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90),
    "12.0": (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90),
    "11.8": (35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89),
}
"""By series of CUDA releases, the newest first: the compute capabilities (ten times major plus minor) that llama.cpp
can be compiled for. A series is named by its first release."""

OTHER_PROCESSORS = (32, 53, 62, 72, 87, 101, 110, 121)
"""The compute capabilities of GPUs that exist only in machines whose processor is not x86-64: Jetson and DGX Spark."""

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


def build_command(
    capabilities: Iterable[str],
    template: str = "nox -s build_cuda_wheel -- --arch {arch}",
    cuda: str = LOCKED_CUDA,
) -> tuple[str, list[int]]:
    """Return the command that builds one shard for GPUs of these capabilities, and those that it leaves out.

    ``template`` builds with the CUDA release ``cuda``. If that does not compile for all of them, another release does,
    or the one that compiles for most. Those left out are ten times major plus minor.
    """
    wanted = {int(capability.replace(".", "")) for capability in capabilities}
    release = _numbers(cuda)
    own = next((since for since in COMPILES_FOR if _numbers(since) <= release), LOCKED_CUDA)
    known = sorted(COMPILES_FOR, key=lambda since: since != own)
    best = max(known, key=lambda since: len(wanted.intersection(COMPILES_FOR[since])))  # the first of several
    if best != own:
        option = "" if best == LOCKED_CUDA else f"--cuda {best} "
        template = f"nox -s build_cuda_wheel -- {option}--arch {{arch}}"
    able = sorted(wanted.intersection(COMPILES_FOR[best])) or sorted(wanted)
    return template.format(arch="+".join(map(str, able))), sorted(wanted.difference(able))


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


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
