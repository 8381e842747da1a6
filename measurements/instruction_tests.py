"""Run the tests of PTX instructions, and count what they compare with exact arithmetic in each section of the PTX ISA.

    python -m measurements.instruction_tests [--missing] [--cc "aarch64-linux-gnu-gcc -static"] [--run qemu-aarch64]

Prints one line for each section: the forms of its table that the tests execute, their opcodes, and the results that
are compared with exact ones, those of the edges and of hypothesis's examples together. Tests of what threads do
together compare whole warps and matrices; they are counted by their opcodes only. ``--missing`` lists the forms that no
test executes. With ``--cc`` and ``--run``, kernels and runtime are compiled for another machine, and each launch is a
process there; tests whose kernel ends its process are left out.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from build_config.system.console import Console
from build_config.system.processes import Command, run
from build_config.testbed.emulated_device import HERE, ptx_check
from build_config.testbed.emulated_device.instructions import FORMS
from build_config.testbed.emulated_device.ptx_check import Known, known_forms
from build_config.testbed.emulated_device.ptx_module import read_module
from build_config.testbed.emulated_device.translation import CFLAGS, translate

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tests.support.ptx_cases import Family, Row

TESTS = "tests/integration/testbed/emulated_device"
EXECUTED = ("conversion", "float", "integer", "memory", "runtime", "warp")
RUNNER = Path(__file__).parent / "instruction_runner.c"
REASON = 512
SECONDS_ALLOWED = 1800.0
_OPCODE = re.compile(r"(?!mov\.)[a-z][a-z0-9]*(?:\.[A-Za-z0-9:_]+)+")


class Counted:
    """A pytest plugin: which forms and opcodes are translated to be executed, and how many results are compared."""

    def __init__(self) -> None:
        self.opcodes: dict[str, set[str]] = defaultdict(set)
        self.forms: dict[str, set[str]] = defaultdict(set)
        self.compared: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Watch the two places through which every tested instruction goes."""
        from tests.support import ptx_cases  # noqa: PLC0415  # pytest prepares the import of hypothesis

        compare = ptx_cases.Family.compare

        def watched(opcode: str) -> tuple[Known, ...]:
            found = known_forms(opcode)
            for known in found[:1]:
                self.opcodes[known.form.section].add(opcode)
                self.forms[known.form.section].add(known.form.syntax)
            return found

        def counted(family: Family, rows: Sequence[Row]) -> int:
            for instruction in family.instructions:
                known = (found for opcode in _OPCODE.findall(instruction.case.text) for found in known_forms(opcode))
                self.compared[next(known).form.section] += len(rows)
            return compare(family, rows)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ptx_check, "known_forms", watched)
            patch.setattr(ptx_cases.Family, "compare", counted)
            return (yield)


@dataclass(frozen=True, slots=True)
class Program:
    """A kernel as a program for another machine, which ``run`` executes here."""

    path: Path
    run: tuple[str, ...]
    basic_blocks: int

    def launch(
        self, *arrays: np.ndarray, grid: int = 1, block: int = 32, dynamic_shared: int = 0
    ) -> tuple[str, list[int]]:
        """As ``ptx_execution.Kernel.launch``."""
        distinct = {array.ctypes.data: array for array in arrays}
        order = list(distinct)
        numbers = [grid, 1, 1, block, 1, 1, dynamic_shared, len(order), *(one.nbytes for one in distinct.values())]
        numbers += [len(arrays), *(order.index(array.ctypes.data) for array in arrays)]
        file = self.path.with_suffix(".launch")
        file.write_bytes(np.array(numbers, np.uint64).tobytes() + b"".join(one.tobytes() for one in distinct.values()))
        run(Command(argv=(*self.run, str(self.path), str(file))), timeout=SECONDS_ALLOWED)
        result = file.read_bytes()
        reason, at = result[:REASON].split(b"\0")[0].decode(), REASON + 8 * self.basic_blocks
        executed = np.frombuffer(result[REASON:at], np.uint64).tolist()
        for array in distinct.values():
            array[...] = np.frombuffer(result[at : at + array.nbytes], array.dtype).reshape(array.shape)
            at += array.nbytes
        return reason, executed


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A pytest plugin: ``cc`` compiles the kernels of the tests for another machine."""

    cc: tuple[str, ...]
    run: tuple[str, ...]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Replace the function that compiles."""
        from tests.support import ptx_execution  # noqa: PLC0415  # as above

        def compiled(ptx: str, name: str, folder: Path, *further: str) -> Program:
            kernel = translate(read_module(ptx_execution.HEADER + ptx, f"{name}.ptx"), name)
            source, program = folder / f"{name}.c", folder / name
            source.write_text(kernel.source, encoding="utf-8")
            parts = (source, RUNNER, HERE / "ptx_runtime.c", HERE / "blocks.c")
            options = (
                "-O1",
                "-w",
                *CFLAGS,
                "-pthread",
                f"-I{HERE}",
                *further,
                *map(str, parts),
                "-o",
                str(program),
                "-lm",
            )
            run(Command(argv=(*self.cc, *options)), timeout=SECONDS_ALLOWED)
            return Program(program, self.run, len(kernel.lines))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ptx_execution, "compiled", compiled)
            return (yield)


def main(given: argparse.Namespace) -> int:
    """Run the tests and print the table. The status is not 0 if a test fails or no test executes a form."""
    counted = Counted()
    plugins: list[object] = [counted]
    tests = [TESTS]
    if given.cc:
        plugins.append(Elsewhere(tuple(shlex.split(given.cc)), tuple(shlex.split(given.run))))
        tests = [f"{TESTS}/test_ptx_{name}_real.py" for name in EXECUTED]
        tests += ["-k", "not memory_that_nobody_allocated and not does_not_end"]
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests], plugins=plugins)
    say = Console().raw
    sections: dict[str, list[str]] = defaultdict(list)
    for form in (form for forms in FORMS.values() for form in forms):
        sections[form.section].append(form.syntax)
    for section, syntaxes in sections.items():
        forms, known = counted.forms[section], set(syntaxes)
        opcodes, compared = len(counted.opcodes[section]), counted.compared[section]
        say(f"{section}: {len(forms)} of {len(known)} forms, {opcodes} opcodes, {compared} results compared")
        for syntax in sorted(known - forms) if given.missing else ():
            say(f"    not executed: {syntax}")
    total = sum(map(len, counted.opcodes.values()))
    say(f"all: {total} opcodes, {counted.compared.total()} results compared")
    return int(status) or any(set(syntaxes) - counted.forms[section] for section, syntaxes in sections.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--cc", default="")
    parser.add_argument("--run", default="")
    sys.exit(main(parser.parse_args()))
