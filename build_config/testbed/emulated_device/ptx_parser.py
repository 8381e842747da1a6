"""The parser: the text of a PTX file to its tree.

The grammar (PTX ISA 9.0, chapters 4 and 5; ``{x}`` repeats, ``[x]`` is optional, quoted text stands for itself)::

    module     = { variable ";" | function | other ";" }
    function   = { linkage } (".entry" | ".func" [parameters]) name [parameters] { directive } (";" | body)
    parameters = "(" [ variable { "," variable } ] ")"
    variable   = { linkage } space { ".align" number | ".ptr" | space } type name { "[" [number] "]" } [ "=" initial ]
    body       = "{" { statement } "}"
    statement  = label ":" | body | ".reg" type register { "," register } ";" | variable ";"
               | ".branchtargets" name { "," name } ";" | ".pragma" string ";" | ".loc" { number }
               | [ "@" ["!"] name ] opcode [ operand { "," operand } ] ";"
    register   = name [ "<" number ">" ]
    operand    = ["!"] name [ ("+"|"-") number | "|" name ] | constant | "[" (name|number) [ ("+"|"-") number ] "]"
               | "{" operand { "," operand } "}" | "(" [ name { "," name } ] ")"

A file has up to several MB, of which a launch needs one kernel. So ``read_module`` looks for the functions only, and
``parse_body`` is called for those that are translated.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.ptx_tree import (
    TYPE_BYTES,
    Address,
    Arguments,
    BranchTargets,
    Instruction,
    Integer,
    Label,
    Name,
    Operand,
    Pair,
    Real,
    Registers,
    Scope,
    Statement,
    Sum,
    Variable,
    Vector,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from build_config.testbed.emulated_device.ptx_source import PtxError, PtxSource, Token

SPACES = frozenset({".global", ".const", ".shared", ".local", ".param"})
LINKAGES = frozenset({".extern", ".visible", ".weak", ".common"})


def parse_body(source: PtxSource, body: tuple[int, int]) -> tuple[Statement, ...]:
    """The statements between the two offsets; raises ``PtxError``."""
    return TokenReader(source, *body).statements()


def constant(text: str, offset: int) -> Integer | Real:
    """The constant that a token of kind ``number`` writes."""
    lower = text.lower()
    if lower.startswith(("0f", "0d")):
        digits = lower[2:]
        return Real(int(digits, 16), 4 * len(digits), offset)
    if "." in lower:
        return Real(int.from_bytes(struct.pack("<d", float(lower)), "little"), 64, offset)
    digits = lower.removesuffix("u")
    if digits.startswith("0") and digits.isdigit():
        return Integer(int(digits, 8), offset)
    return Integer(int(digits, 0), offset)


class TokenReader:
    """Reads the tokens between two offsets from left to right."""

    def __init__(self, source: PtxSource, start: int, end: int) -> None:
        self.source = source
        self._tokens = source.tokens(start, end)
        self._next = 0
        self._end = end

    @property
    def at_end(self) -> bool:
        """Whether all tokens have been read."""
        return self._next == len(self._tokens)

    def peek(self, ahead: int = 0) -> Token:
        """The next token, or the one ``ahead`` tokens after it; raises ``PtxError`` after the last one."""
        try:
            return self._tokens[self._next + ahead]
        except IndexError:
            raise self.source.error(max(self._end - 1, 0), "the text ends within a statement") from None

    def take(self) -> Token:
        """The next token, which is then read."""
        token = self.peek()
        self._next += 1
        return token

    def accept(self, text: str) -> bool:
        """Whether the next token is ``text``; if so, it is read."""
        if not self.at_end and self._tokens[self._next].text == text:
            self._next += 1
            return True
        return False

    def expect(self, *texts: str) -> Token:
        """The next token, which must be one of ``texts``."""
        token = self.take()
        if token.text not in texts:
            raise self.unexpected(token, " or ".join(map(repr, texts)))
        return token

    def kind(self, kind: str) -> Token:
        """The next token, which must be of ``kind``."""
        token = self.take()
        if token.kind != kind:
            raise self.unexpected(token, f"a {kind}")
        return token

    def number(self) -> int:
        """The next token, which must be an integer."""
        token = self.kind("number")
        value = constant(token.text, token.offset)
        if isinstance(value, Real):
            raise self.unexpected(token, "an integer")
        return value.value

    def unexpected(self, token: Token, wanted: str) -> PtxError:
        """The error that ``token`` is there instead of ``wanted``."""
        return self.source.error(token.offset, f"expected {wanted}, found {token.text!r}")

    def statements(self) -> tuple[Statement, ...]:
        """All statements to the end."""
        found: list[Statement] = []
        while not self.at_end:
            self._statement(found)
        return tuple(found)

    def _statement(self, found: list[Statement]) -> None:
        token = self.peek()
        if token.kind == "word":
            if self._next + 1 < len(self._tokens) and self._tokens[self._next + 1].text == ":":
                self._next += 2
                found.append(Label(token.text, token.offset))
            else:
                found.append(self._instruction(None))
        elif token.text == "@":
            self._next += 1
            negated = self.accept("!")
            guard = self.kind("word")
            found.append(self._instruction(Name(guard.text, guard.offset, negated)))
        elif token.text == "{":
            self._next += 1
            found.append(self._scope(token.offset))
        elif token.kind == "directive":
            self._directive(found)
        elif token.text == ";":
            self._next += 1
        else:
            raise self.unexpected(token, "a statement")

    def _scope(self, offset: int) -> Scope:
        inner: list[Statement] = []
        while not self.accept("}"):
            self._statement(inner)
        return Scope(tuple(inner), offset)

    def _instruction(self, guard: Name | None) -> Instruction:
        opcode = self.kind("word")
        operands: list[Operand] = []
        if not self.accept(";"):
            operands.append(self._operand())
            while self.expect(",", ";").text == ",":
                operands.append(self._operand())
        return Instruction(opcode.text, tuple(operands), guard, opcode.offset)

    def _operand(self) -> Operand:
        token = self.take()
        if token.kind == "word":
            return self._named(token)
        if token.kind == "number":
            return constant(token.text, token.offset)
        read: dict[str, Callable[[int], Operand]] = {
            "[": self._address,
            "{": self._vector,
            "-": lambda offset: Integer(-self.number(), offset),
            "!": lambda offset: Name(self.kind("word").text, offset, negated=True),
            "(": self._arguments,
        }
        if token.text not in read:
            raise self.unexpected(token, "an operand")
        return read[token.text](token.offset)

    def _vector(self, offset: int) -> Vector:
        elements = [self._operand()]
        while self.expect(",", "}").text == ",":
            elements.append(self._operand())
        return Vector(tuple(elements), offset)

    def _named(self, token: Token) -> Operand:
        name = Name(token.text, token.offset)
        if self.accept("|"):
            second = self.kind("word")
            return Pair(name, Name(second.text, second.offset), token.offset)
        addend = self._addend()
        return name if addend is None else Sum(name, addend, token.offset)

    def _addend(self) -> int | None:
        if self.accept("+"):
            return -self.number() if self.accept("-") else self.number()
        return -self.number() if self.accept("-") else None

    def _address(self, offset: int) -> Address:
        token = self.take()
        if token.kind not in ("word", "number"):
            raise self.unexpected(token, "a register, a variable or a number")
        base = Name(token.text, token.offset) if token.kind == "word" else constant(token.text, token.offset)
        if isinstance(base, Real):
            raise self.unexpected(token, "an integer")
        addend = self._addend() or 0
        self.expect("]")
        return Address(base, addend, offset)

    def _arguments(self, offset: int) -> Arguments:
        names = []
        while not self.accept(")"):
            word = self.kind("word")
            names.append(Name(word.text, word.offset))
            if not self.accept(","):
                self.expect(")")
                break
        return Arguments(tuple(names), offset)

    def _directive(self, found: list[Statement]) -> None:
        token = self.peek()
        if token.text == ".reg":
            found.append(self._registers())
        elif token.text in SPACES or token.text in LINKAGES:
            found.append(self.variable())
            self.expect(";")
        elif token.text == ".branchtargets":
            self._next += 1
            labels = []
            while True:
                word = self.kind("word")
                labels.append(Name(word.text, word.offset))
                if self.expect(",", ";").text == ";":
                    break
            found.append(BranchTargets(tuple(labels), token.offset))
        elif token.text == ".pragma":  # hints for the optimiser
            self._next += 1
            self.kind("string")
            self.expect(";")
        elif token.text == ".loc":  # positions in the CUDA source: to the end of the line, without a semicolon
            line_end = self.source.text.find("\n", token.offset)
            while not self.at_end and self.peek().offset < line_end:
                self._next += 1
        else:
            raise self.source.error(token.offset, f"directive {token.text} is not known")

    def type_name(self) -> str:
        """The next token, which must be a type, without its dot."""
        token = self.kind("directive")
        if token.text[1:] not in TYPE_BYTES:
            raise self.source.error(token.offset, f"type {token.text} is not known")
        return token.text[1:]

    def _registers(self) -> Registers:
        offset = self.expect(".reg").offset
        type_ = self.type_name()
        names: list[str] = []
        while True:
            name = self.kind("word").text
            if self.accept("<"):
                names.extend(f"{name}{number}" for number in range(self.number()))
                self.expect(">")
            else:
                names.append(name)
            if self.expect(",", ";").text == ";":
                return Registers(type_, tuple(names), offset)

    def variable(self) -> Variable:
        """A declaration of a variable or parameter, to the end of its array dimensions."""
        external = False
        while self.peek().text in LINKAGES:
            external |= self.take().text == ".extern"
        space = self.expect(*sorted(SPACES))
        alignment = None
        while self.peek().text in (".align", ".ptr", *SPACES):
            if self.take().text == ".align":
                alignment = self.number()
        lanes = 1
        if vector := re.fullmatch(r"\.v([24])", self.peek().text):
            self._next += 1
            lanes = int(vector[1])
        type_ = self.type_name()
        while self.peek().text in (".align", ".ptr", *SPACES):  # a parameter's pointer: what it points to
            if self.take().text == ".align":
                self.number()
        name = self.kind("word")
        count = lanes
        while self.accept("["):
            count *= 0 if self.peek().text == "]" else self.number()
            self.expect("]")
        size = TYPE_BYTES[type_]
        return Variable(
            name.text, space.text[1:], type_, alignment or size * lanes, count * size, name.offset, None, external
        )
