"""Why two wheels are not the same bytes: wheels and libraries made by hand, with one thing changed in each."""

from __future__ import annotations

import dataclasses
import random
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest

from build_config.errors import PackagingError
from build_config.tasks.reproduce.difference import Difference, DifferenceKind, compare_folders, compare_wheels, explain
from build_config.tasks.reproduce.difference.result import BLOCK, excerpts, first_difference
from tests.support import wheels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("no_programs")]

MODULE = "llama_cpp/__init__.py"
METADATA = f"{wheels.DIST_INFO}/METADATA"
RECORD = f"{wheels.DIST_INFO}/RECORD"


# ------------------------------------------------------------------------------------------------------------- wheels


@dataclasses.dataclass
class Entry:
    info: zipfile.ZipInfo
    content: bytes


@dataclasses.dataclass
class Archive:
    entries: list[Entry]
    level: int = 9
    comment: bytes = b""
    lead: bytes = b""

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.info.filename == name)

    def add(self, name: str, content: bytes) -> None:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o100644 << 16
        self.entries.append(Entry(info, content))

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(self.lead)
            with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there twice
                for entry in self.entries:
                    archive.writestr(entry.info, entry.content, entry.info.compress_type, self.level)
                archive.comment = self.comment
        return path


def sound() -> Archive:
    archive = Archive([])
    members = wheels.contents({"libllama.so": b"no library " * 999})
    for name, content in {**members, RECORD: wheels.record(members)}.items():
        archive.add(name, content)
    return archive


def compared(tmp_path: Path, change: Callable[[Archive], object]) -> tuple[Difference, ...]:
    changed = sound()
    change(changed)
    first = sound().write(tmp_path / "first" / wheels.wheel_name())
    second = changed.write(tmp_path / "second" / wheels.wheel_name())
    found = compare_wheels(first, second, cuobjdump=None, folder=tmp_path / "work")
    turned = compare_wheels(second, first, cuobjdump=None, folder=tmp_path / "work")
    assert [(each.member, each.kind) for each in turned if each.kind is not DifferenceKind.ORDER] == [
        (each.member, each.kind) for each in found if each.kind is not DifferenceKind.ORDER
    ]
    return found


def set_info(name: str, field: str, value: object) -> Callable[[Archive], None]:
    def change(archive: Archive) -> None:
        setattr(archive.entry(name).info, field, value)

    return change


def set_content(name: str, content: bytes) -> Callable[[Archive], None]:
    def change(archive: Archive) -> None:
        archive.entry(name).content = content

    return change


@pytest.mark.parametrize(
    ("change", "member", "kind", "said"),
    [
        (
            set_info(MODULE, "date_time", (2026, 1, 2, 3, 4, 6)),
            MODULE,
            DifferenceKind.TIME,
            "has the time 1980-01-01 00:00:00, in the other 2026-01-02 03:04:06",
        ),
        (
            set_info(MODULE, "external_attr", 0o100755 << 16),
            MODULE,
            DifferenceKind.MODE,
            "has the mode 100644 (-rw-r--r--), in the other 100755 (-rwxr-xr-x)",
        ),
        (
            set_info(MODULE, "compress_type", zipfile.ZIP_STORED),
            MODULE,
            DifferenceKind.COMPRESSION,
            "is compressed by the method deflate, in the other stored",
        ),
        (
            set_info(MODULE, "comment", b"made by me"),
            MODULE,
            DifferenceKind.CONTAINER,
            "has the comment none, in the other 'made by me'",
        ),
        (
            set_info(MODULE, "extra", struct.pack("<HHI", 0x5455, 4, 7)),
            MODULE,
            DifferenceKind.CONTAINER,
            "has the extra fields none, in the other 55 54 04 00 07 00 00 00",
        ),
        (
            set_info(MODULE, "create_system", 0),
            MODULE,
            DifferenceKind.CONTAINER,
            "has the system Unix, in the other DOS",
        ),
        (
            lambda archive: archive.entries.insert(0, archive.entries.pop(2)),
            MODULE,
            DifferenceKind.ORDER,
            f"this one comes first, in the other {METADATA} does",
        ),
        (
            lambda archive: archive.add("llama_cpp/more.py", b"more = 1\n"),
            "llama_cpp/more.py",
            DifferenceKind.MEMBER,
            "is only in the other",
        ),
        (
            lambda archive: archive.entries.append(archive.entry(MODULE)),
            f"{MODULE} (2)",
            DifferenceKind.MEMBER,
            "is only in the other",
        ),
        (
            set_content(MODULE, b"from .llama_cpp import Llama\n"),
            MODULE,
            DifferenceKind.TEXT,
            r"line 1 is 'from .llama_cpp import *\n', in the other 'from .llama_cpp import Llama\n'",
        ),
        (
            set_content(MODULE, b"from .llama_cpp import *\nx = 1\n"),
            MODULE,
            DifferenceKind.TEXT,
            r"line 2, 'x = 1\n', is only in the other",
        ),
        (
            set_content(MODULE, b"from .llama_cpp import *\r\n"),
            MODULE,
            DifferenceKind.TEXT,
            r"in the other 'from .llama_cpp import *\r\n'",
        ),
        (
            set_content("llama_cpp/lib/libllama.so", b"\0" + b"no library " * 999),
            "llama_cpp/lib/libllama.so",
            DifferenceKind.BYTES,
            "(10989 bytes, in the other 10990) differs from byte 0 on",
        ),
        (
            lambda archive: setattr(archive, "comment", b"1.0"),
            wheels.wheel_name(),
            DifferenceKind.CONTAINER,
            "the archive has the comment b'', in the other b'1.0'",
        ),
        (
            lambda archive: setattr(archive, "lead", b"#!/bin/sh\n"),
            wheels.wheel_name(),
            DifferenceKind.UNEXPLAINED,
            "differs from byte 0 on",
        ),
    ],
)
def test_one_change_is_one_difference(
    tmp_path: Path, change: Callable[[Archive], object], member: str, kind: DifferenceKind, said: str
) -> None:
    (found,) = compared(tmp_path, change)
    assert (found.member, found.kind) == (member, kind)
    # The other way round the values change places, so only this way they can be compared.
    assert said in found.detail


def test_the_same_bytes_differ_in_nothing(tmp_path: Path) -> None:
    assert compared(tmp_path, lambda archive: archive) == ()


def test_another_level_of_compression_is_told_from_other_contents(tmp_path: Path) -> None:
    found = compared(tmp_path, lambda archive: setattr(archive, "level", 1))
    assert {each.kind for each in found} == {DifferenceKind.COMPRESSION}
    assert "llama_cpp/lib/libllama.so" in {each.member for each in found}
    assert all("another level, or another version of zlib" in each.detail for each in found)


def test_a_header_that_only_stands_in_front_of_a_member_is_compared_too(tmp_path: Path) -> None:
    first = sound().write(tmp_path / "first" / wheels.wheel_name())
    data = bytearray(first.read_bytes())
    data[10] ^= 1  # the time in the local header of the first member; the directory at the end keeps its own
    second = tmp_path / wheels.wheel_name()
    second.write_bytes(data)
    (found,) = compare_wheels(first, second, cuobjdump=None, folder=tmp_path)
    assert (found.member, found.kind) == (MODULE, DifferenceKind.CONTAINER)
    assert "local header 50 4b 03 04" in found.detail


def test_what_follows_in_record_is_no_cause(tmp_path: Path) -> None:
    def change(archive: Archive) -> None:
        archive.entry(METADATA).content += b"Keywords: x\n"
        archive.add("llama_cpp/more.py", b"more = 1\n")
        members = {entry.info.filename: entry.content for entry in archive.entries if entry.info.filename != RECORD}
        archive.entry(RECORD).content = wheels.record(members)

    found = {each.member: each for each in compared(tmp_path, change)}
    assert {name: each.kind for name, each in found.items()} == {
        "llama_cpp/more.py": DifferenceKind.MEMBER,
        METADATA: DifferenceKind.TEXT,
        RECORD: DifferenceKind.CONSEQUENCE,
    }


def test_a_record_that_lies_is_a_difference_of_its_own(tmp_path: Path) -> None:
    def change(archive: Archive) -> None:
        archive.entry(METADATA).content += b"Keywords: x\n"
        archive.entry(RECORD).content = archive.entry(RECORD).content.replace(b"__init__.py,sha256=", b"__init__.py,")

    found = {each.member: each for each in compared(tmp_path, change)}
    assert found[RECORD].kind is DifferenceKind.TEXT
    assert "llama_cpp/__init__.py,sha256=" in found[RECORD].detail


def test_lines_in_another_order_are_told_as_that(tmp_path: Path) -> None:
    def change(archive: Archive) -> None:
        lines = archive.entry(RECORD).content.splitlines(keepends=True)
        archive.entry(RECORD).content = b"".join([lines[1], lines[0], *lines[2:]])

    (found,) = compared(tmp_path, change)
    assert found.detail == "has the same lines in another order"


def test_a_damaged_wheel_is_an_error(tmp_path: Path) -> None:
    first = sound().write(tmp_path / wheels.wheel_name())
    cut = tmp_path / "cut.whl"
    cut.write_bytes(first.read_bytes()[:2000])
    with pytest.raises(PackagingError, match=r"cut\.whl is not a sound archive"):
        compare_wheels(first, cut, cuobjdump=None, folder=tmp_path)
    with pytest.raises(PackagingError, match=r"none\.whl cannot be read"):
        compare_wheels(first, tmp_path / "none.whl", cuobjdump=None, folder=tmp_path)


def test_folders_are_compared_by_names_and_contents(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "same.txt").write_text("same", encoding="utf-8")
        (tmp_path / name / "other.txt").write_text(name, encoding="utf-8")
        (tmp_path / name / f"{name}.txt").write_text(name, encoding="utf-8")
    found = compare_folders(tmp_path / "first", tmp_path / "second", cuobjdump=None, folder=tmp_path / "work")
    assert [(each.member, each.kind, each.detail) for each in found] == [
        ("first.txt", DifferenceKind.MEMBER, "is only here"),
        ("second.txt", DifferenceKind.MEMBER, "is only in the other"),
        ("other.txt", DifferenceKind.TEXT, "line 1 is 'first', in the other 'second'"),
    ]
    assert compare_folders(tmp_path / "first", tmp_path / "first", cuobjdump=None, folder=tmp_path / "work") == ()


# -------------------------------------------------------------------------------------------------------------- bytes


def test_the_first_byte_that_differs_is_found_wherever_it_is() -> None:
    chance = random.Random(7)  # noqa: S311  # the same bytes every time
    data = chance.randbytes(3 * BLOCK + 5)
    places = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 4]
    for place in [*places, *(chance.randrange(len(data)) for _ in range(50))]:
        other = data[:place] + bytes([data[place] ^ 1]) + chance.randbytes(len(data) - place - 1)
        assert first_difference(data, other) == place
        assert first_difference(data, other + b"more") == place
        assert first_difference(data[: place + 1], other) == place
    for length in (0, 1, BLOCK, len(data) - 1):
        assert first_difference(data, data[:length]) == first_difference(data[:length], data) == length
    assert first_difference(data, bytes(data)) is None


def test_of_long_texts_the_part_that_differs_is_shown() -> None:
    shown, other = excerpts("a" * 500 + "ü1" + "b" * 500, "a" * 500 + "ü2" + "b" * 500)
    assert "ü1" in shown
    assert "ü2" in other
    assert len(shown) < 110
    assert excerpts("short", "shore") == ("'short'", "'shore'")


# ---------------------------------------------------------------------------------------------------------------- lines


def difference(kind: DifferenceKind, detail: str = "differs", member: str = "a.so") -> Difference:
    return Difference(member=member, kind=kind, detail=detail)


def test_the_most_telling_comes_first() -> None:
    found = [difference(kind, f"because of {kind}") for kind in reversed(DifferenceKind)]
    lines = explain(found)
    assert [line.removeprefix("a.so: ") for line in lines] == [f"because of {kind}" for kind in DifferenceKind]


def test_members_of_which_the_same_is_true_share_a_line() -> None:
    found = [difference(DifferenceKind.TIME, "has the time 1", f"{number}.py") for number in range(40)]
    assert explain(found) == ("0.py, 1.py, 2.py and 37 more: has the time 1",)


def test_what_is_not_shown_is_counted() -> None:
    found = [
        *(difference(DifferenceKind.KERNEL, f"kernel {number}") for number in range(30)),
        *(difference(DifferenceKind.OPTIONS, f"option {number}") for number in range(2)),
        difference(DifferenceKind.DIFFOSCOPE, "what diffoscope says is in x"),
    ]
    lines = explain(found, lines=4)
    assert lines[:4] == ("a.so: option 0", "a.so: option 1", "a.so: kernel 0", "a.so: kernel 1")
    assert lines[4:] == ("and 28 more: 28 of kind kernel", "what diffoscope says is in x")
    assert len(explain(found)) == 2 + 5 + 1 + 1
    assert explain(()) == ()
