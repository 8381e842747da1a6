"""Matrices of a warp: ldmatrix, movmatrix, mma (PTX ISA 9.0, 9.7.14.5).

Which element a lane has in which register is in the tables of 9.7.14.5.1 to 9.7.14.5.8. For ``mma``, the number of
registers follows from the shape and the types: a fragment's elements are spread over 32 lanes and packed into 32 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import joined, table
from build_config.testbed.emulated_device.instructions.synchronisation import meet

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form, Use

_WARP = 32
_BITS = {"f32": 32, "s32": 32, "tf32": 32, "f16": 16, "bf16": 16, "s8": 8, "u8": 8}


def _registers(rows: int, columns: int, type_: str) -> int:
    return rows * columns * _BITS[type_] // (32 * _WARP)


def _mma(use: Use) -> str:
    """The lanes' registers of A, B and C go to ``thread->a`` in this order; those of D are in ``thread->r``."""
    return _multiplied(use, f"mma_{use['shape']}_{use['result']}_{use['a']}_{use['b']}")


def _multiplied(use: Use, function: str) -> str:
    target, *sources = use.operands
    values = [value for source in sources for value in source.elements or (source.text,)]
    given = " ".join(f"thread->a[{index}] = {value};" for index, value in enumerate(values))
    return meet(target, function, given)


def _ldmatrix(use: Use) -> str:
    target, address = use.operands
    count = len(target.elements) or 1
    row = f"thread->row = ptx_row(thread, {address.text}, {count});"
    return meet(target, f"ldmatrix_x{count}{use['trans'] and '_trans'}", row)


def _movmatrix(use: Use) -> str:
    target, source = use.operands
    return meet(target, "movmatrix", f"thread->a[0] = {source.text};")


def _mma_table(shape: str, result: str, a: str, b: str) -> tuple[Form, ...]:
    m, n, k = (int(text) for text in shape.replace("m", "").replace("n", " ").replace("k", " ").split())
    type_ = {"f32": "f32", "s32": "s32", "f16": "b32"}[result]
    counts = (_registers(m, n, result), _registers(m, k, a), _registers(k, n, b), _registers(m, n, result))
    operands = f"={counts[0]}*{type_} {counts[1]}*b32 {counts[2]}*b32 {counts[3]}*{type_}"
    return table(
        "9.7.14.5 Matrix multiply-accumulate operation using mma instructions",
        (f"mma.sync.aligned.<shape>.row.col.<result>.<a>.<b>.{result}", operands, _mma),
        shape=shape,
        result=result,
        a=a,
        b=b,
    )


MULTIPLICATIONS: tuple[tuple[str, str, str, str], ...] = (
    *((f"m16n8k{k}", result, "f16", "f16") for k in (8, 16) for result in ("f16", "f32")),
    *((f"m16n8k{k}", "f32", "bf16", "bf16") for k in (8, 16)),
    *((f"m16n8k{k}", "f32", "tf32", "tf32") for k in (4, 8)),
    *(
        (shape, "s32", a, b)
        for shape in ("m8n8k16", "m16n8k16", "m16n8k32")
        for a in ("s8", "u8")
        for b in ("s8", "u8")
    ),
)
"""Shape, type of C and D, types of A and B of every known ``mma``."""


def _scaled_mma(use: Use) -> str:
    """A, B, C, then for A and for B: the lane's scales, and which bytes and lanes of a quad have those that count."""
    return _multiplied(use, f"mma_{use['kind']}_{use['scale']}")


SCALED = (("mxf4", "2X", "ue8m0"), ("mxf4nvf4", "4X", "ue4m3"))
"""Kind, number of scales of a row of A and type of the scales of every known ``mma`` with block scaling."""

FORMS: tuple[Form, ...] = joined(
    (
        *(_mma_table(*row) for row in MULTIPLICATIONS),
        *(
            table(
                "9.7.14.5 Matrix multiply-accumulate operation using mma instruction with block scaling",
                (
                    "mma.sync.aligned.kind::<kind>.block_scale.scale_vec::<scale>.m16n8k64.row.col.f32.e2m1.e2m1.f32."
                    + type_,
                    "=4*f32 4*b32 2*b32 4*f32 b32 2*b16 b32 2*b16",
                    _scaled_mma,
                ),
                kind=kind,
                scale=scale,
            )
            for kind, scale, type_ in SCALED
        ),
        *(
            table(
                "9.7.14.5.15 Warp-level matrix load instruction: ldmatrix",
                ("ldmatrix.sync.aligned.m8n8.<count>{.trans}.<space>.b16", f"={number}*b32 address", _ldmatrix),
                ("ldmatrix.sync.aligned.m8n8.<count>{.trans}.b16", f"={number}*b32 address", _ldmatrix),
                count=f"x{number}",
                space="shared shared::cta",
            )
            for number in (1, 2, 4)
        ),
        table(
            "9.7.14.5.17 Warp-level matrix transpose instruction: movmatrix",
            ("movmatrix.sync.aligned.m8n8.trans.b16", "=b32 b32", _movmatrix),
        ),
    )
)
