"""Why the device code of two libraries is not the same: cubins and PTX made by hand, with one thing changed in each."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from build_config.tasks.reproduce.difference import DifferenceKind, compare_folders, device, elf
from build_config.tasks.reproduce.difference.result import Tools
from tests.support.elf_files import (
    FUNC,
    FUNCTIONS,
    NOTE,
    OBJECT,
    TEXT,
    Part,
    dynamic,
    elf_file,
    library_differences,
    symbols,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("no_programs")]


SCALE = "_ZN36_GLOBAL__N__681207f2_4_k_cu_acc5a52f5scaleEPf"


def tool_note(options: str, version: str = "V13.0.88") -> Part:
    texts = ("ptxas", f"Cuda compilation tools, release 13.0, {version}", "Build 1", options)
    return Part(".note.nv.tkinfo", bytes(24) + b"\0" + b"".join(t.encode() + b"\0" for t in texts) + b"\0", NOTE)


def cubin(kernel: str = SCALE, code: bytes = bytes(64), options: str = "-arch sm_89 ", table: bytes = b"\1") -> bytes:
    return elf_file(
        Part(f".text.{kernel}", code),
        Part(".nv.global.init", table * 8),
        *symbols((kernel, FUNC, 1, 0, len(code)), ("table", OBJECT, 2, 0, 8), table=".symtab"),
        tool_note(options),
    )


def entry(content: bytes, number: int = 89, kind: int = 2, unpacked: int = 0) -> bytes:
    content += bytes(-len(content) % 8)
    head = struct.pack("<HHIQIIHHIIIQQQ", kind, 0x101, 64, len(content), 0, 0, 8, 1, number, 0, 0, 0x11, 0, unpacked)
    return head + content


def fat_library(*binaries: bytes) -> bytes:
    section = b"".join(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body for body in binaries)
    return elf_file(TEXT, Part(".nv_fatbin", section))


@pytest.mark.parametrize(
    ("other", "kind", "said"),
    [
        (
            cubin(code=bytes(40) + b"\1" + bytes(23)),
            DifferenceKind.KERNEL,
            f"fat binary 2, cubin for sm_89 (of k.cu): the code of {SCALE} (64 bytes) differs from its instruction 3",
        ),
        (
            cubin(code=bytes(80)),
            DifferenceKind.KERNEL,
            f"the code of {SCALE} (64 bytes, in the other 80) differs from its instruction 5",
        ),
        (
            cubin(options="-arch sm_89 -maxrregcount 32 "),
            DifferenceKind.OPTIONS,
            "was assembled by ptxas with '-arch sm_89', in the other with '-arch sm_89 -maxrregcount 32'",
        ),
        (
            cubin(SCALE.replace("681207f2", "00000000")),
            DifferenceKind.SOURCE_PATH,
            "k.cu have the hash 681207f2, in the other 00000000: nvcc hashed another source path",
        ),
        (
            cubin(SCALE.replace("acc5a52f", "00000000")),
            DifferenceKind.RANDOM_SEED,
            "end in acc5a52f, in the other in 00000000",
        ),
        (cubin(table=b"\2"), DifferenceKind.KERNEL, ".nv.global.init differs from its byte 0 on, in table"),
        (b"\x7fELF damaged", DifferenceKind.KERNEL, "one of the two is damaged"),
    ],
)
def test_a_changed_cubin_is_told_by_its_place_and_its_cause(
    tmp_path: Path, other: bytes, kind: DifferenceKind, said: str
) -> None:
    same = entry(cubin("_Z4samePf"), 75)
    first, second = (fat_library(same, entry(each) + entry(b".version 9.0\n\0", 89, 1)) for each in (cubin(), other))
    ((found, detail),) = library_differences(tmp_path, first, second)
    assert found is kind
    assert said in detail
    assert "fat binary 2, cubin for sm_89" in detail


def test_kernels_on_one_side_are_named(tmp_path: Path) -> None:
    found = library_differences(tmp_path, fat_library(entry(cubin("_Z3onePf"))), fat_library(entry(cubin("_Z3twoPf"))))
    assert found == [
        (DifferenceKind.KERNEL, "fat binary 1, cubin for sm_89: _Z3onePf only here"),
        (DifferenceKind.KERNEL, "fat binary 1, cubin for sm_89: _Z3twoPf only in the other"),
    ]


def test_another_architecture_is_told_once(tmp_path: Path) -> None:
    found = library_differences(tmp_path, fat_library(entry(cubin(), 89)), fat_library(entry(cubin(), 86)))
    assert [kind for kind, _ in found] == [DifferenceKind.ARCHITECTURE] * 2
    assert found[0][1].startswith("holds 0 pieces of device code for sm_86, in the other 1: it was compiled for other")


def test_one_piece_more_is_named(tmp_path: Path) -> None:
    one, two = entry(cubin("_Z3onePf")), entry(cubin("_Z3twoPf"))
    found = library_differences(tmp_path, fat_library(one), fat_library(one, two))
    assert [kind for kind, _ in found] == [DifferenceKind.ARCHITECTURE, DifferenceKind.KERNEL]
    assert found[1][1] == "fat binary 2, cubin for sm_89 (with _Z3twoPf) is only in the other"


def test_fat_binaries_in_another_order_are_told_as_that(tmp_path: Path) -> None:
    one, two = entry(cubin("_Z3onePf")), entry(cubin("_Z3twoPf"))
    ((kind, detail),) = library_differences(tmp_path, fat_library(one, two), fat_library(two, one))
    assert kind is DifferenceKind.ORDER
    assert "piece 1 is piece 2 in the other" in detail


def test_ptx_is_compared_line_by_line(tmp_path: Path) -> None:
    first, second = (fat_library(entry(b".version 9.0\nmov.u32 %%r1, %d;\n\0" % number, 90, 1)) for number in (1, 2))
    ((kind, detail),) = library_differences(tmp_path, first, second)
    assert kind is DifferenceKind.KERNEL
    assert detail.startswith("fat binary 1, PTX for compute_90: line 2 is 'mov.u32 %r1, 1;\\n'")


def test_what_is_compressed_and_cannot_be_unpacked_is_still_named(tmp_path: Path) -> None:
    first, second = (fat_library(entry(b"zstd" + tail, unpacked=999)) for tail in (b"abcd", b"abce"))
    ((kind, detail),) = library_differences(tmp_path, first, second)
    assert kind is DifferenceKind.KERNEL
    assert "fat binary 1, cubin for sm_89 (8 bytes) differs from its byte 7 on, compressed; cuobjdump" in detail


def test_device_code_that_cannot_be_read_is_still_a_difference(tmp_path: Path) -> None:
    whole = elf.read(fat_library(entry(cubin()))).parts[".nv_fatbin"].content
    damaged = whole[:8] + b"\xff\xff" + whole[10:]  # longer than the section
    tools = Tools(cuobjdump=None, demangler=None, folder=tmp_path)
    (found,) = device.compare("x.so", ".nv_fatbin", whole, damaged, tools)
    assert found.kind is DifferenceKind.SECTION
    assert "one of the two is damaged" in found.detail


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_is_too_much(tmp_path: Path, seed: int) -> None:
    whole = elf_file(
        TEXT,
        *FUNCTIONS,
        *dynamic((14, "a.so"), (1, "b.so")),
        Part(".rodata", b"one string\0another one\0"),
        Part(
            ".nv_fatbin",
            elf.read(fat_library(entry(cubin()), entry(cubin("_Z3twoPf"), 75))).parts[".nv_fatbin"].content,
        ),
    )
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    (tmp_path / "first" / "x.so").write_bytes(whole)
    chance = random.Random(seed)  # noqa: S311  # the same damage every time
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 30))):
            place = chance.choice((chance.randrange(len(whole)), len(whole) - 1 - chance.randrange(600)))
            damaged[place] = chance.choice((0, 0xFF, damaged[place] ^ 1))
        (tmp_path / "second" / "x.so").write_bytes(damaged)
        found = compare_folders(tmp_path / "first", tmp_path / "second", cuobjdump=None, folder=tmp_path / "work")
        assert bool(found) == (damaged != whole)
