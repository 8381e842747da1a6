"""Logic and shifts (PTX ISA 9.0, 9.7.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import call, infix, joined, table

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form, Use


def _not(use: Use) -> str:
    return use.assign(f"(uint{use['bits']}_t)~{use.operands[1].text}")


def _not_predicate(use: Use) -> str:
    return use.assign(f"!{use.operands[1].text}")


FORMS: tuple[Form, ...] = joined(
    (
        table(
            "9.7.8 Logic and Shift Instructions",
            ("and.<type>", "={type} {type} {type}", infix("&", "uint{bits}_t")),
            ("or.<type>", "={type} {type} {type}", infix("|", "uint{bits}_t")),
            ("xor.<type>", "={type} {type} {type}", infix("^", "uint{bits}_t")),
            ("not.<type>", "={type} {type}", _not),
            ("cnot.<type>", "={type} {type}", call("cnot_{type}")),
            ("and.pred", "=pred pred pred", infix("&", "bool")),
            ("or.pred", "=pred pred pred", infix("|", "bool")),
            ("xor.pred", "=pred pred pred", infix("^", "bool")),
            ("not.pred", "=pred pred", _not_predicate),
            ("shl.<type>", "={type} {type} u32", call("shl_{type}")),
            ("shr.<type>", "={type} {type} u32", call("shr_u{bits}")),
            ("shf.<direction>.<mode>.b32", "=b32 b32 b32 u32", call("shf_{direction}_{mode}")),
            ("lop3.b32", "=b32 b32 b32 b32 number", call("lop3")),
            type="b16 b32 b64",
            direction="l r",
            mode="clamp wrap",
        ),
        table(
            "9.7.8 Logic and Shift Instructions",
            ("shr.<type>", "={type} {type} u32", call("shr_{type}")),
            type="u16 s16 u32 s32 u64 s64",
        ),
    )
)
