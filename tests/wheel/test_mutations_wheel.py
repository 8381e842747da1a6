"""A correct wheel passes; a wheel with a fault that would hurt users must fail."""

from __future__ import annotations

import dataclasses
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from build_config.formats import wheelfile
from build_config.reports import ValidationReport, Verdict
from build_config.steps.validation import Simulation, validate
from build_config.system import machine
from build_config.system.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from build_config.model import Wheel
    from build_config.system.layout import Layout

pytestmark = [pytest.mark.wheel, pytest.mark.usefixtures("copied_environments")]

LIB = "llama_cpp/lib/"
BINDINGS = "llama_cpp/llama.py"
FAT_BINARY = struct.pack("<I", 0xBA55ED50)
ARCH = 28
"""Offset of the architecture in the header of an entry of a fat binary."""

Contents = dict[str, bytes]


def without_cuda(contents: Contents) -> Contents:
    return {name: data for name, data in contents.items() if not name.startswith(f"{LIB}libggml-cuda")}


def with_code_for_another_gpu(contents: Contents) -> Contents:
    return {
        name: _for_another_gpu(data) if name.startswith(f"{LIB}libggml-cuda") else data
        for name, data in contents.items()
    }


def _for_another_gpu(library: bytes) -> bytes:
    """Change a shard as if its kernels were compiled for a major version that no GPU has yet."""
    changed = bytearray(library)
    start = library.find(FAT_BINARY)
    assert start >= 0
    while start >= 0:
        header_size, size = struct.unpack_from("<HQ", library, start + 6)
        entry, end = start + header_size, start + header_size + size
        while entry < end:
            entry_header, payload = struct.unpack_from("<IQ", library, entry + 4)
            struct.pack_into("<I", changed, entry + ARCH, 990)
            entry += entry_header + payload
        start = library.find(FAT_BINARY, start + 1)
    return bytes(changed)


def without_the_line_of_the_cache(contents: Contents) -> Contents:
    name = f"{LIB}libllama.so"
    line = b"layer %3d: dev = %s\n"
    assert contents[name].count(line)
    return {**contents, name: contents[name].replace(line, b"layer %3d; on is %s\n")}


def with_one_layer_left_behind(contents: Contents) -> Contents:
    text = contents[BINDINGS].decode()
    changed = text.replace("0x7FFFFFFF if n_gpu_layers == -1", "2 if n_gpu_layers == -1")
    assert changed != text
    return {**contents, BINDINGS: changed.encode()}


def mutated(wheel: Wheel, folder: Path, mutation: Callable[[Contents], Contents]) -> Wheel:
    """A wheel of the same name with a correct RECORD: an installer accepts it."""
    rough = folder / "rough.zip"
    with zipfile.ZipFile(rough, "w") as archive:
        for name, data in mutation(wheelfile.read_contents(wheel.path)).items():
            archive.writestr(name, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wheelfile, "COMPRESSION_LEVEL", 1)  # it is installed once, and size does not matter
        return wheelfile.write_normalised(rough, folder / wheel.path.name)


def tried(wheel: Wheel, layout: Layout, simulation: Simulation | None) -> ValidationReport:
    here = dataclasses.replace(machine.describe(), driver=None, gpus=())  # equal results on a machine with a GPU
    return validate(
        wheel,
        wheels_folder=wheel.path.parent,
        downloads=layout.downloads,
        layout=layout,
        machine=here,
        simulation=simulation,
        require_gpu=False,
        console=Console(terminal=False),
    )


def test_the_wheel_as_it_is_passes(wheel: Wheel, layout: Layout, simulation: Simulation) -> None:
    report = tried(wheel, layout, simulation)
    assert report.all_findings() == ()
    assert report.verdict is Verdict.SIMULATED_DEVICE_VERIFIED
    (decisive,) = [scenario for scenario in report.scenarios if scenario.name == report.decisive]
    assert {layer.weights for layer in decisive.placements} == {"CUDA0"}
    assert {layer.kv_cache for layer in decisive.placements[:-1]} == {"CUDA0"}
    assert decisive.launches


@pytest.mark.parametrize(
    ("mutation", "code"),
    [
        (without_cuda, "shard-missing"),
        (with_code_for_another_gpu, "probe-failed"),
        (without_the_line_of_the_cache, "placement-missing"),
        (with_one_layer_left_behind, "not-on-card"),
    ],
)
def test_a_faulty_wheel_fails(
    wheel: Wheel,
    layout: Layout,
    simulation: Simulation,
    tmp_path: Path,
    mutation: Callable[[Contents], Contents],
    code: str,
) -> None:
    report = tried(mutated(wheel, tmp_path, mutation), layout, simulation)
    assert report.verdict is Verdict.FAILED
    assert code in {finding.code for finding in report.all_findings()}


def test_a_missing_backend_is_found_without_a_gpu(wheel: Wheel, layout: Layout, tmp_path: Path) -> None:
    report = tried(mutated(wheel, tmp_path, without_cuda), layout, None)
    assert report.verdict is Verdict.FAILED
    assert {finding.code for finding in report.all_findings()} == {"shard-missing"}
