"""Programs compiled by the real nvcc run on the doubles, which must behave like a GPU except for computing."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.testbed import simulated_device
from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine, SimulatedUse
from tests.integration.conftest import run

if TYPE_CHECKING:
    from build_config.model import CudaToolkit

pytestmark = pytest.mark.integration

PROGRAM = r"""
#include <cstdio>
#include <cstring>
#include <cuda_runtime.h>

__global__ void kernel(float * a) { a[0] = 1; }

static const char * text(cudaError_t error) { return cudaGetErrorString(error); }

int main(int argc, char ** argv) {
    int count = 0;
    const cudaError_t counted = cudaGetDeviceCount(&count);
    printf("devices: %s, %d\n", text(counted), count);
    for (int i = 0; i < count; i++) {
        cudaDeviceProp properties;
        cudaGetDeviceProperties(&properties, i);
        printf("%d: %s %d.%d\n", i, properties.name, properties.major, properties.minor);
    }
    const char * act = argv[1];
    float * device = nullptr;
    float host[256] = {42};
    printf("malloc: %s\n", text(cudaMalloc(&device, sizeof host)));
    if (!strcmp(act, "launch")) {
        kernel<<<1, 1>>>(device);
        printf("launch: %s\n", text(cudaGetLastError()));
        printf("then: %s\n", text(cudaDeviceSynchronize()));
    }
    if (!strcmp(act, "copy")) {
        float back[256] = {};
        printf("to: %s\n", text(cudaMemcpy(device, host, sizeof host, cudaMemcpyHostToDevice)));
        printf("from: %s\n", text(cudaMemcpy(back, device, sizeof back, cudaMemcpyDeviceToHost)));
        printf("back: %s\n", memcmp(host, back, sizeof host) ? "other bytes" : "the same bytes");
        printf("past the end: %s\n", text(cudaMemcpy(host, device + 200, sizeof host, cudaMemcpyDeviceToHost)));
        printf("wrong way: %s\n", text(cudaMemcpy(device, host, sizeof host, cudaMemcpyDeviceToHost)));
    }
    if (!strcmp(act, "graph")) {
        cudaStream_t stream;
        cudaGraph_t graph;
        cudaGraphExec_t executable;
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
        kernel<<<1, 1, 0, stream>>>(device);
        kernel<<<1, 1, 0, stream>>>(device);
        cudaStreamEndCapture(stream, &graph);
        cudaGraphInstantiate(&executable, graph, 0);
        for (int i = 0; i < 5; i++) { cudaGraphLaunch(executable, stream); }
        cudaGraphExecDestroy(executable);
        cudaGraphDestroy(graph);
        cudaStreamDestroy(stream);
    }
    if (!strcmp(act, "touch")) {
        printf("%f\n", device[0]);
    }
    if (strcmp(act, "leak")) {
        printf("free: %s\n", text(cudaFree(device)));
        printf("again: %s\n", text(cudaFree(device)));
    }
    return 0;
}
"""


@dataclass(frozen=True)
class Run:
    lines: dict[str, str]
    status: int
    use: SimulatedUse | None


@dataclass(frozen=True)
class Bench:
    """The program and the doubles on which it runs."""

    program: Path
    libraries: SimulatedLibraries
    report: Path

    def run(self, act: str, machine: SimulatedMachine, **variables: str) -> Run:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment |= self.libraries.environment(machine, report=self.report) | variables
        self.report.unlink(missing_ok=True)
        done = run(self.program, act, env=environment)
        assert done.stderr == ""
        lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
        return Run(lines, done.returncode, simulated_device.read_report(self.report))


@pytest.fixture(name="bench", scope="module")
def _bench(toolkit: CudaToolkit, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("simulated")
    source = folder / "program.cu"
    source.write_text(PROGRAM, encoding="utf-8")
    program = folder / "program"
    code = ("-gencode=arch=compute_86,code=sm_86", "-gencode=arch=compute_90,code=compute_90")
    linked = ("-cudart=shared", f"-L{toolkit.root / 'lib'}", "-o", str(program))
    subprocess.run([str(toolkit.nvcc.path), *code, str(source), *linked], check=True)
    libraries = simulated_device.build(
        folder / "doubles", include=toolkit.root / "include", major=13, libraries=("cuda", "cudart")
    )
    return Bench(program, libraries, folder / "report.json")


@pytest.mark.parametrize(
    ("capability", "outcome"),
    [
        ("8.6", "no error"),
        ("8.9", "no error"),  # machine code runs on later minor versions
        ("9.0", "no error"),  # PTX
        ("12.0", "no error"),  # PTX runs on everything later
        ("8.0", "no kernel image is available for execution on the device"),
        ("7.5", "no kernel image is available for execution on the device"),
    ],
)
def test_a_kernel_runs_where_it_has_code(bench: Bench, capability: str, outcome: str) -> None:
    run = bench.run("launch", SimulatedMachine(capabilities=(capability,)))
    assert run.lines["launch"] == outcome
    assert run.use is not None
    assert run.use.counts["launches"] == (outcome == "no error")


def test_the_devices_are_called_simulated(bench: Bench) -> None:
    run = bench.run("copy", SimulatedMachine(capabilities=("8.9", "7.5")))
    assert run.lines["devices"] == "no error, 2"
    assert run.lines["0"] == "SIMULATED device 8.9 (not a GPU) 8.9"
    assert run.lines["1"] == "SIMULATED device 7.5 (not a GPU) 7.5"


def test_copies_work_and_wrong_ones_are_refused(bench: Bench) -> None:
    run = bench.run("copy", SimulatedMachine())
    assert (run.lines["to"], run.lines["from"], run.lines["back"]) == ("no error", "no error", "the same bytes")
    assert run.lines["past the end"] == run.lines["wrong way"] == "invalid argument"
    assert run.use is not None
    assert (run.use.counts["copies_to_device"], run.use.counts["copies_from_device"]) == (1, 1)
    assert run.use.counts["refused"] == 3  # the double cudaFree too


def test_memory_that_is_not_freed_is_a_leak(bench: Bench) -> None:
    clean, leaking = bench.run("free only", SimulatedMachine()), bench.run("leak", SimulatedMachine())
    assert clean.lines["again"] == "invalid argument"
    assert clean.use is not None
    assert leaking.use is not None
    assert clean.use.devices[0].leaked_bytes == 0
    assert leaking.use.devices[0].leaked_bytes == 1024
    assert not leaking.use.is_clean


def test_the_host_cannot_read_device_memory(bench: Bench) -> None:
    assert bench.run("touch", SimulatedMachine()).status == -11


def test_a_graph_counts_its_launches_each_time(bench: Bench) -> None:
    use = bench.run("graph", SimulatedMachine()).use
    assert use is not None
    assert (use.counts["graph_launches"], use.counts["launches"]) == (5, 10)
    assert not any(use.leaked.values())


def test_hidden_devices_do_not_exist(bench: Bench) -> None:
    two = SimulatedMachine(capabilities=("8.9", "7.5"))
    assert bench.run("launch", two, CUDA_VISIBLE_DEVICES="1").lines["0"] == "SIMULATED device 7.5 (not a GPU) 7.5"
    assert bench.run("launch", two, CUDA_VISIBLE_DEVICES="-1").lines["devices"].startswith("no CUDA-capable device")


TOO_OLD = "CUDA driver version is insufficient for CUDA runtime version, 0"
FAULTS = [
    (SimulatedMachine(fault="no-device"), "devices", "no CUDA-capable device is detected, 0"),
    (SimulatedMachine(fault="driver-too-old"), "devices", TOO_OLD),
    (SimulatedMachine(fault="out-of-memory", argument=1000), "malloc", "out of memory"),
    (SimulatedMachine(fault="out-of-memory", argument=2000), "malloc", "no error"),
    (SimulatedMachine(memory=1000), "malloc", "out of memory"),
    (SimulatedMachine(fault="launch-failure"), "then", "unspecified launch failure"),
]


@pytest.mark.parametrize(("machine", "line", "outcome"), FAULTS)
def test_faults_look_like_those_of_a_real_gpu(bench: Bench, machine: SimulatedMachine, line: str, outcome: str) -> None:
    assert bench.run("launch", machine).lines[line] == outcome


def test_missing_functions_are_named(bench: Bench, tmp_path: Path) -> None:
    assert simulated_device.lacking(bench.program.read_bytes(), 13) == ()
    library = tmp_path / "libfuture.so"
    source = "void cudaFutureFunction(void); void cuFuture(void); void f(void) { cudaFutureFunction(); cuFuture(); }"
    subprocess.run(["gcc", "-shared", "-fPIC", "-xc", "-", "-o", str(library)], input=source, text=True, check=True)
    assert simulated_device.lacking(library.read_bytes(), 13) == ("cuFuture", "cudaFutureFunction")
