"""Plant faults into the kernels of a wheel, one at a time, and show that its numbers or the emulation notice.

    python -m measurements.planted_faults WHEEL [--arch 89] [--work-root FOLDER] [--only TEXT] [--output faults.json]

First each check computes without a fault, which says which kernels it launches. Then each fault gets the checks that
launch its kernel, the quickest first, each in a process of its own, until one finds it: the error of the logits is
above the bound of ``nox -s emulate``, or the launch fails and is named. Of a fault that all of them miss, the counters
say whether its place was executed. The file gets each row as soon as it is known, and a run goes on after the rows that
it has. Needs what ``nox -s emulate`` needs.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import StepResultError
from build_config.formats import build_facts, wheelfile
from build_config.steps.validation import emulated_wheel
from build_config.steps.validation.emulation import EmulatedMachine
from build_config.system import jsonio, workroot
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout
from build_config.tasks.simulate import of_wheel, provide_compilers
from build_config.testbed import clean_environment
from measurements.planted import bench
from measurements.planted.bench import Bench, FaultRow, Results
from measurements.planted.faults import CHECKS, FAULTS, OTHER_BUILDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.formats.build_facts import BuildFacts


@contextlib.contextmanager
def prepared(wheel: Path, facts: BuildFacts, arch: str | None, layout: Layout, output: Path) -> Iterator[Bench]:
    """Install the wheel into a clean environment on an emulated GPU, and read the rows that ``output`` has of it."""
    console = Console()
    shard, chosen = emulated_wheel.choose(facts, arch)
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
        libraries = bench.doubles(folder / "doubles", include=toolkit.include, major=facts.major, cc=cc)
        results = Results(wheel_sha256=packed.sha256)
        with contextlib.suppress(StepResultError):
            earlier = jsonio.read(output, Results)
            results = earlier if earlier.wheel_sha256 == packed.sha256 else results
        machine = EmulatedMachine(
            python=python,
            folder=folder,
            libraries=libraries,
            server=Path(),
            capability=chosen.capability,
            log=log,
        )
        yield Bench(machine=machine, libraries=libraries, kernels=kernels, output=output, results=results)


def plant_all(on: Bench, only: str) -> Iterator[FaultRow]:
    """The rows of all faults whose name contains ``only``; a missed one is planted again if there are more checks."""
    checks = sorted(((on.check(case), case) for case in CHECKS), key=lambda pair: pair[0].seconds)
    known = {row.key: row for row in on.results.faults}
    for fault in (fault for fault in FAULTS if only in fault.name):
        row = known.get(bench.key_of(fault))
        launching = [case for row, case in checks if any(name.startswith(fault.kernel) for name in row.kernels)]
        if row is None or not (row.found or row.checks == len(launching)):
            row = on.plant(fault, tuple(launching))
        yield row
    for other in (other for other in OTHER_BUILDS if only in other.name):
        yield known.get(bench.key_of(other)) or on.plant_cubin(other)


def run(wheel: Path, arch: str | None, layout: Layout, only: str, output: Path) -> int:
    """Plant the faults; the status is 0 if all were found."""
    facts = build_facts.read(wheel)
    if facts is None:
        raise SystemExit(f"{wheel} is not a wheel of this project")
    rows = []
    with prepared(wheel, facts, arch, layout, output) as on:
        for row in plant_all(on, only):
            rows.append(row)
            found = "found " if row.found else "MISSED"
            Console().raw(f"{found} {row.where:5} {row.name}: {row.how} ({row.check}, {row.seconds:.0f} s)")
    Console().note(f"{sum(row.found for row in rows)} of {len(rows)} faults were found")
    return 0 if all(row.found for row in rows) else 1


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
