"""The syntax tree of PTX: what ``ptx_parser`` makes of the tokens. Nothing in it is resolved or checked yet.

Each node has the offset of its first character in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Name(NamedTuple):
    """A register, special register, label, variable or function; ``negated`` if ``!`` is in front of it."""

    text: str
    offset: int
    negated: bool = False


class Integer(NamedTuple):
    """An integer constant (4.5.1)."""

    value: int
    offset: int


class Real(NamedTuple):
    """A floating-point constant (4.5.2) as the bits of a number of ``width`` bits: 32 for ``0f``, 64 for the others."""

    bits: int
    width: int
    offset: int


class Sum(NamedTuple):
    """A name and a number of bytes that is added to its address."""

    base: Name
    addend: int
    offset: int


class Address(NamedTuple):
    """``[base+addend]``, an address operand (6.4.1)."""

    base: Name | Integer
    addend: int
    offset: int


class Vector(NamedTuple):
    """``{a, b}``, a vector operand (6.4.3)."""

    elements: tuple[Operand, ...]
    offset: int


class Pair(NamedTuple):
    """``d|p``: two destinations."""

    first: Name
    second: Name
    offset: int


class Arguments(NamedTuple):
    """``(a, b)``: arguments or results of a call."""

    elements: tuple[Name, ...]
    offset: int


Operand = Name | Integer | Real | Sum | Address | Vector | Pair | Arguments


class Instruction(NamedTuple):
    """An instruction; ``guard`` is the predicate after ``@``."""

    opcode: str
    operands: tuple[Operand, ...]
    guard: Name | None
    offset: int


class Label(NamedTuple):
    """A label, where a branch can go."""

    name: str
    offset: int


class Registers(NamedTuple):
    """``.reg``: the registers' names; ``%r<3>`` stands for its three names."""

    type: str
    names: tuple[str, ...]
    offset: int


class Variable(NamedTuple):
    """A variable in a state space (5.4): ``size`` bytes, 0 if an external declaration leaves it open.

    ``initial`` are the offsets of the text between the braces of its initial values.
    """

    name: str
    space: str
    type: str
    alignment: int
    size: int
    offset: int
    initial: tuple[int, int] | None = None
    external: bool = False


class BranchTargets(NamedTuple):
    """``.branchtargets``: the labels of a table for ``brx.idx``, which is named by the label in front of it."""

    labels: tuple[Name, ...]
    offset: int


class Scope(NamedTuple):
    """``{ ... }``: statements with names of their own."""

    statements: tuple[Statement, ...]
    offset: int


Statement = Instruction | Label | Registers | Variable | BranchTargets | Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A kernel (``.entry``) or a device function (``.func``).

    ``body`` are the offsets of the text between its braces, ``None`` if it is only declared. ``max_threads`` is the
    product of ``.maxntid`` or ``.reqntid``, 0 if there is none.
    """

    name: str
    kernel: bool
    parameters: tuple[Variable, ...]
    results: tuple[Variable, ...]
    max_threads: int
    body: tuple[int, int] | None
    offset: int


TYPE_BYTES = {
    "pred": 1,
    **dict.fromkeys(("b8", "u8", "s8"), 1),
    **dict.fromkeys(("b16", "u16", "s16", "f16", "bf16", "e4m3x2", "e5m2x2"), 2),
    **dict.fromkeys(("b32", "u32", "s32", "f32", "f16x2", "bf16x2", "tf32"), 4),
    **dict.fromkeys(("b64", "u64", "s64", "f64"), 8),
    "b128": 16,
}
"""Bytes of each type (5.2); a predicate is kept in one."""
