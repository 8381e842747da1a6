"""What the tables of instructions are made of: the form of an instruction, its modifiers and operands.

A form is written as in the PTX ISA: ``add{.rn}{.ftz}.f32`` has two optional modifiers, ``setp.<cmp>.<type>`` one
of the choices that the table states for each name; ``<type=short>`` is the modifier ``type``, of the choices ``short``.
An opcode that fits no form is refused: nothing is skipped or guessed.

The operands of a form are strings: a type for a source (``f32``), after ``=`` for a destination; ``>`` says that the
register may be wider than the type (9.4.1), ``2*`` that it is a vector of two, ``!`` that it may be negated. The other
kinds are ``address``, ``number`` (a constant), ``packed`` (a scalar, or a vector of registers that fill it together),
``label``, ``table`` (of branch targets), ``name`` (a function) and ``arguments``. ``{type}`` is the modifier of that
name. A second destination follows ``|``; ``?`` means that an operand can be missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.ptx_tree import TYPE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = str
KINDS = frozenset({"address", "number", "packed", "label", "table", "name", "arguments"})


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """What an operand must be: of a kind and, for some kinds, of a type. ``count`` elements of a vector; 0: no vector.

    ``paired`` is the type of the optional second destination.
    """

    kind: Kind
    type: str = ""
    count: int = 0
    destination: bool = False
    wider: bool = False
    negatable: bool = False
    optional: bool = False
    paired: str = ""

    @property
    def bits(self) -> int:
        """The bits of one element."""
        return 8 * TYPE_BYTES[self.type]


@dataclass(frozen=True, slots=True)
class Operand:
    """A checked operand as C: ``text`` is its value or variable, ``elements`` are those of a vector or pair.

    ``text`` is empty for the sink ``_``, for a vector and for a missing operand. ``bits`` are those of an element.
    """

    text: str
    elements: tuple[str, ...] = ()
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """An instruction whose modifiers and operands fit a form."""

    modifiers: Mapping[str, str]
    operands: tuple[Operand, ...]

    def __getitem__(self, modifier: str) -> str:
        """The modifier of that name without its dot; empty if the instruction has it not."""
        return self.modifiers.get(modifier, "")

    def assign(self, expression: str) -> str:
        """The C statement that gives ``expression`` to the first operand."""
        target = self.operands[0].text
        return f"{target} = {expression};" if target else f"(void){expression};"


@dataclass(frozen=True, slots=True)
class Form:
    """A form of an instruction: its syntax, the section of the PTX ISA 9.0 that defines it, and its C."""

    syntax: str
    section: str
    operands: tuple[str, ...]
    emit: Callable[[Use], str]
    choices: Mapping[str, str] = field(default_factory=dict)

    def match(self, opcode: str) -> dict[str, str] | None:
        """The modifiers of ``opcode`` by name if it has this form; with ``bits`` and ``wide`` of its type."""
        match = self.pattern().fullmatch(opcode)
        if match is None:
            return None
        modifiers = {name: value or "" for name, value in match.groupdict().items()}
        if type_ := modifiers.get("type"):
            bits = 8 * TYPE_BYTES[type_]
            modifiers |= {"bits": str(bits), "wide": f"{type_[0]}{2 * bits}"}
        return modifiers

    def pattern(self) -> re.Pattern[str]:
        """The opcodes that have this form."""
        text = re.escape(self.syntax).replace(r"\{", "(?:").replace(r"\}", ")?")
        text = re.sub(r"<(\w+)(?:=(\w+))?>", self._choice, text)  # re.escape leaves these characters alone
        text = re.sub(r"\(\?:((?:\\\.|::)+)(\w+)\)\?", self._flag, text)
        return re.compile(text)

    def _choice(self, match: re.Match[str]) -> str:
        values = sorted(self.choices[match[2] or match[1]].split(), key=len, reverse=True)
        return f"(?P<{match[1]}>{'|'.join(map(re.escape, values))})"

    @staticmethod
    def _flag(match: re.Match[str]) -> str:
        return f"(?:{match[1]}(?P<{match[2]}>{match[2]}))?"

    def specs(self, modifiers: Mapping[str, str]) -> tuple[OperandSpec, ...]:
        """The operands, for these modifiers."""
        return tuple(_spec(text.format(**modifiers)) for text in self.operands)


_SPEC = re.compile(
    r"(?P<optional>\??)(?P<destination>=?)(?P<wider>>?)(?P<negatable>!?)(?:(?P<count>\d*)\*)?(?P<name>\w+)"
    r"(?::(?P<type>\w+))?(?:\|(?P<paired>\w+))?"
)


def _spec(text: str) -> OperandSpec:
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} does not describe an operand")
    kind, type_ = (match["name"], match["type"] or "") if match["name"] in KINDS else ("scalar", match["name"])
    return OperandSpec(
        kind=kind,
        type=type_,
        count=int(match["count"] or 0),
        destination=bool(match["destination"]),
        wider=bool(match["wider"]),
        negatable=bool(match["negatable"]),
        optional=bool(match["optional"]),
        paired=match["paired"] or "",
    )


def table(section: str, *rows: tuple[str, str, Callable[[Use], str]], **choices: str) -> tuple[Form, ...]:
    """The forms of a section: syntax, operands (separated by blanks) and C of each."""
    return tuple(Form(syntax, section, tuple(operands.split()), emit, choices) for syntax, operands, emit in rows)


def call(function: str) -> Callable[[Use], str]:
    """The C of an instruction that is a function of its sources: ``ptx_<function>``, ``{type}`` filled in.

    ``{ftz}`` and other flags become ``_ftz`` or nothing.
    """

    def emit(use: Use) -> str:
        parts = {name: _suffix(value) if name in SUFFIXES else value for name, value in use.modifiers.items()}
        sources = ", ".join(operand.text for operand in use.operands[1:] if operand.text)
        return use.assign(f"ptx_{function.format(**parts)}({sources})")

    return emit


SUFFIXES = frozenset({"ftz", "sat", "relu", "NaN", "satfinite", "shiftamt", "rnd"})
"""Modifiers that are in a function's name only if the instruction has them; rounding to nearest is the default."""


def _suffix(modifier: str) -> str:
    return f"_{modifier}" if modifier not in ("", "rn") else ""


def infix(operator: str, type_: str) -> Callable[[Use], str]:
    """The C of an instruction whose two sources, taken as ``type_``, stand at both sides of an operator."""

    def emit(use: Use) -> str:
        _, first, second = use.operands
        cast = type_.format(**use.modifiers)
        return use.assign(f"({cast})(({cast}){first.text} {operator} ({cast}){second.text})")

    return emit


def joined(tables: Sequence[tuple[Form, ...]]) -> tuple[Form, ...]:
    """The forms of several tables."""
    return tuple(form for forms in tables for form in forms)
