"""Memory, atomics, barriers, asynchronous copies, branches and calls of PTX, executed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support import ptx_execution
from tests.support.ptx_reference import BF16, F16, F32, F64, Format, added, signed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.integration
REGISTERS = """
.reg .pred %p<4>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .b64 %rd<12>, %in, %out, %own;
ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; mov.u32 %r0, %tid.x; mad.wide.u32 %own, %r0, 8, %out;
"""


@dataclass(frozen=True)
class Result:
    """What a launch said, the output as 64-bit numbers, and how often the basic blocks were executed."""

    reason: str
    out: np.ndarray
    executed: list[int]


def execute(
    body: str, folder: Path, given: np.ndarray, size: int = 64, block: int = 1, rest: str = "", grid: int = 1
) -> Result:
    """A kernel with parameters ``in`` and ``out``; ``%own`` is the place of the thread's own result."""
    text = f"{rest}\n.visible .entry run(.param .u64 in, .param .u64 out) {{ {REGISTERS} {body} ret; }}"
    kernel = ptx_execution.compiled(text, "run", folder)
    out = np.zeros(size, np.uint64)
    reason, executed = kernel.launch(given, out, block=block, grid=grid)
    return Result(reason, out, executed)


INPUT = np.frombuffer(bytes(range(0xF0, 0x100)) + bytes(range(16)), np.uint8).copy()


LOADS = (
    *(("u8", "%h1", 16), ("s8", "%h1", 16), ("s8", "%r1", 32), ("u8", "%r1", 32), ("s8", "%rd1", 64)),
    *(("u16", "%r1", 32), ("s16", "%r1", 32), ("s16", "%rd1", 64), ("b32", "%r1", 32), ("s32", "%rd1", 64)),
    *(("u32", "%rd1", 64), ("u64", "%rd1", 64)),
)


def test_loads_extend_by_the_sign(tmp_path: Path) -> None:
    body = " ".join(
        f"ld{space}.{type_} {register}, [%in+8]; st.global.b{bits} [%out+{16 * place + offset}], {register};"
        for place, (type_, register, bits) in enumerate(LOADS)
        for offset, space in ((0, ".global"), (8, ""))
    )
    result = execute(body, tmp_path, INPUT)
    for place, (type_, register, bits) in enumerate(LOADS):
        size = int(type_[1:])
        number = int.from_bytes(INPUT[8 : 8 + size // 8].tobytes(), "little")
        wanted = (signed(number, size) if type_[0] == "s" else number) & ((1 << bits) - 1)
        assert result.out[2 * place : 2 * place + 2].tolist() == [wanted, wanted], (type_, register)


def test_vectors(tmp_path: Path) -> None:
    body = """
    ld.global.v4.u8 {%h1, %h2, %h3, %h4}, [%in];
    st.global.v4.b8 [%out], {%h4, %h3, %h2, %h1};
    ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%r1, _}, [%in+8];
    ld.global.v2.s8 {%r2, %r3}, [%in+4];
    st.global.v4.b32 [%out+16], {%r1, %r2, %r3, -2};
    ld.global.v2.b64 {%rd1, %rd2}, [%in];
    st.global.v2.b64 [%out+32], {%rd2, %rd1};
    """
    out = execute(body, tmp_path, INPUT).out.tobytes()
    assert out[:4] == bytes((0xF3, 0xF2, 0xF1, 0xF0))
    assert np.frombuffer(out[16:32], np.int32).tolist() == [-0x4050608, -12, -11, -2]
    assert out[32:48] == INPUT[8:16].tobytes() + INPUT[:8].tobytes()


def test_vectors_of_256_bits(tmp_path: Path) -> None:
    body = """
    ld.global.nc.L1::no_allocate.v8.b32 {%r1, %r2, %r3, _, %r5, %r6, %r7, %r8}, [%in];
    ld.global.v8.f32 {_, _, _, %r4, _, _, _, _}, [%in];
    st.global.v8.s32 [%out], {%r8, %r7, %r6, %r5, %r4, %r3, %r2, %r1};
    ldu.global.v2.u32 {%r9, %r10}, [%in+8]; ldu.global.s8 %r11, [%in+1];
    st.global.v4.b32 [%out+32], {%r9, %r10, %r11, 0};
    """
    aligned = np.zeros(64, np.uint32)
    start = -aligned.ctypes.data % 32 // 4
    given = aligned[start : start + 8]
    given[:] = INPUT.view(np.uint32)
    room = np.zeros(16, np.uint64)
    first = -room.ctypes.data % 32 // 8
    text = f".visible .entry run(.param .u64 in, .param .u64 out) {{ {REGISTERS} {body} ret; }}"
    assert ptx_execution.compiled(text, "run", tmp_path).launch(given, room[first:])[0] == ""
    out = room[first:].view(np.uint32).tolist()
    assert out[:8] == given[::-1].tolist()
    assert out[8:11] == [*given[2:4].tolist(), 0xFFFFFFF1]


def test_hints_and_fences_change_no_value(tmp_path: Path) -> None:
    body = """
    prefetch.global.L2 [%in]; prefetchu.L1 [%in]; ld.global.b32 %r1, [%in]; st.global.b32 [%out], %r1;
    membar.gl; membar.cta; membar.sys; fence.acq_rel.gpu; fence.sc.sys; nanosleep.u32 20;
    griddepcontrol.wait; griddepcontrol.launch_dependents;
    setp.eq.u32 %p1, %r1, %r1; mov.pred %p2, %p1; not.pred %p1, %p1; selp.b32 %r2, 3, 4, %p2;
    st.global.b32 [%out+4], %r2;
    """
    out = execute(body, tmp_path, INPUT).out.view(np.uint32).tolist()
    assert out[:2] == [int(INPUT[:4].view(np.uint32)[0]), 3]


def test_moves_pack_and_unpack(tmp_path: Path) -> None:
    body = """
    ld.global.b64 %rd1, [%in]; mov.b64 {%r1, %r2}, %rd1; mov.b64 %rd2, {%r2, %r1}; st.global.b64 [%out], %rd2;
    mov.b32 {%h1, %h2}, %r1; mov.b32 %r3, {%h2, %h1}; st.global.b32 [%out+8], %r3;
    mov.b64 {%h1, %h2, %h3, %h4}, %rd1; mov.b64 %rd3, {%h4, %h3, %h2, %h1}; st.global.b64 [%out+16], %rd3;
    mov.b64 {_, %r4}, %rd1; st.global.b32 [%out+24], %r4;
    mov.b32 %r5, -1; mov.b32 %r6, 0f3F800000; st.global.v2.b32 [%out+32], {%r5, %r6};
    """
    words = INPUT[:8].view(np.uint32).tolist()
    halves = INPUT[:8].view(np.uint16).tolist()
    out = execute(body, tmp_path, INPUT).out.tolist()
    assert out[0] == words[0] << 32 | words[1]
    assert out[1] == halves[0] << 16 | halves[1]
    assert out[2] == halves[0] << 48 | halves[1] << 32 | halves[2] << 16 | halves[3]
    assert out[3] == words[1]
    assert out[4] == 0x3F800000FFFFFFFF


def test_state_spaces(tmp_path: Path) -> None:
    rest = """
    .global .align 8 .u32 numbers[3] = {7, 0xFFFFFFFF, -2};
    .const .align 4 .f32 half = 0f3F000000;
    .global .align 4 .u32 counter;
    .shared .align 8 .b64 common;
    """
    body = """
    .local .align 16 .b8 depot[32]; .shared .align 16 .b8 tile[64];
    ld.global.u32 %r1, [numbers+8]; ld.const.b32 %r2, [half]; mov.u64 %rd1, numbers+4; ld.global.u32 %r3, [%rd1];
    st.global.v4.b32 [%out], {%r1, %r2, %r3, 0};
    mov.u64 %rd2, depot; cvta.local.u64 %rd3, %rd2; st.local.b32 [depot+4], 11; ld.b32 %r4, [%rd3+4];
    mov.u32 %r5, tile; st.shared.b32 [%r5+12], 22; mov.u64 %rd4, tile;
    cvta.shared.u64 %rd5, %rd4; ld.u32 %r6, [%rd5+12];
    st.shared.b64 [common], 33; ld.shared.b32 %r7, [common];
    isspacep.shared %p1, %rd5; selp.b32 %r8, 1, 0, %p1; isspacep.shared %p2, %rd3; selp.b32 %r9, 1, 0, %p2;
    st.global.v4.b32 [%out+16], {%r4, %r6, %r7, %r8}; st.global.b32 [%out+32], %r9;
    atom.global.add.u32 %r10, [counter], 5; atom.global.add.u32 %r11, [counter], 5; st.global.b32 [%out+36], %r11;
    """
    out = execute(body, tmp_path, INPUT, rest=rest).out.view(np.uint32)
    assert out[:10].tolist() == [0xFFFFFFFE, 0x3F000000, 0xFFFFFFFF, 0, 11, 22, 33, 1, 0, 5]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("ld.global.b32 %r1, [%in+2];", "misaligned address"),
        ("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%in+8];", "misaligned address"),
        (".shared .b8 tile[256]; st.shared.b32 [tile+256], 1;", "access outside of shared memory"),
        (".shared .b8 tile[256]; mov.u32 %r1, tile; st.shared.b32 [%r1+-4], 1;", "access outside of shared memory"),
        (".shared .b64 tile; atom.shared.add.u32 %r1, [tile+126], 1;", "access outside of shared memory"),
        ("trap;", "trap"),
    ],
)
def test_a_wrong_access_ends_the_launch(tmp_path: Path, body: str, reason: str) -> None:
    aligned = np.zeros(64, np.uint8)
    start = -aligned.ctypes.data % 16
    assert reason in execute(body, tmp_path, aligned[start:]).reason


def at_once(old: int, values: list[int], step: Callable[[int, int], int]) -> int:
    for value in values:
        old = step(old, value)
    return old


def updated(how: str, type_: str, a: int, b: int) -> int:
    """The new value for the old one and the operand."""
    bits = int(type_[1:])
    first, second = (signed(number, bits) if type_[0] == "s" else number for number in (a, b))
    new = {
        "add": first + second,
        "min": min(first, second),
        "max": max(first, second),
        "and": a & b,
        "or": a | b,
        "xor": a ^ b,
        "inc": 0 if a >= b else a + 1,
        "dec": b if a == 0 or a > b else a - 1,
    }[how]
    return new & ((1 << bits) - 1)


def sum_of(form: Format, a: int, b: int) -> int:
    return added(form.decode(a), form.decode(b), form)


ATOMICS = (
    *((how, type_) for type_ in ("u32", "s32", "u64", "s64") for how in ("add", "min", "max")),
    *((how, f"b{bits}") for bits in (32, 64) for how in ("and", "or", "xor")),
    *(("inc", "u32"), ("dec", "u32")),
)


def test_atomics_of_many_threads_lose_nothing(tmp_path: Path) -> None:
    body = "mad.wide.u32 %rd1, %r0, 8, %in; ld.global.b64 %rd2, [%rd1]; cvt.u32.u64 %r1, %rd2;"
    for place, (how, type_) in enumerate(ATOMICS):
        value = ("%rd2" if type_.endswith("64") else "%r1") if how not in ("inc", "dec") else "100"
        body += f"red.global.{how}.{type_} [%out+{8 * place}], {value};"
    floats = (("f32", F32, 0x3F800000), ("f64", F64, 0x3FF << 52))
    for place, (type_, form, one) in enumerate(floats, len(ATOMICS)):
        value = f"0{'f' if type_ == 'f32' else 'd'}{one:0{form.bits // 4}X}"
        body += f"red.global.add.{type_} [%out+{8 * place}], {value};"
    for place, (type_, form) in enumerate((("f16", F16), ("bf16", BF16)), len(ATOMICS) + 2):
        body += f"mov.b16 %h1, {form.number(1.0):#x}; red.global.add.noftz.{type_} [%out+{8 * place}], %h1;"
    values = np.random.default_rng(5).integers(0, 1 << 64, 256, dtype=np.uint64)
    out = execute(body, tmp_path, values, block=256).out.tolist()
    for place, (how, type_) in enumerate(ATOMICS):
        mask = (1 << int(type_[1:])) - 1
        given = [value & mask for value in values.tolist()] if how not in ("inc", "dec") else [100] * 256
        assert out[place] == at_once(0, given, partial(updated, how, type_)), (how, type_)
    for place, form in enumerate((F32, F64, F16, BF16), len(ATOMICS)):
        wanted = at_once(0, [form.number(1.0)] * 256, partial(sum_of, form))
        assert out[place] == wanted


def test_atomics_return_the_old_value(tmp_path: Path) -> None:
    body = """
    st.global.b32 [%out], 5; atom.global.exch.b32 %r1, [%out], 9; atom.global.cas.b32 %r2, [%out], 9, 4;
    atom.global.cas.b32 %r3, [%out], 9, 3; atom.acq_rel.gpu.global.add.u32 %r4, [%out], 10;
    st.global.v4.b32 [%out+16], {%r1, %r2, %r3, %r4};
    """
    body += """
    mov.b64 %rd1, 0x100000005; mov.b64 %rd2, 7; st.global.b64 [%out+32], %rd1;
    atom.global.exch.b64 %rd3, [%out+32], %rd2; atom.global.cas.b64 %rd4, [%out+32], %rd1, %rd1;
    atom.global.cas.b64 %rd5, [%out+32], %rd2, %rd1; st.global.v2.b64 [%out+48], {%rd3, %rd4};
    st.global.b64 [%out+64], %rd5;
    """
    result = execute(body, tmp_path, INPUT).out
    assert result.view(np.uint32)[:8].tolist() == [14, 0, 0, 0, 5, 9, 4, 4]
    assert result[4:9].tolist() == [0x100000005, 0, 0x100000005, 7, 7]


def test_atomics_of_two_halves_are_sums_of_each(tmp_path: Path) -> None:
    body = ""
    for place, (type_, form) in enumerate((("f16", F16), ("bf16", BF16))):
        one, two, three = (form.number(float(value)) for value in (1, 2, 3))
        at = f"[%out+{16 * place}]"
        body += f"mov.b32 %r1, {two << 16 | one:#x}; st.global.b32 {at}, %r1; mov.b32 %r2, {one << 16 | two:#x};"
        body += f"atom.global.add.noftz.{type_}x2 %r3, {at}, %r2; st.global.b32 [%out+{16 * place + 4}], %r3;"
        body += f"mov.b16 %h1, {three:#x}; atom.global.add.noftz.{type_} %h2, {at}, %h1;"
        body += f"st.global.b16 [%out+{16 * place + 8}], %h2;"
    out = execute(body, tmp_path, INPUT).out.view(np.uint32).tolist()
    for place, form in enumerate((F16, BF16)):
        one, two, three, six = (form.number(float(value)) for value in (1, 2, 3, 6))
        assert out[4 * place : 4 * place + 3] == [three << 16 | six, two << 16 | one, three]


def test_an_asynchronous_copy_is_there_after_its_wait_only(tmp_path: Path) -> None:
    body = """
    .shared .align 16 .b8 tile[64]; st.shared.b32 [tile], 1; st.shared.b32 [tile+16], 1; st.shared.b32 [tile+36], 1;
    cp.async.cg.shared.global.L2::128B [tile], [%in], 16; cp.async.commit_group;
    cp.async.ca.shared.global [tile+16], [%in], 4; cp.async.commit_group;
    cp.async.ca.shared.global [tile+32], [%in], 8, 4;
    ld.shared.b32 %r1, [tile]; cp.async.wait_group 1;
    ld.shared.b32 %r2, [tile]; ld.shared.b32 %r3, [tile+16]; cp.async.wait_group 0;
    ld.shared.b32 %r4, [tile+16]; ld.shared.b32 %r5, [tile+36]; cp.async.wait_all;
    ld.shared.b32 %r6, [tile+32]; ld.shared.b32 %r7, [tile+36];
    st.global.v4.b32 [%out], {%r1, %r2, %r3, %r4}; st.global.v4.b32 [%out+16], {%r5, %r6, %r7, 0};
    """
    out = execute(body, tmp_path, INPUT).out.view(np.uint32)
    copied = int(INPUT[:4].view(np.uint32)[0])
    assert out[:7].tolist() == [1, copied, 1, copied, 1, copied, 0]


def test_reductions_of_a_barrier(tmp_path: Path) -> None:
    body = """
    setp.lt.u32 %p0, %r0, 40; setp.lt.u32 %p1, %r0, 64;
    bar.red.popc.u32 %r1, 0, %p0; bar.red.and.pred %p2, 0, !%p0; barrier.red.or.aligned.pred %p3, 1, 64, %p0;
    selp.b32 %r2, 4, 0, %p2; selp.b32 %r3, 2, 0, %p3; add.u32 %r2, %r2, %r3; bar.sync 2, 64; barrier.sync.aligned 0;
    st.global.v2.b32 [%own], {%r1, %r2};
    """
    result = execute(body, tmp_path, INPUT, block=64)
    assert result.reason == ""
    assert set(result.out.tolist()) == {40 | 2 << 32}


def test_a_warp_arrives_at_a_barrier_without_waiting(tmp_path: Path) -> None:
    body = """
    .shared .b32 word; setp.lt.u32 %p0, %r0, 32; @%p0 bra FIRST;
    bar.sync 1, 64; ld.shared.b32 %r1, [word]; bar.sync 3, 32;
    st.global.b64 [%own], 0; st.global.b32 [%own], %r1; bra DONE;
    FIRST: st.shared.b32 [word], 7; bar.warp.sync 0xffffffff; barrier.cta.arrive.aligned 1, 64; st.global.b64 [%own], 1;
    DONE: bar.arrive 2, 128; barrier.red.popc.aligned.u32 %r2, 4, 64, %p0; st.global.b32 [%own+4], %r2;
    """
    result = execute(body, tmp_path, INPUT, block=64)
    assert result.reason == ""
    assert result.out.tolist() == [1 | 32 << 32] * 32 + [7 | 32 << 32] * 32


def test_branches_tables_and_calls_count_what_they_execute(tmp_path: Path) -> None:
    rest = """
    .func (.param .b32 r) square (.param .b32 x) {
    .reg .b32 %a; ld.param.b32 %a, [x]; mul.lo.u32 %a, %a, %a; st.param.b32 [r], %a; ret; }
    """
    body = """
    setp.eq.u32 %p1, %r0, 3; mov.b32 %r1, 0;
    @%p1 bra DONE;
    mov.b32 %r2, %r0;
    TABLE: .branchtargets ZERO, ONE, TWO;
    brx.idx %r0, TABLE;
    ZERO: mov.b32 %r1, 10; bra DONE;
    ONE: add.u32 %r2, %r2, 4; setp.lt.u32 %p2, %r2, 20; @%p2 bra ONE; mov.b32 %r1, %r2; bra.uni DONE;
    TWO: { .param .b32 x; st.param.b32 [x], 7; .param .b32 y; call.uni (y), square, (x); ld.param.b32 %r1, [y]; }
    DONE: @!%p1 st.global.b32 [%own], %r1;
    @%p1 st.global.b32 [%own], 99;
    """
    result = execute(body, tmp_path, INPUT, block=4, rest=rest)
    assert result.out[:4].tolist() == [10, 21, 49, 99]
    #            entry, brx, ZERO, ONE, rest of ONE, TWO, square, DONE unguarded rest, guarded runs
    assert sorted(result.executed) == sorted([4, 3, 1, 5, 1, 1, 1, 3, 1, 4])


def test_an_index_without_a_target_is_noticed(tmp_path: Path) -> None:
    body = "A: T: .branchtargets A; brx.idx 3, T;"
    assert "brx.idx: no such branch target" in execute(body, tmp_path, INPUT).reason
