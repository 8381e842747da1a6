"""Run a command on a simulated GPU: compile the simulation, run, report what it was used for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import archs
from build_config.archs import LOCKED_CUDA
from build_config.errors import SettingsError
from build_config.formats import build_facts
from build_config.inputs import provide_toolkit
from build_config.plan import resolve_toolkit
from build_config.steps import locks, validation
from build_config.system import platforms, processes, workroot
from build_config.testbed import simulated_device
from build_config.testbed.simulated_device import SimulatedMachine

if TYPE_CHECKING:
    from build_config.model import CudaToolkit
    from build_config.system.console import Console
    from build_config.system.layout import Layout


EVERY_SHARD = "every"
"""The value of ``--simulate`` for one GPU for each shard."""


def provide_simulation(simulate: str, layout: Layout, console: Console, *, cuda: str) -> validation.Simulation:
    """Provide the requirements of a simulated GPU: the headers of CUDA ``cuda`` and the host compiler.

    Raises ``SettingsError`` on a platform whose compiler does not make it.
    """
    if not platforms.HERE.has_simulated_device:
        message = f"there is no simulated GPU here: {platforms.HERE.compiler} does not compile it"
        raise SettingsError(message, remedy="leave out --simulate: the machine's own GPUs decide, else the CPU")
    capability = None if simulate == EVERY_SHARD else archs.as_capability(simulate)
    toolkit, cc = provide_compilers(layout, console, cuda=cuda)
    return validation.Simulation(include=toolkit.include, cc=cc, capability=capability)


def provide_compilers(layout: Layout, console: Console, *, cuda: str) -> tuple[CudaToolkit, str]:
    """Provide the toolkit of CUDA ``cuda``, and the C compiler that goes with it."""
    planned = resolve_toolkit(cuda, locks.read(layout, platforms.HERE.name), os.environ)
    return provide_toolkit(planned, layout, console), str(planned.host.cc.path)


def of_wheel(wheel: Path) -> str:
    """The release of CUDA with which a wheel was built; the locked one for a wheel that does not name it."""
    facts = build_facts.read(wheel)
    return LOCKED_CUDA if facts is None or facts.major == locked_major() else facts.cuda


def locked_major() -> int:
    """The major release of the locked toolkit."""
    return int(LOCKED_CUDA.partition(".")[0])


def simulated_machine(capabilities: str, fault: str | None, memory: int) -> SimulatedMachine:
    """The requested machine. Raises ``ArchitectureError`` or ``ValidationError`` if it cannot be simulated."""
    name, _, argument = (fault or "").partition(":")
    if argument and not argument.isdecimal():
        raise SettingsError(f"--fault {fault}: {argument!r} is not a number", remedy=f"pass --fault {name}:1000000")
    return SimulatedMachine(
        capabilities=tuple(archs.as_capability(each) for each in capabilities.split(",")),
        memory=memory,
        fault=name or None,
        argument=int(argument) if argument else None,
    )


def simulate(devices: SimulatedMachine, command: tuple[str, ...], layout: Layout, console: Console) -> int:
    """Run a command on simulated GPUs, report what they were used for, and return the command's status."""
    with workroot.claim(layout, purpose="simulate", console=console):
        simulation = provide_simulation(devices.capabilities[0], layout, console, cuda=LOCKED_CUDA)
        major = locked_major()
        folder = layout.work_root / "simulated-device"
        libraries = simulated_device.build(folder, include=simulation.include, major=major, cc=simulation.cc)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "use.json"
        changes = {"GGML_NO_BACKTRACE": "1", **libraries.environment(devices, report=report)}
        completed = processes.run(processes.Command(argv=command, changes=changes), check=False, on_line=console.raw)
        use = simulated_device.read_report(report)
    console.note(f"the command {completed.ending}, on a SIMULATED GPU")
    if use is not None:
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in use.counts.items() if count)
        console.note(
            f"counted: {counts or 'nothing'}; {'nothing' if use.is_clean else 'SOMETHING'} leaked or was refused"
        )
    return completed.returncode if completed.returncode >= 0 else 128 - completed.returncode
