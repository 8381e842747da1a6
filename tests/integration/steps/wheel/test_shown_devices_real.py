"""``shown_devices.cpp``, linked as in a shard, on simulated machines: the devices that a caller of CUDA sees then."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.system.layout import PACKAGE
from build_config.testbed import simulated_device
from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine

if TYPE_CHECKING:
    from build_config.model import CudaToolkit

pytestmark = pytest.mark.integration

PROJECT = PACKAGE / "wheel_project"
WRAPPED = re.findall(r"\bcu(?:da)?[A-Z]\w+", (PROJECT / "cmake" / "cuda.cmake").read_text(encoding="utf-8"))
NOT_CALLED = {
    *("cudaDeviceDisablePeerAccess", "cudaMemAdvise"),  # by ggml-cuda on no system that this project builds for
    *("cuDeviceGetCount", "cuDeviceGetName", "cuDeviceTotalMem"),  # but by the loader, which has to see all devices
}
TAKES_A_HANDLE = {"cuDeviceGetAttribute"}
"""The result of cuDeviceGet."""
NAMES_A_DEVICE = re.compile(r"\bint\W+\w*(device|ordinal|count)\b|CUmem(AllocationProp|AccessDesc)", re.IGNORECASE)
PROGRAM = r"""
#include "shard.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <thread>

int shard_fit(int capability) { return capability == 89 ? 500 : 0; }

int main() {
    int count = -1;
    int now   = -1;
    printf("count: %d", (int) cudaGetDeviceCount(&count));
    printf(" %d\n", count);
    printf("devices:");
    for (int id = 0; id < count; id++) {
        cudaDeviceProp properties;
        cudaGetDeviceProperties(&properties, id);
        char bus[16];
        cudaDeviceGetPCIBusId(bus, sizeof bus, id);
        int      major = 0;
        CUdevice device;
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id);
        printf(" %d.%d/%d/%s/%d", properties.major, properties.minor, major, bus, (int) cuDeviceGet(&device, id));
    }
    printf("\nunknown: %d %d\n", (int) cudaSetDevice(count), (int) cudaSetDevice(-1));
    std::thread([&] { cudaGetDevice(&now); }).join();
    printf("a thread begins on: %d\n", now);
    if (count < 2) {
        return 0;
    }
    cudaSetDevice(1);
    cudaGetDevice(&now);
    void * here = nullptr;
    cudaMalloc(&here, 4096);
    void * there = nullptr;
    cudaSetDevice(0);
    cudaMalloc(&there, 4096);
    int reach = -1;
    printf("reach: %d", (int) cudaDeviceCanAccessPeer(&reach, 0, 1));
    printf(" %d %d\n", reach, (int) cudaDeviceEnablePeerAccess(1, 0));
    printf("copy: %d\n", (int) cudaMemcpyPeerAsync(there, 0, here, 1, 4096, nullptr));

    CUmemAllocationProp properties = {};
    properties.type          = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id   = 1;
    size_t step = 0;
    int error = cuMemGetAllocationGranularity(&step, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;
    error |= cuMemCreate(&handle, step, &properties, 0);
    error |= cuMemAddressReserve(&address, step, 0, 0, 0);
    error |= cuMemMap(address, step, 0, handle, 0);
    error |= cuMemRelease(handle);
    CUmemAccessDesc access[2] = {};
    for (int id = 0; id < 2; id++) {
        access[id].location.type = CU_MEM_LOCATION_TYPE_DEVICE;
        access[id].location.id   = id;
        access[id].flags         = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    }
    error |= cuMemSetAccess(address, step, access, 2);
    printf("mapping: %d\n", error);
    cuMemUnmap(address, step);
    cuMemAddressFree(address, step);
    cudaFree(here);
    cudaFree(there);
}
"""


@dataclass(frozen=True)
class Bench:
    """The program, and the doubles on which it runs."""

    program: Path
    libraries: SimulatedLibraries
    report: Path

    def run(self, *capabilities: str, **variables: str) -> dict[str, str]:
        """What the program printed; afterwards, the bytes that each device of the machine held."""
        machine = SimulatedMachine(capabilities=capabilities)
        environment = self.libraries.environment(machine, report=self.report) | variables
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        done = subprocess.run([self.program], env=inherited | environment, capture_output=True, text=True, check=True)
        use = simulated_device.read_report(self.report)
        assert use is not None
        assert not any(use.leaked.values())
        held = " ".join(str(device.peak_bytes) for device in use.devices)
        return {**dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line), "held": held}


@pytest.fixture(name="bench", scope="module")
def _bench(toolkit: CudaToolkit, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("shown")
    (folder / "main.cpp").write_text(PROGRAM, encoding="utf-8")
    include, lib = toolkit.root / "include", toolkit.root / "lib"
    wrapped = [f"-Wl,--wrap={name}" for name in WRAPPED]
    linked = [f"-L{lib}", f"-L{lib / 'stubs'}", "-lcudart", "-lcuda", "-pthread", *wrapped]
    sources = [str(folder / "main.cpp"), str(PROJECT / "shown_devices.cpp")]
    command = ["g++", "-std=c++17", f"-I{PROJECT}", "-isystem", str(include), *sources, "-o", str(folder / "main")]
    subprocess.run([*command, *linked], check=True)
    doubles = simulated_device.build(folder / "doubles", include=include, major=13, libraries=("cuda", "cudart"))
    return Bench(folder / "main", doubles, folder / "report.json")


@pytest.mark.parametrize(
    ("machine", "held"),
    [
        (("8.9", "8.9"), "4096 2101248"),
        (("7.5", "8.9", "12.0", "8.9"), "0 4096 0 2101248"),
        (("8.9", "12.0", "8.9"), "4096 0 2101248"),
    ],
)
def test_devices_with_code_are_numbered_from_0_and_no_other_is_touched(
    bench: Bench, machine: tuple[str, ...], held: str
) -> None:
    said = bench.run(*machine)
    assert said["count"] == "0 2"
    buses = [f"0000:{index + 1:02x}:00.0" for index, one in enumerate(machine) if one == "8.9"]
    assert said["devices"].split() == [f"8.9/8/{bus}/0" for bus in buses]
    assert said["unknown"] == "101 101"
    assert said["a thread begins on"] == "0"
    assert (said["reach"], said["copy"], said["mapping"]) == ("0 1 0", "0", "0")
    assert said["held"] == held


def test_a_single_device_with_code_is_shown_wherever_it_is(bench: Bench) -> None:
    said = bench.run("12.0", "7.5", "8.9")
    assert said["devices"] == "8.9/8/0000:03:00.0/0"
    assert said["a thread begins on"] == "0"


def test_hidden_devices_stay_hidden(bench: Bench) -> None:
    shown = bench.run("8.9", "7.5", "8.9", CUDA_VISIBLE_DEVICES=f"1,{simulated_device.uuid(2)}")
    assert shown["count"] == "0 1"


def test_without_a_device_with_code_there_is_none(bench: Bench) -> None:
    assert bench.run("7.5", "12.0")["count"] == "100 0"  # cudaErrorNoDevice


def test_windows_gives_other_names_to_the_same_functions() -> None:
    header = (PROJECT / "shown_names.h").read_text(encoding="utf-8")
    assert {*re.findall(r"define (\w+) shown_\1\b", header)} | {"cudaGetDeviceProperties_v2"} == {*WRAPPED}


def test_every_function_that_names_a_device_is_wrapped(toolkit: CudaToolkit) -> None:
    """The doubles have every function that a shard needs: ``lacking`` fails the validation otherwise."""
    headers = [toolkit.root / "include" / name for name in ("cuda.h", "cuda_runtime_api.h")]
    declared = re.sub(r"//.*|/\*.*?\*/", "", "".join(map(Path.read_text, headers)), flags=re.DOTALL)
    table = (simulated_device.SOURCES / "functions.toml").read_text(encoding="utf-8")
    naming = set()
    for name in re.findall(r'"(cu(?:da)?[A-Z]\w+)"', table):
        for prototype in re.findall(rf"\b{name}\s*\(([^;]*)\)", declared):
            if NAMES_A_DEVICE.search(prototype):
                naming.add(name)
    assert {"cudaSetDevice", "cuMemCreate", "cudaMemcpyPeerAsync"} <= naming
    assert naming - NOT_CALLED - TAKES_A_HANDLE <= {*WRAPPED}
