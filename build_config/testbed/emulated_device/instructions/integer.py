"""Integer arithmetic (PTX ISA 9.0, 9.7.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import call, infix, table

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form

FORMS: tuple[Form, ...] = table(
    "9.7.1 Integer Arithmetic Instructions",
    ("add.<type>", "={type} {type} {type}", infix("+", "uint{bits}_t")),
    ("add.sat.s32", "=s32 s32 s32", call("add_sat_s32")),
    ("sub.<type>", "={type} {type} {type}", infix("-", "uint{bits}_t")),
    ("sub.sat.s32", "=s32 s32 s32", call("sub_sat_s32")),
    ("mul.<part>.<type>", "={type} {type} {type}", call("mul_{part}_{type}")),
    ("mul.wide.<type=narrow>", "={wide} {type} {type}", call("mul_wide_{type}")),
    ("mad.<part>.<type>", "={type} {type} {type} {type}", call("mad_{part}_{type}")),
    ("mad.wide.<type=narrow>", "={wide} {type} {type} {wide}", call("mad_wide_{type}")),
    ("div.<type>", "={type} {type} {type}", call("div_{type}")),
    ("rem.<type>", "={type} {type} {type}", call("rem_{type}")),
    ("sad.<type>", "={type} {type} {type} {type}", call("sad_{type}")),
    ("abs.<type=signed>", "={type} {type}", call("abs_{type}")),
    ("neg.<type=signed>", "={type} {type}", call("neg_{type}")),
    ("min.<type>", "={type} {type} {type}", call("min_{type}")),
    ("max.<type>", "={type} {type} {type}", call("max_{type}")),
    ("popc.<type=untyped>", "=u32 {type}", call("popc_{type}")),
    ("clz.<type=untyped>", "=u32 {type}", call("clz_{type}")),
    ("bfind{.shiftamt}.<type=long>", "=u32 {type}", call("bfind{shiftamt}_{type}")),
    ("brev.<type=untyped>", "={type} {type}", call("brev_{type}")),
    ("bfe.<type=long>", "={type} {type} u32 u32", call("bfe_{type}")),
    ("bfi.<type=untyped>", "={type} {type} {type} u32 u32", call("bfi_{type}")),
    ("bmsk.<mode>.b32", "=b32 u32 u32", call("bmsk_{mode}")),
    ("dp4a.<first>.<second>", "=b32 b32 b32 b32", call("dp4a_{first}_{second}")),
    ("dp2a.<part>.<first>.<second>", "=b32 b32 b32 b32", call("dp2a_{part}_{first}_{second}")),
    type="s16 u16 s32 u32 s64 u64",
    narrow="s16 u16 s32 u32",
    long="s32 u32 s64 u64",
    signed="s16 s32 s64",
    untyped="b32 b64",
    part="lo hi",
    mode="clamp wrap",
    first="s32 u32",
    second="s32 u32",
)
"""A quotient by zero is left open by the ISA; here all its bits are set."""
