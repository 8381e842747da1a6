"""Why two libraries are not the same bytes: made by hand, with one thing changed in each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from build_config.tasks.reproduce.difference import compare_folders
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

pytestmark = pytest.mark.usefixtures("no_programs")


@pytest.mark.parametrize(
    ("place", "said"),
    [(0x10, "16 on, in first"), (0x17F, "383 on, in second"), (0x300, "768 on, somewhere after second")],
)
def test_changed_code_is_told_by_its_function(tmp_path: Path, place: int, said: str) -> None:
    other = dataclasses.replace(TEXT, content=changed_at(TEXT.content, place))
    found = library_differences(tmp_path, elf_file(TEXT, *FUNCTIONS), elf_file(other, *FUNCTIONS))
    assert found == [("function", f".text (1024 bytes) differs from byte {said}")]


def test_a_function_of_another_size_is_named_and_the_rest_follows(tmp_path: Path) -> None:
    longer = dataclasses.replace(TEXT, content=TEXT.content + bytes(16))
    resized = symbols(("first", FUNC, 1, 0x1000, 0x110), ("second", FUNC, 1, 0x1110, 0x80))
    found = library_differences(tmp_path, elf_file(TEXT, *FUNCTIONS), elf_file(longer, *resized))
    assert ("function", "has functions or variables of another size: first") in found
    assert found[-1] == ("consequence", ".dynsym differ too: they hold addresses and names of what differs")


def test_symbols_on_one_side_are_named(tmp_path: Path) -> None:
    other = symbols(("first", FUNC, 1, 0x1000, 0x100), ("third", FUNC, 1, 0x1100, 0x80))
    found = library_differences(tmp_path, elf_file(TEXT, *FUNCTIONS), elf_file(TEXT, *other))
    told = "has the symbols second only here", "has the symbols third only in the other"
    assert found[:2] == [("symbol", each) for each in told]


MADE_OF: list[tuple[Sequence[Part], Sequence[Part], str, str]] = [
    (
        [Part(".comment", b"GCC: (Debian) 12.2.0\0")],
        [Part(".comment", b"GCC: (Debian) 13.1.0\0")],
        "compiler",
        "was compiled by GCC: (Debian) 12.2.0, in the other by GCC: (Debian) 13.1.0",
    ),
    ([build_id("aa" * 20)], [build_id("bb" * 20)], "build-id", f"build-id {'aa' * 20}, in the other {'bb' * 20}"),
    (dynamic((14, "a.so")), dynamic((14, "c.so")), "dependency", "(SONAME) a.so, in the other c.so"),
    (dynamic((1, "a"), (1, "b")), dynamic((1, "a"), (1, "c")), "dependency", "(NEEDED) a, b, in the other a, c"),
    (dynamic((29, "$ORIGIN")), dynamic((29, "/x/lib1")), "dependency", "(RUNPATH) $ORIGIN, in the other /x/lib1"),
    ([Part(".rodata", b"a string\0")], [Part(".rodata", b"b string\0")], "string", "'a string', in the other 'b st"),
    ([Part(".rodata", b"\1\2\3")], [Part(".rodata", b"\1\2\4")], "section", ".rodata (3 bytes) differs from byte 2"),
    ([Part(".eh_frame", b"\1\2")], [Part(".eh_frame", b"\1\3")], "section", ".eh_frame (2 bytes) differs from byte 1"),
    ([Part(".note", b"")], [Part(".more", b"")], "section", "has the sections .note only here"),
]


@pytest.mark.parametrize(("first", "second", "kind", "said"), MADE_OF)
def test_a_library_tells_what_it_is_made_of(
    tmp_path: Path, first: Sequence[Part], second: Sequence[Part], kind: str, said: str
) -> None:
    found = library_differences(tmp_path, elf_file(TEXT, *first), elf_file(TEXT, *second))
    assert found[0][0] == kind
    assert said in found[0][1]


def test_bytes_outside_of_every_section_are_told_too(tmp_path: Path) -> None:
    data = elf_file(TEXT)
    ((kind, detail),) = library_differences(tmp_path, data, changed_at(data, 9))
    assert kind == "bytes"
    assert "differs from byte 9 on: in headers" in detail


@pytest.mark.parametrize("damaged", [elf_file(TEXT)[:200], elf_file(TEXT, *dynamic((14, "a.so")))[:-100]])
def test_a_library_that_cannot_be_read_is_still_a_difference(tmp_path: Path, damaged: bytes) -> None:
    for name, content in (("first", elf_file(TEXT)), ("second", damaged)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.so").write_bytes(content)
    (found,) = compare_folders(tmp_path / "first", tmp_path / "second", cuobjdump=None, folder=tmp_path)
    assert found.kind == "bytes"
    assert "as a library it cannot be read" in found.detail
