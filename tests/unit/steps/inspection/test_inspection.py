"""The parsers and judgements of the inspection, on text and values; real libraries are in test_inspection_real.py."""

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from build_config.formats.elf import UnreadableElfError, read
from build_config.model import CudaArch
from build_config.reports import Finding
from build_config.steps.inspection import archive, device_code, libraries
from build_config.steps.inspection.contents import NotRunError, Subject, read_members
from build_config.steps.inspection.instructions import Scan
from tests.support import wheels

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


VEX_CODED = (
    "vmovaps %xmm0,%xmm1",
    "vzeroupper",
    "vfmadd231ps (%rax),%ymm1,%ymm2",
    "{vex} vpdpbusd %ymm3,%ymm2,%ymm1",
    "{evex} vmovdqu8 (%rsi),%xmm16",
    "vmulps %xmm0,%xmm1,%xmm2",
    "vmaxps %xmm0,%xmm1,%xmm2",
    "kmovd  %eax,%k1",
    "shlx   %rax,(%rbx),%rcx",
    "mulxq  %rax,%rbx,%rcx",
    "tdpbssd %tmm0,%tmm1,%tmm2",
    "ldtilecfg (%rax)",
    "something %zmm31",
)
ON_EVERY_PROCESSOR = (
    "movaps %xmm0,%xmm1",
    "call   14030 <vector_of_ymm@plt>",
    "jmp    *0xc8fca(%rip)        # dc000 <_ZNSt6vectorIfE@Base>",
    "verr   %ax",
    "verw   (%rdi)",
    "vmcall",
    "vmreadq %rax,%rbx",
    "shl    %cl,%rax",
    "pextrw $0x0,%xmm0,%eax",
    "mulss  %xmm0,%xmm1",
    "tzcnt  %rax,%rax",
    "nopw   0x0(%rax,%rax,1)",
    "mov    %fs:0x28,%rax",
)


@pytest.mark.parametrize("line", VEX_CODED + ON_EVERY_PROCESSOR)
def test_vex_and_evex_coded_instructions_are_told_from_those_of_every_processor(line: str) -> None:
    scan = Scan()
    scan.line(f"   1a2b:\t{line}")
    assert (scan.instructions, scan.vex) == (1, line in VEX_CODED)
    assert scan.example == (" ".join(f"1a2b: {line}".split()) if line in VEX_CODED else "")


def test_lines_that_are_not_instructions_do_not_count() -> None:
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


def test_symbol_versions_are_compared_with_every_tag() -> None:
    found = wheels.library(versions=("GLIBC_2.2.5", "GLIBC_2.28", "GLIBCXX_3.4.22", "GOMP_4.0"))
    both = ("py3-none-manylinux_2_17_x86_64", "py3-none-manylinux_2_28_x86_64")
    findings = [*libraries.check_symbol_versions(wheels.subject(libraries={"libllama.so": found}, tags=both))]
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
    metadata = f"Metadata-Version: 2.1\nName: x\nVersion: 1\nRequires-Dist: {required}\n\n".encode()
    found = {"llama_cpp/lib/libggml-cuda-sm61.so": wheels.library(needed)}
    subject = wheels.subject({f"{wheels.DIST_INFO}/METADATA": metadata}, libraries=found)
    assert codes(libraries.check_needed(subject)) == expected


@pytest.mark.parametrize("platform", ["linux_x86_64", "manylinux_9_99_x86_64", "any"])
def test_a_tag_that_promises_nothing_is_found(platform: str) -> None:
    findings = libraries.check_symbol_versions(wheels.subject(tags=(f"py3-none-{platform}",)))
    assert codes(findings) == ["tag-not-manylinux"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [(("$ORIGIN",), ["needed-unreachable"]), (("$ORIGIN", "$ORIGIN/../../llama_cpp_python.libs"), [])],
)
def test_what_a_library_needs_is_found_where_the_loader_would(paths: tuple[str, ...], expected: list[str]) -> None:
    gomp = "libgomp-0123abcd.so.1.0.0"
    found = {
        "llama_cpp/lib/libggml.so": wheels.library(gomp, "libc.so.6", "libcuda.so.1", search_paths=paths),
        f"llama_cpp_python.libs/{gomp}": wheels.library("libc.so.6", search_paths=()),
    }
    assert codes(libraries.check_needed(wheels.subject(libraries=found))) == expected


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(60), b"\x7fELF\x02\x01\x01" + b"\xff" * 200])
def test_what_is_not_a_library_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableElfError):
        read(data)


# ------------------------------------------------------------------------------------------------------ archive


def edited(file: str, old: str, new: str) -> dict[str, bytes]:
    name = f"{wheels.DIST_INFO}/{file}"
    return {name: wheels.contents({})[name].replace(old.encode(), new.encode())}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        (edited("METADATA", "llama-cpp-python", "Llama_Cpp.Python"), []),
        (edited("METADATA", "llama-cpp-python", "llama-cpp-cuda"), ["metadata-name"]),
        (edited("METADATA", "+cu130.sm89", "+cu130.sm86"), ["metadata-version"]),
        (edited("METADATA", "Version: 0.3.36+cu130.sm89", "Summary: none"), ["metadata-version"]),
        (edited("WHEEL", "manylinux_2_17", "manylinux_2_28"), ["tag-mismatch"]),
        (edited("WHEEL", "Tag:", "Togs:"), ["tag-mismatch"]),
        (edited("WHEEL", "Purelib: false", "Purelib: true"), ["tag-purelib"]),
        ({f"{wheels.DIST_INFO}/licenses/licenses/llama.cpp.txt": b" \n"}, ["licence-missing"]),
        (edited("METADATA", "License-File: LICENSE.md", "License-File: COPYING"), ["licence-missing"]),
        ({"a.py": f"open('{wheels.CHECKOUT}/a')".encode()}, ["build-path"]),
        ({"llama_cpp/include/llama.h": b""}, ["unwanted-file"]),
        ({"llama_cpp/lib/cmake/llama/llama-config.cmake": b""}, ["unwanted-file"]),
        ({"llama_cpp/lib/pkgconfig/llama.pc": b""}, ["unwanted-file"]),
        ({"llama_cpp/lib/libggml.a": b""}, ["unwanted-file"]),
        ({"llama_cpp/__pycache__/llama.cpython-311.pyc": b""}, ["unwanted-file"]),
    ],
)
def test_each_fault_of_the_archive_is_found_once_and_a_sound_one_is_clean(
    changes: dict[str, bytes], expected: list[str]
) -> None:
    checks = (archive.check_metadata, archive.check_tags, archive.check_licences, archive.check_build_paths)
    subject = wheels.subject(changes)
    found = [codes(check(subject)) for check in (*checks, archive.check_unwanted, archive.check_size)]
    assert [code for each in found for code in each] == expected


def test_a_wheel_may_be_as_large_as_declared_and_no_larger() -> None:
    assert codes(archive.check_size(wheels.subject(size=35_000_000))) == []
    assert codes(archive.check_size(wheels.subject(size=35_000_001))) == ["too-large"]


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (archive.check_metadata, {"other-1.dist-info/METADATA": b""}),
        (archive.check_licences, {"other-1.dist-info/METADATA": b""}),
        (archive.check_record, {"other-1.dist-info/METADATA": b""}),
        (archive.check_tags, edited("WHEEL", "py3-none-", "py3-")),
    ],
)
def test_a_check_that_cannot_judge_says_so(
    check: Callable[[Subject], Iterable[Finding]], changes: dict[str, bytes]
) -> None:
    with pytest.raises(NotRunError):
        list(check(wheels.subject(changes)))


def test_a_forbidden_path_is_found_as_a_whole_name() -> None:
    whole = [b"\0/src/llama.cpp\0", b'"/src"', b"-I/src/include", b"file:///src/a.c", b"gcc -DA=/src/x"]
    others = [b"llama.cpp/src/llama.cpp", b"/srcs/a.c", b"/src-2/a.c", b"../src/a.c"]
    pattern = archive.path_pattern(("/src/",))
    assert pattern is not None
    assert [text for text in whole + others if pattern.search(text)] == whole


def test_requirements_of_an_extra_are_not_requirements() -> None:
    names = archive.required_distributions(wheels.contents({}))
    assert names == {"numpy", "nvidia-cuda-runtime", "nvidia-cublas"}


@pytest.mark.parametrize("separator", ["/", "\\"], ids=["Linux", "Windows"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_installers_would_misplace_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("ok.py", "../evil.py", "/etc/evil", "ok.py", "a\\b.py"):
            member = zipfile.ZipInfo(name)
            member.filename = name  # on Windows, ZipInfo itself writes slashes
            file.writestr(member, b"text")
        link = zipfile.ZipInfo("link.so")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "libllama.so")
    with monkeypatch.context() as patch:
        patch.setattr(os, "sep", separator)  # for zipfile
        contents, findings = read_members(path)
    assert contents == {"ok.py": b"text"}
    unsafe = "archive-unsafe-member"
    assert codes(findings) == [unsafe, unsafe, "archive-duplicate-member", unsafe, unsafe]
