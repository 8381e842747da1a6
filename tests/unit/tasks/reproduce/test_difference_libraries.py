"""Why two libraries are not the same bytes: made by hand, with one thing changed in each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from build_config.tasks.reproduce.difference import DifferenceKind, compare_folders
from tests.support.elf_files import (
    FUNC,
    FUNCTIONS,
    TEXT,
    Part,
    build_id,
    changed_at,
    dynamic,
    elf_file,
    library_differences,
    symbols,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("no_programs")]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (0x10, ".text (1024 bytes) differs from byte 16 on, in first"),
        (0x17F, ".text (1024 bytes) differs from byte 383 on, in second"),
        (0x300, ".text (1024 bytes) differs from byte 768 on, 512 bytes behind the start of second, the nearest known"),
    ],
)
def test_changed_code_is_told_by_its_function(tmp_path: Path, place: int, said: str) -> None:
    other = dataclasses.replace(TEXT, content=changed_at(TEXT.content, place))
    ((kind, detail),) = library_differences(tmp_path, elf_file(TEXT, *FUNCTIONS), elf_file(other, *FUNCTIONS))
    assert kind is DifferenceKind.FUNCTION
    assert detail.startswith(said)


def test_changed_bytes_are_not_told_by_a_symbol_that_is_far_away(tmp_path: Path) -> None:
    text = Part(".text", bytes(1 << 20), address=0x1000)
    other = dataclasses.replace(text, content=changed_at(text.content, 1 << 19))
    ((_, detail),) = library_differences(tmp_path, elf_file(text, *FUNCTIONS), elf_file(other, *FUNCTIONS))
    assert detail == ".text (1048576 bytes) differs from byte 524288 on"


def test_a_function_of_another_size_is_named_and_the_rest_follows(tmp_path: Path) -> None:
    longer = dataclasses.replace(TEXT, content=TEXT.content + bytes(16))
    resized = symbols(("first", FUNC, 1, 0x1000, 0x110), ("second", FUNC, 1, 0x1110, 0x80))
    found = library_differences(tmp_path, elf_file(TEXT, *FUNCTIONS), elf_file(longer, *resized))
    assert (DifferenceKind.FUNCTION, "of another size are first (256 bytes, in the other 272)") in found
    assert found[-1][0] is DifferenceKind.CONSEQUENCE
    assert found[-1][1].startswith(".dynsym differ too")


def test_symbols_on_one_side_are_named(tmp_path: Path) -> None:
    other = symbols(("first", FUNC, 1, 0x1000, 0x100), ("third", FUNC, 1, 0x1100, 0x80))
    found = library_differences(tmp_path, elf_file(TEXT, *FUNCTIONS), elf_file(TEXT, *other))
    assert found[:2] == [
        (DifferenceKind.SYMBOL, "has the symbols second only here"),
        (DifferenceKind.SYMBOL, "has the symbols third only in the other"),
    ]


@pytest.mark.parametrize(
    ("first", "second", "kind", "said"),
    [
        (
            [Part(".comment", b"GCC: (Debian) 12.2.0\0")],
            [Part(".comment", b"GCC: (Debian) 13.1.0\0")],
            DifferenceKind.COMPILER,
            "was compiled by GCC: (Debian) 12.2.0, in the other by GCC: (Debian) 13.1.0",
        ),
        (
            [build_id("aa" * 20)],
            [build_id("bb" * 20)],
            DifferenceKind.BUILD_ID,
            f"has the build-id {'aa' * 20}, in the other {'bb' * 20}",
        ),
        (
            dynamic((14, "a.so"), (1, "b.so"), (29, "$ORIGIN")),
            dynamic((14, "c.so"), (1, "b.so"), (29, "$ORIGIN")),
            DifferenceKind.DEPENDENCY,
            "calls itself (SONAME) a.so, in the other c.so",
        ),
        (
            dynamic((14, "a.so"), (1, "b.so")),
            dynamic((14, "a.so"), (1, "c.so")),
            DifferenceKind.DEPENDENCY,
            "needs (NEEDED) b.so, in the other c.so",
        ),
        (
            dynamic((29, "$ORIGIN"), (1, "b.so")),
            dynamic((29, "/x/lib1"), (1, "b.so")),
            DifferenceKind.DEPENDENCY,
            "looks for libraries in (RUNPATH) $ORIGIN, in the other /x/lib1",
        ),
        (
            [Part(".rodata", b"one string\0")],
            [Part(".rodata", b"two string\0")],
            DifferenceKind.STRING,
            ".rodata has the string 'one string', in the other 'two string'",
        ),
        (
            [Part(".rodata", b"\1\2\3\4\5\6")],
            [Part(".rodata", b"\1\2\3\4\5\7")],
            DifferenceKind.SECTION,
            ".rodata (6 bytes) differs from byte 5 on",
        ),
        (
            [Part(".eh_frame", b"\1\2\3")],
            [Part(".eh_frame", b"\1\2\4")],
            DifferenceKind.SECTION,
            ".eh_frame (3 bytes) differs from byte 2 on",
        ),
        (
            [Part(".note", b"")],
            [Part(".more", b"")],
            DifferenceKind.SECTION,
            "the section .note (0 bytes) is only here",
        ),
    ],
)
def test_what_a_library_says_of_itself(
    tmp_path: Path, first: list[Part], second: list[Part], kind: DifferenceKind, said: str
) -> None:
    found = library_differences(tmp_path, elf_file(TEXT, *first), elf_file(TEXT, *second))
    assert found[0][0] is kind
    assert found[0][1].startswith(said)


def test_bytes_outside_of_every_section_are_told_too(tmp_path: Path) -> None:
    data = elf_file(TEXT)
    ((kind, detail),) = library_differences(tmp_path, data, changed_at(data, 9))
    assert kind is DifferenceKind.BYTES
    assert "byte 9 of the file, outside of every section" in detail


def test_a_library_that_cannot_be_read_is_still_a_difference(tmp_path: Path) -> None:
    for name, content in (("first", elf_file(TEXT)), ("second", elf_file(TEXT)[:200])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.so").write_bytes(content)
    (found,) = compare_folders(tmp_path / "first", tmp_path / "second", cuobjdump=None, folder=tmp_path)
    assert found.kind is DifferenceKind.BYTES
    assert "as a library it cannot be read" in found.detail
