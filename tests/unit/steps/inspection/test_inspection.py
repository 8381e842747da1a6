"""The parsers and judgements of the inspection, on text and values; real libraries are in test_inspection_real.py."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.formats.elf import ElfLibrary, UnreadableElfError, read
from build_config.model import CudaArch, Wheel
from build_config.steps.inspection import archive, device_code, libraries
from build_config.steps.inspection.contents import NotRunError, Subject, read_members
from build_config.steps.inspection.instructions import Scan
from build_config.system.platforms.linux import LINUX
from tests.support import factories, wheels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from build_config.reports import Finding

pytestmark = pytest.mark.unit
TAG = "py3-none-manylinux_2_17_x86_64"

LISTED_ELF = """\
ELF file    1: libggml-cuda-sm89.1.sm_89.cubin
ELF file    2: libggml-cuda-sm89.2.sm_120a.cubin
ELF file   10: libggml-cuda-sm89.10.sm_89.cubin
ELF file 1234: libggml-cuda-sm89.1234.sm_120a.cubin
"""
LISTED_PTX = """\
PTX file    1: libggml-cuda-sm89.1.sm_90.ptx
cuobjdump info    : No PTX file found to extract from 'libggml.so'. You may try with -all option.
"""


def subject(
    changes: Mapping[str, bytes] | None = None,
    *,
    tags: tuple[str, ...] = (TAG,),
    size: int = 1000,
    elves: Mapping[str, ElfLibrary] | None = None,
) -> Subject:
    version = wheels.VERSION
    return Subject(
        wheel=Wheel(path=Path(wheels.wheel_name()), version=version, tags=tags, sha256="0" * 64, size=size),
        platform=LINUX,
        declaration=wheels.declaration(factories.SM89),
        policy=wheels.policy(),
        contents={**wheels.contents({}), **(changes or {})},
        libraries=elves or {},
        cuobjdump=None,
        objdump="objdump",
        folder=Path("/nowhere"),
    )


def library(*needed: str, versions: tuple[str, ...] = (), paths: tuple[str, ...] = ("$ORIGIN",)) -> ElfLibrary:
    return ElfLibrary(
        soname=None, needed=needed, search_paths=paths, versions=versions, leftovers=(), has_build_id=False
    )


def codes(findings: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in findings]


# ---------------------------------------------------------------------------------------------------- device code


def test_listings_are_counted_by_architecture() -> None:
    assert device_code.parse_listing(LISTED_ELF.splitlines()) == {"sm_89": 2, "sm_120a": 2}
    assert device_code.parse_listing(LISTED_PTX.splitlines()) == {"compute_90": 1}
    assert device_code.parse_listing([]) == {}


@pytest.mark.parametrize(
    ("declared", "found", "expected"),
    [
        (("89",), ("sm_89", "sm_89"), []),
        (("89", "90-virtual"), ("sm_89", "compute_90"), []),
        (("89", "90"), ("sm_89", "compute_90"), ["device-code-missing", "device-code-undeclared"]),
        (("120a",), ("sm_120",), ["device-code-missing", "device-code-undeclared"]),
        (("86", "89"), ("sm_86", "sm_86", "sm_89"), ["device-code-uneven"]),
        (("89",), (), ["device-code-missing"]),
    ],
)
def test_device_code_must_equal_the_declaration(
    declared: tuple[str, ...], found: tuple[str, ...], expected: list[str]
) -> None:
    archs = tuple(map(CudaArch.parse, declared))
    assert codes(device_code.judge("libggml-cuda-x.so", archs, Counter(found))) == expected


# --------------------------------------------------------------------------------------------------- instructions


@pytest.mark.parametrize(
    "line",
    [
        "   1a2b:\tvmovaps %xmm0,%xmm1",
        "   1a2b:\tvzeroupper",
        "   1a2b:\tvfmadd231ps (%rax),%ymm1,%ymm2",
        "   1a2b:\t{vex} vpdpbusd %ymm3,%ymm2,%ymm1",
        "   1a2b:\t{evex} vmovdqu8 (%rsi),%xmm16",
        "   1a2b:\tvmulps %xmm0,%xmm1,%xmm2",
        "   1a2b:\tvmaxps %xmm0,%xmm1,%xmm2",
        "   1a2b:\tkmovd  %eax,%k1",
        "   1a2b:\tshlx   %rax,(%rbx),%rcx",
        "   1a2b:\tmulxq  %rax,%rbx,%rcx",
        "   1a2b:\ttdpbssd %tmm0,%tmm1,%tmm2",
        "   1a2b:\tldtilecfg (%rax)",
        "   1a2b:\tsomething %zmm31",
    ],
)
def test_vex_and_evex_coded_instructions_are_seen(line: str) -> None:
    scan = Scan()
    scan.line(line)
    assert (scan.instructions, scan.vex) == (1, 1)
    assert scan.example == " ".join(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "   1a2b:\tmovaps %xmm0,%xmm1",
        "   1a2b:\tcall   14030 <vector_of_ymm@plt>",
        "   1a2b:\tjmp    *0xc8fca(%rip)        # dc000 <_ZNSt6vectorIfE@Base>",
        "   1a2b:\tverr   %ax",
        "   1a2b:\tverw   (%rdi)",
        "   1a2b:\tvmcall",
        "   1a2b:\tvmreadq %rax,%rbx",
        "   1a2b:\tshl    %cl,%rax",
        "   1a2b:\tpextrw $0x0,%xmm0,%eax",
        "   1a2b:\tmulss  %xmm0,%xmm1",
        "   1a2b:\ttzcnt  %rax,%rax",
        "   1a2b:\tnopw   0x0(%rax,%rax,1)",
        "   1a2b:\tmov    %fs:0x28,%rax",
    ],
)
def test_what_every_processor_has_is_not_taken_for_it(line: str) -> None:
    scan = Scan()
    scan.line(line)
    assert (scan.instructions, scan.vex) == (1, 0)


def test_lines_that_are_no_instructions_do_not_count() -> None:
    scan = Scan()
    for line in ("", "libllama.so:     file format elf64-x86-64", "0000000000013000 <_init>:", "\t..."):
        scan.line(line)
    assert scan.instructions == 0


# ---------------------------------------------------------------------------------------------------- libraries


@pytest.mark.parametrize(
    ("entry", "folder"),
    [
        ("$ORIGIN", "llama_cpp/lib"),
        ("${ORIGIN}", "llama_cpp/lib"),
        ("$ORIGIN/", "llama_cpp/lib"),
        ("$ORIGIN/../../llama_cpp_python.libs", "llama_cpp_python.libs"),
        ("$ORIGIN/../lib/./x", "llama_cpp/lib/x"),
        ("$ORIGIN/../..", None),
        ("$ORIGIN/../../..", None),
        ("$ORIGIN/../../../nvidia/lib", None),
        ("$ORIGINAL/x", None),
        ("/usr/lib", None),
        ("lib", None),
        ("", None),
    ],
)
def test_search_paths_lead_into_the_wheel_or_nowhere(entry: str, folder: str | None) -> None:
    found = libraries.search_folders("llama_cpp/lib/libllama.so", (entry,))
    assert found == (() if folder is None else (folder,))


def test_symbol_versions_are_held_against_every_tag() -> None:
    elves = {"llama_cpp/lib/libllama.so": library(versions=("GLIBC_2.2.5", "GLIBC_2.28", "GLIBCXX_3.4.22", "GOMP_4.0"))}
    both = ("py3-none-manylinux_2_17_x86_64", "py3-none-manylinux_2_28_x86_64")
    findings = list(libraries.check_symbol_versions(subject(elves=elves, tags=both)))
    assert codes(findings) == ["symbol-version"]
    assert "GLIBC_2.28, GLIBCXX_3.4.22, which manylinux_2_17_x86_64 does not promise" in findings[0].message


@pytest.mark.parametrize(
    ("needed", "required", "expected"),
    [
        ("libcudart.so.13", "nvidia-cuda-runtime", []),
        ("libcudart.so.12", "nvidia-cuda-runtime-cu12", []),
        ("libcudart.so.11.0", "nvidia-cuda-runtime-cu11", []),
        ("libcublas.so.12", "nvidia-cublas-cu12", []),
        ("libcublas.so.11", "nvidia-cublas-cu11", []),
        ("libcublas.so.12", "nvidia-cublas", ["requirement-missing"]),
        ("libcublas.so.11", "nvidia-cublas-cu12", ["requirement-missing"]),
        ("libcublas.so.10", "nvidia-cublas-cu11", ["needed-unknown"]),
    ],
)
def test_each_major_release_of_cuda_has_its_own_provider(needed: str, required: str, expected: list[str]) -> None:
    name = f"{wheels.DIST_INFO}/METADATA"
    metadata = f"Metadata-Version: 2.1\nName: x\nVersion: 1\nRequires-Dist: {required}\n\n".encode()
    elves = {"llama_cpp/lib/libggml-cuda-sm61.so": library(needed)}
    found = libraries.check_needed(subject({name: metadata}, elves=elves))
    assert codes(found) == expected


@pytest.mark.parametrize("platform", ["linux_x86_64", "manylinux_9_99_x86_64", "any"])
def test_a_tag_that_promises_nothing_is_found(platform: str) -> None:
    findings = libraries.check_symbol_versions(subject(tags=(f"py3-none-{platform}",)))
    assert codes(findings) == ["tag-not-manylinux"]


def test_what_a_library_needs_is_found_where_the_loader_would() -> None:
    elves = {
        "llama_cpp/lib/libggml.so": library("libgomp-0123abcd.so.1.0.0", "libc.so.6", "libcuda.so.1"),
        "llama_cpp_python.libs/libgomp-0123abcd.so.1.0.0": library("libc.so.6", paths=()),
    }
    assert codes(libraries.check_needed(subject(elves=elves))) == ["needed-unreachable"]
    paths = ("$ORIGIN", "$ORIGIN/../../llama_cpp_python.libs")
    elves["llama_cpp/lib/libggml.so"] = library("libgomp-0123abcd.so.1.0.0", "libcuda.so.1", paths=paths)
    assert codes(libraries.check_needed(subject(elves=elves))) == []


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(60), b"\x7fELF\x02\x01\x01" + b"\xff" * 200])
def test_what_is_no_library_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableElfError):
        read(data)


# ------------------------------------------------------------------------------------------------------ archive


def metadata(old: str, new: str) -> dict[str, bytes]:
    name = f"{wheels.DIST_INFO}/METADATA"
    return {name: wheels.contents({})[name].replace(old.encode(), new.encode())}


def wheel_file(old: str, new: str) -> dict[str, bytes]:
    name = f"{wheels.DIST_INFO}/WHEEL"
    return {name: wheels.contents({})[name].replace(old.encode(), new.encode())}


@pytest.mark.parametrize(
    "check",
    [archive.check_metadata, archive.check_tags, archive.check_licences, archive.check_unwanted, archive.check_size],
)
def test_the_sound_wheel_is_clean(check: Callable[[Subject], Iterable[Finding]]) -> None:
    assert list(check(subject())) == []


def test_a_name_is_the_same_however_it_is_spelt() -> None:
    assert codes(archive.check_metadata(subject(metadata("llama-cpp-python", "Llama_Cpp.Python")))) == []


@pytest.mark.parametrize(
    ("check", "changes", "code"),
    [
        (archive.check_metadata, metadata("llama-cpp-python", "llama-cpp-cuda"), "metadata-name"),
        (archive.check_metadata, metadata("+cu130.sm89", "+cu130.sm86"), "metadata-version"),
        (archive.check_metadata, metadata("Version: 0.3.36+cu130.sm89", "Summary: none"), "metadata-version"),
        (archive.check_tags, wheel_file("manylinux_2_17", "manylinux_2_28"), "tag-mismatch"),
        (archive.check_tags, wheel_file("Tag:", "Togs:"), "tag-mismatch"),
        (archive.check_tags, wheel_file("Purelib: false", "Purelib: true"), "tag-purelib"),
        (archive.check_licences, {f"{wheels.DIST_INFO}/licenses/licenses/llama.cpp.txt": b" \n"}, "licence-missing"),
        (archive.check_licences, metadata("License-File: LICENSE.md", "License-File: COPYING"), "licence-missing"),
        (archive.check_build_paths, {"a.py": f"open('{wheels.CHECKOUT}/a')".encode()}, "build-path"),
        (archive.check_unwanted, {"llama_cpp/include/llama.h": b""}, "unwanted-file"),
        (archive.check_unwanted, {"llama_cpp/lib/cmake/llama/llama-config.cmake": b""}, "unwanted-file"),
        (archive.check_unwanted, {"llama_cpp/lib/pkgconfig/llama.pc": b""}, "unwanted-file"),
        (archive.check_unwanted, {"llama_cpp/lib/libggml.a": b""}, "unwanted-file"),
        (archive.check_unwanted, {"llama_cpp/__pycache__/llama.cpython-311.pyc": b""}, "unwanted-file"),
    ],
)
def test_each_fault_of_the_archive_is_found(
    check: Callable[[Subject], Iterable[Finding]], changes: dict[str, bytes], code: str
) -> None:
    assert codes(check(subject(changes))) == [code]


def test_a_wheel_may_be_as_large_as_declared_and_no_larger() -> None:
    assert codes(archive.check_size(subject(size=35_000_000))) == []
    assert codes(archive.check_size(subject(size=35_000_001))) == ["too-large"]


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (archive.check_metadata, {"other-1.dist-info/METADATA": b""}),
        (archive.check_licences, {"other-1.dist-info/METADATA": b""}),
        (archive.check_record, {"other-1.dist-info/METADATA": b""}),
        (archive.check_tags, wheel_file("py3-none-", "py3-")),
    ],
)
def test_a_check_that_cannot_judge_says_so(
    check: Callable[[Subject], Iterable[Finding]], changes: dict[str, bytes]
) -> None:
    with pytest.raises(NotRunError):
        list(check(subject(changes)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"\0/src/llama.cpp\0", True),
        (b'"/src"', True),
        (b"-I/src/include", True),
        (b"file:///src/a.c", True),
        (b"gcc -DA=/src/x", True),
        (b"llama.cpp/src/llama.cpp", False),
        (b"/srcs/a.c", False),
        (b"/src-2/a.c", False),
        (b"../src/a.c", False),
    ],
)
def test_a_forbidden_path_is_found_as_a_whole_name(text: bytes, found: bool) -> None:  # noqa: FBT001  # a table's column
    pattern = archive.path_pattern(("/src/",))
    assert pattern is not None
    assert (pattern.search(text) is not None) is found


def test_requirements_of_an_extra_are_not_requirements() -> None:
    names = archive.required_distributions(wheels.contents({}))
    assert names == {"numpy", "nvidia-cuda-runtime", "nvidia-cublas"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_installers_would_misplace_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("ok.py", "../evil.py", "/etc/evil", "ok.py", "a\\b.py"):
            file.writestr(name, b"text")
        link = zipfile.ZipInfo("link.so")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "libllama.so")
    contents, findings = read_members(path)
    assert contents == {"ok.py": b"text"}
    unsafe = "archive-unsafe-member"
    assert codes(findings) == [unsafe, unsafe, "archive-duplicate-member", unsafe, unsafe]
