"""cuBLAS of the emulated GPU, called as ggml calls it, compared with numpy."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from build_config.system.console import Console
from build_config.tasks import simulate
from build_config.testbed import emulated_device
from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from build_config.model import Wheel
    from build_config.system.layout import Layout

pytestmark = pytest.mark.wheel

N, T = 0, 1
"""``cublasOperation_t``."""
F32, F16 = 0, 2
"""``cudaDataType``."""
COMPUTE_32F = 68
LEFT, RIGHT, LOWER, UPPER, NON_UNIT, UNIT = 0, 1, 0, 1, 0, 1
COUNT, ROWS, COLUMNS, INNER = 3, 5, 7, 33
PITCH = 9
"""The distance of two columns of a triangular system: more than they are long."""
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2


def main(*libraries: str) -> None:
    """In a process of its own, whose libraries are the doubles: print the largest error of each call."""
    cudart, cublas = [ctypes.CDLL(library, ctypes.RTLD_GLOBAL) for library in libraries][1:]
    handle = ctypes.c_void_p()
    assert cublas.cublasCreate_v2(ctypes.byref(handle)) == 0
    bench = Bench(cudart, cublas, handle)
    errors = {f"gemm {ta}{tb}": bench.gemm(ta, tb) for ta, tb in itertools.product((N, T), repeat=2)}
    for side, fill, operation, diagonal in itertools.product((0, 1), repeat=4):
        errors[f"trsm {side}{fill}{operation}{diagonal}"] = bench.trsm(side, fill, operation, diagonal)
    sys.stdout.write(json.dumps(errors))


class Bench:
    """The doubles, and arrays that a seed gives."""

    def __init__(self, cudart: ctypes.CDLL, cublas: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self.cudart, self.cublas, self.handle = cudart, cublas, handle
        self.random = np.random.default_rng(1)

    def put(self, values: NDArray[Any]) -> ctypes.c_void_p:
        address, size = ctypes.c_void_p(), ctypes.c_size_t(values.nbytes)
        assert self.cudart.cudaMalloc(ctypes.byref(address), size) == 0
        content = np.ascontiguousarray(values).ctypes.data_as(ctypes.c_void_p)
        assert self.cudart.cudaMemcpy(address, content, size, HOST_TO_DEVICE) == 0
        return address

    def get(self, address: ctypes.c_void_p, like: NDArray[Any]) -> NDArray[Any]:
        result = np.empty_like(like)
        target, size = result.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(result.nbytes)
        assert self.cudart.cudaMemcpy(target, address, size, DEVICE_TO_HOST) == 0
        return result

    def gemm(self, ta: int, tb: int) -> float:
        """C = 2 op(A) op(B) + C / 2, in F16 with sums and results in F32. Columns are contiguous, as in Fortran."""
        a = self.random.standard_normal((COUNT, *((ROWS, INNER) if ta else (INNER, ROWS)))).astype(np.float16)
        b = self.random.standard_normal((COUNT, *((INNER, COLUMNS) if tb else (COLUMNS, INNER)))).astype(np.float16)
        c = self.random.standard_normal((COUNT, COLUMNS, ROWS)).astype(np.float32)
        target = self.put(c)
        alpha, beta = ctypes.c_float(2), ctypes.c_float(0.5)
        assert not self.cublas.cublasGemmStridedBatchedEx(
            *(self.handle, ta, tb, ROWS, COLUMNS, INNER, ctypes.byref(alpha)),
            *(self.put(a), F16, a.shape[2], ctypes.c_longlong(ROWS * INNER)),
            *(self.put(b), F16, b.shape[2], ctypes.c_longlong(COLUMNS * INNER)),
            *(ctypes.byref(beta), target, F32, ROWS, ctypes.c_longlong(ROWS * COLUMNS), COUNT, COMPUTE_32F, -1),
        )
        left = np.swapaxes(a, 1, 2).astype(np.float64)
        right = np.swapaxes(b, 1, 2).astype(np.float64)
        left, right = (np.swapaxes(left, 1, 2) if ta else left), (np.swapaxes(right, 1, 2) if tb else right)
        expected = 2 * left @ right + np.swapaxes(c, 1, 2) / 2
        return float(np.abs(np.swapaxes(self.get(target, c), 1, 2) - expected).max())

    def trsm(self, side: int, fill: int, operation: int, diagonal: int) -> float:
        """op(A) X = 2 B or X op(A) = 2 B. The triangle that must not be read, and the rest of each column, are NaN."""
        size = ROWS if side == LEFT else COLUMNS
        triangle = self.random.uniform(-0.5, 0.5, (COUNT, size, size)) + 2 * np.eye(size)
        part = np.tril if fill == LOWER else np.triu
        triangle = part(triangle)
        stored = np.where(part(np.ones((size, size))), triangle, np.nan)
        if diagonal == UNIT:
            stored[:, range(size), range(size)] = np.nan
            triangle[:, range(size), range(size)] = 1
        b = self.random.standard_normal((COUNT, ROWS, COLUMNS))
        a_columns = np.full((COUNT, size, PITCH), np.nan, np.float32)
        a_columns[:, :, :size] = np.swapaxes(stored, 1, 2)
        b_columns = np.full((COUNT, COLUMNS, PITCH), np.nan, np.float32)
        b_columns[:, :, :ROWS] = np.swapaxes(b, 1, 2)
        a_device, b_device = self.put(a_columns), self.put(b_columns)
        pointers = [
            self.put(np.array([(address.value or 0) + each[0].nbytes * batch for batch in range(COUNT)], np.uint64))
            for address, each in ((a_device, a_columns), (b_device, b_columns))
        ]
        alpha = ctypes.c_float(2)
        assert not self.cublas.cublasStrsmBatched(
            *(self.handle, side, fill, operation, diagonal, ROWS, COLUMNS, ctypes.byref(alpha)),
            *(pointers[0], PITCH, pointers[1], PITCH, COUNT),
        )
        x = np.swapaxes(self.get(b_device, b_columns)[:, :, :ROWS], 1, 2)
        matrix = np.swapaxes(triangle, 1, 2) if operation == T else triangle
        return float(np.abs((matrix @ x if side == LEFT else x @ matrix) - 2 * b.astype(np.float32)).max())


@pytest.fixture(name="doubles", scope="module")
def _doubles(wheel: Wheel, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> SimulatedLibraries:
    toolkit, cc = simulate.provide_compilers(layout, Console(terminal=False), cuda=simulate.of_wheel(wheel.path))
    major = int(toolkit.release.partition(".")[0])
    return emulated_device.build(tmp_path_factory.mktemp("doubles"), include=toolkit.include, major=major, cc=cc)


def test_products_and_triangular_systems_are_those_of_numpy(doubles: SimulatedLibraries, tmp_path: Path) -> None:
    environment = {**os.environ, **doubles.environment(SimulatedMachine()), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, *map(str, doubles.files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) == 20
    assert {name: error for name, error in errors.items() if not error < 1e-5} == {}


if __name__ == "__main__":
    main(*sys.argv[1:])
