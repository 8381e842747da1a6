"""Instructions with their exact results, and the operands with which tests of a family compare both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from tests.support import ptx_execution
from tests.support.ptx_execution import Kernel
from tests.support.ptx_reference import BF16, F16, F32, F64, Format, f32_bits

if TYPE_CHECKING:
    from pathlib import Path


Row = tuple[int, int, int]


@dataclass(frozen=True)
class Instruction:
    """A case and its result for the lower bits of a, b and c; ``nan``: the format in which all NaNs count as equal."""

    case: ptx_execution.Case
    expected: Callable[[int, int, int], int]
    nan: Format | None = None
    within: Callable[[int, Row], bool] | None = None
    """For results that the ISA bounds only: whether one is good for the operands."""

    def is_right(self, found: int, row: Row) -> bool:
        if self.within is not None:
            return self.within(found, row)
        expected = self.expected(*row)
        return found == expected or (self.nan is not None and self.nan.is_nan(found) and self.nan.is_nan(expected))


@dataclass(frozen=True, repr=False)
class Family:
    """The instructions of a family, compiled."""

    kernel: Kernel
    instructions: Sequence[Instruction]

    def compare(self, rows: Sequence[Row]) -> int:
        """Compare all instructions for all rows with the exact results; returns how many were compared."""
        cases = [instruction.case for instruction in self.instructions]
        found = ptx_execution.results(self.kernel, cases, np.array(rows, np.uint64))
        for instruction, values in zip(self.instructions, found.tolist(), strict=True):
            for row, value in zip(rows, values, strict=True):
                assert instruction.is_right(value, row), (
                    f"{instruction.case.text} a, b, c = {row[0]:#x}, {row[1]:#x}, {row[2]:#x}: "
                    f"{value:#x}, expected {instruction.expected(*row):#x}"
                )
        return len(cases) * len(rows)


def compiled(instructions: Sequence[Instruction], folder: Path) -> Family:
    """Translate and compile one program with all ``instructions``."""
    cases = [instruction.case for instruction in instructions]
    return Family(ptx_execution.compiled(ptx_execution.program(cases), "cases", folder), instructions)


INTEGER_EDGES = (
    *(0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000),
    *(0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
    *(0x8040201008040201, 0x123456789ABCDEF0, 0xFFFFFFFF80000000, 0x00FF00FF7F807F80),
)


def edges(form: Format) -> tuple[int, ...]:
    """Zeros, subnormals, the ends of the normal range, ones, ties, infinities and NaNs of both signs."""
    one = form.number(1.0)
    positive = (
        *(0, 1, 2, 3, (1 << (form.precision - 1)) - 1, 1 << (form.precision - 1), (1 << (form.precision - 1)) + 1),
        *(one - 1, one, one + 1, form.number(0.5), form.number(1.5), form.number(2.5), form.number(3.0)),
        *(form.infinity - 1, form.infinity, form.infinity + 1, form.canonical_nan),
    )
    return tuple(bits | sign for bits in positive for sign in (0, form.sign))


FLOAT_EDGES = tuple(dict.fromkeys((*edges(F32), *edges(F64), *edges(F16), *edges(BF16))))
CONVERSION_EDGES = tuple(
    F64.number(sign * (2.0**power + step)) if wide else f32_bits(sign * (2.0**power + step))
    for power in (4, 7, 8, 15, 16, 31, 32)
    for step in (-1, -0.5, 0, 0.5, 1)
    for sign in (1, -1)
    for wide in (True, False)
)

_numbers = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from(INTEGER_EDGES),
    st.sampled_from(FLOAT_EDGES),
    st.floats(width=32).map(f32_bits),
    st.floats(-100, 100, width=32).map(f32_bits),
    st.floats(width=64).map(lambda value: F64.special(value) if value != value else F64.number(value)),  # noqa: PLR0124
    st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)).map(lambda pair: pair[0] | pair[1] << 16),
)
rows = st.lists(st.tuples(_numbers, _numbers, _numbers), min_size=1, max_size=24)


def edge_rows(values: Sequence[int], operands: int) -> list[Row]:
    """All combinations of ``values`` for so many operands; the others go round."""
    combinations = itertools.product(values, repeat=operands)
    spare = itertools.cycle(values)
    found = []
    for chosen in combinations:
        a, b, c = (*chosen, *(next(spare) for _ in range(3 - operands)))
        found.append((a, b, c))
    return found
