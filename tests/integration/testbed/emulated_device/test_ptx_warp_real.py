"""What the threads of a warp or block do together: shuffles, votes, matrices, barriers, atomics, asynchronous copies.

The reference for the layout of matrices are the figures of PTX ISA 9.0, 9.7.14.5, written as they are there: row and
column of element i of a fragment as functions of ``groupID = lane >> 2`` and ``threadID_in_group = lane % 4``.
"""

from __future__ import annotations

import operator
import random
from fractions import Fraction
from functools import partial, reduce
from typing import TYPE_CHECKING

import numpy as np
import pytest

from build_config.testbed.emulated_device.instructions.matrix import MULTIPLICATIONS, SCALED
from tests.support import ptx_execution
from tests.support.ptx_execution import Case
from tests.support.ptx_reference import BF16, F16, F32, TF32, Format, signed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.integration
WARP = 32
FULL = 0xFFFFFFFF
POISON = 0x7FBADBAD
"""What comes from a lane that does not take part: the ISA leaves it open."""
Lanes = list[tuple[int, int, int]]
"""The lower 32 bits of a, b and c of each lane."""


def shuffled(mode: str, lanes: Lanes, lane: int, mask: int) -> tuple[int, bool]:
    """``shfl.sync`` as the ISA's pseudocode has it (9.7.9.6)."""
    _, b, c = lanes[lane]
    bval, cval, segment = b & 0x1F, c & 0x1F, c >> 8 & 0x1F
    max_lane = (lane & segment) | (cval & ~segment)
    min_lane = lane & segment
    source, inside = {
        "up": (lane - bval, lane - bval >= max_lane),
        "down": (lane + bval, lane + bval <= max_lane),
        "bfly": (lane ^ bval, (lane ^ bval) <= max_lane),
        "idx": (min_lane | (bval & ~segment), (min_lane | (bval & ~segment)) <= max_lane),
    }[mode]
    source = source if inside else lane
    return (lanes[source][0] if mask >> source & 1 else POISON), inside


def voted(how: str, lanes: Lanes, mask: int) -> int:
    ballot = sum((lanes[lane][0] & 0xFFFF != 0) << lane for lane in range(WARP) if mask >> lane & 1)
    return {"all": int(ballot == mask), "any": int(ballot != 0), "uni": int(ballot in (0, mask)), "ballot": ballot}[how]


def shuffle_value(mode: str, mask: int, lanes: Lanes, lane: int) -> int:
    return shuffled(mode, lanes, lane, mask)[0]


def shuffle_inside(mode: str, mask: int, lanes: Lanes, lane: int) -> int:
    return int(shuffled(mode, lanes, lane, mask)[1])


def vote_value(how: str, mask: int, lanes: Lanes, _: int) -> int:
    return voted(how, lanes, mask)


def reduced(how: str, type_: str, mask: int, lanes: Lanes, _: int) -> int:
    values = [lanes[lane][0] for lane in range(WARP) if mask >> lane & 1]
    values = [signed(value, 32) if type_ == "s32" else value for value in values]
    functions: dict[str, Callable[[int, int], int]] = {
        "add": operator.add, "min": min, "max": max, "and": operator.and_, "or": operator.or_, "xor": operator.xor,
    }  # fmt: skip
    return reduce(functions[how], values) & FULL


def matched(lanes: Lanes, lane: int, mask: int) -> int:
    return sum(1 << other for other in range(WARP) if mask >> other & 1 and lanes[other][0] == lanes[lane][0])


def agreed(lanes: Lanes, lane: int, mask: int) -> int:
    return mask if matched(lanes, lane, mask) == mask else 0


Expected = dict[str, "tuple[Case, Callable[[Lanes, int], int]]"]


def collective(mask: int) -> Expected:
    """Each warp-wide instruction, executed by the lanes of ``mask``; the others keep 0."""
    guard = "setp.ne.u32 %here, %in, 0; mov.b32 {d}, 0; @%here"
    head = f"{{{{ .reg .pred %here, %p; .reg .b32 %in, %one; mov.u32 %one, %laneid; shr.u32 %in, {mask:#x}, %one; "
    head += f"and.b32 %in, %in, 1; {guard} "
    to_d = "selp.b32 {d}, 1, 0, %p; @!%here mov.b32 {d}, 0; }}"
    found: Expected = {}

    def add(text: str, expected: Callable[[Lanes, int], int]) -> None:
        found[text] = (Case(head + text, 32), expected)

    for mode in ("up", "down", "bfly", "idx"):
        text = f"shfl.sync.{mode}.b32 {{d}}, {{a32}}, {{b32}}, {{c32}}, {mask:#x}; }}}}"
        add(text, partial(shuffle_value, mode, mask))
        text = f"shfl.sync.{mode}.b32 %one|%p, {{a32}}, {{b32}}, {{c32}}, {mask:#x}; {to_d}"
        add(text, partial(shuffle_inside, mode, mask))
    for how in ("all", "any", "uni"):
        text = f"vote.sync.{how}.pred %p, {{a1}}, {mask:#x}; {to_d}"
        add(text, partial(vote_value, how, mask))
    add(f"vote.sync.ballot.b32 {{d}}, {{a1}}, {mask:#x}; }}}}", lambda lanes, _: voted("ballot", lanes, mask))
    negated = f"vote.sync.ballot.b32 {{d}}, !{{a1}}, {mask:#x}; }}}}"
    add(negated, lambda lanes, _: mask & ~voted("ballot", lanes, mask))
    for type_, hows in (("u32", ("add", "min", "max")), ("s32", ("add", "min", "max")), ("b32", ("and", "or", "xor"))):
        for how in hows:
            text = f"redux.sync.{how}.{type_} {{d}}, {{a32}}, {mask:#x}; }}}}"
            add(text, partial(reduced, how, type_, mask))
    add(f"match.any.sync.b32 {{d}}, {{a32}}, {mask:#x}; }}}}", lambda lanes, lane: matched(lanes, lane, mask))
    add(f"match.all.sync.b32 {{d}}|%p, {{a32}}, {mask:#x}; }}}}", lambda lanes, lane: agreed(lanes, lane, mask))
    text = f"match.all.sync.b32 %one|%p, {{a32}}, {mask:#x}; {to_d}"
    add(text, lambda lanes, lane: int(agreed(lanes, lane, mask) != 0))
    return found


@pytest.mark.parametrize("mask", [FULL, 0x0000FFFF, 0x80000001, 0x5A5A00F0])
def test_warp_wide_values(tmp_path: Path, mask: int) -> None:
    random_ = random.Random(mask)  # noqa: S311  # operands
    instructions = collective(mask)
    cases = [case for case, _ in instructions.values()]
    kernel = ptx_execution.compiled(ptx_execution.program(cases), "cases", tmp_path)
    segments = (0x1F, 0x0, 0x1C03, 0x181F, 0x1000, 0x0007, 0x1F1F)
    rows: list[tuple[int, int, int]] = []
    for warp in range(64):
        values = [random_.choice((0, 1, 7, FULL, random_.getrandbits(32))) for _ in range(WARP)]
        if warp % 4 == 0:
            values = [values[0]] * WARP
        control, step = random_.choice(segments), random_.choice((0, 1, 2, 5, 16, 31, 33))
        free = warp % 3 == 0
        rows += [
            (value, random_.getrandbits(6) if free else step, random_.getrandbits(13) if free else control)
            for value in values
        ]
    found = ptx_execution.results(kernel, cases, np.array(rows, np.uint64))
    for text, values, (_, expected) in zip(instructions, found.tolist(), instructions.values(), strict=True):
        for warp in range(64):
            lanes = rows[warp * WARP : (warp + 1) * WARP]
            got = values[warp * WARP : (warp + 1) * WARP]
            wanted = [expected(lanes, lane) if mask >> lane & 1 else 0 for lane in range(WARP)]
            assert got == wanted, f"{text} in warp {warp}"


# ------------------------------------------------------------------------------------------------------------ matrices


def a_layout(shape: str, bits: int) -> Callable[[int, int, int], tuple[int, int]]:
    """Row and column of element i of A."""
    return {
        # figure of m16n8k8 .f16/.bf16: a0, a1 in groupID, a2, a3 in groupID + 8
        ("m16n8k8", 16): lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1)),
        ("m16n8k16", 16): lambda g, t, i: (
            g if 0 <= i < 2 or 4 <= i < 6 else g + 8,
            t * 2 + (i & 1) if i < 4 else t * 2 + (i & 1) + 8,
        ),
        ("m16n8k4", 32): lambda g, t, i: (g if i == 0 else g + 8, t),
        ("m16n8k8", 32): lambda g, t, i: (g if i in (0, 2) else g + 8, t if i in (0, 1) else t + 4),
        ("m8n8k16", 8): lambda g, t, i: (g, t * 4 + i),
        ("m16n8k16", 8): lambda g, t, i: (g if i < 4 else g + 8, t * 4 + (i & 3)),
        ("m16n8k32", 8): lambda g, t, i: (
            g if 0 <= i < 4 or 8 <= i < 12 else g + 8,
            t * 4 + (i & 3) if i < 8 else t * 4 + (i & 3) + 16,
        ),
    }[shape, bits]


def b_layout(shape: str, bits: int) -> Callable[[int, int, int], tuple[int, int]]:
    """Row and column of element i of B."""
    return {
        ("m16n8k8", 16): lambda g, t, i: (t * 2 + i, g),
        ("m16n8k16", 16): lambda g, t, i: (t * 2 + (i & 1) if i < 2 else t * 2 + (i & 1) + 8, g),
        ("m16n8k4", 32): lambda g, t, _: (t, g),
        ("m16n8k8", 32): lambda g, t, i: (t if i == 0 else t + 4, g),
        ("m8n8k16", 8): lambda g, t, i: (t * 4 + i, g),
        ("m16n8k16", 8): lambda g, t, i: (t * 4 + i, g),
        ("m16n8k32", 8): lambda g, t, i: (t * 4 + i if i < 4 else t * 4 + (i & 3) + 16, g),
    }[shape, bits]


def c_layout(shape: str) -> Callable[[int, int, int], tuple[int, int]]:
    """Row and column of element i of C and D."""
    if shape == "m8n8k16":
        return lambda g, t, i: (g, t * 2 + i)
    return lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1))


BITS = {"f16": 16, "bf16": 16, "tf32": 32, "s8": 8, "u8": 8, "f32": 32, "s32": 32}


def number(bits: int, type_: str) -> Fraction:
    """The number that an element is; the lowest 13 bits of a tf32 are ignored."""
    if type_ in ("s8", "s32"):
        return Fraction(signed(bits, BITS[type_]))
    if type_ == "u8":
        return Fraction(bits)
    if type_ == "tf32":
        return Fraction(TF32.decode(bits >> 13))
    form: Format = {"f16": F16, "bf16": BF16, "f32": F32}[type_]
    return Fraction(form.decode(bits))


def element(random_: random.Random, type_: str) -> int:
    """A random number: floats small enough for exact sums in f64, tf32 with noise in the bits that do not count."""
    if type_ in ("s8", "u8", "s32"):
        return random_.getrandbits(BITS[type_])
    value = Fraction(random_.randint(-255, 255), 2 ** random_.randint(0, 9))
    if type_ == "tf32":
        return TF32.encode(value) << 13 | random_.getrandbits(13)
    form: Format = {"f16": F16, "bf16": BF16, "f32": F32}[type_]
    return form.encode(value)


def matrix(
    random_: random.Random, type_: str, per_lane: int, place: Callable[[int, int, int], tuple[int, int]]
) -> tuple[dict[tuple[int, int], Fraction], list[list[int]]]:
    """A random matrix: its elements by row and column, and the registers of each lane."""
    elements: dict[tuple[int, int], Fraction] = {}
    registers = []
    for lane in range(WARP):
        codes = [element(random_, type_) for _ in range(per_lane)]
        for i, code in enumerate(codes):
            elements[place(lane >> 2, lane % 4, i)] = number(code, type_)
        packed = 32 // BITS[type_]
        registers.append(
            [
                sum(code << BITS[type_] * j for j, code in enumerate(codes[first : first + packed]))
                for first in range(0, per_lane, packed)
            ]
        )
    assert len(elements) == WARP * per_lane  # the layout gives each element to one lane
    return elements, registers


def mma_program(rows: list[tuple[str, list[int]]]) -> str:
    """A kernel that loads the registers of each instruction, executes it and stores its results."""
    lines = [".visible .entry matrices(.param .u64 in, .param .u64 out)\n{ .reg .b64 %in, %out; .reg .b32 %lane;"]
    lines += ["ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; mov.u32 %lane, %tid.x;"]
    lines += ["mad.wide.u32 %in, %lane, 4, %in; mad.wide.u32 %out, %lane, 4, %out;"]
    given = taken = 0
    for opcode, counts in rows:
        names = [[f"%{operand}{i}" for i in range(count)] for operand, count in zip("dabc", counts, strict=True)]
        lines.append(f"{{ .reg .b32 {', '.join(name for group in names for name in group)};")
        for name in (name for group in names[1:] for name in group):
            lines.append(f"ld.global.b32 {name}, [%in+{128 * given}];")
            given += 1
        lines.append(f"{opcode} {', '.join('{' + ', '.join(group) + '}' for group in names)};")
        for name in names[0]:
            lines.append(f"st.global.b32 [%out+{128 * taken}], {name};")
            taken += 1
        lines.append("}")
    return "\n".join((*lines, "ret; }"))


def test_mma_of_every_shape_and_type(tmp_path: Path) -> None:
    random_ = random.Random(7)  # noqa: S311  # operands
    rows, registers, wanted = [], [], []
    for shape, result, a_type, b_type in MULTIPLICATIONS:
        m, n, k = (int(size) for size in shape[1:].replace("n", " ").replace("k", " ").split())
        c_elements = m * n // WARP
        a, a_registers = matrix(random_, a_type, m * k // WARP, a_layout(shape, BITS[a_type]))
        b, b_registers = matrix(random_, b_type, k * n // WARP, b_layout(shape, BITS[b_type]))
        c, c_registers = matrix(random_, result, c_elements, c_layout(shape))
        counts = [len(c_registers[0]), len(a_registers[0]), len(b_registers[0]), len(c_registers[0])]
        rows.append((f"mma.sync.aligned.{shape}.row.col.{result}.{a_type}.{b_type}.{result}", counts))
        for group in (a_registers, b_registers, c_registers):
            registers += [[lane[i] for lane in group] for i in range(len(group[0]))]
        product = {(i, j): c[i, j] + sum(a[i, x] * b[x, j] for x in range(k)) for i in range(m) for j in range(n)}
        width = BITS[result]
        for register in range(counts[0]):
            lanes = []
            for lane in range(WARP):
                codes = []
                for i in range(register * 32 // width, (register + 1) * 32 // width):
                    exact = product[c_layout(shape)(lane >> 2, lane % 4, i)]
                    form = {"f32": F32, "f16": F16}.get(result)
                    codes.append(form.encode(exact) if form else int(exact) & FULL)
                lanes.append(sum(code << width * j for j, code in enumerate(codes)))
            wanted.append(lanes)
    kernel = ptx_execution.compiled(mma_program(rows), "matrices", tmp_path)
    found = np.zeros((len(wanted), WARP), np.uint32)
    assert kernel.launch(np.array(registers, np.uint32), found)[0] == ""
    at = 0
    for opcode, counts in rows:
        assert found[at : at + counts[0]].tolist() == wanted[at : at + counts[0]], opcode
        at += counts[0]


E2M1 = [Fraction(n, 2) for n in (0, 1, 2, 3, 4, 6, 8, 12)]
"""The numbers of e2m1 without their signs (5.2.3)."""


def scale(code: int, type_: str) -> Fraction:
    """A factor: a power of two, or a number without sign with 4 bits of exponent and 3 of mantissa."""
    if type_ == "ue8m0":
        return Fraction(2) ** (code - 127)
    exponent, mantissa = code >> 3, code & 7
    return (Fraction(8 + mantissa) if exponent else Fraction(mantissa)) / 8 * Fraction(2) ** (max(exponent, 1) - 7)


@pytest.mark.parametrize(("kind", "scales", "type_"), SCALED)
@pytest.mark.parametrize("chosen", [(0, 0, 0, 0), (2, 1, 2, 3)])
def test_mma_with_block_scaling(
    tmp_path: Path, kind: str, scales: str, type_: str, chosen: tuple[int, int, int, int]
) -> None:
    count = int(scales[0])
    a_byte, a_thread, b_byte, b_thread = chosen if count == 2 else (0, chosen[1], 0, chosen[3])
    random_ = random.Random(kind)  # noqa: S311  # operands
    registers = [[random_.getrandbits(32) for _ in range(WARP)] for _ in range(6)]
    c = [[F32.encode(Fraction(random_.randint(-99, 99), 4)) for _ in range(WARP)] for _ in range(4)]
    factors = [
        [sum(random_.randint(120, 134) - 72 * (type_ == "ue4m3") << 8 * byte for byte in range(4)) for _ in range(WARP)]
        for _ in range(2)
    ]
    opcode = f"mma.sync.aligned.kind::{kind}.block_scale.scale_vec::{scales}.m16n8k64.row.col.f32.e2m1.e2m1.f32.{type_}"
    names = ", ".join(
        f"{{{', '.join(f'%x{i}' for i in range(*part))}}}" for part in ((12, 16), (0, 4), (4, 6), (6, 10))
    )
    loads = " ".join(f"ld.global.b32 %x{i}, [%in+{128 * i}];" for i in range(12))
    stores = " ".join(f"st.global.b32 [%out+{128 * i}], %x{12 + i};" for i in range(4))
    ptx = f"""
    .visible .entry scaled(.param .u64 in, .param .u64 out) {{ .reg .b64 %in, %out; .reg .b32 %l, %x<16>;
    ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; mov.u32 %l, %tid.x;
    mad.wide.u32 %in, %l, 4, %in; mad.wide.u32 %out, %l, 4, %out; {loads}
    {opcode} {names}, %x10, {{{a_byte}, {a_thread}}}, %x11, {{{b_byte}, {b_thread}}}; {stores} ret; }}
    """
    found = np.zeros((4, WARP), np.uint32)
    kernel = ptx_execution.compiled(ptx, "scaled", tmp_path)
    assert kernel.launch(np.array([*registers, *c, *factors], np.uint32), found)[0] == ""

    def number_of(code: int) -> Fraction:
        return E2M1[code & 7] * (-1 if code & 8 else 1)

    a: dict[tuple[int, int], Fraction] = {}
    b: dict[tuple[int, int], Fraction] = {}
    for lane in range(WARP):
        g, t = lane >> 2, lane % 4
        for i in range(32):  # 9.7.14.5: figure of m16n8k64 with .e2m1
            row, column = (g if 0 <= i < 8 or 16 <= i < 24 else g + 8), t * 8 + (i & 7) + (0 if i < 16 else 32)
            part = factors[0][4 * g + 2 * a_thread + (row >= 8)] >> 8 * (a_byte + column * count // 64) & 0xFF
            a[row, column] = number_of(registers[i // 8][lane] >> 4 * (i & 7)) * scale(part, type_)
        for i in range(16):
            row = t * 8 + (i & 7) + (0 if i < 8 else 32)
            part = factors[1][4 * g + b_thread] >> 8 * (b_byte + row * count // 64) & 0xFF
            b[row, g] = number_of(registers[4 + i // 8][lane] >> 4 * (i & 7)) * scale(part, type_)
    for i in range(4):
        for lane in range(WARP):
            row, column = c_layout("m16n8k64")(lane >> 2, lane % 4, i)
            exact = Fraction(F32.decode(c[i][lane])) + sum(a[row, k] * b[k, column] for k in range(64))
            assert found[i, lane] == F32.encode(exact)


def test_ldmatrix_and_movmatrix(tmp_path: Path) -> None:
    forms = [(count, space, trans) for count in (1, 2, 4) for space in (".shared", "") for trans in ("", ".trans")]
    # Row r of the input goes to place (5 r + 3) % 32 of the tile: each lane gives the address of its row, in any order.
    text = """
    .visible .entry load(.param .u64 in, .param .u64 out) {
    .reg .b64 %in, %out, %row, %to; .reg .b32 %l, %at, %x<9>; .shared .align 16 .b8 tile[1024];
    ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; mov.u32 %l, %tid.x; mad.wide.u32 %row, %l, 16, %in;
    ld.global.v4.u32 {%x0, %x1, %x2, %x3}, [%row]; mad.lo.u32 %at, %l, 5, 3; and.b32 %at, %at, 31; shl.b32 %at, %at, 4;
    mov.u32 %x4, tile; add.u32 %at, %at, %x4; st.shared.v4.u32 [%at], {%x0, %x1, %x2, %x3}; bar.sync 0;
    mad.wide.u32 %out, %l, 4, %out; cvt.u64.u32 %to, %at; cvta.shared.u64 %to, %to;
    """
    lines = [text]
    taken = place = 0
    for count, space, trans in forms:
        names = [f"%x{i}" for i in range(count)]
        at = "%at" if space else "%to"
        lines.append(f"ldmatrix.sync.aligned.m8n8.x{count}{trans}{space}.b16 {{{', '.join(names)}}}, [{at}];")
        for name in names:
            lines.append(f"st.global.b32 [%out+{128 * taken}], {name};")
            taken += 1
    lines += [
        "ld.global.b32 %x5, [%row]; movmatrix.sync.aligned.m8n8.trans.b16 %x6, %x5;",
        f"st.global.b32 [%out+{128 * taken}], %x6;",
    ]
    kernel = ptx_execution.compiled("\n".join((*lines, "ret; }")), "load", tmp_path)
    rows = np.random.default_rng(3).integers(0, 1 << 16, (32, 8), dtype=np.uint16)
    found = np.zeros((taken + 1, WARP), np.uint32)
    assert kernel.launch(rows, found)[0] == ""
    for count, space, trans in forms:
        for j in range(count):
            tile = rows[8 * j : 8 * j + 8].T if trans else rows[8 * j : 8 * j + 8]
            pairs = np.ascontiguousarray(tile).view(np.uint32)
            wanted = [int(pairs[lane // 4, lane % 4]) for lane in range(WARP)]
            assert found[place].tolist() == wanted, (count, space, trans, j)
            place += 1
    before = np.zeros((8, 8), np.uint16)
    for lane in range(WARP):
        before[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2] = rows[lane, :2]
    after = np.ascontiguousarray(before.T).view(np.uint32)
    assert found[place].tolist() == [int(after[lane // 4, lane % 4]) for lane in range(WARP)]
