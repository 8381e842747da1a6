"""Integer arithmetic, logic, shifts, conversions and comparisons of PTX: every form, against Python's integers."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.support import ptx_cases
from tests.support.ptx_cases import Family, Instruction
from tests.support.ptx_execution import Case
from tests.support.ptx_reference import signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.integration
TYPES = [f"{sign}{bits}" for bits in (16, 32, 64) for sign in "su"]


def value(bits_: int, type_: str) -> int:
    """The number that the lower bits of an operand are."""
    bits = int(type_[1:])
    return signed(bits_, bits) if type_[0] == "s" else bits_ & ((1 << bits) - 1)


def instruction(text: str, types: str, function: Callable[..., int], result: int | None = None) -> Instruction:
    """``text`` with operands of ``types`` (the first is that of a), whose values ``function`` takes."""
    names = types.split()
    bits = result or int(names[0][1:])
    operands = ", ".join(f"{{{name}{type_[1:]}}}" for name, type_ in zip("abc", names, strict=False))

    def expected(*row: int) -> int:
        found = function(*(value(one, type_) for one, type_ in zip(row, names, strict=False)))
        return found & ((1 << max(bits, 1)) - 1)

    return Instruction(Case(f"{text} {{d}}, {operands};", bits), expected)


def quotient(a: int, b: int) -> int:
    if b == 0:
        return -1
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def arithmetic() -> Iterator[Instruction]:
    for type_ in TYPES:
        bits, two, three = int(type_[1:]), f"{type_} {type_}", f"{type_} {type_} {type_}"
        yield instruction(f"add.{type_}", two, lambda a, b: a + b)
        yield instruction(f"sub.{type_}", two, lambda a, b: a - b)
        yield instruction(f"mul.lo.{type_}", two, lambda a, b: a * b)
        yield instruction(f"mul.hi.{type_}", two, lambda a, b, bits=bits: a * b >> bits)
        yield instruction(f"mad.lo.{type_}", three, lambda a, b, c: a * b + c)
        yield instruction(f"mad.hi.{type_}", three, lambda a, b, c, bits=bits: (a * b >> bits) + c)
        yield instruction(f"div.{type_}", two, quotient)
        yield instruction(f"rem.{type_}", two, lambda a, b: a - quotient(a, b) * b if b else a)
        yield instruction(f"min.{type_}", two, min)
        yield instruction(f"max.{type_}", two, max)
        yield instruction(f"sad.{type_}", three, lambda a, b, c: c + abs(a - b))
        if bits < 64:
            yield instruction(f"mul.wide.{type_}", two, lambda a, b: a * b, 2 * bits)
            wide = f"{two} {type_[0]}{2 * bits}"
            yield instruction(f"mad.wide.{type_}", wide, lambda a, b, c: a * b + c, 2 * bits)
        if type_[0] == "s":
            yield instruction(f"abs.{type_}", type_, abs)
            yield instruction(f"neg.{type_}", type_, lambda a: -a)
    for name, function in (("add", operator.add), ("sub", operator.sub)):
        yield instruction(f"{name}.sat.s32", "s32 s32", partial(clamped, function))
    for a_type in ("s8", "u8"):
        for b_type in ("s8", "u8"):
            names = f"{a_type[0]}32.{b_type[0]}32"
            yield instruction(f"dp4a.{names}", "u32 u32 u32", dot(a_type, b_type, 4, 0))
            wide = f"{a_type[0]}16"
            yield instruction(f"dp2a.lo.{names}", "u32 u32 u32", dot(wide, b_type, 2, 0))
            yield instruction(f"dp2a.hi.{names}", "u32 u32 u32", dot(wide, b_type, 2, 2))


def clamped(function: Callable[[int, int], int], a: int, b: int) -> int:
    return max(-(1 << 31), min((1 << 31) - 1, function(a, b)))


def dot(a_type: str, b_type: str, count: int, first: int) -> Callable[[int, int, int], int]:
    a_bits, b_bits = int(a_type[1:]), int(b_type[1:])

    def function(a: int, b: int, c: int) -> int:
        return c + sum(value(a >> a_bits * i, a_type) * value(b >> b_bits * (i + first), b_type) for i in range(count))

    return function


def bits_of(a: int, count: int) -> str:
    """Bit 0 first."""
    return format(a, f"0{count}b")[::-1]


def of_predicates(function: Callable[[bool, bool], bool], a: int, b: int, _: int) -> int:
    return int(function(a & 0xFFFF != 0, b & 0xFFFF != 0))


def looked_up(table: int, a: int, b: int, c: int) -> int:
    return sum((table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) & 1) << i for i in range(32))


def field(a: int, b: int, c: int, *, bits: int, extend: bool) -> int:
    """``bfe`` as the ISA's pseudocode has it."""
    a &= (1 << bits) - 1
    position, length = b & 0xFF, c & 0xFF
    sign = 0 if not extend or length == 0 else int(bits_of(a, bits)[min(position + length - 1, bits - 1)])
    source = bits_of(a, bits)
    return sum(
        (int(source[position + i]) if i < length and position + i <= bits - 1 else sign) << i for i in range(bits)
    )


def inserted(a: int, b: int, c: int, *, length: int, bits: int) -> int:
    """``bfi`` as the ISA's pseudocode has it."""
    mask = (1 << bits) - 1
    target, source = list(bits_of(b & mask, bits)), bits_of(a & mask, bits)
    for i in range(length & 0xFF):
        if (c & 0xFF) + i >= bits:
            break
        target[(c & 0xFF) + i] = source[i]
    return int("".join(target)[::-1], 2)


def highest(a: int, bits: int) -> int:
    magnitude = a if a >= 0 else ~a
    return magnitude.bit_length() - 1 & ((1 << bits) - 1)


def distance(bits: int, a: int) -> int:
    """From the highest bit of the type to the one that ``bfind`` finds."""
    return -1 if a in (0, -1) else bits - 1 - highest(a, 32)


def logic() -> Iterator[Instruction]:
    for bits in (16, 32, 64):
        u, s = f"u{bits}", f"s{bits}"
        yield instruction(f"and.b{bits}", f"{u} {u}", lambda a, b: a & b)
        yield instruction(f"or.b{bits}", f"{u} {u}", lambda a, b: a | b)
        yield instruction(f"xor.b{bits}", f"{u} {u}", lambda a, b: a ^ b)
        yield instruction(f"not.b{bits}", u, lambda a: ~a)
        yield instruction(f"cnot.b{bits}", u, lambda a: int(a == 0))
        yield instruction(f"shl.b{bits}", f"{u} u32", lambda a, b: a << min(b, 64))
        yield instruction(f"shr.b{bits}", f"{u} u32", lambda a, b: a >> min(b, 64))
        yield instruction(f"shr.u{bits}", f"{u} u32", lambda a, b: a >> min(b, 64))
        yield instruction(f"shr.s{bits}", f"{s} u32", lambda a, b: a >> min(b, 64))
        if bits == 16:
            continue
        yield instruction(f"popc.b{bits}", u, lambda a: a.bit_count(), 32)
        yield instruction(f"clz.b{bits}", u, lambda a, bits=bits: bits - a.bit_length(), 32)
        yield instruction(f"brev.b{bits}", u, lambda a, bits=bits: int(bits_of(a, bits), 2))
        for type_ in (u, s):
            yield instruction(f"bfind.{type_}", type_, lambda a: highest(a, 32), 32)
            yield instruction(f"bfind.shiftamt.{type_}", type_, partial(distance, bits), 32)
            extend = type_ == s
            yield instruction(f"bfe.{type_}", f"{type_} u32 u32", partial(field, bits=bits, extend=extend))
        for length in (0, 1, 5, 31, 32, 64, 255):
            text = f"bfi.b{bits} {{d}}, {{a{bits}}}, {{b{bits}}}, {{c32}}, {length};"
            yield Instruction(Case(text, bits), partial(inserted, bits=bits, length=length))
    yield instruction("shf.l.clamp.b32", "u32 u32 u32", lambda a, b, c: (b << 32 | a) << min(c, 32) >> 32)
    yield instruction("shf.r.clamp.b32", "u32 u32 u32", lambda a, b, c: (b << 32 | a) >> min(c, 32))
    yield instruction("shf.l.wrap.b32", "u32 u32 u32", lambda a, b, c: (b << 32 | a) << (c & 31) >> 32)
    yield instruction("shf.r.wrap.b32", "u32 u32 u32", lambda a, b, c: (b << 32 | a) >> (c & 31))
    for table in (0x00, 0x1B, 0x96, 0xC0, 0xE8, 0xF8, 0xCA, 0xFF):
        text = f"lop3.b32 {{d}}, {{a32}}, {{b32}}, {{c32}}, {table:#x};"
        yield Instruction(Case(text, 32), partial(looked_up, table))
    yield instruction("bmsk.clamp.b32", "u32 u32", lambda a, b: ((1 << min(b, 32)) - 1) << a if a < 32 else 0)
    yield instruction("bmsk.wrap.b32", "u32 u32", lambda a, b: ((1 << (b & 31)) - 1) << (a & 31))
    for mode, select in PERMUTATIONS.items():
        suffix = "" if mode == "default" else f".{mode}"
        yield instruction(f"prmt.b32{suffix}", "u32 u32 u32", permuted(select))
    for name, function in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor)):
        yield Instruction(Case(f"{name}.pred {{d}}, {{a1}}, {{b1}};", 1), partial(of_predicates, function))
    yield Instruction(Case("not.pred {d}, {a1};", 1), lambda a, _, __: int(a & 0xFFFF == 0))
    yield Instruction(Case("selp.b64 {d}, {b64}, {c64}, {a1};", 64), lambda a, b, c: b if a & 0xFFFF else c)


# The tables of the ISA (9.7.9.7): the four bytes, highest first, that each of the lowest bits of c selects.
PERMUTATIONS: dict[str, tuple[str, ...]] = {
    "default": (),
    "f4e": ("3210", "4321", "5432", "6543"),
    "b4e": ("5670", "6701", "7012", "0123"),
    "rc8": ("0000", "1111", "2222", "3333"),
    "ecl": ("3210", "3211", "3222", "3333"),
    "ecr": ("0000", "1110", "2210", "3210"),
    "rc16": ("1010", "3232", "1010", "3232"),
}


def permuted(table: tuple[str, ...]) -> Callable[[int, int, int], int]:
    def function(a: int, b: int, c: int) -> int:
        source = (b << 32 | a).to_bytes(8, "little")
        if table:
            return int.from_bytes(bytes(source[int(digit)] for digit in table[c & 3]), "big")
        chosen = [(c >> 4 * i & 7, c >> 4 * i & 8) for i in range(4)]
        return int.from_bytes(bytes(255 * (source[n] >> 7) if sign else source[n] for n, sign in chosen), "little")

    return function


COMPARISONS = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
UNSIGNED = {"lo": operator.lt, "ls": operator.le, "hi": operator.gt, "hs": operator.ge}


def less_combined(function: Callable[[bool, bool], bool], type_: str, a: int, b: int, _: int) -> int:
    return int(function(value(a, type_) < value(b, type_), a & 0xFFFF == 0))


def conversions_and_comparisons() -> Iterator[Instruction]:
    integers = ("u8", "s8", *TYPES)
    for to in integers:
        for source in integers:
            bits, register = int(to[1:]), max(int(source[1:]), 16)
            stored = max(bits, 16)
            for sat in ("", ".sat"):

                def expected(a: int, _: int, __: int, to: str = to, source: str = source, sat: str = sat) -> int:
                    bits = int(to[1:])
                    number = value(a, source)
                    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if to[0] == "s" else (0, (1 << bits) - 1)
                    number = max(least, min(most, number)) if sat else value(number, to)
                    return number & ((1 << max(bits, 16)) - 1)

                text = f"cvt{sat}.{to}.{source} {{d}}, {{a{register}}};"
                yield Instruction(Case(text, stored), expected)
    for type_ in TYPES:
        for name, method in (COMPARISONS | (UNSIGNED if type_[0] == "u" else {})).items():
            yield instruction(f"setp.{name}.{type_}", f"{type_} {type_}", lambda a, b, f=method: int(f(a, b)), 1)
        for combine, function in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor)):
            text = f"setp.lt.{combine}.{type_} {{d}}, {{a{type_[1:]}}}, {{b{type_[1:]}}}, !{{a1}};"
            yield Instruction(Case(text, 1), partial(less_combined, function, type_))
    yield Instruction(
        Case("set.gt.u32.s32 {d}, {a32}, {b32};", 32), lambda a, b, _: 0xFFFFFFFF * (signed(a, 32) > signed(b, 32))
    )
    yield Instruction(
        Case("slct.b32.s32 {d}, {a32}, {b32}, {c32};", 32),
        lambda a, b, c: (b if c >> 31 & 1 else a) & 0xFFFFFFFF,
    )
    both = (
        "{{ .reg .pred q; .reg .b32 x; setp.lt.s32 {d}|q, {a32}, {b32}; selp.b32 x, 1, 0, q; setp.eq.u32 {d}, x, 1; }}"
    )
    yield Instruction(Case(both, 1), lambda a, b, _: int(signed(a, 32) >= signed(b, 32)))


FAMILIES = {"arithmetic": arithmetic, "logic": logic, "conversion and comparison": conversions_and_comparisons}


@pytest.fixture(name="family", scope="module", params=FAMILIES)
def _family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return ptx_cases.compiled(tuple(FAMILIES[request.param]()), tmp_path_factory.mktemp("ptx"))


def test_edges(family: Family) -> None:
    assert family.compare(ptx_cases.edge_rows(ptx_cases.INTEGER_EDGES, 2)) > 50_000


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(rows=ptx_cases.rows)
def test_any_operands(family: Family, rows: list[ptx_cases.Row]) -> None:
    family.compare(rows)
