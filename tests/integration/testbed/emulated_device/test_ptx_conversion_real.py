"""Conversions of PTX from and to floating-point numbers: every form, against fractions rounded once."""

from __future__ import annotations

import bisect
import functools
import math
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.support import ptx_cases
from tests.support.ptx_cases import Family, Instruction, Row
from tests.support.ptx_execution import Case
from tests.support.ptx_reference import BF16, F16, F32, F64, FORMATS, TF32, Format, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration
INTEGERS = [f"{sign}{bits}" for bits in (8, 16, 32, 64) for sign in "us"]
ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "rni": round,  # ties to even
    "rzi": math.trunc,
    "rmi": math.floor,
    "rpi": math.ceil,
}


def limits(type_: str) -> tuple[int, int]:
    bits = int(type_[1:])
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if type_[0] == "s" else (0, (1 << bits) - 1)


def to_integer(to: str, source: str, rounding: str, *, ftz: bool) -> Callable[[int, int, int], int]:
    form, bits, (least, most) = FORMATS[source], int(to[1:]), limits(to)

    def expected(a: int, _: int, __: int) -> int:
        operand = a & ((1 << form.bits) - 1)
        number = form.decode(form.flush(operand) if ftz else operand)
        if math.isnan(number):  # 9.7.9.22: by the widths of both types
            result = 1 << (bits - 1) if bits == 64 or form.bits == 64 else 0
            result = signed(result, bits) if to[0] == "s" else result
        elif math.isinf(number):
            result = most if number > 0 else least
        else:
            result = max(least, min(most, ROUNDINGS[rounding](Fraction(number))))
        return result & ((1 << max(bits, 16)) - 1)

    return expected


def integers() -> Iterator[Instruction]:
    for type_ in INTEGERS:
        bits, stored = int(type_[1:]), max(int(type_[1:]), 16)
        for to, form in FORMATS.items():

            def from_integer(a: int, _: int, __: int, type_: str = type_, bits: int = bits, form: Format = form) -> int:
                return form.encode(Fraction(signed(a, bits) if type_[0] == "s" else a & ((1 << bits) - 1)))

            yield Instruction(Case(f"cvt.rn.{to}.{type_} {{d}}, {{a{stored}}};", form.bits), from_integer)
        for source, form in FORMATS.items():
            for rounding in ROUNDINGS:
                for ftz in ("", ".ftz") if source == "f32" else ("",):
                    text = f"cvt.{rounding}{ftz}.{type_}.{source} {{d}}, {{a{form.bits}}};"
                    yield Instruction(Case(text, stored), to_integer(type_, source, rounding, ftz=bool(ftz)))
    yield Instruction(Case("cvt.rzi.sat.s32.f32 {d}, {a32};", 32), to_integer("s32", "f32", "rzi", ftz=False))


def narrowed(opcode: str, to: Format, source: Format) -> Instruction:
    """One number to one of a format with fewer bits, or the same; flags are read from the opcode."""
    flags = opcode.split(".")

    def expected(a: int, _: int, __: int) -> int:
        return narrow(a & ((1 << source.bits) - 1), to, source, flags)

    return Instruction(Case(f"{opcode} {{d}}, {{a{source.bits}}};", to.bits), expected, to)


def narrow(bits: int, to: Format, source: Format, flags: list[str]) -> int:
    ftz = "ftz" in flags  # of f32 only
    number = source.decode(source.flush(bits) if ftz and source is F32 else bits)
    integral = next((ROUNDINGS[flag] for flag in flags if flag in ROUNDINGS), None)
    if integral is not None and math.isfinite(number):
        number = math.copysign(integral(Fraction(number)), number)
    result = to.number(number, "rz" if "rz" in flags else "rn")
    if "sat" in flags:
        result = 0 if not to.decode(result) > 0 else min(result, to.number(1.0))
    if "relu" in flags and result & to.sign:
        result = 0
    return to.flush(result) if ftz and to is F32 else result


def floats() -> Iterator[Instruction]:
    for rounding in ("rn", "rz"):
        for ftz in ("", ".ftz"):
            for sat in ("", ".sat"):
                yield narrowed(f"cvt.{rounding}{ftz}{sat}.f32.f64", F32, F64)
                yield narrowed(f"cvt.{rounding}{ftz}{sat}.f16.f32", F16, F32)
        for relu in ("", ".relu"):
            yield narrowed(f"cvt.{rounding}{relu}.bf16.f32", BF16, F32)
            yield from pairs(f"cvt.{rounding}{relu}")
        yield narrowed(f"cvt.{rounding}.relu.f16.f32", F16, F32)
    for rounding in ROUNDINGS:
        for flags in ("", ".ftz", ".sat", ".ftz.sat"):
            yield narrowed(f"cvt.{rounding}{flags}.f32.f32", F32, F32)
        yield narrowed(f"cvt.{rounding}.f64.f64", F64, F64)
        yield narrowed(f"cvt.{rounding}.f16.f16", F16, F16)
    for flags in ("", ".ftz", ".sat", ".ftz.sat"):
        yield narrowed(f"cvt{flags}.f32.f32", F32, F32)
    yield narrowed("cvt.rn.f16.f64", F16, F64)
    yield narrowed("cvt.f64.f32", F64, F32)
    yield narrowed("cvt.ftz.f64.f32", F64, F32)
    yield narrowed("cvt.f32.f16", F32, F16)
    yield narrowed("cvt.ftz.f32.f16", F32, F16)
    yield narrowed("cvt.f32.bf16", F32, BF16)
    yield Instruction(Case("cvt.rna.tf32.f32 {d}, {a32};", 32), tf32)


def small_numbers() -> Iterator[Instruction]:
    for name in ("e4m3", "e5m2"):
        for relu in ("", ".relu"):
            opcode = f"cvt.rn.satfinite{relu}.{name}x2"
            yield Instruction(Case(f"{opcode}.f32 {{d}}, {{a32}}, {{b32}};", 16), partial(small_pair, name, relu))
            yield Instruction(Case(f"{opcode}.f16x2 {{d}}, {{a32}};", 16), partial(small_halves, name, relu))
    for relu in ("", ".relu"):
        text = (
            f"{{{{ .reg .b8 x; cvt.rn.satfinite{relu}.e2m1x2.f32 x, {{a32}}, {{b32}}; mov.b16 {{d}}, {{{{x, 0}}}}; }}}}"
        )
        yield Instruction(Case(text, 16), partial(four_bit_pair, relu))


def four_bit_pair(relu: str, a: int, b: int, _: int) -> int:
    """Two e2m1, which have no NaN: it becomes the largest number, and the sign is bit 3."""
    codes = [small(number, F32, "e2m1", relu) for number in (a, b)]
    first, second = (7 if code == 0x7F else (code & 7) | code >> 4 & 8 for code in codes)
    return first << 4 | second


def small_pair(name: str, relu: str, a: int, b: int, _: int) -> int:
    return small(a, F32, name, relu) << 8 | small(b, F32, name, relu)


def small_halves(name: str, relu: str, a: int, _: int, __: int) -> int:
    return small(a >> 16, F16, name, relu) << 8 | small(a, F16, name, relu)


def pair(form: Format, flags: list[str], a: int, b: int, _: int) -> int:
    return narrow(a & 0xFFFFFFFF, form, F32, flags) << 16 | narrow(b & 0xFFFFFFFF, form, F32, flags)


def pairs(opcode: str) -> Iterator[Instruction]:
    """Two numbers to a vector of two: the first one is the upper one."""
    for name, form in (("f16x2", F16), ("bf16x2", BF16)):
        case = Case(f"{opcode}.{name}.f32 {{d}}, {{a32}}, {{b32}};", 32)
        yield Instruction(case, partial(pair, form, opcode.split(".")))


def tf32(a: int, _: int, __: int) -> int:
    number = F32.decode(a & 0xFFFFFFFF)
    if math.isfinite(number) and number != 0:
        return TF32.encode(Fraction(number), mode="rna") << 13
    return (F32.special(number) >> 13) << 13


SMALL = {"e4m3": (4, 3, 7, 0x7E), "e5m2": (5, 2, 15, 0x7B), "e2m1": (2, 1, 1, 0x7)}
"""Bits of exponent and mantissa, bias, the greatest finite number (5.2.3)."""


def small_value(code: int, name: str) -> Fraction:
    """A finite number of a format of 8 bits without its sign."""
    _, mantissa, bias, _ = SMALL[name]
    exponent, fraction = code >> mantissa, code & ((1 << mantissa) - 1)
    if exponent == 0:
        return Fraction(fraction, 1 << mantissa) * Fraction(2) ** (1 - bias)
    return (1 + Fraction(fraction, 1 << mantissa)) * Fraction(2) ** (exponent - bias)


@functools.cache
def small_values(name: str) -> list[Fraction]:
    """All finite numbers of the format without signs, which are in the order of their codes."""
    return [small_value(code, name) for code in range(SMALL[name][3] + 1)]


def small(bits: int, source: Format, name: str, relu: str) -> int:
    """The nearest number of the format, of two equally near ones the even one."""
    number = source.decode(bits & ((1 << source.bits) - 1))
    if math.isnan(number):
        return 0x7F
    sign = 0x80 if math.copysign(1, number) < 0 else 0
    if relu and sign:
        return 0
    largest = SMALL[name][3]
    if math.isinf(number):
        return sign | largest
    magnitude, values = abs(Fraction(number)), small_values(name)
    above = bisect.bisect(values, magnitude)
    around = range(max(above - 1, 0), min(above, largest) + 1)
    return sign | min(around, key=lambda code: (abs(values[code] - magnitude), code & 1))


FAMILIES = {"integers": integers, "floats": floats, "small": small_numbers}


@pytest.fixture(name="family", scope="module", params=FAMILIES)
def _family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return ptx_cases.compiled(tuple(FAMILIES[request.param]()), tmp_path_factory.mktemp("ptx"))


def test_edges(family: Family) -> None:
    values = (*ptx_cases.FLOAT_EDGES, *ptx_cases.CONVERSION_EDGES, *ptx_cases.INTEGER_EDGES)
    family.compare(ptx_cases.edge_rows(values, 1))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(rows=ptx_cases.rows)
def test_any_operands(family: Family, rows: list[Row]) -> None:
    family.compare(rows)


@functools.cache
def decoded(name: str, code: int) -> int:
    """A number of 8 bits as f16."""
    magnitude, sign = code & 0x7F, (code & 0x80) << 8
    if magnitude <= SMALL[name][3]:
        return F16.encode(small_value(magnitude, name)) | sign
    return F16.infinity | sign if name == "e5m2" and magnitude == SMALL[name][3] + 1 else F16.canonical_nan


def both_decoded(name: str, relu: str, a: int, _: int, __: int) -> int:
    return positive(decoded(name, a >> 8 & 0xFF), relu) << 16 | positive(decoded(name, a & 0xFF), relu)


def positive(half: int, relu: str) -> int:
    """An f16 with .relu: what is negative becomes 0."""
    return 0 if relu and half & F16.sign and not F16.is_nan(half) else half


@functools.cache
def of_4_bits(code: int) -> int:
    """A number of e2m1 as f16."""
    value = (0, 0.5, 1, 1.5, 2, 3, 4, 6)[code & 7]
    return F16.number(float(value)) | (code & 8) << 12


@functools.cache
def power_of_two(code: int) -> int:
    """A number of ue8m0 as bf16."""
    return BF16.canonical_nan if code == 0xFF else BF16.encode(Fraction(2) ** (code - 127))


def both_of_4_bits(relu: str, a: int, _: int, __: int) -> int:
    return positive(of_4_bits(a >> 4 & 15), relu) << 16 | positive(of_4_bits(a & 15), relu)


def all_of_16_bits() -> Iterator[Instruction]:
    powers = "cvt.rn.bf16x2.ue8m0x2 {d}, {a16};"
    yield Instruction(Case(powers, 32), lambda a, _, __: power_of_two(a >> 8 & 255) << 16 | power_of_two(a & 255))
    yield narrowed("cvt.f32.f16", F32, F16)
    for relu in ("", ".relu"):
        half = f"{{{{ .reg .b8 x, y; mov.b16 {{{{x, y}}}}, {{a16}}; cvt.rn{relu}.f16x2.e2m1x2 {{d}}, x; }}}}"
        yield Instruction(Case(half, 32), partial(both_of_4_bits, relu))
        for name in ("e4m3", "e5m2"):
            text = f"cvt.rn{relu}.f16x2.{name}x2 {{d}}, {{a16}};"
            yield Instruction(Case(text, 32), partial(both_decoded, name, relu))


def test_every_number_of_16_bits(tmp_path: Path) -> None:
    family = ptx_cases.compiled(tuple(all_of_16_bits()), tmp_path)
    assert family.compare([(number, 0, 0) for number in range(1 << 16)]) == 8 << 16
