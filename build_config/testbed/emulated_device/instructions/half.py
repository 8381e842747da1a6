"""Arithmetic in f16, bf16 and vectors of two (PTX ISA 9.0, 9.7.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import call, table

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form

FORMS: tuple[Form, ...] = table(
    "9.7.4 Half Precision Floating Point Instructions",
    ("add{.rn}{.ftz}{.sat}.<type=half>", "={type} {type} {type}", call("add{ftz}{sat}_{type}")),
    ("sub{.rn}{.ftz}{.sat}.<type=half>", "={type} {type} {type}", call("sub{ftz}{sat}_{type}")),
    ("mul{.rn}{.ftz}{.sat}.<type=half>", "={type} {type} {type}", call("mul{ftz}{sat}_{type}")),
    ("fma.rn{.ftz}{.sat}.<type=half>", "={type} {type} {type} {type}", call("fma{ftz}{sat}_{type}")),
    ("fma.rn{.ftz}.relu.<type=half>", "={type} {type} {type} {type}", call("fma{ftz}_relu_{type}")),
    ("add{.rn}.<type=brain>", "={type} {type} {type}", call("add_{type}")),
    ("sub{.rn}.<type=brain>", "={type} {type} {type}", call("sub_{type}")),
    ("mul{.rn}.<type=brain>", "={type} {type} {type}", call("mul_{type}")),
    ("fma.rn{.relu}.<type=brain>", "={type} {type} {type} {type}", call("fma{relu}_{type}")),
    ("neg{.ftz}.<type=half>", "={type} {type}", call("neg{ftz}_{type}")),
    ("abs{.ftz}.<type=half>", "={type} {type}", call("abs{ftz}_{type}")),
    ("neg.<type=brain>", "={type} {type}", call("neg_{type}")),
    ("abs.<type=brain>", "={type} {type}", call("abs_{type}")),
    ("min{.ftz}{.NaN}.<type=half>", "={type} {type} {type}", call("min{ftz}{NaN}_{type}")),
    ("max{.ftz}{.NaN}.<type=half>", "={type} {type} {type}", call("max{ftz}{NaN}_{type}")),
    ("min{.NaN}.<type=brain>", "={type} {type} {type}", call("min{NaN}_{type}")),
    ("max{.NaN}.<type=brain>", "={type} {type} {type}", call("max{NaN}_{type}")),
    ("ex2.approx.<type=half>", "={type} {type}", call("ex2_{type}")),
    ("ex2.approx.ftz.<type=brain>", "={type} {type}", call("ex2_ftz_{type}")),
    ("tanh.approx.<type=half>", "={type} {type}", call("tanh_{type}")),
    ("tanh.approx.<type=brain>", "={type} {type}", call("tanh_{type}")),
    half="f16 f16x2",
    brain="bf16 bf16x2",
)
