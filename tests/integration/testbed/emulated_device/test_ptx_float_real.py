"""Arithmetic and comparisons of PTX in f32, f64, f16 and bf16: every form, against fractions rounded once."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.support import ptx_cases
from tests.support.ptx_cases import Family, Instruction, Row
from tests.support.ptx_execution import Case
from tests.support.ptx_reference import FORMATS, Format, added, divided, fused, multiplied, square_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


def instruction(opcode: str, type_: str, count: int, exact: Callable[..., int], *, any_nan: bool = True) -> Instruction:
    """``opcode`` with so many operands; ``exact`` takes their values and gives the bits of the result.

    ``ftz``, ``sat`` and ``relu`` are read from the opcode. A type of two is made of its halves.
    """
    flags = opcode.split(".")
    pair = type_.endswith("x2")
    form = FORMATS[type_.removesuffix("x2")]
    flush, width = "ftz" in flags, 2 * form.bits if pair else form.bits

    def one(*row: int) -> int:
        bits = [form.flush(operand) if flush else operand for operand in row[:count]]
        result = exact(*(form.decode(operand) for operand in bits))
        result = form.flush(result) if flush else result
        if "sat" in flags:
            number = form.decode(result)
            result = 0 if not number > 0 else min(result, form.number(1.0))
        if "relu" in flags and not form.is_nan(result):
            result = 0 if result & form.sign else result
        return result

    def expected(*row: int) -> int:
        mask = (1 << form.bits) - 1
        if not pair:
            return one(*(operand & mask for operand in row))
        high = one(*(operand >> 16 & mask for operand in row))
        return high << 16 | one(*(operand & mask for operand in row))

    operands = ", ".join(f"{{{name}{width}}}" for name in "abc"[:count])
    case = Case(f"{opcode}.{type_} {{d}}, {operands};", width)
    if pair and any_nan:

        def within(found: int, row: Row) -> bool:
            right = expected(*row)
            return all(
                found >> shift & 0xFFFF == right >> shift & 0xFFFF
                or (form.is_nan(found >> shift & 0xFFFF) and form.is_nan(right >> shift & 0xFFFF))
                for shift in (0, 16)
            )

        return Instruction(case, expected, within=within)
    return Instruction(case, expected, form if any_nan else None)


def extreme(form: Format, *, greatest: bool, keep_nan: bool) -> Callable[[float, float], int]:
    """min and max: -0 is less than +0, a NaN loses; with .NaN it wins."""

    def function(x: float, y: float) -> int:
        if math.isnan(x) or math.isnan(y):
            if keep_nan or (math.isnan(x) and math.isnan(y)):
                return form.canonical_nan
            return form.number(y if math.isnan(x) else x)
        ordered = sorted((x, y), key=lambda number: (number, math.copysign(1, number)))
        return form.number(ordered[greatest])

    return function


def f32() -> Iterator[Instruction]:
    form = FORMATS["f32"]
    for ftz in ("", ".ftz"):
        for sat in ("", ".sat"):
            for rounding in ("", ".rn", ".rz"):
                mode = rounding[1:] or "rn"
                flags = f"{rounding}{ftz}{sat}"
                yield instruction(f"add{flags}", "f32", 2, lambda x, y, mode=mode: added(x, y, form, mode))
                yield instruction(f"sub{flags}", "f32", 2, lambda x, y, mode=mode: added(x, -y, form, mode))
                yield instruction(f"mul{flags}", "f32", 2, lambda x, y, mode=mode: multiplied(x, y, form, mode))
                if rounding:
                    function = lambda x, y, z, mode=mode: fused(x, y, z, form, mode)  # noqa: E731
                    yield instruction(f"fma{flags}", "f32", 3, function)
                    yield instruction(f"mad{flags}", "f32", 3, function)
        for name in ("div.rn", "div.full"):
            yield instruction(f"{name}{ftz}", "f32", 2, lambda x, y: divided(x, y, form))
        yield instruction(f"div.approx{ftz}", "f32", 2, approximate_quotient)
        for precision in ("rn", "approx"):
            yield instruction(f"rcp.{precision}{ftz}", "f32", 1, lambda x: divided(1.0, x, form))
            yield instruction(f"sqrt.{precision}{ftz}", "f32", 1, lambda x: square_root(x, form))
        yield instruction(f"abs{ftz}", "f32", 1, lambda x: form.number(abs(x)))
        yield instruction(f"neg{ftz}", "f32", 1, lambda x: form.number(-x))
        yield from extremes("f32", ftz, (False, True))
    yield Instruction(Case("copysign.f32 {d}, {a32}, {b32};", 32), lambda a, b, _: (a & 0x80000000) | (b & 0x7FFFFFFF))


def approximate_quotient(x: float, y: float) -> int:
    form = FORMATS["f32"]
    if 2.0**126 < abs(y) < math.inf and not math.isnan(x):
        negative = math.copysign(1, x) != math.copysign(1, y)
        return form.special(math.nan if math.isinf(x) else -0.0 if negative else 0.0)
    return divided(x, y, form)


def extremes(type_: str, ftz: str, keep_nan: tuple[bool, ...]) -> Iterator[Instruction]:
    form = FORMATS[type_.removesuffix("x2")]
    for greatest, name in enumerate(("min", "max")):
        for keep in keep_nan:
            function = extreme(form, greatest=bool(greatest), keep_nan=keep)
            yield instruction(f"{name}{ftz}{'.NaN' if keep else ''}", type_, 2, function, any_nan=False)


def f64() -> Iterator[Instruction]:
    form = FORMATS["f64"]
    for rounding in ("", ".rn"):
        yield instruction(f"add{rounding}", "f64", 2, lambda x, y: added(x, y, form))
        yield instruction(f"sub{rounding}", "f64", 2, lambda x, y: added(x, -y, form))
        yield instruction(f"mul{rounding}", "f64", 2, lambda x, y: multiplied(x, y, form))
    for name in ("fma", "mad"):
        yield instruction(f"{name}.rn", "f64", 3, lambda x, y, z: fused(x, y, z, form))
    yield instruction("div.rn", "f64", 2, lambda x, y: divided(x, y, form))
    yield instruction("rcp.rn", "f64", 1, lambda x: divided(1.0, x, form))
    yield instruction("sqrt.rn", "f64", 1, lambda x: square_root(x, form))
    yield instruction("abs", "f64", 1, lambda x: form.number(abs(x)))
    yield instruction("neg", "f64", 1, lambda x: form.number(-x))
    yield from extremes("f64", "", (False,))
    text, sign = "copysign.f64 {d}, {a64}, {b64};", form.sign
    yield Instruction(Case(text, 64), lambda a, b, _: (a & sign) | (b & (sign - 1)))


def halves() -> Iterator[Instruction]:
    for type_ in ("f16", "f16x2", "bf16", "bf16x2"):
        form = FORMATS[type_.removesuffix("x2")]
        brain = form is FORMATS["bf16"]
        for flags in ("",) if brain else ("", ".ftz", ".sat", ".ftz.sat"):
            for rounding in ("", ".rn"):
                yield instruction(f"add{rounding}{flags}", type_, 2, lambda x, y, form=form: added(x, y, form))
                yield instruction(f"sub{rounding}{flags}", type_, 2, lambda x, y, form=form: added(x, -y, form))
                yield instruction(f"mul{rounding}{flags}", type_, 2, lambda x, y, form=form: multiplied(x, y, form))
            yield instruction(f"fma.rn{flags}", type_, 3, lambda x, y, z, form=form: fused(x, y, z, form))
        for ftz in ("",) if brain else ("", ".ftz"):
            yield instruction(f"fma.rn{ftz}.relu", type_, 3, lambda x, y, z, form=form: fused(x, y, z, form))
            yield instruction(f"neg{ftz}", type_, 1, lambda x, form=form: form.number(-x))
            yield instruction(f"abs{ftz}", type_, 1, lambda x, form=form: form.number(abs(x)))
            yield from extremes(type_, ftz, (False, True))


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x < y or x > y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "num": lambda x, y: not (math.isnan(x) or math.isnan(y)),
    "nan": lambda x, y: math.isnan(x) or math.isnan(y),
}


def compared(name: str, form: Format, flags: str, a: int, b: int, _: int) -> int:
    """``name`` with u at its end is also true for a NaN; ``flags`` contains ftz or not."""
    mask = (1 << form.bits) - 1
    x, y = (form.flush(bits & mask) if "ftz" in flags else bits & mask for bits in (a, b))
    unordered = name.endswith("u")
    is_nan = form.is_nan(x) or form.is_nan(y)
    return int((unordered and is_nan) or COMPARISONS[name.removesuffix("u")](form.decode(x), form.decode(y)))


TRUE = {
    "f32": 0x3F800000,
    "u32": 0xFFFFFFFF,
    "s32": 0xFFFFFFFF,
    "f16": 0x3C00,
    "bf16": 0x3F80,
    "u16": 0xFFFF,
    "s16": 0xFFFF,
}
"""What ``set`` gives, by the type of the result (9.7.6.1, 9.7.7.1)."""
COMBINED: dict[str, Callable[[bool, bool], bool]] = {
    "and": lambda x, y: x and y,
    "or": lambda x, y: x or y,
    "xor": lambda x, y: x != y,
}


def chosen(name: str, form: Format, flags: str, true: int, a: int, b: int, _: int) -> int:
    return true * compared(name, form, flags, a, b, 0)


def chosen_of_two(name: str, form: Format, flags: str, true: int, a: int, b: int, _: int) -> int:
    return sum(chosen(name, form, flags, true, a >> shift, b >> shift, 0) << shift for shift in (0, 16))


def combined(how: str, form: Format, shift: int, flags: str, a: int, b: int, _: int) -> int:
    """A comparison with a third source, which is true if the lower 16 bits of a are 0."""
    return int(COMBINED[how](bool(compared("lt", form, flags, a >> shift, b >> shift, 0)), a & 0xFFFF == 0))


def selections() -> Iterator[Instruction]:
    """``set``, and ``setp`` with a third source."""
    for type_, form in FORMATS.items():
        results = ("u32", "s32", "f32") if form.bits > 16 else ("f16", "bf16", "u16", "s16", "u32", "s32")
        operands = f"{{a{form.bits}}}, {{b{form.bits}}}"
        for ftz in ("", ".ftz") if type_ in ("f32", "f16") else ("",):
            for name, result in itertools.product(("lt", "neu", "geu", "num", "nan"), results):
                case = Case(f"set.{name}{ftz}.{result}.{type_} {{d}}, {operands};", int(result.lstrip("bfsu")))
                yield Instruction(case, partial(chosen, name, form, ftz, TRUE[result]))
            for how in COMBINED:
                text = f"setp.lt.{how}{ftz}.{type_} {{d}}, {operands}, !{{a1}};"
                yield Instruction(Case(text, 1), partial(combined, how, form, 0, ftz))
            if form.bits > 16:
                continue
            for name, result in itertools.product(("lt", "neu", "nan"), (f"{type_}x2", "u32", "s32")):
                case = Case(f"set.{name}{ftz}.{result}.{type_}x2 {{d}}, {{a32}}, {{b32}};", 32)
                true = TRUE[type_] if result.endswith("x2") else 0xFFFF
                yield Instruction(case, partial(chosen_of_two, name, form, ftz, true))
            for how, (shift, target) in itertools.product(COMBINED, ((0, "{d}|_"), (16, "_|{d}"))):
                text = f"setp.lt.{how}{ftz}.{type_}x2 {target}, {{a32}}, {{b32}}, !{{a1}};"
                yield Instruction(Case(text, 1), partial(combined, how, form, shift, ftz))


def less_in_a_half(form: Format, shift: int, a: int, b: int, _: int) -> int:
    return int(form.decode(a >> shift & 0xFFFF) < form.decode(b >> shift & 0xFFFF))


def has_property(name: str, form: Format, a: int, _: int, __: int) -> int:
    return int(PROPERTIES[name](form, a & ((1 << form.bits) - 1)))


def comparisons() -> Iterator[Instruction]:
    names = [*COMPARISONS, *(f"{name}u" for name in ("eq", "ne", "lt", "le", "gt", "ge"))]
    for type_, form in FORMATS.items():
        for ftz in ("", ".ftz") if type_ in ("f32", "f16") else ("",):
            for name in names:
                text = f"setp.{name}{ftz}.{type_} {{d}}, {{a{form.bits}}}, {{b{form.bits}}};"
                yield Instruction(Case(text, 1), partial(compared, name, form, ftz))
    for type_, form in (("f16x2", FORMATS["f16"]), ("bf16x2", FORMATS["bf16"])):
        for shift, chosen in ((0, "{d}|_"), (16, "_|{d}")):
            text = f"setp.lt.{type_} {chosen}, {{a32}}, {{b32}};"
            yield Instruction(Case(text, 1), partial(less_in_a_half, form, shift))
    yield from selections()
    for name in PROPERTIES:
        for type_ in ("f32", "f64"):
            text = f"testp.{name}.{type_} {{d}}, {{a{FORMATS[type_].bits}}};"
            yield Instruction(Case(text, 1), partial(has_property, name, FORMATS[type_]))


PROPERTIES: dict[str, Callable[[Format, int], bool]] = {
    "finite": lambda form, bits: math.isfinite(form.decode(bits)),
    "infinite": lambda form, bits: math.isinf(form.decode(bits)),
    "number": lambda form, bits: not form.is_nan(bits),
    "notanumber": lambda form, bits: form.is_nan(bits),
    "normal": lambda form, bits: math.isfinite(form.decode(bits)) and form.flush(bits) not in (0, form.sign),
    "subnormal": lambda form, bits: form.is_subnormal(bits),
}
FAMILIES = {"f32": f32, "f64": f64, "f16 bf16": halves, "f32 f64 f16 bf16": comparisons}
"""By the types whose edges are compared."""


@pytest.fixture(name="family", scope="module", params=FAMILIES)
def _family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return ptx_cases.compiled(tuple(FAMILIES[request.param]()), tmp_path_factory.mktemp("ptx"))


def test_edges(family: Family, request: pytest.FixtureRequest) -> None:
    types = request.node.callspec.params["family"].split()
    for type_ in types:
        assert family.compare(ptx_cases.edge_rows(ptx_cases.edges(FORMATS[type_])[::2], 2)) > 3000


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(rows=ptx_cases.rows)
def test_any_operands(family: Family, rows: list[Row]) -> None:
    family.compare(rows)


# The ISA's bounds (9.7.3.13 to 9.7.3.22): errors relative to the result; for sin and cos absolute ones (negative).
BOUNDS: dict[str, tuple[Callable[[float], float], float, float, float]] = {
    "rsqrt.approx.f32": (lambda x: 1 / math.sqrt(x), 2.0**-22.9, 1e-37, 1e37),
    "rsqrt.approx.ftz.f32": (lambda x: 1 / math.sqrt(x), 2.0**-22.9, 1e-37, 1e37),
    "ex2.approx.f32": (lambda x: 2.0**x, 2.0**-22, -120, 120),
    "ex2.approx.ftz.f32": (lambda x: 2.0**x, 2.0**-22, -120, 120),
    "tanh.approx.f32": (math.tanh, 2.0**-11, -20, 20),
    "lg2.approx.f32": (math.log2, 2.0**-22, 2.0, 1e38),
    "lg2.approx.ftz.f32": (math.log2, 2.0**-22, 1e-37, 0.5),
    "sin.approx.f32": (math.sin, -(2.0**-20.5), -math.pi, math.pi),
    "sin.approx.ftz.f32": (math.sin, -(2.0**-20.5), -math.pi, math.pi),
    "cos.approx.f32": (math.cos, -(2.0**-20.5), -math.pi, math.pi),
    "cos.approx.ftz.f32": (math.cos, -(2.0**-20.5), -math.pi, math.pi),
    "ex2.approx.f16": (lambda x: 2.0**x, 2.0**-9.9, -14, 15.9),
    "tanh.approx.f16": (math.tanh, 2.0**-10.987, -10, 10),
    "ex2.approx.ftz.bf16": (lambda x: 2.0**x, 2.0**-7, -120, 120),
    "tanh.approx.bf16": (math.tanh, 2.0**-8, -10, 10),
    "rsqrt.approx.f64": (lambda x: 1 / math.sqrt(x), 2.0**-22.9, 1e-300, 1e300),
}
BOUNDS |= {f"{opcode}x2": BOUNDS[opcode] for opcode in BOUNDS if opcode.endswith("f16")}


def bounded(opcode: str) -> Instruction:
    """An instruction whose result is compared in the range for which the ISA states the bound."""
    exact, bound, lower, upper = BOUNDS[opcode]
    type_ = opcode.rpartition(".")[2]
    form = FORMATS[type_.removesuffix("x2")]
    shifts = (0, 16) if type_.endswith("x2") else (0,)
    bits = form.bits * len(shifts)

    def is_good(x: float, result: float) -> bool:
        if not lower <= x <= upper:
            return True
        return abs(result - exact(x)) <= (-bound if bound < 0 else bound * abs(exact(x)))

    def within(found: int, row: Row) -> bool:
        mask = (1 << form.bits) - 1
        return all(is_good(form.decode(row[0] >> shift & mask), form.decode(found >> shift & mask)) for shift in shifts)

    return Instruction(Case(f"{opcode} {{d}}, {{a{bits}}};", bits), lambda a, _, __: a, within=within)


# Limits (9.7.3.15, 9.7.3.16, 9.7.3.20, 9.7.3.21): operand and result as f32.
INF, NAN, SUBNORMAL = math.inf, math.nan, 2.0**-130
SPECIAL_VALUES = {
    "rsqrt.approx.ftz.f32": ((-INF, NAN), (-1, NAN), (-0.0, -INF), (0, INF), (SUBNORMAL, INF), (INF, 0)),
    "rsqrt.approx.f32": ((2.0**-128, 2.0**64), (-SUBNORMAL, NAN)),
    "lg2.approx.ftz.f32": ((-1, NAN), (-0.0, -INF), (SUBNORMAL, -INF), (0, -INF), (1, 0), (INF, INF)),
    "ex2.approx.ftz.f32": ((-INF, 0), (-0.0, 1), (SUBNORMAL, 1), (INF, INF), (-130, 0), (128, INF)),
    "ex2.approx.f32": ((-130, 2.0**-130),),
    "sin.approx.ftz.f32": ((-0.0, -0.0), (0, 0), (INF, NAN)),
    "cos.approx.ftz.f32": ((-0.0, 1), (SUBNORMAL, 1), (INF, NAN)),
    "tanh.approx.f32": ((-INF, -1), (-0.0, -0.0), (INF, 1)),
}


def test_approximations_are_within_the_bounds_of_the_isa(tmp_path: Path) -> None:
    family = ptx_cases.compiled([bounded(opcode) for opcode in BOUNDS], tmp_path)
    steps = [
        FORMATS[opcode.rpartition(".")[2]].encode(lower + (upper - lower) * Fraction(i, 4000))
        for opcode, (_, _, low, high) in BOUNDS.items()
        if not opcode.endswith("x2")
        for lower, upper in ((Fraction(low), Fraction(high)), (Fraction(low), Fraction(low) + 8))
        for i in range(0, 4001, 4)
    ]
    family.compare([(step, 0, 0) for step in steps])
    halves = [step for step in steps if step < 1 << 16]
    family.compare([(low | high << 16, 0, 0) for low, high in zip(halves, halves[7:], strict=False)])


def special(opcode: str, values: tuple[tuple[float, float], ...]) -> Instruction:
    form = FORMATS["f32"]
    results = {form.number(x): form.number(y) for x, y in values}

    def within(found: int, row: Row) -> bool:
        right = results.get(row[0], found)  # the operands of all instructions are in one list
        return found == right or (form.is_nan(found) and form.is_nan(right))

    return Instruction(Case(f"{opcode} {{d}}, {{a32}};", 32), lambda a, _, __: results[a], within=within)


def test_approximations_of_special_values(tmp_path: Path) -> None:
    family = ptx_cases.compiled([special(*item) for item in SPECIAL_VALUES.items()], tmp_path)
    numbers = [number for values in SPECIAL_VALUES.values() for number, _ in values]
    family.compare([(FORMATS["f32"].number(number), 0, 0) for number in numbers])
