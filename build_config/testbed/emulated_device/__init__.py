"""An emulated GPU: the doubles of the simulated one, with kernels that compute on the CPU what their PTX says.

``docs/emulation.md`` says how it works, what it proves and what not. It is never reported as a real GPU.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import StepResultError
from build_config.system import jsonio
from build_config.testbed import simulated_device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from build_config.testbed.simulated_device import SimulatedLibraries

HERE = Path(__file__).parent
REPLACED = {
    "memory.c": (HERE / "memory.c",),
    "kernels.c": (HERE / "kernels.c", HERE / "ptx_runtime.c", HERE / "blocks.c"),
    "simulated_compute.c": (HERE / "gemm.c",),
}
"""The files of the simulated GPU that have another one here: memory that kernels reach, kernels, cuBLAS's products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelUse:
    """What one process did with a kernel on devices that run code for ``code`` (89).

    ``blocks`` are those of its grids, ``seconds`` the time of its launches. ``executed`` counts for each basic block
    how often a thread ran it; ``lines`` are their first lines in the PTX file.
    """

    name: str
    code: int
    launches: int
    blocks: int
    seconds: float
    executed: tuple[int, ...]
    lines: tuple[int, ...]

    @property
    def missed(self) -> tuple[int, ...]:
        """The lines of the basic blocks that no thread ran."""
        return tuple(line for line, count in zip(self.lines, self.executed, strict=True) if not count)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    kernels: tuple[KernelUse, ...]
    memory: int


def build(
    folder: Path,
    *,
    include: Path,
    major: int,
    cc: str = "gcc",
    log: Path | None = None,
    libraries: tuple[str, ...] = simulated_device.LIBRARIES,
) -> SimulatedLibraries:
    """Compile the doubles of the emulated GPU. Parameters and errors are those of ``simulated_device.build``."""
    return simulated_device.build(
        folder, include=include, major=major, cc=cc, log=log, libraries=libraries, replaced=REPLACED
    )


def environment(server: Path, report: Path) -> dict[str, str]:
    """The variables that a process on the emulated GPU needs in addition to those of the simulated one."""
    return {"EMULATED_SERVER": str(server), "EMULATED_REPORT": str(report)}


def read_report(path: Path) -> tuple[KernelUse, ...]:
    """Read what a process executed; empty if it did not end by itself."""
    with contextlib.suppress(StepResultError):
        return jsonio.read(path, _Report).kernels
    return ()


def read_memory(path: Path) -> int:
    """The largest memory of that process in bytes; 0 if it did not end by itself."""
    with contextlib.suppress(StepResultError):
        return jsonio.read(path, _Report).memory
    return 0


def merged(uses: Iterable[KernelUse]) -> tuple[KernelUse, ...]:
    """The sum of several processes: one entry for each kernel, by the time that they took together."""
    groups: dict[tuple[int, str], list[KernelUse]] = defaultdict(list)
    for use in uses:
        groups[use.code, use.name].append(use)
    sums = (
        KernelUse(
            name=name,
            code=code,
            launches=sum(one.launches for one in group),
            blocks=sum(one.blocks for one in group),
            seconds=sum(one.seconds for one in group),
            executed=tuple(sum(counts) for counts in zip(*(one.executed for one in group), strict=True)),
            lines=group[0].lines,
        )
        for (code, name), group in groups.items()
    )
    return tuple(sorted(sums, key=lambda one: (-one.seconds, one.name)))
