"""Corrupt the inputs of a real build, one at a time, and show that each is detected and named.

    python -m measurements.corrupted_inputs [--arch 89] [--output corrupted-inputs.json]

Run it as root, or on a system where users may create namespaces, after ``nox -s build_cuda_wheel -- --arch 89``.
Everything happens in a second environment (``build_config.tasks.reproduce``), with its own work root at the canonical
path: copies of the checkout, the downloads, the object cache and the finished units, so this machine's store cannot
change. The report of each corrupted input is printed and written to ``--output``, with a log next to it. The status is
0 if all were detected and named, and the unmodified build gave the stored unit before, in between and afterwards.
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
from measurements.corrupted.bench import Bench
from measurements.corrupted.compiling import no_seed, one_byte_and_a_poisoned_object, one_flag
from measurements.corrupted.packing import another_wheel, time_stamp

MODULE = "measurements.corrupted_inputs"


def inside(arch: str, given: Path) -> int:
    """Run in the second environment; ``given`` is the folder with the finished files of the first one."""
    layout = Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)
    console = Console()
    with workroot.claim(layout, purpose="corrupted inputs", console=console):
        started = time.monotonic()
        bench = Bench(arch, given, layout, console)
        try:
            # The copied object cache, an empty build tree, and the toolkit unpacked again.
            what = "the unmodified build, everything from the object cache"
            bench.expect_equal(what, lambda: bench.first, started=started)
            another_wheel(bench)
            time_stamp(bench)
            one_flag(bench)
            no_seed(bench)
            one_byte_and_a_poisoned_object(bench)
        finally:
            jsonio.write(given / "shown.json", tuple(bench.results))
    return 0 if all(shown.passed for shown in bench.results) else 1


def outside(arch: str, output: Path, checkout: Path) -> int:
    """Make the second environment with copies, run there, and bring back the results."""
    layout = Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)
    console = Console()
    jobs = default_jobs()
    try:
        with (
            workroot.claim(layout, purpose="corrupted inputs", console=console),
            second_build.second_environment(
                layout, jobs=(jobs, jobs), launchers=("sccache", "sccache"), user=getpass.getuser()
            ) as second,
        ):
            given = second.folder / "given"
            shutil.copytree(layout.store, given / "store")
            shutil.copytree(checkout / "wheelhouse", given / "wheelhouse")
            shutil.copytree(layout.object_cache, second.work_root / "cache")
            try:
                arguments = ("--arch", arch, "--given", str(given))
                second_build.run(second, arguments, layout, console, log=output.with_suffix(".log"), module=MODULE)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(given / "shown.json", output)
    except PipelineError as error:
        console.error(error.message)
        return 1
    console.note(f"all detected and named; {output}")
    return 0


def main() -> int:
    """Run in this environment or in the second one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", default="89")
    parser.add_argument("--output", type=Path, default=Path("corrupted-inputs.json"))
    parser.add_argument("--checkout", type=Path, default=PACKAGE.parent, help="its wheelhouse contains the wheel")
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.given is not None:
        return inside(options.arch, options.given)
    return outside(options.arch, options.output.absolute(), options.checkout)


if __name__ == "__main__":
    sys.exit(main())
