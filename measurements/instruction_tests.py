"""Run the tests of PTX instructions, and count what they compare with exact arithmetic in each section of the PTX ISA.

    python -m measurements.instruction_tests [--missing]

Prints one line for each section: the forms of its table that the tests execute, their opcodes, and the results that
are compared with exact ones, those of the edges and of hypothesis's examples together. Tests of what threads do
together compare whole warps and matrices; they are counted by their opcodes only. ``--missing`` lists the forms that no
test executes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from build_config.system.console import Console
from build_config.testbed.emulated_device import ptx_check
from build_config.testbed.emulated_device.instructions import FORMS
from build_config.testbed.emulated_device.ptx_check import Known, known_forms

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tests.support.ptx_cases import Row

TESTS = "tests/integration/testbed/emulated_device"
_OPCODE = re.compile(r"[a-z][a-z0-9]*(?:\.[A-Za-z0-9:_]+)+")


class Counted:
    """A pytest plugin: which forms and opcodes are translated to be executed, and how many results are compared."""

    def __init__(self) -> None:
        self.opcodes: dict[str, set[str]] = defaultdict(set)
        self.forms: dict[str, set[str]] = defaultdict(set)
        self.compared: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Watch the two places through which every tested instruction goes."""
        from tests.support.ptx_cases import Family  # noqa: PLC0415  # pytest prepares the import of hypothesis

        compare = Family.compare

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
            patch.setattr(Family, "compare", counted)
            return (yield)


def main(*, missing: bool) -> int:
    """Run the tests, print the table, and return pytest's status."""
    counted = Counted()
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", TESTS], plugins=[counted])
    say = Console().raw
    sections: dict[str, list[str]] = defaultdict(list)
    for form in (form for forms in FORMS.values() for form in forms):
        sections[form.section].append(form.syntax)
    for section, syntaxes in sections.items():
        forms, known = counted.forms[section], set(syntaxes)
        opcodes, compared = len(counted.opcodes[section]), counted.compared[section]
        say(f"{section}: {len(forms)} of {len(known)} forms, {opcodes} opcodes, {compared} results compared")
        for syntax in sorted(known - forms) if missing else ():
            say(f"    not executed: {syntax}")
    total = sum(map(len, counted.opcodes.values()))
    say(f"all: {total} opcodes, {counted.compared.total()} results compared")
    return int(status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missing", action="store_true")
    sys.exit(main(missing=parser.parse_args().missing))
