"""Reading libraries, logs and the machine, without any process."""

from __future__ import annotations

import json
import signal
import struct
from typing import TYPE_CHECKING

import pytest

from check_gpu import collect, coverage, device_code, elf, log, process, surroundings
from check_gpu.facts import CudaLibrary, Device, Installation
from check_gpu.log import FoundDevice
from tests.support import pairs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

# ------------------------------------------------------------------------------------------------------- device code

PTX, CUBIN, OTHER = 1, 2, 8
A, F = 1 << 20, 1 << 21


def entry(kind: int, number: int, flags: int = 0x11, *, extra: bytes = b"") -> bytes:
    payload = b"\x50\xed\x55\xba" * 2  # the magic of a header inside a payload is not a header
    header_size = 64 + len(extra)
    head = struct.pack("<HHIQIIHHIIIQQQ", kind, 0x101, header_size, len(payload), 0, 0, 8, 1, number, 0, 0, flags, 0, 0)
    return head + extra + payload


def fat_binary(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_the_entries_of_several_fat_binaries_are_listed() -> None:
    section = (
        fat_binary(entry(CUBIN, 75), entry(CUBIN, 90, 0x11 | A), entry(PTX, 80, 0x8011))
        + bytes(24)  # padding: fat binaries are aligned
        + fat_binary(entry(CUBIN, 100, 0x1000011 | F, extra=bytes(32)), entry(PTX, 90, 0x8011 | A), entry(OTHER, 86))
    )
    assert [*device_code.entries(section)] == ["75-real", "90a-real", "80-virtual", "100f-real", "90a-virtual"]


def test_an_entry_says_where_its_contents_are() -> None:
    payload = entry(CUBIN, 75)[-8:]
    section = fat_binary(entry(CUBIN, 75), entry(PTX, 80, extra=b"options!")) + fat_binary(entry(CUBIN, 89))
    found = [*device_code.read(section)]
    assert [(each.architecture, each.binary) for each in found] == [("75-real", 0), ("80-virtual", 0), ("89-real", 1)]
    assert all(section[each.offset : each.offset + each.size] == payload for each in found)
    assert [each.header[64:] for each in found] == [b"", b"options!", b""]
    assert all(section[: each.offset].endswith(each.header) for each in found)


def test_a_section_without_code_has_no_entries() -> None:
    assert [*device_code.entries(b"")] == []
    assert [*device_code.entries(bytes(100))] == []


@pytest.mark.parametrize("cut", [20, 40, 60, 100])
def test_truncated_code_is_not_read_as_less_code(cut: int) -> None:
    with pytest.raises(elf.UnreadableError, match="cannot read its CUDA code"):
        [*device_code.entries(fat_binary(entry(CUBIN, 75), entry(CUBIN, 89))[:cut])]


def test_an_entry_of_an_unknown_format_is_refused() -> None:
    unknown = struct.pack("<HHIQ", CUBIN, 1, 8, 0) + bytes(60)
    with pytest.raises(elf.UnreadableError, match="unknown format"):
        [*device_code.entries(fat_binary(unknown))]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"MZ" + bytes(100), "a Windows library"),
        (b"#!/bin/sh\n" + bytes(100), "not an ELF file"),
        (b"", "not an ELF file"),
        (b"\x7fELF\x01\x01" + bytes(100), "not 64-bit"),
        (b"\x7fELF\x02\x01" + bytes(100), "section table was stripped"),
        (b"\x7fELF\x02\x01", "damaged"),
        (b"\x7fELF\x02\x01" + bytes(34) + b"\xff\xff" + bytes(16) + b"\x40\0\x05\0\x04\0", "damaged"),
        (b"\x7fELF\x02\x01" + bytes(34) + b"\xff" * 8 + bytes(10) + b"\x40\0\x05\0\x04\0", "damaged"),
    ],
)
def test_a_file_that_is_not_a_library_is_named_in_plain_words(content: bytes, said: str) -> None:
    with pytest.raises(elf.UnreadableError, match=f"cannot read it: .*{said}"):
        elf.read(content)


def test_a_cuda_library_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    for name, content, problem in (
        ("ggml-cuda.dll", b"MZ" + bytes(80), "a Windows library"),
        ("libggml-cuda.so", b"", "cannot read it"),
    ):
        (tmp_path / name).write_bytes(content)
        library = collect.read_library(tmp_path / name)
        assert library is not None
        assert problem in str(library.problem)
    (tmp_path / "libggml-base.so").write_bytes(b"")
    assert collect.read_library(tmp_path / "libggml-base.so") is None


# ---------------------------------------------------------------------------------------------------------- coverage


def test_a_library_covers_the_gpus_that_run_any_of_its_code() -> None:
    library = CudaLibrary("libggml-cuda.so", code=("75-real", "89-real", "100a-virtual"))
    covered = {
        number for number in pairs.GPUS if library.covers(Device(0, "a GPU", pairs.capability(number), memory=1))
    }
    assert covered == {*range(75, 80), 89, 100}


def test_an_unknown_architecture_covers_nothing() -> None:
    assert not coverage.runs_on("", "8.9")
    assert not coverage.runs_on("sm_89", "8.9")


@pytest.mark.parametrize(
    ("names", "major"),
    [
        (["libc.so.6", "libcublas.so.12"], "12"),
        (["libcudart.so.13"], "13"),
        (["cudart64_12.dll"], "12"),
        (["libcudart.so.11.0"], "11"),
        (["libcuda.so.1", "libcublas.so"], None),
    ],
)
def test_the_cuda_version_of_a_build_is_in_the_names_of_its_libraries(names: list[str], major: str | None) -> None:
    assert coverage.cuda_major(names) == major


# --------------------------------------------------------------------------------------------------------------- log


def test_devices_are_read_with_their_names() -> None:
    signs = log.read(
        [
            "ggml_cuda_init: found 2 CUDA devices (Total VRAM: 48000 MiB):",
            "  Device 0: NVIDIA GeForce RTX 4090, compute capability 8.9, VMM: yes",
            "  Device 1: Tesla T4, compute capability 7.5, VMM: yes",
            "llama_prepare_model_devices: using device CUDA0 (NVIDIA GeForce RTX 4090) (0000:01:00.0) - 23567 MiB free",
            "using device CUDA1 (Tesla T4 (rev 2)) - 15000 MiB free",
        ]
    )
    assert signs.found == (FoundDevice("NVIDIA GeForce RTX 4090", "8.9"), FoundDevice("Tesla T4", "7.5"))
    assert signs.in_use == (("CUDA0", "NVIDIA GeForce RTX 4090"), ("CUDA1", "Tesla T4 (rev 2)"))
    assert signs.device_names == ("NVIDIA GeForce RTX 4090", "Tesla T4 (rev 2)", "Tesla T4")


@pytest.mark.parametrize(
    ("line", "built_in"),
    [
        ("system_info: CUDA : ARCHS = 890 | CPU : SSE3 = 1", True),
        ("System Info: AVX = 1 | CPU : SSE3 = 1 | LLAMAFILE = 1", False),
        ("load_tensors: layer 0 assigned to device CPU", None),
    ],
)
def test_the_features_say_whether_cuda_is_built_in(line: str, *, built_in: bool | None) -> None:
    assert log.read([line]).cuda_built_in is built_in


# ------------------------------------------------------------------------------------------------------ surroundings


def machine_files(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


BUS = "sys/bus/pci/devices/0000:01:00.0"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({f"{BUS}/vendor": "0x10de\n", f"{BUS}/class": "0x030000\n"}, True),
        ({f"{BUS}/vendor": "0x10de\n", f"{BUS}/class": "0x040300\n"}, False),  # the audio device of a GPU
        ({f"{BUS}/vendor": "0x1002\n", f"{BUS}/class": "0x030000\n"}, False),
        ({"proc/version": "Linux 5.15-microsoft-standard-WSL2", "dev/dxg": ""}, None),
        ({"proc/version": "Linux 5.15-microsoft-standard-WSL2"}, False),
    ],
)
def test_a_gpu_on_the_bus(tmp_path: Path, files: dict[str, str], *, expected: bool | None) -> None:
    assert surroundings.look({}, root=machine_files(tmp_path, files), system="linux").card_on_bus is expected


def test_an_empty_bus_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    assert surroundings.look({}, root=tmp_path, system="linux").card_on_bus is None


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({"proc/1/cgroup": "0::/init.scope\n"}, None),
        ({".dockerenv": ""}, "/.dockerenv"),
        ({"run/.containerenv": ""}, "/run/.containerenv"),
        ({"proc/1/cgroup": "12:memory:/kubepods/besteffort/pod1\n"}, "kubepods"),
    ],
)
def test_containers_are_recognised(tmp_path: Path, files: dict[str, str], container: str | None) -> None:
    assert surroundings.look({}, root=machine_files(tmp_path, files), system="linux").container == container


def test_the_machine_is_described_with_the_variables_that_matter(tmp_path: Path) -> None:
    root = machine_files(
        tmp_path,
        {
            "proc/version": "Linux version 5.15-Microsoft",
            "etc/os-release": 'NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\n',
        },
    )
    seen = surroundings.look({"CUDA_VISIBLE_DEVICES": "", "HOME": "/root"}, root=root, system="linux")
    assert seen.wsl
    assert seen.distribution == "ubuntu"
    assert seen.variables == {"CUDA_VISIBLE_DEVICES": ""}
    assert not seen.wsl_driver
    assert not surroundings.look({}, root=root, system="win32").wsl
    assert surroundings.look(
        {}, root=machine_files(root, {"usr/lib/wsl/lib/libcuda.so.1": ""}), system="linux"
    ).wsl_driver


# ------------------------------------------------------------------------------------------------------ installation


def test_the_folders_of_older_and_repaired_wheels_are_searched_too(tmp_path: Path) -> None:
    for name in (
        "llama_cpp/libllama.so",
        "llama_cpp/lib64/libggml.so",
        "llama_cpp/lib/libggml.so.0",
        "llama_cpp_python.libs/libggml-base-1234.so",
        "llama_cpp/lib/notes.so.txt",
        "llama_cpp/lib/libfoo.so",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    seen = collect.read_libraries(Installation(python="python", package=str(tmp_path / "llama_cpp")))
    assert seen.libraries == ("libggml-base-1234.so", "libggml.so", "libllama.so")
    assert seen.cuda == ()
    assert seen.own is None


def test_one_of_several_copies_of_a_library_is_read(tmp_path: Path) -> None:
    """Links become copies in a wheel."""
    for name in ("bin/libggml-cuda.so", "lib/libggml-cuda.so.0.9.4", "lib/libggml-cuda.so.0", "lib/libggml-cuda.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    seen = collect.read_libraries(Installation(python="python", package=str(tmp_path)))
    assert [library.file for library in seen.cuda] == [str(tmp_path / "lib" / "libggml-cuda.so")]


def test_our_wheel_describes_itself(tmp_path: Path) -> None:
    data = {"cuda": "13.0", "oldest_driver": "580", "libraries": ["libcublas.so.13"], "build_command": "nox {arch}"}
    (tmp_path / "_cuda_build.json").write_text(json.dumps(data), encoding="utf-8")
    seen = collect.read_libraries(Installation(python="python", package=str(tmp_path)))
    assert seen.own is not None
    assert seen.own.libraries == ("libcublas.so.13",)
    assert seen.cuda_version == "13.0"
    (tmp_path / "_cuda_build.json").write_text("{", encoding="utf-8")
    assert collect.read_libraries(seen).own is None


# ------------------------------------------------------------------------------------------------------------ process


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, (None, None)),
        (1, ("its process ended with status 1", None)),
        (-signal.SIGILL, ("its process was ended by SIGILL (illegal instruction)", "SIGILL")),
        (-signal.SIGBUS, ("its process was ended by SIGBUS", "SIGBUS")),
        (0xC000001D, ("its process was ended by the system (illegal instruction)", "SIGILL")),
        (0xC0000005 - (1 << 32), ("its process was ended by the system (access violation)", "SIGSEGV")),
        (-99, ("its process was ended by signal 99", "signal 99")),
    ],
)
def test_the_end_of_a_process_in_plain_words(status: int, expected: tuple[str | None, str | None]) -> None:
    assert process.describe(status) == expected
