"""Inspection of wheels of small real libraries: a sound one is clean, each corrupted one is found out for its fault."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config.formats import cyclonedx, elf
from build_config.model import CudaArch, Program, Shard
from build_config.steps import inspection
from build_config.steps.inspection import instructions
from tests.support import factories, small_libraries, wheels
from tests.support.small_libraries import ADD, ORIGIN, STRIPPED, compile_library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from build_config.model import CudaToolkit, Wheel
    from build_config.reports import InspectionReport

pytestmark = pytest.mark.integration
Libraries = dict[str, bytes]
LIB = "llama_cpp/lib"
SBOM = f"{wheels.DIST_INFO}/{cyclonedx.MEMBER}"
UNKNOWN_DEVICE_CODE = "device-code-not-run"
"""Found in every inspection without cuobjdump."""


@pytest.fixture(name="core", scope="module")
def _core(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    return small_libraries.compile_core(tmp_path_factory.mktemp("core"))


@pytest.fixture(name="shard", scope="module")
def _shard(toolkit: CudaToolkit, core: Libraries, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two CUDA files for sm_89 and with PTX for 9.0, compiled and compressed as ggml does."""
    folder = tmp_path_factory.mktemp("shard")
    (folder / "libggml-base.so").write_bytes(core["libggml-base.so"])
    codes = ("-gencode=arch=compute_89,code=sm_89", "-gencode=arch=compute_90,code=compute_90")
    objects = []
    for name in ("first", "second"):
        text = f"__global__ void {name}(float *a) {{ a[threadIdx.x] *= 2; }}\n"
        text += f'extern "C" void run_{name}(float *a) {{ {name}<<<1, 32>>>(a); }}\n'
        (folder / f"{name}.cu").write_text(text, encoding="utf-8")
        compile_call = ["-c", "-compress-mode=size", "-Xcompiler=-fPIC", *codes, f"{name}.cu", "-o", f"{name}.o"]
        subprocess.run([toolkit.nvcc.path, *compile_call], cwd=folder, check=True)
        objects.append(f"{name}.o")
    needs = ("-L.", "-l:libggml-base.so", f"-L{toolkit.root}/lib", "-l:libcudart.so.13")
    link = ["g++", "-shared", *STRIPPED, ORIGIN, *objects, *needs, "-o", "libggml-cuda-x.so"]
    subprocess.run(link, cwd=folder, check=True)
    return (folder / "libggml-cuda-x.so").read_bytes()


def inspect(
    wheel: Wheel, work: Path, *shards: Shard, cuobjdump: Program | None = None, objdump: str = "objdump"
) -> InspectionReport:
    return inspection.inspect(
        wheel,
        wheels.declaration(*shards),
        policy=wheels.policy(),
        cuobjdump=cuobjdump,
        objdump=objdump,
        workdir=work / "work",
    )


def codes(report: InspectionReport) -> set[str]:
    return {finding.code for finding in report.findings}


def corrupted(tmp_path: Path, core: Mapping[str, bytes], changes: Mapping[str, bytes | None]) -> set[str]:
    """The codes found in a wheel with other members than the sound one's, without those of the missing cuobjdump."""
    members = {name: data for name, data in {**wheels.contents(core), **changes}.items() if data is not None}
    if SBOM not in members:
        members = wheels.listed(members)
    return codes(inspect(wheels.write(tmp_path, members), tmp_path)) - {UNKNOWN_DEVICE_CODE}


# ------------------------------------------------------------------------------------------------- with a toolkit


MIXED = Shard(name="x", archs=(CudaArch.parse("89"), CudaArch.parse("90-virtual")))


def cuobjdump_of(toolkit: CudaToolkit) -> Program:
    return factories.program(str(toolkit.root / "bin" / "cuobjdump"))


def test_a_sound_wheel_is_clean_and_every_check_ran(
    tmp_path: Path, core: Libraries, shard: bytes, toolkit: CudaToolkit
) -> None:
    wheel = wheels.write(tmp_path, wheels.listed(wheels.contents({**core, "libggml-cuda-x.so": shard}), MIXED))
    report = inspect(wheel, tmp_path, MIXED, cuobjdump=cuobjdump_of(toolkit))
    assert report.findings == ()
    assert report.passed
    assert report.wheel_sha256 == wheel.sha256
    assert {*report.checks} == {"archive", *inspection.CHECKS["linux-x86_64"]}
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (("89",), {"device-code-undeclared"}),
        (("89", "90"), {"device-code-undeclared", "device-code-missing"}),
        (("89", "90-virtual", "120a"), {"device-code-missing"}),
    ],
)
def test_device_code_is_exactly_what_was_declared(
    tmp_path: Path, core: Libraries, shard: bytes, toolkit: CudaToolkit, declared: tuple[str, ...], expected: set[str]
) -> None:
    claimed = Shard(name="x", archs=tuple(map(CudaArch.parse, declared)))
    wheel = wheels.write(tmp_path, wheels.listed(wheels.contents({**core, "libggml-cuda-x.so": shard}), claimed))
    assert codes(inspect(wheel, tmp_path, claimed, cuobjdump=cuobjdump_of(toolkit))) == expected


def test_a_shard_without_device_code_is_found(tmp_path: Path, core: Libraries, toolkit: CudaToolkit) -> None:
    empty = compile_library(tmp_path / "b", "libggml-cuda-x.so", ADD.format(name="empty"), *STRIPPED, ORIGIN)
    wheel = wheels.write(tmp_path, wheels.listed(wheels.contents({**core, "libggml-cuda-x.so": empty}), MIXED))
    assert codes(inspect(wheel, tmp_path, MIXED, cuobjdump=cuobjdump_of(toolkit))) == {"device-code-missing"}


# ------------------------------------------------------------------------------- a library that is not as it should be


def test_the_core_alone_is_clean_but_for_the_missing_cuobjdump(tmp_path: Path, core: Libraries) -> None:
    assert corrupted(tmp_path, core, {}) == set()


def test_a_check_without_its_tool_fails_and_is_not_said_to_have_run(tmp_path: Path, core: Libraries) -> None:
    wheel = wheels.write(tmp_path, wheels.listed(wheels.contents(core)))
    report = inspect(wheel, tmp_path, objdump="no-such-objdump")
    assert codes(report) == {UNKNOWN_DEVICE_CODE, "instructions-not-run"}
    assert not report.passed
    assert {"device-code", "instructions"}.isdisjoint(report.checks)
    silent = inspect(wheel, tmp_path, objdump="true")
    assert "instructions-not-run" in codes(silent)


FAULTS = {
    **{
        f"AVX in {name}": (name, ADD.format(name="avx"), (ORIGIN, "-mavx2"), "avx-instruction")
        for name in ("libllama.so", "libggml.so", "libggml-cpu-x64.so")
    },
    **{
        f"search path {path}": ("libggml-base.so", ADD.format(name="a"), (f"-Wl,-rpath,{path}",), "rpath-outside")
        for path in ("/usr/lib", "$ORIGIN:", "$ORIGIN/../..", "$ORIGIN/../../../x", "lib", "$ORIGINAL")
    },
    "path of the build machine": (
        "libllama.so",
        f'const char *where(void) {{ return "{wheels.CHECKOUT}/src/llama.cpp"; }}\n',
        (ORIGIN,),
        "build-path",
    ),
    "shard without a name": ("libggml-cuda.so", ADD.format(name="a"), (ORIGIN,), "shard-bare"),
    "shard without a declaration": ("libggml-cuda-sm86.so", ADD.format(name="b"), (ORIGIN,), "shard-undeclared"),
}
"""A library of the wheel with its source and options, and what is found."""


@pytest.mark.parametrize("fault", FAULTS)
def test_one_faulty_library_is_found(tmp_path: Path, core: Libraries, fault: str) -> None:
    name, source, options, expected = FAULTS[fault]
    data = compile_library(tmp_path / "b", name, source, *STRIPPED, *options)
    assert corrupted(tmp_path, core, {f"{LIB}/{name}": data}) == {expected}


@pytest.mark.parametrize("flag", ["-mavx", "-mavx512f", "-mbmi2", "-mfma"])
def test_each_later_instruction_set_is_told_from_the_baseline(tmp_path: Path, flag: str) -> None:
    source = "unsigned f(unsigned a, unsigned n) { return a << n; }\n" + ADD.format(name="g")
    for option, found in ((flag, True), ("-msse4.2", False)):
        compile_library(tmp_path, f"lib{option[2:]}.so", source, option)
        assert bool(instructions.disassemble("objdump", tmp_path / f"lib{option[2:]}.so").vex) is found


@pytest.mark.parametrize("tag", ["--enable-new-dtags", "--disable-new-dtags"])
def test_both_kinds_of_search_path_are_read(tmp_path: Path, tag: str) -> None:
    data = compile_library(tmp_path, "liba.so", "", f"-Wl,{tag}", "-Wl,-rpath,$ORIGIN:/opt/x")
    assert elf.read(data).search_paths == ("$ORIGIN", "/opt/x")


def test_a_neighbour_that_no_search_path_leads_to_is_found(tmp_path: Path, core: Libraries) -> None:
    build = tmp_path / "b"
    compile_library(build, "libggml-base.so", ADD.format(name="a"))
    data = compile_library(build, "libggml.so", ADD.format(name="b"), *STRIPPED, "-l:libggml-base.so")
    assert corrupted(tmp_path, core, {f"{LIB}/libggml.so": data}) == {"needed-unreachable"}


def test_a_needed_library_that_nobody_provides_is_found(tmp_path: Path, core: Libraries) -> None:
    absent = small_libraries.compile_absent(tmp_path / "b", "libssl.so.3")
    data = compile_library(tmp_path / "b", "libllama.so", ADD.format(name="a"), *STRIPPED, ORIGIN, absent)
    assert corrupted(tmp_path, core, {f"{LIB}/libllama.so": data}) == {"needed-unknown"}


def test_an_external_library_must_be_required(tmp_path: Path, core: Libraries) -> None:
    absent = small_libraries.compile_absent(tmp_path / "b", "libcudart.so.13")
    data = compile_library(tmp_path / "b", "libllama.so", ADD.format(name="a"), *STRIPPED, ORIGIN, absent)
    members = {f"{LIB}/libllama.so": data}
    assert corrupted(tmp_path, core, members) == set()
    name = f"{wheels.DIST_INFO}/METADATA"
    metadata = wheels.contents(core)[name].replace(b"nvidia-cuda-runtime", b"nvidia-cuda-nvrtc")
    assert corrupted(tmp_path, core, {**members, name: metadata}) == {"requirement-missing"}


def test_symbols_and_build_ids_are_found(tmp_path: Path, core: Libraries) -> None:
    data = compile_library(tmp_path / "b", "libllama.so", ADD.format(name="a"), "-g", ORIGIN, "-Wl,--build-id")
    found = corrupted(tmp_path, core, {f"{LIB}/libllama.so": data, "x.py": wheels.CHECKOUT.encode()})
    assert found >= {"not-stripped", "build-id", "build-path"}


def found_with_tag(tmp_path: Path, libraries: Libraries, platform: str) -> set[str]:
    members = wheels.listed(wheels.contents(libraries, platform))
    wheel = wheels.write(tmp_path, members, wheels.wheel_name(platform))
    return codes(inspect(wheel, tmp_path)) - {UNKNOWN_DEVICE_CODE}


def test_a_symbol_later_than_the_tag_is_found(tmp_path: Path, core: Libraries) -> None:
    source = "void *memcpy(void *, const void *, unsigned long);\n"
    source += "void copy(void *a, void *b, unsigned long n) { memcpy(a, b, n); }\n"  # memcpy is of glibc 2.14
    data = compile_library(tmp_path / "b", "libllama.so", source, *STRIPPED, ORIGIN, "-fno-builtin")
    libraries = {**core, "libllama.so": data}
    assert found_with_tag(tmp_path, libraries, "manylinux_2_17_x86_64") == set()
    assert found_with_tag(tmp_path, libraries, "manylinux_2_12_x86_64") == {"symbol-version"}


def test_a_plain_linux_tag_is_found(tmp_path: Path, core: Libraries) -> None:
    assert found_with_tag(tmp_path, core, "linux_x86_64") == {"tag-not-manylinux"}


def test_further_copies_and_foreign_libraries_are_found(tmp_path: Path, core: Libraries) -> None:
    llama = core["libllama.so"]
    found = corrupted(tmp_path, core, {f"{LIB}/libllama.so.0": llama})
    assert found == {"library-twice", "library-unexpected", "version-link", "soname-mismatch"}
    assert corrupted(tmp_path, core, {"lib/libllama.so": llama}) >= {"library-twice", "library-unexpected"}
    runtime = compile_library(tmp_path / "b", "libcudart-0123abcd.so.13.0.96", ADD.format(name="a"), *STRIPPED)
    along = {"llama_cpp_python.libs/libcudart-0123abcd.so.13.0.96": runtime}
    assert corrupted(tmp_path, core, along) == {"external-bundled", "vendored-unexpected"}


def test_a_library_that_is_none_hides_no_other_fault(tmp_path: Path, core: Libraries) -> None:
    cut = core["libggml.so"][:200]
    found = corrupted(
        tmp_path, core, {f"{LIB}/libggml.so": cut, f"{LIB}/libmtmd.so": b"text", "llama_cpp/llama.h": b""}
    )
    assert found == {"library-unreadable", "library-missing", "needed-unknown", "unwanted-file"}


def test_one_changed_byte_is_found(tmp_path: Path, core: Libraries) -> None:
    members = wheels.listed(wheels.contents(core))
    record = {f"{wheels.DIST_INFO}/RECORD": wheels.record(members)}
    changed = bytearray(core["libllama.so"])
    changed[-1] ^= 1
    found = corrupted(tmp_path, core, {**members, **record, f"{LIB}/libllama.so": bytes(changed)})
    assert found == {"record-mismatch", "sbom-digest"}


def test_nothing_of_a_broken_archive_passes(tmp_path: Path) -> None:
    wheel = wheels.write(tmp_path, wheels.contents({}))
    wheel.path.write_bytes(b"not a zip file")
    report = inspect(wheel, tmp_path)
    assert {"archive-damaged", "record-not-run", "metadata-not-run", "library-missing"} <= codes(report)


def test_a_declaration_without_forbidden_paths_is_no_pass(tmp_path: Path, core: Libraries) -> None:
    declaration = dataclasses.replace(wheels.declaration(), forbidden_paths=())
    wheel = wheels.write(tmp_path, wheels.listed(wheels.contents(core)))
    report = inspection.inspect(wheel, declaration, policy=wheels.policy(), cuobjdump=None, workdir=tmp_path / "work")
    assert codes(report) == {UNKNOWN_DEVICE_CODE, "build-paths-not-run"}
