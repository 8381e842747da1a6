"""Exact arithmetic for the tests of PTX: formats of floating-point numbers, and rounding of a fraction to them.

Numbers are Python floats, in which every f64, f32, f16 and bf16 is exact; results of operations are fractions. Nothing
here is shared with the C headers.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Format:
    """A binary format: ``precision`` with the hidden bit, the exponent of the least normal number."""

    bits: int
    precision: int
    least_exponent: int

    @property
    def exponent_bits(self) -> int:
        return self.bits - self.precision

    @property
    def canonical_nan(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent_bits) - 1) << (self.precision - 1)

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)

    def decode(self, bits: int) -> float:
        negative, magnitude = bits >> (self.bits - 1) & 1, bits & (self.sign - 1)
        if magnitude > self.infinity:
            return math.nan
        if magnitude == self.infinity:
            value = math.inf
        else:
            exponent, fraction = magnitude >> (self.precision - 1), magnitude & ((1 << (self.precision - 1)) - 1)
            scale = self.least_exponent - (self.precision - 1) + max(exponent - 1, 0)
            value = math.ldexp(fraction + ((1 << (self.precision - 1)) if exponent else 0), scale)
        return -value if negative else value

    def is_nan(self, bits: int) -> bool:
        return bits & (self.sign - 1) > self.infinity

    def is_subnormal(self, bits: int) -> bool:
        return 0 < bits & (self.sign - 1) < 1 << (self.precision - 1)

    def flush(self, bits: int) -> int:
        return bits & self.sign if self.is_subnormal(bits) else bits

    def encode(self, value: Fraction, *, negative_zero: bool = False, mode: str = "rn") -> int:
        """Round once. ``mode``: rn (to nearest, ties to even), rz (toward zero), rna (ties away from zero)."""
        if value == 0:
            return self.sign if negative_zero else 0
        magnitude = abs(value)
        exponent = max(_exponent(magnitude), self.least_exponent)
        unit = Fraction(2) ** (exponent - (self.precision - 1))
        steps, rest = divmod(magnitude, unit)
        half = Fraction(1, 2)
        up = rest / unit > half or (rest / unit == half and (mode == "rna" or steps % 2 == 1))
        steps = int(steps) + (up if mode != "rz" else 0)
        code = steps + ((exponent - self.least_exponent) << (self.precision - 1))
        if code >= self.infinity:
            code = self.infinity - 1 if mode == "rz" else self.infinity
        return code | (self.sign if value < 0 else 0)

    def special(self, value: float) -> int:
        """The bits of a NaN (the canonical one), an infinity or a zero."""
        if math.isnan(value):
            return self.canonical_nan
        sign = self.sign if math.copysign(1, value) < 0 else 0
        return (self.infinity if math.isinf(value) else 0) | sign

    def number(self, value: float, mode: str = "rn") -> int:
        """A float, rounded."""
        if not math.isfinite(value) or value == 0:
            return self.special(value)
        return self.encode(Fraction(value), mode=mode)


def _exponent(magnitude: Fraction) -> int:
    """The greatest power of two that is not above ``magnitude``."""
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= magnitude else exponent - 1


F16 = Format(16, 11, -14)
BF16 = Format(16, 8, -126)
F32 = Format(32, 24, -126)
F64 = Format(64, 53, -1022)
TF32 = Format(19, 11, -126)
"""The upper 19 bits of an f32."""
FORMATS = {"f16": F16, "bf16": BF16, "f32": F32, "f64": F64}


def added(x: float, y: float, form: Format, mode: str = "rn") -> int:
    if not (math.isfinite(x) and math.isfinite(y)):
        return form.special(x + y)
    exact = Fraction(x) + Fraction(y)
    return form.encode(exact, mode=mode) if exact else form.special(x + y)


def multiplied(x: float, y: float, form: Format, mode: str = "rn") -> int:
    if not (math.isfinite(x) and math.isfinite(y)):
        return form.special(x * y)
    exact = Fraction(x) * Fraction(y)
    return form.encode(exact, negative_zero=math.copysign(1, x) * math.copysign(1, y) < 0, mode=mode)


def fused(x: float, y: float, z: float, form: Format, mode: str = "rn") -> int:
    if not all(map(math.isfinite, (x, y, z))):
        product = x * y if not (math.isfinite(x) and math.isfinite(y)) else math.copysign(1, x) * math.copysign(1, y)
        return form.special(product + z)
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact:
        return form.encode(exact, mode=mode)
    product = math.copysign(0.0, math.copysign(1, x) * math.copysign(1, y))
    return form.special(product + z if z == 0 and 0 in (x, y) else 0.0)


def divided(x: float, y: float, form: Format) -> int:
    if math.isnan(x) or math.isnan(y) or (x == 0 and y == 0) or (math.isinf(x) and math.isinf(y)):
        return form.canonical_nan
    negative = math.copysign(1, x) * math.copysign(1, y) < 0
    if math.isinf(x) or y == 0:
        return form.special(-math.inf if negative else math.inf)
    if x == 0 or math.isinf(y):
        return form.special(-0.0 if negative else 0.0)
    return form.encode(Fraction(x) / Fraction(y))


def square_root(x: float, form: Format) -> int:
    if math.isnan(x) or x < 0:
        return form.canonical_nan
    if x == 0 or math.isinf(x):
        return form.special(x)
    scaled = Fraction(x) * 4**1200
    root, exact = math.isqrt(int(scaled)), math.isqrt(int(scaled)) ** 2 == scaled
    return form.encode((Fraction(root) + (0 if exact else Fraction(1, 2))) / 2**1200)


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def f32_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")
