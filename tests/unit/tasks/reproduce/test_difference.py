"""Why two wheels or folders are not the same bytes: made by hand, with one thing changed in each."""

import copy
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from build_config.errors import PackagingError
from build_config.tasks.reproduce.difference import Difference, DifferenceKind, compare_folders, compare_wheels, explain
from build_config.tasks.reproduce.difference.result import BLOCK, excerpts, first_difference
from tests.support import wheels

pytestmark = pytest.mark.usefixtures("no_programs")

MODULE = "llama_cpp/__init__.py"
LIBRARY = "llama_cpp/lib/libllama.so"
METADATA = f"{wheels.DIST_INFO}/METADATA"
RECORD = f"{wheels.DIST_INFO}/RECORD"


# ------------------------------------------------------------------------------------------------------------- wheels


class Archive:
    """A sound wheel, to be changed before it is written."""

    def __init__(self) -> None:
        self.entries: list[tuple[zipfile.ZipInfo, bytes]] = []
        self.level = 9
        self.lead = b""
        members = wheels.contents({"libllama.so": b"no library " * 999})
        for name, content in {**members, RECORD: wheels.record(members)}.items():
            self.add(name, content)

    def add(self, name: str, content: bytes) -> None:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o100644 << 16
        self.entries.append((info, content))

    def replace(self, name: str, change: Callable[[bytes], bytes]) -> None:
        self.entries = [(info, change(old) if info.filename == name else old) for info, old in self.entries]

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(self.lead)
            with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there twice
                for info, content in self.entries:
                    archive.writestr(copy.copy(info), content, info.compress_type, self.level)
        return path


Change = Callable[[Archive], object]


def head(field: str, value: object) -> Change:
    return lambda archive: setattr(archive.entries[0][0], field, value)


def edit(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda archive: archive.replace(name, change)


def compared(tmp_path: Path, change: Change) -> tuple[Difference, ...]:
    changed = Archive()
    change(changed)
    first = Archive().write(tmp_path / "first" / wheels.wheel_name())
    second = changed.write(tmp_path / "second" / wheels.wheel_name())
    return compare_wheels(first, second, cuobjdump=None, folder=tmp_path / "work")


CHANGES: list[tuple[str, str, str, Change]] = [
    (MODULE, "time", "1980-01-01 00:00:00, in the other 2026-01-02 03:04:06", head("date_time", (2026, 1, 2, 3, 4, 6))),
    (MODULE, "mode", "100644 (-rw-r--r--), in the other 100755 (-rwxr-xr-x)", head("external_attr", 0o100755 << 16)),
    (MODULE, "compression", "deflate, in the other stored", head("compress_type", zipfile.ZIP_STORED)),
    (MODULE, "container", "has the comment b'', in the other b'by hand'", head("comment", b"by hand")),
    (MODULE, "order", f"first, in the other {METADATA} does", lambda it: it.entries.insert(0, it.entries.pop(2))),
    (f"{MODULE} (again)", "member", "is only in the other", lambda it: it.entries.append(it.entries[0])),
    ("more.py", "member", "is only in the other", lambda it: it.add("more.py", b"more = 1\n")),
    (MODULE, "text", r"line 1 is 'from .llama_cpp import *\n', in the other 'x\n'", edit(MODULE, lambda _: b"x\n")),
    (MODULE, "text", r"line 2, 'x\n', is only in the other", edit(MODULE, lambda old: old + b"x\n")),
    (RECORD, "text", "same lines in another order", edit(RECORD, lambda old: b"".join(reversed(old.splitlines(True))))),
    (
        LIBRARY,
        "bytes",
        "(10989 bytes, in the other 10990) differs from byte 0 on",
        edit(LIBRARY, lambda old: b"\0" + old),
    ),
    (LIBRARY, "compression", "another level, or another version of zlib", lambda it: setattr(it, "level", 1)),
    (wheels.wheel_name(), "unexplained", "differs from byte 0 on", lambda it: setattr(it, "lead", b"#!/bin/sh\n")),
]


@pytest.mark.parametrize(("member", "kind", "said", "change"), CHANGES)
def test_one_change_is_one_kind_of_difference(
    tmp_path: Path, member: str, kind: str, said: str, change: Change
) -> None:
    found = {each.member: each for each in compared(tmp_path, change)}
    assert {each.kind for each in found.values()} == {kind}
    assert said in found[member].detail
    assert len(found) == 1 or "level" in said


def test_the_same_bytes_differ_in_nothing(tmp_path: Path) -> None:
    assert compared(tmp_path, lambda archive: archive) == ()


@pytest.mark.parametrize(
    ("lie", "kind", "said"),
    [
        ({}, "consequence", "those of the members that differ"),
        ({MODULE: b"something else"}, "text", "line 1 is 'llama_cpp/__init__.py,sha256="),
    ],
)
def test_record_follows_from_the_members_unless_it_lies(
    tmp_path: Path, lie: dict[str, bytes], kind: str, said: str
) -> None:
    def change(archive: Archive) -> None:
        archive.replace(METADATA, lambda old: old + b"Keywords: x\n")
        archive.add("more.py", b"more = 1\n")
        members = {info.filename: content for info, content in archive.entries if info.filename != RECORD}
        archive.replace(RECORD, lambda _: wheels.record(members | lie))

    found = {each.member: each for each in compared(tmp_path, change)}
    assert {name: each.kind for name, each in found.items()} == {"more.py": "member", METADATA: "text", RECORD: kind}
    assert said in found[RECORD].detail


def at(data: bytes, mark: bytes, changes: dict[int, int]) -> bytes:
    """The data with these bytes, counted from the last place of ``mark``."""
    changed, start = bytearray(data), data.rindex(mark)
    for offset, byte in changes.items():
        changed[start + offset] = byte
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:2000],
        lambda data: at(data, b"PK\x05\x06", {19: 0xFF}),  # where the directory begins
        lambda data: at(data, b"PK\x01\x02", {9: 0x08, 46: 0x94}),  # a name that says it is UTF-8
        lambda data: at(data, b"PK\x03\x04", {30: 0x94}),  # a name unlike that in the directory
        lambda data: at(data, b"PK\x01\x02", {10: 99}),  # an unknown method of compression
    ],
)
def test_a_damaged_wheel_is_an_error(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    first = Archive().write(tmp_path / wheels.wheel_name())
    damaged = tmp_path / "damaged.whl"
    damaged.write_bytes(damage(first.read_bytes()))
    with pytest.raises(PackagingError, match=r"damaged\.whl is not a sound archive"):
        compare_wheels(first, damaged, cuobjdump=None, folder=tmp_path)


def test_a_wheel_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    first = Archive().write(tmp_path / wheels.wheel_name())
    with pytest.raises(PackagingError, match=r"none\.whl cannot be read"):
        compare_wheels(first, tmp_path / "none.whl", cuobjdump=None, folder=tmp_path)


def test_folders_are_compared_by_names_and_contents(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "deep").mkdir(parents=True)
        for file, text in (("deep/same.txt", "same"), ("other.txt", name), (f"{name}.txt", name)):
            (tmp_path / name / file).write_text(text, encoding="utf-8")
    found = compare_folders(tmp_path / "first", tmp_path / "second", cuobjdump=None, folder=tmp_path / "work")
    assert [(each.member, each.kind, each.detail) for each in found] == [
        ("first.txt", "member", "is only here"),
        ("second.txt", "member", "is only in the other"),
        ("other.txt", "text", "line 1 is 'first', in the other 'second'"),
    ]
    assert compare_folders(tmp_path / "first", tmp_path / "first", cuobjdump=None, folder=tmp_path / "work") == ()


def test_the_first_byte_that_differs_is_found_wherever_it_is() -> None:
    data = random.Random(7).randbytes(2 * BLOCK + 5)  # noqa: S311  # the same bytes every time
    for place in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 4):
        other = data[:place] + bytes([data[place] ^ 1]) + data[:place:-1]
        for first, second in ((data, other), (data, other + b"more"), (data[: place + 1], other)):
            assert first_difference(first, second) == place
        assert first_difference(data, data[:place]) == first_difference(data[:place], data) == place


def test_of_long_texts_the_part_that_differs_is_shown() -> None:
    shown, other = excerpts("a" * 500 + "ü1" + "b" * 500, "a" * 500 + "ü2" + "b" * 500)
    assert "ü1" in shown
    assert "ü2" in other
    assert len(shown) < 110
    assert excerpts("short", "shore") == ("'short'", "'shore'")


# ---------------------------------------------------------------------------------------------------------------- lines


def differences(kind: DifferenceKind, count: int = 1) -> list[Difference]:
    return [Difference(member="a.so", kind=kind, detail=f"{kind} {number}") for number in range(count)]


def test_the_most_telling_comes_first() -> None:
    lines = explain([each for kind in reversed(DifferenceKind) for each in differences(kind)])
    assert [line.removeprefix("a.so: ") for line in lines] == [f"{kind} 0" for kind in DifferenceKind]


def test_members_of_which_the_same_is_true_share_a_line() -> None:
    found = [Difference(member=f"{n}.py", kind=DifferenceKind.TIME, detail="has the time 1") for n in range(40)]
    assert explain(found) == ("0.py, 1.py, 2.py and 37 more: has the time 1",)


def test_what_is_not_shown_is_counted() -> None:
    found = [
        *differences(DifferenceKind.KERNEL, 30),
        *differences(DifferenceKind.OPTIONS, 2),
        *differences(DifferenceKind.DIFFOSCOPE),
    ]
    lines = explain(found, lines=4)
    assert lines[:4] == ("a.so: options 0", "a.so: options 1", "a.so: kernel 0", "a.so: kernel 1")
    assert lines[4:] == ("and 28 more: 28 of kind kernel", "diffoscope 0")
    assert len(explain(found)) == 2 + 5 + 1 + 1
    assert explain(()) == ()
