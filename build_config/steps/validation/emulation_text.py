"""What an emulation says: tables for the screen, and a file with the coverage of every kernel."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from build_config.reports import EmulatedCheck, EmulationReport
    from build_config.system.console import Console
    from build_config.testbed.emulated_device import KernelUse

HEADER = ("model", "weights", "prompt", "NMSE", "allowed", "seconds", "")
_MANGLED = re.compile(r"_Z(?:L|N)?(\d+)")


def show(report: EmulationReport, covered: str, file: Path, console: Console) -> None:
    """Print the checks and the counts; write the coverage into ``file``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(covered, encoding="utf-8")
    console.table("", tuple(rows(report)), header=HEADER)
    for name, value in counts(report):
        console.note(f"{name}: {value}")
    console.note(f"coverage of each kernel: {file}")
    for reason in report.wrong():
        console.error(reason)
    for reason in report.unknown():  # the caller decides what that means
        console.warn(reason)


def rows(report: EmulationReport) -> Iterator[tuple[str, ...]]:
    """One line for each check."""
    for one in report.checks:
        check = one.check
        value = "-" if check.measured is None else f"{check.measured:.2g}"
        said = "passed" if check.passed else f"FAILED: {check.reason}"
        yield (one.model, one.kind, one.prompt, value, f"{check.bound:.0e}", f"{one.seconds:.1f}", said)


def line(one: EmulatedCheck) -> str:
    """A check as soon as it is done."""
    value = "no value" if one.check.measured is None else f"{one.check.measured:.2g} {one.check.unit}"
    said = "passed" if one.check.passed else "FAILED"
    return f"{one.model} {one.kind}, {one.prompt}: {value}, {said}, {one.seconds:.0f} s"


def counts(report: EmulationReport) -> Iterator[tuple[str, str]]:
    """What was executed, in numbers."""
    kernels = report.kernels
    identical = sum(one.identical for one in kernels)
    executed, blocks = sum(one.executed for one in kernels), sum(one.basic_blocks for one in kernels)
    launches = sum(one.launches for one in kernels)
    yield "kernels executed", f"{len(kernels)} of {report.kernels_in_shard} for {report.arch}, in {launches} launches"
    yield "identical", f"ptxas turns the PTX of {identical} of them into the wheel's cubin, byte for byte"
    yield "basic blocks", f"{executed} of {blocks} of these kernels were executed"
    yield "CUDA graphs", f"{report.graph_launches} launches"
    yield "cuBLAS", f"{report.cublas_calls} calls, computed by plain loops instead of NVIDIA's library"
    yield "refused", ", ".join(report.refused) or "none"
    yield "time and memory", f"{report.seconds:.0f} s, {report.memory / 1e6:.0f} MB"


def coverage(report: EmulationReport, uses: tuple[KernelUse, ...], names: Iterable[str]) -> str:
    """The kernels that were executed with the lines of PTX that were not, then those that no check reached.

    ``names`` are all kernels of the shard.
    """
    return "\n".join(_coverage(report, uses, names)) + "\n"


def _coverage(report: EmulationReport, uses: tuple[KernelUse, ...], names: Iterable[str]) -> Iterator[str]:
    sources = {one.name: one for one in report.kernels}
    for use in uses:
        kernel = sources.get(use.name)
        if kernel is not None:
            yield f"{kernel.executed}/{kernel.basic_blocks} {kernel.source} {use.name} ({use.launches} launches)"
            if use.missed:
                yield f"    not executed, from line: {', '.join(map(str, use.missed))}"
    reached = {use.name for use in uses}
    never = Counter(family(name) for name in names if name not in reached)
    yield ""
    yield f"never launched: {sum(never.values())} kernels"
    for name, number in sorted(never.items()):
        yield f"    {name}: {number}"


def family(mangled: str) -> str:
    """The name of a kernel without its template arguments: ``rms_norm_f32``."""
    match = _MANGLED.match(mangled)
    return mangled[match.end() :][: int(match[1])] if match else mangled
