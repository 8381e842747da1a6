"""Floating-point arithmetic in f32 and f64 (PTX ISA 9.0, 9.7.3).

``.approx`` instructions are computed more exactly than the ISA's bounds ask. NaNs have no payload in PTX: which NaN an
operation gives is left open, except for min and max.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import call, table

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form

FORMS: tuple[Form, ...] = table(
    "9.7.3 Floating Point Instructions",
    ("add{.<rnd>}{.ftz}{.sat}.f32", "=f32 f32 f32", call("add{rnd}{ftz}{sat}_f32")),
    ("sub{.<rnd>}{.ftz}{.sat}.f32", "=f32 f32 f32", call("sub{rnd}{ftz}{sat}_f32")),
    ("mul{.<rnd>}{.ftz}{.sat}.f32", "=f32 f32 f32", call("mul{rnd}{ftz}{sat}_f32")),
    ("fma.<rnd>{.ftz}{.sat}.f32", "=f32 f32 f32 f32", call("fma{rnd}{ftz}{sat}_f32")),
    ("mad.<rnd>{.ftz}{.sat}.f32", "=f32 f32 f32 f32", call("fma{rnd}{ftz}{sat}_f32")),
    ("add{.rn}.f64", "=f64 f64 f64", call("add_f64")),
    ("sub{.rn}.f64", "=f64 f64 f64", call("sub_f64")),
    ("mul{.rn}.f64", "=f64 f64 f64", call("mul_f64")),
    ("fma.rn.f64", "=f64 f64 f64 f64", call("fma_f64")),
    ("mad.rn.f64", "=f64 f64 f64 f64", call("fma_f64")),
    ("div.approx{.ftz}.f32", "=f32 f32 f32", call("div_approx{ftz}_f32")),
    ("div.full{.ftz}.f32", "=f32 f32 f32", call("div{ftz}_f32")),
    ("div.rn{.ftz}.f32", "=f32 f32 f32", call("div{ftz}_f32")),
    ("div.rn.f64", "=f64 f64 f64", call("div_f64")),
    ("rcp.<precision>{.ftz}.f32", "=f32 f32", call("rcp{ftz}_f32")),
    ("rcp.rn.f64", "=f64 f64", call("rcp_f64")),
    ("sqrt.<precision>{.ftz}.f32", "=f32 f32", call("sqrt{ftz}_f32")),
    ("sqrt.rn.f64", "=f64 f64", call("sqrt_f64")),
    ("rsqrt.approx{.ftz}.f32", "=f32 f32", call("rsqrt{ftz}_f32")),
    ("rsqrt.approx.f64", "=f64 f64", call("rsqrt_f64")),
    ("<function>.approx{.ftz}.f32", "=f32 f32", call("{function}{ftz}_f32")),
    ("tanh.approx.f32", "=f32 f32", call("tanh_f32")),
    ("abs{.ftz}.f32", "=f32 f32", call("abs{ftz}_f32")),
    ("neg{.ftz}.f32", "=f32 f32", call("neg{ftz}_f32")),
    ("min{.ftz}{.NaN}.f32", "=f32 f32 f32", call("min{ftz}{NaN}_f32")),
    ("max{.ftz}{.NaN}.f32", "=f32 f32 f32", call("max{ftz}{NaN}_f32")),
    ("abs.f64", "=f64 f64", call("abs_f64")),
    ("neg.f64", "=f64 f64", call("neg_f64")),
    ("min.f64", "=f64 f64 f64", call("min_f64")),
    ("max.f64", "=f64 f64 f64", call("max_f64")),
    ("copysign.f32", "=f32 f32 f32", call("copysign_f32")),
    ("copysign.f64", "=f64 f64 f64", call("copysign_f64")),
    ("testp.<property>.f32", "=pred f32", call("testp_{property}_f32")),
    ("testp.<property>.f64", "=pred f64", call("testp_{property}_f64")),
    rnd="rn rz",
    precision="approx rn",
    function="sin cos lg2 ex2",
    property="finite infinite number notanumber normal subnormal",
)
