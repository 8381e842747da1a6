"""Conversion between types (PTX ISA 9.0, 9.7.9.22).

An integer that does not fit is truncated, or clamped with ``.sat``. A floating-point number that becomes an integer
is always clamped; a NaN becomes 0, or the integer with only the highest bit set if source or target has 64 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import call, joined, table

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form

_SECTION = "9.7.9.22 Data Movement and Conversion Instructions: cvt"
_INTEGERS = "u8 s8 u16 s16 u32 s32 u64 s64"

FORMS: tuple[Form, ...] = joined(
    (
        table(
            _SECTION,
            ("cvt{.sat}.<to>.<from>", "=>{to} >{from}", call("cvt{sat}_{to}_{from}")),
            to=_INTEGERS,
            **{"from": _INTEGERS},
        ),
        table(
            _SECTION,
            ("cvt.rn.<to>.<from>", "={to} >{from}", call("cvt_{to}_{from}")),
            to="f16 bf16 f32 f64",
            **{"from": _INTEGERS},
        ),
        table(
            _SECTION,
            ("cvt.<integral>{.ftz}{.sat}.<to>.f32", "=>{to} f32", call("cvt_{integral}{ftz}_{to}_f32")),
            ("cvt.<integral>{.sat}.<to>.<from>", "=>{to} {from}", call("cvt_{integral}_{to}_{from}")),
            integral="rni rzi rmi rpi",
            to=_INTEGERS,
            **{"from": "f16 bf16 f64"},
        ),
        table(
            _SECTION,
            ("cvt{.ftz}.f32.f16", "=f32 f16", call("cvt_f32_f16")),
            ("cvt.f32.bf16", "=f32 bf16", call("cvt_f32_bf16")),
            ("cvt{.ftz}.f64.f32", "=f64 f32", call("cvt{ftz}_f64_f32")),
            ("cvt.<rnd=both>{.ftz}{.sat}.f32.f64", "=f32 f64", call("cvt{rnd}{ftz}{sat}_f32_f64")),
            ("cvt.<rnd=both>{.ftz}{.sat}.f16.f32", "=f16 f32", call("cvt{rnd}{ftz}{sat}_f16_f32")),
            ("cvt.<rnd=both>{.relu}.f16.f32", "=f16 f32", call("cvt{rnd}{relu}_f16_f32")),
            ("cvt.<rnd=both>{.relu}.bf16.f32", "=bf16 f32", call("cvt{rnd}{relu}_bf16_f32")),
            ("cvt.rn.f16.f64", "=f16 f64", call("cvt_f16_f64")),
            ("cvt.<rnd=both>{.relu}.f16x2.f32", "=f16x2 f32 f32", call("cvt{rnd}{relu}_f16x2_f32")),
            ("cvt.<rnd=both>{.relu}.bf16x2.f32", "=bf16x2 f32 f32", call("cvt{rnd}{relu}_bf16x2_f32")),
            ("cvt.rna.tf32.f32", "=b32 f32", call("cvt_rna_tf32_f32")),
            ("cvt{.ftz}{.sat}.f32.f32", "=f32 f32", call("cvt_same{ftz}{sat}_f32")),
            ("cvt.<integral>{.ftz}{.sat}.f32.f32", "=f32 f32", call("cvt_{integral}_same{ftz}{sat}_f32")),
            ("cvt.<integral>.f64.f64", "=f64 f64", call("cvt_{integral}_f64_f64")),
            ("cvt.<integral>.f16.f16", "=f16 f16", call("cvt_{integral}_f16_f16")),
            ("cvt.rn{.relu}.f16x2.<pair>", "=f16x2 b16", call("cvt{relu}_f16x2_{pair}")),
            ("cvt.rn.satfinite{.relu}.<pair>.f32", "=b16 f32 f32", call("cvt{relu}_{pair}_f32")),
            ("cvt.rn.satfinite{.relu}.<pair>.f16x2", "=b16 f16x2", call("cvt{relu}_{pair}_f16x2")),
            ("cvt.rn{.relu}.f16x2.e2m1x2", "=f16x2 b8", call("cvt{relu}_f16x2_e2m1x2")),
            ("cvt.rn.satfinite{.relu}.e2m1x2.f32", "=b8 f32 f32", call("cvt{relu}_e2m1x2_f32")),
            ("cvt.rn.bf16x2.ue8m0x2", "=bf16x2 b16", call("cvt_bf16x2_ue8m0x2")),
            both="rn rz",
            integral="rni rzi rmi rpi",
            pair="e4m3x2 e5m2x2",
        ),
    )
)
