"""Spoils the inputs of a real build, one at a time, and shows that each is caught and named.

    python -m measurements.spoilt_inputs [--arch 89] [--output spoilt-inputs.json]

As root, or where users may have namespaces; after ``nox -s build_cuda_wheel -- --arch 89``. Everything takes place in a
second world (``build_config.reproduction``) with a work root of its own at the canonical path: a copy of the checkout,
of the downloads, of the object cache and of the finished units, so that the store of this machine is out of reach. What
was said of each spoilt input is printed and written to ``--output``, with a log beside it. The status is 0 when all of
them were caught and named, and the honest build was the stored unit bit for bit before, in between and afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import shutil
import sys
import time
from pathlib import Path

from build_config.errors import PipelineError
from build_config.plan import default_jobs
from build_config.system import jsonio, workroot
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout
from build_config.tasks.reproduce import second_build
from measurements.spoilt.bench import Bench
from measurements.spoilt.compiling import honest_build, no_seed, one_byte_and_a_poisoned_object, one_flag
from measurements.spoilt.packing import another_wheel, time_stamp

MODULE = "measurements.spoilt_inputs"


def inside(arch: str, given: Path) -> int:
    """In the second world; ``given`` is the folder with what the first one has finished."""
    layout = Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)
    console = Console()
    with workroot.claim(layout, purpose="spoilt inputs", console=console):
        started = time.monotonic()
        bench = Bench(arch, given, layout, console)
        try:
            honest_build(bench, started)
            another_wheel(bench)
            time_stamp(bench)
            one_flag(bench)
            no_seed(bench)
            one_byte_and_a_poisoned_object(bench)
        finally:
            jsonio.write(given / "shown.json", tuple(bench.results))
    return 0 if all(shown.passed for shown in bench.results) else 1


def outside(arch: str, output: Path, checkout: Path) -> int:
    """Make the second world, give it copies, and bring back what came of it."""
    layout = Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)
    console = Console()
    jobs = default_jobs()
    try:
        with (
            workroot.claim(layout, purpose="spoilt inputs", console=console),
            second_build.second_environment(
                layout, jobs=(jobs, jobs), launchers=("sccache", "sccache"), user=getpass.getuser()
            ) as world,
        ):
            given = world.folder / "given"
            shutil.copytree(layout.store, given / "store")
            shutil.copytree(checkout / "wheelhouse", given / "wheelhouse")
            shutil.copytree(layout.object_cache, world.work_root / "cache")
            try:
                arguments = ("--arch", arch, "--given", str(given))
                second_build.run(world, arguments, layout, console, log=output.with_suffix(".log"), module=MODULE)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(given / "shown.json", output)
    except PipelineError as error:
        console.error(error.message)
        return 1
    console.note(f"all caught and named; {output}")
    return 0


def main() -> int:
    """Run in this world or in the second one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", default="89")
    parser.add_argument("--output", type=Path, default=Path("spoilt-inputs.json"))
    parser.add_argument("--checkout", type=Path, default=PACKAGE.parent, help="whose wheelhouse has the wheel")
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.given is not None:
        return inside(options.arch, options.given)
    return outside(options.arch, options.output.absolute(), options.checkout)


if __name__ == "__main__":
    sys.exit(main())
