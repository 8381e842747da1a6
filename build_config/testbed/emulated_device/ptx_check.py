"""Checked instructions: each has a form of the tables, and its operands have the types that the form wants.

PTX ISA 9.0, chapter 6 (Instruction Operands), 9.2 and 9.4 (Type Information for Instructions and Operands).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from build_config.testbed.emulated_device.instructions import FORMS
from build_config.testbed.emulated_device.instructions.form import Form, Operand, OperandSpec, Use
from build_config.testbed.emulated_device.ptx_names import Memory, Names, Register, Special, width
from build_config.testbed.emulated_device.ptx_tree import (
    Address,
    Arguments,
    Instruction,
    Integer,
    Label,
    Name,
    Pair,
    Real,
    Scope,
    Sum,
    Vector,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from build_config.testbed.emulated_device.ptx_source import PtxError
    from build_config.testbed.emulated_device.ptx_tree import Operand as TreeOperand
    from build_config.testbed.emulated_device.ptx_tree import Statement


class Checked(NamedTuple):
    """An instruction with its form. ``guard`` is the C condition under which it is executed, empty without one."""

    opcode: str
    form: Form
    use: Use
    guard: str
    offset: int


class Target(NamedTuple):
    """A label: where a basic block begins. ``c`` is the label in C."""

    c: str
    offset: int


class Known(NamedTuple):
    """A form that an opcode has: its modifiers, and operands."""

    form: Form
    modifiers: Mapping[str, str]
    specs: tuple[OperandSpec, ...]

    def takes(self, operands: int) -> bool:
        """Whether the form has that number of operands."""
        return sum(not spec.optional for spec in self.specs) <= operands <= len(self.specs)


@functools.cache
def known_forms(opcode: str) -> tuple[Known, ...]:
    """The forms that an opcode has; several differ in the number of operands, none means that it is not known."""
    found = ((form, form.match(opcode)) for form in FORMS.get(opcode.partition(".")[0], ()))
    return tuple(Known(form, modifiers, form.specs(modifiers)) for form, modifiers in found if modifiers is not None)


def checked(statements: tuple[Statement, ...], names: Names) -> Iterator[Checked | Target]:
    """The instructions and labels in order, without scopes; raises ``PtxError`` for what is not known or not right."""
    names.enter(statements)
    for statement in statements:
        if isinstance(statement, Instruction):
            yield _Checker(names, statement).checked()
        elif isinstance(statement, Label):
            symbol = names.find(Name(statement.name, statement.offset))
            if not isinstance(symbol, tuple):  # else it names a table of branch targets
                yield Target(names.place(Name(statement.name, statement.offset)), statement.offset)
        elif isinstance(statement, Scope):
            yield from checked(statement.statements, names)
    names.leave()


class _Checker:
    """Checks one instruction."""

    def __init__(self, names: Names, instruction: Instruction) -> None:
        self._names = names
        self._instruction = instruction

    def checked(self) -> Checked:
        opcode, operands, guard, offset = self._instruction
        known = known_forms(opcode)
        if not known:
            raise self._unknown()
        try:
            form, modifiers, specs = next(one for one in known if one.takes(len(operands)))
        except StopIteration:
            raise self._error(offset, f"{opcode} with {len(operands)} operands is not known") from None
        given = tuple(self._operand(spec, operand) for spec, operand in zip(specs, operands, strict=False))
        missing = (Operand(""),) * (len(specs) - len(given))
        condition = self._scalar(OperandSpec("scalar", "pred", negatable=True), guard).text if guard else ""
        return Checked(opcode, form, Use(modifiers, given + missing), condition, offset)

    def _unknown(self) -> PtxError:
        opcode = self._instruction.opcode
        root = opcode.partition(".")[0]
        forms = FORMS.get(root)
        if not forms:
            return self._error(self._instruction.offset, f"instruction {root} is not known ({opcode})")
        return self._error(self._instruction.offset, f"{opcode} is not among the known forms of {root}")

    def _error(self, offset: int, what: str) -> PtxError:
        return self._names.error(offset, what)

    def _wrong(self, operand: TreeOperand, wanted: str) -> PtxError:
        return self._error(operand.offset, f"{self._instruction.opcode}: expected {wanted} here")

    def _operand(self, spec: OperandSpec, operand: TreeOperand) -> Operand:
        kinds = {
            "address": self._address,
            "number": self._number,
            "packed": self._packed,
            "arguments": self._arguments,
            **dict.fromkeys(("label", "table", "name"), self._named),
        }
        return kinds.get(spec.kind, self._value)(spec, operand)

    def _value(self, spec: OperandSpec, operand: TreeOperand) -> Operand:
        if spec.paired and isinstance(operand, Pair):
            first = self._scalar(spec, operand.first)
            second = self._scalar(OperandSpec("scalar", spec.paired, destination=True), operand.second)
            return Operand(first.text, (first.text, second.text))
        if spec.count == 0 or (spec.count == 1 and not isinstance(operand, Vector)):
            return self._scalar(spec, operand)
        return self._vector(spec, operand)

    def _number(self, _: OperandSpec, operand: TreeOperand) -> Operand:
        if not isinstance(operand, Integer):
            raise self._wrong(operand, "a constant")
        return Operand(str(operand.value))

    def _arguments(self, _: OperandSpec, operand: TreeOperand) -> Operand:
        if not isinstance(operand, Arguments):
            raise self._wrong(operand, "names in parentheses")
        return Operand("", tuple(self._argument(name) for name in operand.elements))

    def _vector(self, spec: OperandSpec, operand: TreeOperand) -> Operand:
        if not isinstance(operand, Vector) or len(operand.elements) != spec.count:
            raise self._wrong(operand, f"a vector of {spec.count}")
        return Operand("", tuple(self._scalar(spec, element).text for element in operand.elements), spec.bits)

    def _packed(self, spec: OperandSpec, operand: TreeOperand) -> Operand:
        """A register of the type, or registers that have its bits together (``mov``, 9.7.9.4)."""
        if not isinstance(operand, Vector):
            return self._scalar(spec, operand)
        bits = spec.bits // len(operand.elements)
        part = OperandSpec("scalar", f"b{bits}", destination=spec.destination)
        return Operand("", tuple(self._scalar(part, element).text for element in operand.elements), bits)

    def _named(self, spec: OperandSpec, operand: TreeOperand) -> Operand:
        if not isinstance(operand, Name):
            raise self._wrong(operand, f"a {spec.kind}")
        if spec.kind == "label":
            return Operand(self._names.place(operand))
        if spec.kind == "name":
            return Operand(operand.text)
        symbol = self._names.find(operand)
        if not isinstance(symbol, tuple):
            raise self._wrong(operand, "a table of branch targets")
        return Operand("", symbol)

    def _argument(self, name: Name) -> str:
        symbol = self._names.find(name)
        if not isinstance(symbol, Memory):
            raise self._wrong(name, "a variable in .param")
        return symbol.c

    def _address(self, _: OperandSpec, operand: TreeOperand) -> Operand:
        if not isinstance(operand, Address):
            raise self._wrong(operand, "an address in brackets")
        if isinstance(operand.base, Integer):
            return Operand(f"UINT64_C({operand.base.value + operand.addend & 0xFFFFFFFFFFFFFFFF})")
        symbol = self._names.find(operand.base)
        if isinstance(symbol, Register):
            if width(symbol.type) not in (32, 64) or symbol.type.startswith("f"):
                raise self._wrong(operand.base, "a register with an address")
        elif not isinstance(symbol, Memory):
            raise self._wrong(operand.base, "a register or variable")
        base = f"(uint64_t){symbol.c}"
        return Operand(f"({base} + UINT64_C({operand.addend & 0xFFFFFFFFFFFFFFFF}))" if operand.addend else base)

    def _scalar(self, spec: OperandSpec, operand: TreeOperand) -> Operand:
        if isinstance(operand, Name):
            return self._register(spec, operand)
        if spec.destination:
            raise self._wrong(operand, "a register")
        if isinstance(operand, Sum):
            symbol = self._names.find(operand.base)
            if not isinstance(symbol, Memory) or spec.bits not in (32, 64):
                raise self._wrong(operand, f"a value of type .{spec.type}")
            return Operand(f"(uint{spec.bits}_t)({symbol.c} + UINT64_C({operand.addend & 0xFFFFFFFFFFFFFFFF}))")
        return Operand(self._constant(spec, operand), (), spec.bits)

    def _constant(self, spec: OperandSpec, operand: TreeOperand) -> str:
        if isinstance(operand, Integer) and spec.type == "pred":
            return "true" if operand.value else "false"
        if isinstance(operand, Integer) and not is_float(spec.type):
            return constant(operand.value, spec.bits)
        if isinstance(operand, Real) and operand.width == spec.bits and spec.type[0] in "bf":
            return constant(operand.bits, spec.bits)
        raise self._wrong(operand, f"a value of type .{spec.type}")

    def _register(self, spec: OperandSpec, name: Name) -> Operand:
        if spec.destination and name.text == "_":
            return Operand("", (), spec.bits)
        symbol = self._names.find(name)
        if isinstance(symbol, Memory) and spec.bits in (32, 64) and not spec.destination:
            return Operand(f"(uint{spec.bits}_t){symbol.c}", (), spec.bits)
        if isinstance(symbol, Special) and symbol.bits == spec.bits and not spec.destination:
            return Operand(symbol.c, (), spec.bits)
        if not isinstance(symbol, Register) or not fits(symbol.type, spec) or (name.negated and not spec.negatable):
            raise self._wrong(name, f"a register of type .{spec.type}")
        return Operand(f"!{symbol.c}" if name.negated else symbol.c, (), width(symbol.type))


def constant(value: int, bits: int) -> str:
    """A C constant of ``bits`` with the bits of ``value``."""
    return f"UINT{max(bits, 8)}_C({value & (1 << bits) - 1:#x})"


def is_float(type_: str) -> bool:
    """Whether numbers of the type are floating-point."""
    return type_ in ("f16", "f32", "f64", "bf16", "f16x2", "bf16x2", "tf32")


def fits(register: str, spec: OperandSpec) -> bool:
    """Whether a register of a type can be such an operand (9.2, table 25; 9.4.1 for wider registers)."""
    wanted = spec.type
    if "pred" in (register, wanted):
        return register == wanted
    if spec.wider and width(register) > width(wanted):
        return not is_float(register) and (not is_float(wanted) or register[0] == "b")
    untyped = register[0] == "b" or (wanted[0] == "b" and not is_float(wanted))
    return width(register) == width(wanted) and (untyped or is_float(register) == is_float(wanted))
