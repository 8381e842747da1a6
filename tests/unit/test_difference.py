"""Why two wheels are not the same bytes: wheels and libraries made by hand, with one thing changed in each."""

from __future__ import annotations

import dataclasses
import random
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest

from build_config.difference import (
    Difference,
    DifferenceKind,
    causes,
    compare_folders,
    compare_wheels,
    device,
    elf,
    explain,
    hashes,
    libraries,
    text,
)
from build_config.difference.result import BLOCK, Tools, excerpts, first_difference
from build_config.errors import PackagingError
from tests import wheels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.unit

MODULE = "llama_cpp/__init__.py"
METADATA = f"{wheels.DIST_INFO}/METADATA"
RECORD = f"{wheels.DIST_INFO}/RECORD"


@pytest.fixture(autouse=True)
def _no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither c++filt nor diffoscope is found: what is said comes from the bytes."""
    monkeypatch.setenv("PATH", "")


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


# -------------------------------------------------------------------------------------------------------------- causes


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("built Jan  2 2026 03:04:05", "built Feb 13 2026 13:14:15", "__DATE__"),
        ("2026-01-02T03:04:05 x", "2025-11-12T13:04:05 x", "__DATE__"),
        ("error in /home/ada/x/a.c:3", "error in /home/bob/src/a.c:3", "user's folder"),
        ("error in /opt/x/a.c:3", "error in /var/build/a.c:3", "absolute path"),
        ("tmpxft_00003b1b_00000000-6_k.cudafe1.cpp", "tmpxft_00003b3c_00000000-6_k.cudafe1.cpp", "temporary file"),
    ],
)
def test_what_makes_texts_differ_is_recognised(first: str, second: str, said: str) -> None:
    assert said in (causes.cause(first, second) or "")
    assert causes.cause(first, second + "!") is None
    assert said in (causes.suspect(first) or "")


def test_nothing_is_suspected_in_plain_words() -> None:
    for plain in ("a/b and 1/2", "GGML_ASSERT(x) failed: %s:%d", "https://host/a", "src/llama.cpp/ggml/src/ggml.c"):
        assert causes.suspect(plain) is None


def test_strings_are_paired_wherever_they_stand() -> None:
    first = b"first one\0/home/ada/x/a.c\0built Jan  2 2026\0\x01\x02behind numbers\0only here\0the same\0"
    second = b"the same\0first two\0/home/bob/x/a.c\0built Jan  3 2026\0"
    details = [each.detail for each in text.compare_strings("x.so", ".rodata", first, second)]
    assert details[0].startswith(".rodata has the string '/home/ada/x/a.c', in the other '/home/bob/x/a.c': that is a")
    assert details[1].startswith(".rodata has the string 'built Jan  2 2026', in the other 'built Jan  3 2026': that")
    assert details[2:] == [
        ".rodata has the string 'first one', in the other 'first two'",
        ".rodata has the string 'only here', the other has not",
    ]


def test_many_strings_are_counted() -> None:
    first, second = (
        b"".join(b"the string number %d of /home/%s/%d/x.c\0" % (number, name, number % 7) for number in range(5_000))
        for name in (b"ada", b"bob")
    )
    details = [each.detail for each in text.compare_strings("x.so", ".rodata", first, second)]
    assert len(details) == 6
    assert details[4].startswith(
        ".rodata has the string 'the string number 4 of /home/ada/4/x.c', in the other 'the string"
    )
    assert "number 4 of /home/bob/4/x.c" in details[4]
    assert details[-1] == ".rodata has 4995 more strings that differ"
    alone = [each.detail for each in text.compare_strings("x.so", ".rodata", first, b"")]
    assert "the other has not: that is a path in a user's folder" in alone[0]


# -------------------------------------------------------------------------------------------------------------- hashes


@pytest.mark.parametrize(
    ("name", "source", "path", "ending", "plain"),
    [
        (
            "_ZN36_GLOBAL__N__681207f2_4_k_cu_acc5a52f5scaleEPf",
            "k.cu",
            "681207f2",
            "acc5a52f",
            "_ZN<k.cu>5scaleEPf",
        ),
        (  # the number of a process, then the length of the next name
            "_ZN42_GLOBAL__N__5fccf7c0_4_n_cu_d110413c_174115scaleEPf",
            "n.cu",
            "5fccf7c0",
            "d110413c_17411",
            "_ZN<n.cu>5scaleEPf",
        ),
        (  # digits of another name in front of the length
            "_ZN4cuda3std3__443_GLOBAL__N__0333ac59_10_softmax_cu_d2f7ab9c3fooE",
            "softmax.cu",
            "0333ac59",
            "d2f7ab9c",
            "_ZN4cuda3std3__<softmax.cu>3fooE",
        ),
        (  # the file is called like a hash
            "_ZN44_GLOBAL__N__0333ac59_11_deadbeef_cu_d2f7ab9c3fooE",
            "deadbeef.cu",
            "0333ac59",
            "d2f7ab9c",
            "_ZN<deadbeef.cu>3fooE",
        ),
    ],
)
def test_the_parts_of_a_local_name(name: str, source: str, path: str, ending: str, plain: str) -> None:
    (module,) = hashes.module_ids([name])
    assert (module.source, module.path, module.ending) == (source, path, ending)
    assert hashes.without_hashes(name).replace("__4<", "__<") == plain


def test_a_name_inside_of_a_name_is_found() -> None:
    name = "_ZN40_INTERNAL_5fccf7c0_4_n_cu_d110413c_1741142_GLOBAL__N__5fccf7c0_4_n_cu_d110413c_174115tableE"
    assert [module.ending for module in hashes.module_ids([name])] == ["d110413c_17411"]
    assert hashes.without_hashes(name) == "_ZN<n.cu><n.cu>5tableE"
    assert hashes.module_ids(["_Z5plainPf", "_GLOBAL__N_1", "_INTERNAL_", ""]) == ()


@pytest.mark.parametrize(
    ("other", "kinds", "said"),
    [
        ("_ZN36_GLOBAL__N__00000000_4_k_cu_acc5a52f5scaleEPf", [DifferenceKind.SOURCE_PATH], "canonical path"),
        ("_ZN36_GLOBAL__N__681207f2_4_k_cu_000000005scaleEPf", [DifferenceKind.RANDOM_SEED], "another --frandom-seed"),
        ("_ZN40_GLOBAL__N__681207f2_4_k_cu_acc5a52f_1235scaleEPf", [DifferenceKind.RANDOM_SEED], "no --frandom-seed"),
        ("_ZN36_GLOBAL__N__681207f2_4_k_cu_acc5a52f5scaleEPf", [], ""),
        ("_ZN36_GLOBAL__N__00000000_4_j_cu_acc5a52f5scaleEPf", [], ""),
    ],
)
def test_what_a_changed_hash_means(other: str, kinds: list[DifferenceKind], said: str) -> None:
    name = "_ZN36_GLOBAL__N__681207f2_4_k_cu_acc5a52f5scaleEPf"
    found = [*hashes.compare("x.so", "here", [name], [other])]
    assert [each.kind for each in found] == kinds
    assert all(said in each.detail and "k.cu" in each.detail for each in found)


# ----------------------------------------------------------------------------------------------------------- libraries

PROGBITS, STRTAB, NOTE, DYNSYM, DYNAMIC = 1, 3, 7, 11, 6
FUNC, OBJECT = 2, 1


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    content: bytes
    kind: int = PROGBITS
    address: int = 0
    link: str = ""


def elf_file(*parts: Part) -> bytes:
    """An ELF file of these sections, each where the one before it ends."""
    everything = [Part("", b""), *parts, Part(".shstrtab", b"", STRTAB)]
    strings = b"\0".join(part.name.encode() for part in everything) + b"\0"
    everything[-1] = dataclasses.replace(everything[-1], content=strings)
    body, table, name = bytearray(64), b"", 0
    numbers = {part.name: number for number, part in enumerate(everything)}
    for part in everything:
        body += bytes(-len(body) % 8)
        where = (part.address, len(body), len(part.content), numbers[part.link])
        kind = part.kind if part.name else 0
        table += struct.pack("<IIQQQQIIQQ", name, kind, 0, *where, 0, 8, 0)
        name += len(part.name) + 1
        body += part.content
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = (ident, 3, 62, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(everything), len(everything) - 1)
    body[:64] = struct.pack("<16sHHIQQQIHHHHHH", *head)
    return bytes(body) + table


def symbols(*entries: tuple[str, int, int, int, int], table: str = ".dynsym") -> tuple[Part, Part]:
    """``(name, kind, section number, value, size)`` each."""
    strings, rows = b"\0", bytes(24)
    for name, kind, section, value, size in entries:
        rows += struct.pack("<IBBHQQ", len(strings), kind, 0, section, value, size)
        strings += name.encode() + b"\0"
    return Part(table, rows, DYNSYM, link=".dynstr"), Part(".dynstr", strings, STRTAB)


def dynamic(*entries: tuple[int, str]) -> tuple[Part, Part]:
    strings, rows = b"\0", b""
    for tag, value in entries:
        rows += struct.pack("<qQ", tag, len(strings))
        strings += value.encode() + b"\0"
    return Part(".dynamic", rows + bytes(16), DYNAMIC, link=".dynnames"), Part(".dynnames", strings, STRTAB)


def build_id(digits: str) -> Part:
    return Part(".note.gnu.build-id", struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes.fromhex(digits), NOTE)


TEXT = Part(".text", bytes(range(256)) * 4, address=0x1000)
FUNCTIONS = symbols(("first", FUNC, 1, 0x1000, 0x100), ("second", FUNC, 1, 0x1100, 0x80))


def library_differences(tmp_path: Path, first: bytes, second: bytes) -> list[tuple[DifferenceKind, str]]:
    tools = Tools(cuobjdump=None, demangler=None, folder=tmp_path)
    return [(each.kind, each.detail) for each in libraries.compare("x.so", first, second, tools)]


def changed_at(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


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


# --------------------------------------------------------------------------------------------------------- device code

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
