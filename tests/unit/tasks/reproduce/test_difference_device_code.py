"""Why the device code of two libraries is not the same: cubins and PTX made by hand, with one thing changed in each."""

import random
import struct
from pathlib import Path

import pytest

from build_config.tasks.reproduce.difference import compare_folders
from tests.support.elf_files import (
    FUNC,
    FUNCTIONS,
    NOTE,
    OBJECT,
    TEXT,
    Part,
    changed_at,
    dynamic,
    elf_file,
    library_differences,
    symbols,
)

pytestmark = pytest.mark.usefixtures("no_programs")


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


def fat_library(*binaries: bytes, parts: tuple[Part, ...] = ()) -> bytes:
    section = b"".join(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body for body in binaries)
    return elf_file(TEXT, *parts, Part(".nv_fatbin", section))


CUBINS = [
    (
        cubin(code=bytes(40) + b"\1" + bytes(23)),
        "kernel",
        f"the code of {SCALE} (64 bytes) differs from its instruction 3 ",
    ),
    (
        cubin(code=bytes(80)),
        "kernel",
        f"the code of {SCALE} (64 bytes, in the other 80) differs from its instruction 5 ",
    ),
    (
        cubin(options="-arch sm_89 -maxrregcount 32 "),
        "options",
        "was assembled by ptxas with '-arch sm_89', in the other with '-arch sm_89 -maxrregcount 32'",
    ),
    (cubin(SCALE.replace("681207f2", "0" * 8)), "source-path", "have the hash 681207f2, in the other 00000000: nvcc"),
    (cubin(SCALE.replace("acc5a52f", "0" * 8)), "random-seed", "end in acc5a52f, in the other in 00000000: made of"),
    (cubin(table=b"\2"), "kernel", ".nv.global.init (8 bytes) differs from byte 0 on, in table"),
    (changed_at(cubin(), 9), "section", "but not its code: nothing but headers"),
    (b"\x7fELF damaged", "kernel", "one of the two is damaged"),
]


@pytest.mark.parametrize(("other", "kind", "said"), CUBINS)
def test_a_changed_cubin_is_told_by_its_place_and_its_cause(tmp_path: Path, other: bytes, kind: str, said: str) -> None:
    same = entry(cubin("_Z4samePf"), 75)
    first, second = (fat_library(same, entry(each) + entry(b".version 9.0\n\0", 89, 1)) for each in (cubin(), other))
    ((found, detail),) = library_differences(tmp_path, first, second)
    assert found == kind
    assert said in detail
    assert detail.startswith(f"fat binary 2, cubin for sm_89 (of k.cu with {SCALE})")


ONE, TWO = entry(cubin("_Z3onePf")), entry(cubin("_Z3twoPf"))
PTX = b".version 9.0\nmov.u32 %%r1, %d;\n\0"


LIBRARIES = [
    (
        fat_library(ONE),
        fat_library(TWO),
        [
            "kernel: fat binary 1, cubin for sm_89 (with _Z3onePf): _Z3onePf only here",
            "kernel: fat binary 1, cubin for sm_89 (with _Z3onePf): _Z3twoPf only in the other",
        ],
    ),
    (
        fat_library(entry(cubin(), 89)),
        fat_library(entry(cubin(), 86)),
        [
            "architecture: holds 0 pieces of device code for sm_86, in the other 1: it was compiled",
            "architecture: holds 1 pieces of device code for sm_89, in the other 0: it was compiled",
        ],
    ),
    (
        fat_library(ONE),
        fat_library(ONE, TWO),
        [
            "architecture: holds 1 pieces of device code for sm_89, in the other 2",
            "kernel: fat binary 2, cubin for sm_89 (with _Z3twoPf) is only in the other",
        ],
    ),
    (fat_library(ONE, TWO), fat_library(TWO, ONE), ["order: has the same fat binaries in another order: the linker"]),
    (
        fat_library(entry(PTX % 1, 90, 1)),
        fat_library(entry(PTX % 2, 90, 1)),
        ["kernel: fat binary 1, PTX for compute_90: line 2 is 'mov.u32 %r1, 1;\\n', in the other 'mov.u32 %r1, 2"],
    ),
    (
        fat_library(entry(b"zstdabcd", unpacked=999)),
        fat_library(entry(b"zstdabce", unpacked=999)),
        ["kernel: fat binary 1, cubin for sm_89 (8 bytes) differs from byte 7 on, compressed; cuobjdump, which"],
    ),
    (
        fat_library(ONE),
        fat_library(ONE).replace(struct.pack("<HHQ", 1, 16, len(ONE)), struct.pack("<HHQ", 1, 16, 0xFFFF)),
        ["section: the device code in .nv_fatbin differs, and one of the two is damaged"],
    ),
]


@pytest.mark.parametrize(("first", "second", "told"), LIBRARIES)
def test_device_code_is_compared_piece_by_piece(tmp_path: Path, first: bytes, second: bytes, told: list[str]) -> None:
    found = [f"{kind}: {detail}" for kind, detail in library_differences(tmp_path, first, second)]
    assert len(found) == len(told)
    assert all(each.startswith(start) for each, start in zip(found, told, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_is_too_much(tmp_path: Path, seed: int) -> None:
    parts = (*FUNCTIONS, *dynamic((14, "a.so"), (1, "b.so")), Part(".rodata", b"one string\0another one\0"))
    whole = fat_library(entry(cubin()), entry(cubin("_Z3twoPf"), 75), parts=parts)
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
