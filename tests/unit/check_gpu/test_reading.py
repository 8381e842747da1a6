"""Reading libraries, logs and the machine, without any process."""

import json
import re
import signal
import struct
from pathlib import Path
from typing import Any

import pytest

from check_gpu import collect, coverage, device_code, elf, log, pe, process, surroundings
from check_gpu.facts import CudaLibrary, Device, Installation
from check_gpu.log import FoundDevice
from tests.support import dll_files, pairs


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


# ------------------------------------------------------------------------------------------------------- device code

PTX, CUBIN, OTHER = 1, 2, 8
A, F = 1 << 20, 1 << 21
PAYLOAD = b"\x50\xed\x55\xba" * 2  # the magic of a header inside a payload is not a header


def entry(kind: int, number: int, flags: int = 0x11, *, extra: bytes = b"") -> bytes:
    numbers = (kind, 0x101, 64 + len(extra), len(PAYLOAD), 0, 0, 8, 1, number, 0, 0, flags, 0, 0)
    return struct.pack("<HHIQIIHHIIIQQQ", *numbers) + extra + PAYLOAD


def fat_binary(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


DLL = dll_files.dll_file({".nv_fatb": fat_binary(entry(CUBIN, 89))}, needed=("cublas64_13.dll",))
NAME = struct.pack("<I", dll_files.CONTENTS + dll_files.SHIFT + 2 * 20)
"""The address of the name in its table of two entries."""


def test_the_entries_of_several_fat_binaries_are_listed_with_the_places_of_their_contents() -> None:
    section = (
        fat_binary(entry(CUBIN, 75), entry(CUBIN, 90, 0x11 | A), entry(PTX, 80, 0x8011, extra=b"options!"))
        + bytes(24)  # padding: fat binaries are aligned
        + fat_binary(entry(CUBIN, 100, 0x1000011 | F, extra=bytes(32)), entry(PTX, 90, 0x8011 | A), entry(OTHER, 86))
    )
    expected = [("75-real", 0), ("90a-real", 0), ("80-virtual", 0), ("100f-real", 1), ("90a-virtual", 1)]
    found = [*device_code.read(section)]
    assert [(each.architecture, each.binary) for each in found] == expected
    assert [*device_code.entries(section)] == [architecture for architecture, _ in expected]
    assert all(section[each.offset : each.offset + each.size] == PAYLOAD for each in found)
    assert [each.header[64:] for each in found] == [b"", b"", b"options!", bytes(32), b""]
    assert all(section[: each.offset].endswith(each.header) for each in found)
    assert [*device_code.entries(b"")] == [*device_code.entries(bytes(100))] == []


@pytest.mark.parametrize(
    ("section", "said"),
    [
        *((fat_binary(entry(CUBIN, 75), entry(CUBIN, 89))[:cut], "") for cut in (20, 40, 60, 100)),
        (fat_binary(struct.pack("<HHIQ", CUBIN, 1, 8, 0) + bytes(60)), "a fat binary has an unknown format"),
    ],
    ids=["cut at 20", "cut at 40", "cut at 60", "cut at 100", "an unknown format"],
)
def test_damaged_code_is_not_read_as_less_code(section: bytes, said: str) -> None:
    with pytest.raises(elf.UnreadableError, match=f"cannot read its CUDA code: .*{said}"):
        [*device_code.entries(section)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#!/bin/sh\n" + bytes(100), "not an ELF file"),
        (b"", "not an ELF file"),
        (b"\x7fELF\x01\x01" + bytes(100), "not 64-bit"),
        (b"\x7fELF\x02\x01" + bytes(100), "section table was stripped"),
        (b"\x7fELF\x02\x01", "damaged"),
        (b"\x7fELF\x02\x01" + bytes(34) + b"\xff\xff" + bytes(16) + b"\x40\0\x05\0\x04\0", "damaged"),
        (b"\x7fELF\x02\x01" + bytes(34) + b"\xff" * 8 + bytes(10) + b"\x40\0\x05\0\x04\0", "damaged"),
        (b"MZ", "damaged Windows library"),
        (b"MZ" + bytes(100), "damaged Windows library .it has no PE header"),
        (DLL[:0x100], "damaged Windows library"),
        (DLL[:-512], "damaged Windows library .it is cut short"),
        (DLL.replace(NAME, b"\xff" * 4), "damaged Windows library .an address is in none of its sections"),
        (
            dll_files.dll_file({str(number): b"" for number in range(96)}),
            "damaged Windows library .it has too many sections",
        ),
        (dll_files.dll_file({}, machine=0xAA64), "a Windows library for another processor"),
    ],
)
def test_a_file_that_is_not_a_library_is_named_in_plain_words(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(elf.UnreadableError, match=f"cannot read it: .*{said}"):
        (pe if content[:2] == pe.MAGIC else elf).read(content)
    for name in ("ggml-cuda.dll", "libggml-cuda.so", "libggml-base.so"):
        (tmp_path / name).write_bytes(content)
        library = collect.read_library(tmp_path / name)
        assert (library is not None) is ("cuda" in name)
        assert library is None or re.search(said if content else "cannot read it", str(library.problem))


@pytest.mark.parametrize("section", [".nv_fatb", "__nv_rel"])
def test_a_dll_tells_its_cuda_code_and_the_dlls_it_needs(tmp_path: Path, section: str) -> None:
    """A DLL has eight characters for the name of a section, and is searched for what it needs in its own folder."""
    code = fat_binary(entry(CUBIN, 89), entry(PTX, 90, 0x8011))
    contents = {".text": bytes(700), section: code, ".data": fat_binary(entry(CUBIN, 75))}
    file = tmp_path / "ggml-cuda-sm89.dll"
    file.write_bytes(dll_files.dll_file(contents, needed=("KERNEL32.dll", "cublas64_13.dll"), delayed=("nvcuda.dll",)))
    assert collect.read_library(file) == CudaLibrary(
        str(file),
        code=("89-real", "90-virtual"),
        needs=("cublas64_13.dll", "nvcuda.dll"),
        search=(str(tmp_path.resolve()),),
    )
    assert pe.read(file.read_bytes()).needed == ("kernel32.dll", "cublas64_13.dll", "nvcuda.dll")


# ---------------------------------------------------------------------------------------------------------- coverage


def test_a_library_covers_the_gpus_that_run_any_of_its_code() -> None:
    library = CudaLibrary("libggml-cuda.so", code=("75-real", "89-real", "100a-virtual", "", "sm_90"))
    covered = {
        number for number in pairs.GPUS if library.covers(Device(0, "a GPU", pairs.capability(number), memory=1))
    }
    assert covered == {*range(75, 80), 89, 100}


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


def test_the_features_say_whether_cuda_is_built_in() -> None:
    with_cuda, without, none = "system_info: CUDA : ARCHS = 890 | CPU : SSE3 = 1", "System Info: AVX = 1 | CPU : X", ""
    assert [log.read([line]).cuda_built_in for line in (with_cuda, without, none)] == [True, False, None]


# ------------------------------------------------------------------------------------------------------ surroundings

BUS = "sys/bus/pci/devices/0000:01:00.0"
WSL = {"proc/version": "Linux 5.15-microsoft-standard-WSL2"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {"card_on_bus": None, "wsl": False, "container": None, "distribution": ""}),
        ({f"{BUS}/vendor": "0x10de\n", f"{BUS}/class": "0x030000\n"}, {"card_on_bus": True}),
        ({f"{BUS}/vendor": "0x10de\n", f"{BUS}/class": "0x040300\n"}, {"card_on_bus": False}),  # a GPU's audio device
        ({f"{BUS}/vendor": "0x1002\n", f"{BUS}/class": "0x030000\n"}, {"card_on_bus": False}),
        ({**WSL, "dev/dxg": ""}, {"card_on_bus": None, "wsl": True, "wsl_driver": False}),
        ({**WSL, "usr/lib/wsl/lib/libcuda.so.1": ""}, {"card_on_bus": False, "wsl_driver": True}),
        ({"proc/version": "Linux version 5.15-Microsoft"}, {"wsl": True, "wsl_driver": False}),
        ({"proc/1/cgroup": "0::/init.scope\n"}, {"container": None}),
        ({".dockerenv": ""}, {"container": "/.dockerenv"}),
        ({"run/.containerenv": ""}, {"container": "/run/.containerenv"}),
        ({"proc/1/cgroup": "12:memory:/kubepods/besteffort/pod1\n"}, {"container": "kubepods"}),
        ({"etc/os-release": 'NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\n'}, {"distribution": "ubuntu"}),
    ],
)
def test_the_machine_is_described_by_its_files(tmp_path: Path, files: dict[str, str], expected: dict[str, Any]) -> None:
    seen = surroundings.look({}, root=write(tmp_path, files), system="linux")
    assert {name: getattr(seen, name) for name in expected} == expected
    assert not surroundings.look({}, root=tmp_path, system="win32").wsl


def test_an_empty_bus_says_nothing_and_only_the_variables_that_matter_are_kept(tmp_path: Path) -> None:
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    seen = surroundings.look({"CUDA_VISIBLE_DEVICES": "", "HOME": "/root"}, root=tmp_path, system="linux")
    assert (seen.card_on_bus, seen.variables) == (None, {"CUDA_VISIBLE_DEVICES": ""})


# ------------------------------------------------------------------------------------------------------ installation


def installed(package: Path) -> Installation:
    return collect.read_libraries(Installation(python="python", package=str(package)))


def test_the_folders_of_older_and_repaired_wheels_are_searched_too(tmp_path: Path) -> None:
    names = ("libllama.so", "lib64/libggml.so", "lib/libggml.so.0", "lib/notes.so.txt", "lib/libfoo.so")
    write(tmp_path, {"llama_cpp_python.libs/libggml-base-1234.so": ""})
    seen = installed(write(tmp_path / "llama_cpp", dict.fromkeys(names, "")))
    assert seen.libraries == ("libggml-base-1234.so", "libggml.so", "libllama.so")
    assert (seen.cuda, seen.own) == ((), None)


def test_one_of_several_copies_of_a_library_is_read(tmp_path: Path) -> None:
    """Links become copies in a wheel."""
    names = ("bin/libggml-cuda.so", "lib/libggml-cuda.so.0.9.4", "lib/libggml-cuda.so.0", "lib/libggml-cuda.so")
    seen = installed(write(tmp_path, dict.fromkeys(names, "")))
    assert [library.file for library in seen.cuda] == [str(tmp_path / "lib" / "libggml-cuda.so")]


def test_our_wheel_describes_itself(tmp_path: Path) -> None:
    data = {"cuda": "13.0", "oldest_driver": "580", "libraries": ["libcublas.so.13"], "build_command": "nox {arch}"}
    seen = installed(write(tmp_path, {"_cuda_build.json": json.dumps(data)}))
    assert seen.own is not None
    assert (seen.own.libraries, seen.own.leaves_out) == (("libcublas.so.13",), False)
    assert seen.cuda_version == "13.0"
    write(tmp_path, {"_cuda_build.json": "{"})
    assert collect.read_libraries(seen).own is None


# ------------------------------------------------------------------------------------------------------------ process


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, (None, None)),
        (1, ("its process ended with status 1", None)),
        (-signal.SIGILL, ("its process was ended by SIGILL (illegal instruction)", "SIGILL")),
        (-signal.SIGTERM, ("its process was ended by SIGTERM", "SIGTERM")),
        (0xC000001D, ("its process was ended by the system (illegal instruction)", "SIGILL")),
        (0xC0000005 - (1 << 32), ("its process was ended by the system (access violation)", "SIGSEGV")),
        (-99, ("its process was ended by signal 99", "signal 99")),
    ],
)
def test_the_end_of_a_process_in_plain_words(status: int, expected: tuple[str | None, str | None]) -> None:
    assert process.describe(status) == expected
