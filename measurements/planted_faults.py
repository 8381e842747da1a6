"""Plant faults into the kernels of a wheel, one at a time, and show that its numbers or the emulation notice.

    python -m measurements.planted_faults WHEEL [--arch 89] [--work-root FOLDER] [--only TEXT] [--output faults.json]

Each fault gets a process in which a small model answers one prompt on the emulated GPU. A fault is found if the error
of the logits is above the bound of ``nox -s emulate``, or if the launch fails and is named. Of a fault that was missed,
the counters say whether its place was executed. Needs what ``nox -s emulate`` needs, and is slow on a busy machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from build_config.errors import PipelineError
from build_config.formats import build_facts, wheelfile
from build_config.steps.validation import emulated_wheel, emulation
from build_config.steps.validation.emulation import EmulatedMachine
from build_config.system import jsonio, workroot
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout
from build_config.tasks.simulate import of_wheel, provide_compilers
from build_config.testbed import clean_environment, emulated_device
from build_config.testbed.emulated_device import ptx_module, server, translation
from build_config.testbed.emulated_device.kernels import Kernels
from measurements.planted.faults import FAULTS, SHARD, Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What became of a fault."""

    name: str
    where: str
    found: bool
    how: str


@dataclass(slots=True)
class Planted:
    """The kernels of a wheel with a fault; those without it are the wheel's."""

    kernels: Kernels
    fault: Fault
    line: int | None = None
    name: str | None = None

    def library(self, name: str) -> Path:
        """The library of a kernel, with the fault if it is there."""
        if not name.startswith(self.fault.kernel):
            return self.kernels.library(name)
        ptx = self.kernels.ptx(self.kernels.number(name))
        text, line = self.fault.in_ptx(ptx.path.read_text(encoding="utf-8"), name)
        if self.name is None:
            self.line, self.name = line, name
        translated = translation.translate(ptx_module.read_module(text, ptx.source), name)
        return self.kernels.compile(self.fault.in_c(translated), name)


def plant(fault: Fault, kernels: Kernels, machine: EmulatedMachine) -> Shown:
    """Compute with the fault, and say whether that was noticed."""
    planted = Planted(kernels, fault)
    with server.serve({kernels.code.arch.number: planted}, machine.folder) as socket:
        seen = emulation.run(dataclasses.replace(machine, server=socket), (fault.case,))
    (one,) = seen.checks
    if not one.check.passed:
        return Shown(name=fault.name, where=fault.where, found=True, how=one.check.reason or "")
    how = f"{one.check.measured:.2g} NMSE, allowed: {one.check.bound:.2g}"
    use = next((use for use in seen.uses if use.name == planted.name), None)
    if use is None:
        how += "; no check launched the kernel"
    elif planted.line is not None:
        before = [line for line in use.lines if line <= planted.line]
        executed = use.executed[use.lines.index(max(before))] if before else 0
        how += f"; its place was executed by {executed} threads"
    return Shown(name=fault.name, where=fault.where, found=False, how=how)


def of_another_build(kernels: Kernels) -> Shown:
    """A cubin of a build without --use_fast_math in place of the wheel's: its PTX is that of another cubin."""
    number = kernels.files.sources.index("norm.cu")
    other = dataclasses.replace(kernels.files)
    command = dict(other.commands[number])
    command["command"] = command["command"].replace("-use_fast_math", "")
    other.commands[number] = command
    made = other.make(number)
    found = made.cubin != kernels.code.cubins[number] == kernels.ptx(number).cubin
    how = f"the cubin of {made.source} is {made.cubin[:12]}, that of the wheel {kernels.code.cubins[number][:12]}"
    return Shown(name="a cubin of a build without --use_fast_math", where=SHARD, found=found, how=how)


def run(wheel: Path, arch: str | None, layout: Layout, only: str, output: Path) -> int:
    """Plant every fault whose name contains ``only``; the status is 0 if all were found."""
    console = Console()
    facts = build_facts.read(wheel)
    if facts is None:
        raise SystemExit(f"{wheel} is not a wheel of this project")
    shard, chosen = emulated_wheel.choose(facts, arch)
    shown: list[Shown] = []
    with (
        workroot.claim(layout, purpose="planted faults", console=console),
        clean_environment.outside(layout.checkout) as folder,
    ):
        log = layout.logs / "planted-faults.log"
        toolkit, cc = provide_compilers(layout, console, cuda=of_wheel(wheel))
        kernels = emulated_wheel.kernels_of(wheel, shard, chosen, toolkit, cc, folder, layout, log)
        packed = wheelfile.read(wheel)
        lock = clean_environment.requirements(packed, layout.locks)
        python = clean_environment.make(folder, lock, layout.downloads, log)
        clean_environment.install(packed, wheel.parent, python, log)
        machine = EmulatedMachine(
            python=python,
            folder=folder,
            libraries=emulated_device.build(
                folder / "emulated-device", include=toolkit.include, major=facts.major, cc=cc
            ),
            server=Path(),
            capability=chosen.capability,
            log=log,
        )
        for fault in FAULTS:
            if only in fault.name:
                try:
                    one = plant(fault, kernels, machine)
                except PipelineError as error:
                    one = Shown(name=fault.name, where=fault.where, found=False, how=f"not planted: {error.message}")
                shown.append(one)
                console.raw(f"{'found ' if one.found else 'MISSED'} {one.where:5} {one.name}: {one.how}")
                jsonio.write(output, tuple(shown))
        if not only:
            shown.append(of_another_build(kernels))
            console.raw(f"{'found ' if shown[-1].found else 'MISSED'} {SHARD:5} {shown[-1].name}: {shown[-1].how}")
    jsonio.write(output, tuple(shown))
    console.note(f"{sum(one.found for one in shown)} of {len(shown)} faults were found")
    return 0 if all(one.found for one in shown) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--arch")
    parser.add_argument("--work-root", type=Path, default=CANONICAL_WORK_ROOT)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path, default=Path("planted-faults.json"))
    given = parser.parse_args()
    where = Layout(checkout=PACKAGE.parent, work_root=given.work_root.absolute())
    sys.exit(run(given.wheel, given.arch, where, given.only, given.output))
