"""Use the installed wheel in every scenario of validation; runs under Windows' Python.

    python -m tests.support.windows.mingw.run_scenarios PRODUCTS WHEEL PYTHON REPORT

The libraries that validation compiles on Linux are taken from PRODUCTS, where products.py has compiled the same
sources. REPORT becomes validation's own report.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from build_config.formats import build_facts, wheelfile
from build_config.steps import validation
from build_config.steps.validation.planted_libraries import PlantedLibraries
from build_config.system import jsonio, machine
from build_config.system.console import Console
from build_config.testbed.simulated_device import windows


def main(products: Path, wheel: Path, python: Path, report: Path) -> None:
    """Write the report."""
    facts = build_facts.read(wheel)
    here, simulation = machine.describe(), validation.Simulation(include=products, cc="")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        planted = shutil.copytree(products / "planted", folder / "planted")
        bench = validation.Bench(
            python=python,
            folder=folder,
            simulated=windows.libraries(products / "simulated", 13),
            planted=PlantedLibraries(folder=planted),
        )
        tried = validation.plan(here, facts, simulation)
        results = validation._try_all(bench, tried, Console(terminal=False))
    done = validation.conclude(wheelfile.read(wheel).sha256, here, results, (), simulation=simulation)
    jsonio.write(report, done)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
