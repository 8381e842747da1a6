"""A C program on the doubles of the emulated GPU: its kernel computes, and only with what a GPU would let it use."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import ValidationError
from build_config.system import processes
from build_config.testbed import emulated_device
from build_config.testbed.emulated_device import KernelUse, server
from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine
from tests.integration.conftest import run
from tests.support.ptx_execution import compiled

if TYPE_CHECKING:
    from build_config.model import CudaToolkit

pytestmark = pytest.mark.integration

KERNEL = """
.visible .entry add(.param .u64 target, .param .f32 value, .param .u32 count)
{
    .reg .b64 %target;
    .reg .b32 %i, %n, %size, %block;
    .reg .f32 %value, %old;
    .reg .pred %out;
    ld.param.u64 %target, [target];
    ld.param.f32 %value, [value];
    ld.param.u32 %n, [count];
    mov.u32 %i, %tid.x;
    mov.u32 %size, %ntid.x;
    mov.u32 %block, %ctaid.x;
    mad.lo.u32 %i, %block, %size, %i;
    setp.ge.u32 %out, %i, %n;
    @%out bra done;
    mad.wide.u32 %target, %i, 4, %target;
    ld.global.f32 %old, [%target];
    add.f32 %old, %old, %value;
    st.global.f32 [%target], %old;
    done:
    ret;
}
"""
PROGRAM = r"""
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct { uint32_t magic; uint16_t version, header; uint64_t size; uint16_t kind, of; uint32_t entry; uint64_t code;
         uint32_t packed, unknown; uint16_t minor, major; uint32_t arch; char bytes[8]; }
    fat = {0xBA55ED50, 1, 16, 40, 2, 0x101, 32, 8, 0, 0, 9, 8, 89, {0}};
struct { int magic, version; const void * data; void * file; } wrapper = {0x466243b1, 1, &fat, NULL};
void ** __cudaRegisterFatBinary(void *);
void __cudaRegisterFunction(void **, const char *, char *, const char *, int, void *, void *, void *, void *, int *);
static char add, other;
static float * device;
static float host[64];
static cudaError_t launch(
    const void * kernel, int threads, float value, int count, size_t shared, cudaStream_t stream) {
    void * arguments[] = {&device, &value, &count};
    return cudaLaunchKernel(kernel, (dim3) {1, 1, 1}, (dim3) {threads, 1, 1}, arguments, shared, stream);
}
static void show(const char * name, cudaError_t error) { printf("%s: %s\n", name, cudaGetErrorString(error)); }
static void read_back(const char * name) {
    show("read", cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
    printf("%s: %g %g\n", name, host[0], host[63]);
}
int main(int argc, char ** argv) {
    const char * act = argv[1];
    void ** module = __cudaRegisterFatBinary(&wrapper);
    __cudaRegisterFunction(module, &add, NULL, "add", -1, NULL, NULL, NULL, NULL, NULL);
    __cudaRegisterFunction(module, &other, NULL, "other", -1, NULL, NULL, NULL, NULL, NULL);
    if (!strcmp(act, "peer")) cudaSetDevice(1);
    if (!strcmp(act, "vmm")) {
        CUdeviceptr address; CUmemGenericAllocationHandle handle; const size_t size = 2 << 20;
        CUmemAllocationProp properties = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
        CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
        cuMemAddressReserve(&address, 4 * size, 0, 0, 0);
        cuMemCreate(&handle, size, &properties, 0);
        cuMemMap(address, size, 0, handle, 0);
        cuMemSetAccess(address, size, &access, 1);
        device = (float *) address;
    } else {
        cudaMalloc((void **) &device, sizeof host);
    }
    if (!strcmp(act, "fresh")) { read_back("value"); return 0; }
    if (!strcmp(act, "touch")) { printf("%g\n", device[0]); return 0; }
    cudaMemset(device, 0, sizeof host);
    if (!strcmp(act, "peer")) { cudaSetDevice(0); cudaDeviceEnablePeerAccess(1, 0); }
    if (!strcmp(act, "beyond")) { show("launch", launch(&add, 65, 1, 65, 0, NULL)); return 0; }
    if (!strcmp(act, "other")) { show("launch", launch(&other, 64, 1, 64, 0, NULL)); return 0; }
    if (!strcmp(act, "threads")) { show("launch", launch(&add, 1025, 1, 64, 0, NULL)); return 0; }
    if (!strcmp(act, "cooperative")) {
        void * arguments[] = {&device, &device, &device};
        show("launch", cudaLaunchCooperativeKernel(&add, (dim3) {1, 1, 1}, (dim3) {1, 1, 1}, arguments, 0, NULL));
        return 0;
    }
    if (!strcmp(act, "shared")) {
        show("48 KiB", launch(&add, 64, 1, 64, 48 << 10, NULL));
        show("more", launch(&add, 64, 1, 64, 49 << 10, NULL));
        show("allow", cudaFuncSetAttribute(&add, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10));
        show("allowed", launch(&add, 64, 1, 64, 49 << 10, NULL));
        return 0;
    }
    if (!strcmp(act, "graph")) {
        cudaStream_t stream; cudaGraph_t graph; cudaGraphExec_t executable; float result[64] = {0};
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
        launch(&add, 64, 1, 64, 0, stream);
        launch(&add, 64, 2, 32, 0, stream);
        cudaMemcpyAsync(result, device, sizeof result, cudaMemcpyDeviceToHost, stream);
        cudaStreamEndCapture(stream, &graph);
        read_back("captured");
        cudaGraphInstantiate(&executable, graph, 0);
        cudaGraphDestroy(graph);
        for (int i = 0; i < 5; i++) cudaGraphLaunch(executable, stream);
        printf("copied: %g %g\n", result[0], result[63]);
        cudaGraphExecDestroy(executable);
        cudaStreamDestroy(stream);
        cudaFree(device);
        return 0;
    }
    show("launch", launch(&add, 64, 1.5F, 64, 0, NULL));
    show("again", launch(&add, 32, 1, 64, 0, (cudaStream_t) 2));
    read_back("value");
    return 0;
}
"""


@dataclass(frozen=True)
class OneKernel:
    """A server's kernels: one, which is called ``add``."""

    path: Path

    def library(self, name: str) -> Path:
        if name != "add":
            raise ValidationError(f"there is no {name}")
        return self.path


@dataclass(frozen=True)
class Run:
    lines: dict[str, str]
    said: str
    status: int
    uses: tuple[KernelUse, ...]


@dataclass(frozen=True)
class Bench:
    """The program, the doubles on which it runs, and its kernel."""

    folder: Path
    libraries: SimulatedLibraries

    def run(self, act: str, capabilities: tuple[str, ...] = ("8.9",)) -> Run:
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment |= self.libraries.environment(SimulatedMachine(capabilities=capabilities))
        with server.serve({89: OneKernel(self.folder / "add.so")}, self.folder) as served:
            environment |= emulated_device.environment(served, report)
            done = run(self.folder / "program", act, env=environment)
        lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
        return Run(lines, done.stderr, done.returncode, emulated_device.read_report(report))


@pytest.fixture(name="bench", scope="module")
def _bench(toolkit: CudaToolkit, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("emulated")
    (folder / "program.c").write_text(PROGRAM, encoding="utf-8")
    libraries = emulated_device.build(folder, include=toolkit.include, major=13, libraries=("cuda", "cudart"))
    doubles = [str(file) for file in libraries.files]
    options = ("-w", f"-I{toolkit.include}", str(folder / "program.c"), *doubles, "-o", str(folder / "program"))
    subprocess.run(["gcc", *options], check=True)
    compiled(KERNEL, "add", folder)
    return Bench(folder, libraries)


def test_a_kernel_computes(bench: Bench) -> None:
    seen = bench.run("add")
    assert seen.lines == {"launch": "no error", "again": "no error", "read": "no error", "value": "2.5 1.5"}
    (use,) = seen.uses
    assert (use.name, use.code, use.launches, use.blocks) == ("add", 89, 2, 2)
    assert use.executed[0] == 64 + 32
    assert use.missed == ()
    assert 1 << 20 < emulated_device.read_memory(bench.folder / "report.json") < 1 << 32
    assert emulated_device.read_memory(bench.folder / "none.json") == 0


def test_a_kernel_reaches_memory_of_virtual_memory_management(bench: Bench) -> None:
    assert bench.run("vmm").lines["value"] == "2.5 1.5"


def test_a_kernel_reaches_the_memory_of_an_equal_device(bench: Bench) -> None:
    assert bench.run("peer", ("8.9", "8.9")).lines["value"] == "2.5 1.5"
    other = bench.run("peer", ("8.9", "8.6"))
    assert other.status == -11
    assert "add: an illegal memory access" in other.said


def test_new_memory_is_poisoned(bench: Bench) -> None:
    assert bench.run("fresh").lines["value"] == "-nan -nan"


def test_the_host_cannot_read_device_memory(bench: Bench) -> None:
    assert bench.run("touch").status == -11


def test_an_access_behind_an_allocation_is_named(bench: Bench) -> None:
    seen = bench.run("beyond")
    assert seen.status == -11
    assert "add: an illegal memory access" in seen.said
    assert "thread 64,0,0 of block 0,0,0" in seen.said


def test_a_graph_computes_each_time_it_is_launched_and_not_before(bench: Bench) -> None:
    seen = bench.run("graph")
    assert (seen.lines["captured"], seen.lines["copied"]) == ("0 0", "15 5")
    assert [use.launches for use in seen.uses] == [10]


@pytest.mark.parametrize(
    ("act", "error", "reason"),
    [
        ("other", "invalid device function", "other: there is no other"),
        ("threads", "error of the simulated GPU", "no device takes a grid of 1,1,1, a block of 1025,1,1"),
        ("cooperative", "error of the simulated GPU", "add: its blocks wait for one another"),
    ],
)
def test_what_cannot_be_launched_is_refused_by_name(bench: Bench, act: str, error: str, reason: str) -> None:
    seen = bench.run(act)
    assert seen.lines["launch"] == error
    assert reason in seen.said


def test_more_shared_memory_must_be_allowed_first(bench: Bench) -> None:
    lines = bench.run("shared").lines
    assert lines["48 KiB"] == lines["allow"] == lines["allowed"] == "no error"
    assert lines["more"] == "error of the simulated GPU"


@dataclass(frozen=True)
class SlowKernel:
    """Kernels that take a minute to compile."""

    def library(self, name: str) -> Path:
        processes.run(processes.Command(argv=("sleep", "60")))
        return Path(name)


@dataclass
class Waiting:
    """``first`` is not ready before ``second`` was asked for."""

    asked: threading.Event = field(default_factory=threading.Event)

    def library(self, name: str) -> Path:
        if name == "second":
            self.asked.set()
        elif not self.asked.wait(20):
            raise ValidationError("nobody else was heard meanwhile")
        return Path(name)


def ask(path: Path, name: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.sendall(f"89 {name}\n".encode())
    return client


def test_two_processes_get_kernels_at_the_same_time(tmp_path: Path) -> None:
    with server.serve({89: Waiting()}, tmp_path) as path, ask(path, "first") as first, ask(path, "second") as second:
        assert (first.recv(99), second.recv(99)) == (b"library first", b"library second")


def interrupted(folder: Path) -> None:
    with server.serve({89: SlowKernel()}, folder) as path, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"89 slow\n")
        time.sleep(0.5)
        raise KeyboardInterrupt


def test_an_interruption_does_not_wait_for_a_compiler(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path)
    assert time.monotonic() - start < 10
