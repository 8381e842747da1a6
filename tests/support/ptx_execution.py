"""PTX that a test writes, executed by the translator and the runtime of the emulated GPU in the test's own process."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from build_config.testbed import emulated_device
from build_config.testbed.emulated_device.ptx_module import read_module
from build_config.testbed.emulated_device.translation import CFLAGS, translate

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = emulated_device.HERE
HEADER = ".version 9.0\n.target sm_90\n.address_size 64\n"
THREADS = 128


class _Launch(ctypes.Structure):
    _fields_ = (
        ("image", ctypes.c_void_p),
        ("parameters", ctypes.c_void_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Kernel:
    """A translated and compiled kernel that takes addresses only, and the runtime that executes it."""

    library: ctypes.CDLL
    runtime: ctypes.CDLL
    basic_blocks: int

    def launch(
        self, *arrays: np.ndarray, grid: int = 1, block: int = 32, dynamic_shared: int = 0
    ) -> tuple[str, list[int]]:
        """Execute it; returns why it failed (empty if it did not) and how often each basic block was executed."""
        parameters = (ctypes.c_uint64 * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))
        executed = (ctypes.c_uint64 * self.basic_blocks)()
        launch = _Launch(
            ctypes.addressof(ctypes.c_char.in_dll(self.library, "ptx_image")),
            ctypes.addressof(parameters),
            (ctypes.c_uint32 * 3)(grid, 1, 1),
            (ctypes.c_uint32 * 3)(block, 1, 1),
            dynamic_shared,
        )
        execute = self.runtime.ptx_execute
        execute.restype = ctypes.c_char_p
        reason = execute(ctypes.byref(launch), executed)
        return (reason or b"").decode(), list(executed)


def compiled(ptx: str, name: str, folder: Path, *further: str) -> Kernel:
    """The kernel ``name`` of a PTX text without its first three lines; ``further`` are options of the compiler."""
    kernel = translate(read_module(HEADER + ptx, f"{name}.ptx"), name)
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(kernel.source, encoding="utf-8")
    _compile(source, library, *further)
    return Kernel(ctypes.CDLL(str(library)), _runtime(*further), len(kernel.lines))


@functools.cache
def _runtime(*further: str) -> ctypes.CDLL:
    """The runtime; a process has one, for it maps the stacks of all threads of a block once for each core."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "runtime.so"
        _compile(HERE / "ptx_runtime.c", library, str(HERE / "blocks.c"), *further)
        return ctypes.CDLL(str(library))


def _compile(source: Path, library: Path, *further: str) -> None:
    options = ("-O1", *CFLAGS, "-fPIC", "-shared", "-pthread", f"-I{HERE}", "-Wall", "-Wextra", "-Werror")
    subprocess.run(("gcc", *options, *further, str(source), "-o", str(library), "-lm"), check=True)


@dataclass(frozen=True, slots=True)
class Case:
    """An instruction for a program of cases: ``{d}`` is its result, ``{a16}`` to ``{c64}`` are its operands.

    ``result`` are the bits of the result; 1 is a predicate.
    """

    text: str
    result: int


def program(cases: Sequence[Case]) -> str:
    """A kernel ``cases`` that executes every case for each row of three numbers of 64 bits.

    Its parameters are the rows, the results (for each case one number of 64 bits for each row) and the number of rows.
    """
    lines = [
        ".visible .entry cases(.param .u64 rows, .param .u64 results, .param .u64 count)\n{",
        ".reg .b64 %rows, %results, %count, %to, %a64, %b64, %c64, %index, %step;",
        ".reg .b32 %a32, %b32, %c32, %thread, %block, %size;\n.reg .b16 %a16, %b16, %c16;\n.reg .pred %out, %a1, %b1;",
        "ld.param.u64 %rows, [rows];\nld.param.u64 %results, [results];\nld.param.u64 %count, [count];",
        "mov.u32 %thread, %tid.x;\nmov.u32 %block, %ctaid.x;\nmov.u32 %size, %ntid.x;",
        "mad.lo.u32 %thread, %block, %size, %thread;\ncvt.u64.u32 %index, %thread;\nld.global.u64 %count, [%count];",
        "setp.ge.u64 %out, %index, %count;\n@%out bra done;\nshl.b64 %step, %count, 3;",
        "mad.lo.u64 %rows, %index, 24, %rows;\nmad.lo.u64 %to, %index, 8, %results;",
    ]
    for place, name in enumerate("abc"):
        lines.append(f"ld.global.u64 %{name}64, [%rows+{8 * place}];")
        lines.append(f"cvt.u32.u64 %{name}32, %{name}64;\ncvt.u16.u64 %{name}16, %{name}64;")
    lines.append("setp.ne.u16 %a1, %a16, 0;\nsetp.ne.u16 %b1, %b16, 0;")
    operands = {f"{name}{bits}": f"%{name}{bits}" for name in "abc" for bits in (16, 32, 64)} | {
        "a1": "%a1",
        "b1": "%b1",
    }
    for case in cases:
        type_ = "pred" if case.result == 1 else f"b{max(case.result, 16)}"
        store = f"st.global.b{max(case.result, 8)} [%to], %d;"
        if case.result == 1:
            store = ".reg .b32 %s; selp.b32 %s, 1, 0, %d; st.global.b32 [%to], %s;"
        lines.append(
            f"{{ .reg .{type_} %d; {case.text.format(d='%d', **operands)} {store} }}\nadd.s64 %to, %to, %step;"
        )
    return "\n".join((*lines, "done: ret;\n}"))


def results(kernel: Kernel, cases: Sequence[Case], rows: np.ndarray) -> np.ndarray:
    """The results of all cases (first axis) for all rows (second axis)."""
    count = len(rows)
    found = np.zeros((len(cases), count), np.uint64)
    grid = -(-count // THREADS)
    reason, _ = kernel.launch(
        np.ascontiguousarray(rows, np.uint64), found, np.array([count], np.uint64), grid=grid, block=THREADS
    )
    assert reason == ""
    return found
