"""The runtime of the emulated GPU: threads that meet, memory that is not theirs, launches that cannot end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support import ptx_execution

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.ptx_execution import Kernel

pytestmark = pytest.mark.integration

POISON = 0xFFFFFFFF


def kernel(folder: Path, body: str, *options: str, shared: int = 0) -> Kernel:
    """A kernel of three addresses, in %a, %b and %c; its thread is %t, and %at is the thread's place in %a."""
    ptx = f"""
    .visible .entry tested(.param .u64 a, .param .u64 b, .param .u64 c)
    {{
        .reg .b64 %a, %b, %c, %at, %x, %y;
        .reg .b32 %t, %n, %v, %w, %s, %block;
        .reg .pred %p, %q;
        {f".shared .align 16 .b8 space[{shared}];" if shared else ""}
        ld.param.u64 %a, [a];
        ld.param.u64 %b, [b];
        ld.param.u64 %c, [c];
        mov.u32 %t, %tid.x;
        mov.u32 %n, %ntid.x;
        mov.u32 %block, %ctaid.x;
        mad.lo.u32 %v, %block, %n, %t;
        mad.wide.u32 %at, %v, 4, %a;
        {body}
        ret;
    }}
    """
    return ptx_execution.compiled(ptx, "tested", folder, *options)


def numbers(count: int) -> np.ndarray:
    return np.zeros(count, np.uint32)


REVERSE = """
    mov.u32 %s, space;
    mad.lo.u32 %w, %t, 4, %s;
    st.shared.u32 [%w], %t;
    BARRIER
    sub.u32 %v, %n, %t;
    sub.u32 %v, %v, 1;
    mad.lo.u32 %w, %v, 4, %s;
    ld.shared.u32 %v, [%w];
    st.global.u32 [%at], %v;
"""


@pytest.mark.parametrize("switch", ["-DBY_HAND", "-DPTX_UCONTEXT"])
def test_threads_meet_at_a_barrier(tmp_path: Path, switch: str) -> None:
    found = numbers(256)
    reason, _ = kernel(tmp_path, REVERSE.replace("BARRIER", "bar.sync 0;"), switch, shared=1024).launch(
        found, found, found, block=256
    )
    assert reason == ""
    assert found.tolist() == list(range(255, -1, -1))


def test_a_missing_barrier_shows_in_the_numbers(tmp_path: Path) -> None:
    found = numbers(256)
    kernel(tmp_path, REVERSE.replace("BARRIER", ""), shared=1024).launch(found, found, found, block=256)
    assert POISON in found.tolist()


def test_the_order_of_threads_differs_between_blocks(tmp_path: Path) -> None:
    lower = """
        sub.u32 %v, %t, 1;
        max.s32 %v, %v, 0;
    """
    body = REVERSE.replace("BARRIER", "").replace("sub.u32 %v, %n, %t;\n    sub.u32 %v, %v, 1;", lower)
    found = numbers(2 * 64)
    kernel(tmp_path, body, shared=256).launch(found, found, found, grid=2, block=64)
    assert found.tolist()[:64] == [0, *range(63)]
    assert found.tolist()[65:] == [POISON] * 63


def test_the_blocks_of_a_grid_are_all_executed_with_their_own_shared_memory(tmp_path: Path) -> None:
    found = numbers(64 * 100)
    body = REVERSE.replace("BARRIER", "bar.sync 0;").replace("st.global.u32 [%at], %v;", "")
    body += "mad.lo.u32 %v, %block, 1000, %v; st.global.u32 [%at], %v;"
    reason, _ = kernel(tmp_path, body, shared=256).launch(found, found, found, grid=100, block=64)
    assert reason == ""
    assert found.tolist() == [1000 * block + 63 - thread for block in range(100) for thread in range(64)]


@pytest.mark.parametrize(
    ("operation", "expected"), [("popc.u32", 40), ("and.pred", 0), ("or.pred", 1)], ids=["popc", "and", "or"]
)
def test_a_barrier_reduces(tmp_path: Path, operation: str, expected: int) -> None:
    target = "%v" if operation == "popc.u32" else "%q"
    body = f"""
        setp.lt.u32 %p, %t, 40;
        bar.red.{operation} {target}, 0, %p;
        {"selp.u32 %v, 1, 0, %q;" if target == "%q" else ""}
        st.global.u32 [%at], %v;
    """
    found = numbers(96)
    reason, _ = kernel(tmp_path, body).launch(found, found, found, block=96)
    assert reason == ""
    assert set(found.tolist()) == {expected}


def test_threads_that_have_ended_are_not_waited_for(tmp_path: Path) -> None:
    body = """
        setp.ge.u32 %p, %t, 5;
        @%p bra left;
        bar.sync 0;
        shfl.sync.bfly.b32 %v, %t, 1, 31, 0xffffffff;
        st.global.u32 [%at], %v;
        left:
    """
    found = numbers(64)
    reason, _ = kernel(tmp_path, body).launch(found, found, found, block=64)
    assert reason == ""
    assert found.tolist()[:4] == [1, 0, 3, 2]


def test_a_deadlock_at_a_barrier_says_who_waits(tmp_path: Path) -> None:
    body = """
        setp.lt.u32 %p, %t, 32;
        @%p bra first;
        bra.uni done;
        first:
        bar.sync 3, 64;
        done:
    """
    found = numbers(1)
    reason, _ = kernel(tmp_path, body).launch(found, found, found, block=64)
    assert reason.startswith("deadlock in block 0,0,0: 32 threads wait at barrier 3")


def test_a_deadlock_of_a_warp_says_so(tmp_path: Path) -> None:
    body = """
        setp.lt.u32 %p, %t, 16;
        @%p bra first;
        bar.sync 0;
        bra.uni done;
        first:
        shfl.sync.idx.b32 %v, %t, 0, 31, 0xffffffff;
        done:
    """
    found = numbers(1)
    reason, _ = kernel(tmp_path, body).launch(found, found, found, block=32)
    assert "16 threads wait at barrier 0" in reason
    assert "16 wait for lanes of their warp" in reason


def test_a_thread_outside_the_mask_of_its_operation_is_named(tmp_path: Path) -> None:
    found = numbers(1)
    reason, _ = kernel(tmp_path, "shfl.sync.idx.b32 %v, %t, 0, 31, 0xffff;").launch(found, found, found, block=32)
    assert "whose mask lacks it in thread 16,0,0" in reason


def test_a_trap_is_named_with_its_thread(tmp_path: Path) -> None:
    body = "setp.eq.u32 %p, %t, 7; setp.ne.u32 %q, %block, 2; @%q bra done; @%p trap; done:"
    found = numbers(1)
    reason, _ = kernel(tmp_path, body).launch(found, found, found, grid=3, block=32)
    assert "thread 7,0,0 of block 2,0,0" in reason


COPY = """
    mov.u32 %s, space;
    mad.lo.u32 %w, %t, 4, %s;
    mad.wide.u32 %x, %t, 4, %b;
    cp.async.ca.shared.global [%w], [%x], 4;
    cp.async.commit_group;
    WAIT
    bar.sync 0;
    ld.shared.u32 %v, [%w];
    st.global.u32 [%at], %v;
"""


@pytest.mark.parametrize("wait", ["cp.async.wait_group 0;", "cp.async.wait_all;"])
def test_an_asynchronous_copy_is_done_when_it_is_waited_for(tmp_path: Path, wait: str) -> None:
    found, source = numbers(32), np.arange(100, 132, dtype=np.uint32)
    kernel(tmp_path, COPY.replace("WAIT", wait), shared=128).launch(found, source, found, block=32)
    assert found.tolist() == source.tolist()


@pytest.mark.parametrize("wait", ["", "cp.async.wait_group 1;"], ids=["none", "for an earlier group"])
def test_a_copy_that_nobody_waits_for_is_not_seen(tmp_path: Path, wait: str) -> None:
    found, source = numbers(32), np.arange(100, 132, dtype=np.uint32)
    kernel(tmp_path, COPY.replace("WAIT", wait), shared=128).launch(found, source, found, block=32)
    assert set(found.tolist()) == {POISON}


def test_basic_blocks_are_counted_for_each_thread(tmp_path: Path) -> None:
    body = "setp.lt.u32 %p, %t, 40; @!%p bra done; add.u32 %v, %v, 1; done:"
    found = numbers(1)
    reason, executed = kernel(tmp_path, body).launch(found, found, found, grid=3, block=64)
    assert reason == ""
    assert executed[0] == 3 * 64
    assert 3 * 40 in executed


def ending(act: Callable[[], object]) -> int:
    """The signal that ends a process which does this.

    Its kernel needs a runtime of its own, made with an option of its own: a child has no threads of its parent.
    """
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_access_outside_the_shared_memory_is_named(tmp_path: Path) -> None:
    found = numbers(1)
    tested = kernel(tmp_path, "mov.u32 %s, space; mad.lo.u32 %w, %t, 16, %s; st.shared.u32 [%w], %t;", shared=512)
    assert tested.launch(found, found, found, block=32)[0] == ""
    reason, _ = tested.launch(found, found, found, block=64)
    assert "outside of shared memory in thread 32,0,0 of block 0,0,0" in reason


def test_an_access_to_memory_that_nobody_allocated_ends_the_process_and_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = numbers(1)
    body = "setp.ne.u32 %p, %t, 33; @%p bra done; mov.u64 %x, 64; st.global.u32 [%x], %t; done:"
    tested = kernel(tmp_path, body, "-DFOR_A_BAD_ACCESS")
    assert ending(lambda: tested.launch(found, found, found, block=32)) == 0
    assert ending(lambda: tested.launch(found, found, found, block=64)) == -signal.SIGSEGV
    said = capfd.readouterr().err
    assert "tested: an illegal memory access at 0x40, thread 33,0,0 of block 0,0,0" in said


def test_a_kernel_that_does_not_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PTX_SECONDS", "1")
    monkeypatch.setenv("PTX_WORKERS", "1")
    found = numbers(1)
    tested = kernel(tmp_path, "again: bra.uni again;", "-DFOR_NO_END")
    assert ending(lambda: tested.launch(found, found, found)) == -signal.SIGABRT
    assert "tested does not end" in capfd.readouterr().err
