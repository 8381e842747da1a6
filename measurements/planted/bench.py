"""Where faults are planted: a wheel on the emulated GPU, and the rows of what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import PipelineError, ValidationError
from build_config.steps.validation import emulation
from build_config.steps.validation.emulation import EmulatedMachine
from build_config.system import jsonio
from build_config.testbed import emulated_device, simulated_device
from build_config.testbed.emulated_device import ptx_module, server, translation
from build_config.testbed.emulated_device.kernels import Kernels
from build_config.testbed.simulated_device import SimulatedLibraries
from measurements.planted.faults import SHARD, Fault, OtherBuild

if TYPE_CHECKING:
    from build_config.reports import EmulatedCheck
    from build_config.steps.validation.emulation import Case, Emulated
    from build_config.testbed.emulated_device import KernelUse
    from build_config.testbed.simulated_device import SimulatedMachine

LAUNCH = Path(__file__).parent / "launch.c"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """A check without a fault: the kernels that it launches, and the seconds that they take."""

    name: str
    nmse: float
    seconds: float
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow:
    """What became of a fault. ``key`` is a digest of its definition, ``check`` the one that found it.

    ``checks`` are those that were computed with it.
    """

    key: str
    name: str
    where: str
    found: bool
    how: str
    check: str = ""
    checks: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The rows so far, of one wheel."""

    wheel_sha256: str
    checks: tuple[CheckRow, ...] = ()
    faults: tuple[FaultRow, ...] = ()


def name_of(case: Case) -> str:
    """The words for a check: its model, weights and prompt."""
    return f"{case.model} {case.kind}, {case.prompts[0].name}"


def key_of(fault: Fault | OtherBuild) -> str:
    """A digest of what a fault is: one that was changed is planted again."""
    return hashlib.sha256(repr(fault).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedLibraries(SimulatedLibraries):
    """The doubles of the emulated GPU, which change the launches that ``launch`` names and count them in ``report``."""

    launch: str = ""
    report: Path

    def environment(self, machine: SimulatedMachine, *, report: Path | None = None) -> dict[str, str]:
        """The variables of a process with this fault."""
        variables = SimulatedLibraries.environment(self, machine, report=report)
        return variables | {"PLANTED_LAUNCH": self.launch, "PLANTED_REPORT": str(self.report)}

    def changed(self) -> int:
        """How many launches of the last process were changed; 0 if it did not end by itself."""
        return int(self.report.read_text(encoding="ascii")) if self.report.is_file() else 0


def doubles(folder: Path, *, include: Path, major: int, cc: str) -> PlantedLibraries:
    """Compile the doubles of the emulated GPU with ``launch.c`` between the wheel and its kernels."""
    replaced = emulated_device.REPLACED | {"kernels.c": (LAUNCH, *emulated_device.REPLACED["kernels.c"][1:])}
    built = simulated_device.build(folder, include=include, major=major, cc=cc, replaced=replaced)
    return PlantedLibraries(files=built.files, major=built.major, report=folder / "planted-launches")


@dataclass(slots=True)
class Planted:
    """The kernels of a wheel with a fault in the PTX of those that it names; ``lines`` are its places by kernel."""

    kernels: Kernels
    fault: Fault
    lines: dict[str, int] = field(default_factory=dict)

    def library(self, name: str) -> Path:
        """The library of a kernel, with the fault if it is there."""
        if self.fault.edit is None or not name.startswith(self.fault.kernel):
            return self.kernels.library(name)
        ptx = self.kernels.ptx(self.kernels.number(name))
        text, self.lines[name] = self.fault.in_ptx(ptx.path.read_text(encoding="utf-8"), name)
        translated = translation.translate(ptx_module.read_module(text, ptx.source), name)
        return self.kernels.compile(translated.source, name)


@dataclass(slots=True, kw_only=True)
class Bench:
    """Computes checks with and without faults; ``output`` gets each row as soon as it is known."""

    machine: EmulatedMachine
    libraries: PlantedLibraries
    kernels: Kernels
    output: Path
    results: Results

    def check(self, case: Case) -> CheckRow:
        """A check without a fault. Raises ``ValidationError`` if it fails."""
        name = name_of(case)
        for row in self.results.checks:
            if row.name == name:
                return row
        one, seen = self._compute(case, self.kernels)
        if not one.check.passed:
            raise ValidationError(f"{name}, without a fault: {one.check.reason}")
        row = CheckRow(
            name=name,
            nmse=one.check.measured or 0.0,
            seconds=round(sum(use.seconds for use in seen.uses), 3),
            kernels=tuple(sorted(use.name for use in seen.uses if use.launches)),
        )
        self._keep(dataclasses.replace(self.results, checks=(*self.results.checks, row)))
        return row

    def plant(self, fault: Fault, cases: tuple[Case, ...]) -> FaultRow:
        """Compute the checks with a fault, in order, until one of them notices it."""
        start = time.monotonic()
        found, how, by = False, "no check launches the kernel", ""
        tried = 0
        for case in cases:
            tried += 1
            planted = Planted(self.kernels, fault)
            try:
                one, seen = self._compute(case, planted, fault.launch and f"{fault.kernel} {fault.launch}")
            except PipelineError as error:
                how = f"not planted: {error.message}"
                break
            found, by = not one.check.passed, name_of(case)
            if found:
                how = one.check.reason or ""
                break
            how = f"{one.check.measured:.2g} NMSE, allowed: {one.check.bound:.0e}; {self._place(planted, seen)}"
        row = FaultRow(
            key=key_of(fault),
            name=fault.name,
            where=fault.where,
            found=found,
            how=how,
            check=by,
            checks=tried,
            seconds=round(time.monotonic() - start, 1),
        )
        return self.add(row)

    def plant_cubin(self, other: OtherBuild) -> FaultRow:
        """Put the cubin of another build in the place of the wheel's: its PTX must not count as that of the wheel."""
        start = time.monotonic()
        number = self.kernels.files.sources.index(other.source)
        files = dataclasses.replace(self.kernels.files)  # with commands of its own
        command = files.commands[number]
        files.commands[number] = command | {"command": other.changed(command["command"])}
        cubins = list(self.kernels.code.cubins)
        right, cubins[number] = cubins[number], files.make(number).cubin
        code = dataclasses.replace(self.kernels.code, cubins=tuple(cubins))
        shard = dataclasses.replace(self.kernels, code=code, facts={}, _libraries={})
        name = next(name for name, place in code.kernels.items() if place == number)
        for kernels in (shard, self.kernels):
            with contextlib.suppress(PipelineError):  # a kernel that is not identical may be refused
                kernels.library(name)
        row = FaultRow(
            key=key_of(other),
            name=other.name,
            where=SHARD,
            found=self.kernels.facts[name].identical and not shard.facts[name].identical,
            how=f"the cubin of {other.source} is {cubins[number][:12]}; ptxas makes {right[:12]} of its PTX",
            seconds=round(time.monotonic() - start, 1),
        )
        return self.add(row)

    def add(self, row: FaultRow) -> FaultRow:
        """Keep a row in place of an earlier one of that name."""
        others = tuple(one for one in self.results.faults if one.name != row.name)
        self._keep(dataclasses.replace(self.results, faults=(*others, row)))
        return row

    def _keep(self, results: Results) -> None:
        self.results = results
        jsonio.write(self.output, results)

    def _compute(self, case: Case, source: server.KernelSource, launch: str = "") -> tuple[EmulatedCheck, Emulated]:
        libraries = dataclasses.replace(self.libraries, launch=launch)
        libraries.report.unlink(missing_ok=True)
        with server.serve({self.kernels.code.arch.number: source}, self.machine.folder) as socket:
            machine = dataclasses.replace(self.machine, server=socket, libraries=libraries)
            seen = emulation.run(machine, (case,))
        (one,) = seen.checks
        return one, seen

    def _place(self, planted: Planted, seen: Emulated) -> str:
        """Whether a fault had any effect: the launches that were changed, or the threads that executed its place."""
        if planted.fault.launch:
            return f"{self.libraries.changed()} launches were changed"
        counts = (_executed(use, planted.lines[use.name]) for use in seen.uses if use.name in planted.lines)
        return f"its place was executed by {sum(counts)} threads"


def _executed(use: KernelUse, line: int) -> int:
    """How often the basic block with a line was executed."""
    before = [(begin, count) for begin, count in zip(use.lines, use.executed, strict=True) if begin <= line]
    return max(before)[1] if before else 0
