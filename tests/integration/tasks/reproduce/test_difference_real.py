"""Why two libraries are not the same bytes, as real compilers make them: GCC's, and nvcc's with one thing changed."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from build_config.steps.toolchain import programs
from build_config.tasks.reproduce import difference, second_build
from build_config.tasks.reproduce.difference import Difference, DifferenceKind, elf, explain, extraction
from build_config.tasks.reproduce.difference.result import Tools
from tests.integration.conftest import script
from tests.support import small_libraries, wheels

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import CudaToolkit, Program

pytestmark = pytest.mark.integration

NAME = "libx.so"


@pytest.fixture(name="diffoscope", autouse=True)
def _diffoscope(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only diffoscope that is found: not there until a test writes it."""
    program, which = tmp_path / "diffoscope", shutil.which

    def find(name: str, *how: Any, **more: Any) -> str | None:
        return which(str(program)) if name == "diffoscope" else which(name, *how, **more)

    monkeypatch.setattr(shutil, "which", find)
    return program


def kinds(found: tuple[Difference, ...]) -> set[DifferenceKind]:
    return {each.kind for each in found}


def details(found: tuple[Difference, ...], kind: DifferenceKind) -> str:
    return "\n".join(each.detail for each in found if each.kind is kind)


def compared(tmp_path: Path, first: Path, second: Path, cuobjdump: Program | None = None) -> tuple[Difference, ...]:
    return difference.compare_folders(first, second, cuobjdump=cuobjdump, folder=tmp_path / "work")


# ------------------------------------------------------------------------------------------------------------------ GCC

SOURCE = """
#include <stdio.h>
static const char * where = WHERE;
__attribute__((noinline)) int first(int x) { return x * 3 + 1; }
__attribute__((noinline)) int second(int x) { return BODY; }
void say(void) { puts(where); }
"""


def compile_c(folder: Path, *options: str, where: str = "/home/ada/x.c", body: str = "x + 7") -> Path:
    source = SOURCE.replace("WHERE", f'"{where}"').replace("BODY", body)
    small_libraries.compile_library(folder, NAME, source, *small_libraries.STRIPPED, *options)
    (folder / f"{NAME}.c").unlink()
    return folder


def test_the_same_source_is_the_same_library(tmp_path: Path) -> None:
    assert compared(tmp_path, compile_c(tmp_path / "a"), compile_c(tmp_path / "b")) == ()


CAUSES = [
    ((), {"where": "/home/bob/y/x.c"}, "string", "'/home/ada/x.c', in the other '/home/bob/y/x.c': that is a path in"),
    ((), {"body": "x + 8"}, "function", ", in second"),
    ((), {"body": "x * x * x % 11 + first(x)"}, "function", "of another size: second"),
    (("-O0",), {}, "function", "of another size: say, first, second"),
    (("-Wl,--build-id=0xaabb",), {}, "build-id", "has the build-id none, in the other aabb"),
    (("-lm",), {}, "dependency", "needs (NEEDED) libc.so.6, in the other libm.so.6, libc.so.6"),
    ((small_libraries.ORIGIN,), {}, "dependency", "looks for libraries in (RUNPATH) none, in the other $ORIGIN"),
]


@pytest.mark.parametrize(("options", "changes", "kind", "said"), CAUSES)
def test_what_gcc_makes_is_told_by_its_cause(
    tmp_path: Path, options: tuple[str, ...], changes: dict[str, str], kind: str, said: str
) -> None:
    first, second = compile_c(tmp_path / "a"), compile_c(tmp_path / "b", *options, **changes)
    found = compared(tmp_path, first, second)
    assert said in details(found, DifferenceKind(kind))
    assert any(said in line for line in explain(found))


def test_the_library_in_a_wheel_is_looked_into(tmp_path: Path) -> None:
    written = []
    for name, body in (("a", "x + 7"), ("b", "x + 8")):
        library = (compile_c(tmp_path / name, body=body) / NAME).read_bytes()
        (tmp_path / "wheels" / name).mkdir(parents=True)
        written.append(wheels.write(tmp_path / "wheels" / name, wheels.contents({NAME: library})).path)
    found = difference.compare_wheels(*written, cuobjdump=None, folder=tmp_path / "work")
    assert {(each.member, each.kind) for each in found if each.kind is not DifferenceKind.TIME} == {
        (f"llama_cpp/lib/{NAME}", DifferenceKind.FUNCTION),
        (f"{wheels.DIST_INFO}/RECORD", DifferenceKind.CONSEQUENCE),
    }


# ----------------------------------------------------------------------------------------------------------------- nvcc

# Without a name that other files can see nvcc has nothing but the seed to make its names unique with.
LOCAL = """
namespace {
struct tag {};
__device__ float table[4] = {1, 2, 3, 4};
template <class T> __global__ void scale(float * x, float s) { x[threadIdx.x] *= s * table[threadIdx.x & 3]; }
template __global__ void scale<tag>(float *, float);
}
"""
# Takes many registers, unless it must not.
HEAVY = """
template <int N> __global__ void mix(float * x, int n) {
    float a[N];
    for (int i = 0; i < N; i++) a[i] = x[i * 32 + threadIdx.x];
    for (int k = 0; k < n; k++) for (int i = 0; i < N; i++) a[i] = a[i] * a[(i + 7) % N] + FACTOR;
    for (int i = 0; i < N; i++) x[i * 32 + threadIdx.x] = a[i];
}
__global__ void plain(float * x) { x[threadIdx.x] += 1.0f; }
void launch(float * x) { mix<48><<<1, 32>>>(x, 3); plain<<<1, 32>>>(x); }
"""

# A name has the number of a process in it, and another name is compressed to another size: what follows moves then,
# and the code that registers the kernels asks for other addresses.
MOVED = frozenset({DifferenceKind.CONSEQUENCE, DifferenceKind.FUNCTION})

SMALL = "__global__ void NAME(float * x) { x[0] += FACTOR; }\nvoid do_NAME(float * x) { NAME<<<1, 1>>>(x); }\n"


def device_code_of(folder: Path) -> tuple[extraction.Code, ...]:
    return extraction.read(elf.read((folder / NAME).read_bytes()).parts[".nv_fatbin"].content)


@pytest.fixture(name="cuobjdump", scope="session")
def _cuobjdump(toolkit: CudaToolkit) -> Program:
    found = programs.find_cuobjdump(toolkit.root)
    assert found is not None
    return found


class Nvcc:
    """Compiles ``source`` as ``work/k.cu`` into a folder of its own."""

    def __init__(self, toolkit: CudaToolkit, tmp_path: Path) -> None:
        self.program = str(toolkit.nvcc.path)
        self.root = tmp_path

    def __call__(self, name: str, source: str, *options: str, work: str = "work", inside: tuple[str, ...] = ()) -> Path:
        (self.root / work).mkdir(exist_ok=True)
        (self.root / name).mkdir()
        text = self.root / work / "k.cu"
        if not text.exists():
            text.write_text(source, encoding="utf-8")
        code = "-gencode=arch=compute_89,code=[sm_89,compute_89]"
        link = ("-Xlinker=-s", "-Xlinker=--build-id=none")
        how = ("-shared", "-Xcompiler=-fPIC", "-cudart=none", "-diag-suppress=177", code, *link)
        command = [*inside, self.program, *how, "k.cu", "-o", str(self.root / name / NAME), *options]
        subprocess.run(command, cwd=text.parent, check=True)
        return self.root / name


@pytest.fixture(name="nvcc")
def _nvcc(toolkit: CudaToolkit, tmp_path: Path) -> Nvcc:
    return Nvcc(toolkit, tmp_path)


def test_without_a_seed_the_hash_is_named_and_with_one_there_is_no_difference(
    nvcc: Nvcc, cuobjdump: Program, tmp_path: Path
) -> None:
    found = compared(tmp_path, nvcc("a", LOCAL), nvcc("b", LOCAL), cuobjdump)
    assert kinds(found) - MOVED == {DifferenceKind.RANDOM_SEED}
    said = details(found, DifferenceKind.RANDOM_SEED)
    assert "names that are local to k.cu end in" in said
    assert "no --frandom-seed for that file" in said
    assert (
        "fat binary 1, cubin for sm_89 (of k.cu with (anonymous namespace)::scale<(anonymous namespace)::tag>)" in said
    )
    assert "fat binary 1, PTX for compute_89" in said

    seeded = (nvcc("c", LOCAL, "--frandom-seed=k.cu"), nvcc("d", LOCAL, "--frandom-seed=k.cu"))
    assert compared(tmp_path, *seeded, cuobjdump) == ()
    other = compared(tmp_path, seeded[0], nvcc("e", LOCAL, "--frandom-seed=other"), cuobjdump)
    assert kinds(other) - MOVED == {DifferenceKind.RANDOM_SEED}
    assert "another --frandom-seed" in details(other, DifferenceKind.RANDOM_SEED)


def test_without_a_seed_the_hash_is_named_though_everything_has_moved(
    nvcc: Nvcc, cuobjdump: Program, tmp_path: Path
) -> None:
    # A process has one or two digits in there and more out here, in so many names that no alignment makes up for it.
    many = "".join(
        f"namespace {{ struct t{n} {{}}; template __global__ void scale<t{n}>(float *, float); }}\n" for n in range(16)
    )
    *unshare, end = second_build.namespaces()
    first = nvcc("a", LOCAL + many)
    found = compared(tmp_path, first, nvcc("b", "", inside=(*unshare, "--pid", "--fork", end)), cuobjdump)
    assert kinds(found) == {DifferenceKind.RANDOM_SEED, *MOVED}
    assert explain(found)[0].endswith(
        "made of the time of the file and the process of nvcc: no --frandom-seed for that file"
    )


def test_another_source_path_is_named(nvcc: Nvcc, cuobjdump: Program, tmp_path: Path) -> None:
    seed = "--frandom-seed=k.cu"
    first, second = nvcc("a", LOCAL, seed), nvcc("b", LOCAL, seed, work="elsewhere")
    found = compared(tmp_path, first, second, cuobjdump)
    assert kinds(found) - MOVED == {DifferenceKind.SOURCE_PATH}
    assert "nvcc hashed another source path; build at the canonical path" in explain(found)[0]
    # The host's own table of names says so too if nothing can unpack the device code.
    without = compared(tmp_path, first, second)
    assert ".rodata: names that are local to k.cu have the hash" in details(without, DifferenceKind.SOURCE_PATH)


CHANGES = [
    ("0.5f", "-maxrregcount=32", "options", "PTX for compute_89 was made with the options none, in the other -maxrreg"),
    ("0.5f", "-Xptxas=-O1", "options", "ptxas with '-arch sm_89 -m 64', in the other with '-O 1 -arch sm_89 -m 64'"),
    ("0.25f", "-m64", "kernel", "0f3E800000"),  # as PTX writes it
]


@pytest.mark.parametrize(("factor", "option", "kind", "said"), CHANGES)
def test_the_changed_kernel_is_named_with_its_cause(
    nvcc: Nvcc, cuobjdump: Program, tmp_path: Path, factor: str, option: str, kind: str, said: str
) -> None:
    first = nvcc("a", HEAVY.replace("FACTOR", "0.5f"))
    second = nvcc("b", HEAVY.replace("FACTOR", factor), option, work="elsewhere")
    found = compared(tmp_path, first, second, cuobjdump)
    assert said in details(found, DifferenceKind(kind))
    kernel = details(found, DifferenceKind.KERNEL)
    assert "cubin for sm_89 (with mix<48> and 1 more): the code of mix<48> (" in kernel
    assert "the code of plain" not in kernel


def test_object_files_in_another_order_are_told_as_that(nvcc: Nvcc, cuobjdump: Program, tmp_path: Path) -> None:
    for name in ("more", "less"):
        (tmp_path / f"{name}.cu").write_text(SMALL.replace("NAME", name).replace("FACTOR", "2"), encoding="utf-8")
    first = nvcc("a", LOCAL, "--frandom-seed=1", "../more.cu", "../less.cu")
    second = nvcc("b", LOCAL, "--frandom-seed=1", "../less.cu", "../more.cu")
    found = compared(tmp_path, first, second, cuobjdump)
    assert "the linker was given the object files in another order" in details(found, DifferenceKind.ORDER)
    assert DifferenceKind.KERNEL not in kinds(found)


def test_a_damaged_piece_hides_none_after_it(nvcc: Nvcc, cuobjdump: Program, tmp_path: Path) -> None:
    folders = []
    for name, factor in (("a", "2"), ("b", "3")):
        (tmp_path / "more.cu").write_text(SMALL.replace("NAME", "more").replace("FACTOR", factor), encoding="utf-8")
        folders.append(nvcc(name, HEAVY.replace("FACTOR", "0.5f"), "--compress-mode=size", "../more.cu"))
    codes = device_code_of(folders[1])
    assert [(code.suffix, bool(code.unpacked_size)) for code in codes] == [("cubin", True), ("ptx", True)] * 2
    library = folders[1] / NAME
    data = bytearray(library.read_bytes())
    data[data.index(codes[0].stored)] ^= 0xFF  # what says that it is compressed
    library.write_bytes(data)
    said = details(compared(tmp_path, folders[0], folders[1], cuobjdump), DifferenceKind.KERNEL)
    assert "fat binary 1, cubin for sm_89 (with mix<48> and 1 more) (" in said
    assert "differs from byte 0 on; cuobjdump cannot unpack the other: it is damaged" in said
    assert "fat binary 2, cubin for sm_89 (with more): the code of more (" in said
    assert "fat binary 1, PTX" not in said
    assert "fat binary 2, PTX" in said


@pytest.mark.parametrize("compression", ["size", "none"])
def test_what_is_unpacked_is_what_was_compiled(
    nvcc: Nvcc, cuobjdump: Program, tmp_path: Path, compression: str
) -> None:
    """Compared with nvcc's own intermediate files."""
    folder = nvcc("a", LOCAL, "--frandom-seed=1", "--keep", f"--compress-mode={compression}")
    codes = device_code_of(folder)
    tools = Tools(cuobjdump=cuobjdump, demangler=None, folder=tmp_path / "unpacked")
    cubin, ptx = (extraction.unpack(code, tools) for code in codes)
    assert all(bool(code.unpacked_size) == (compression == "size") for code in codes)
    (kept,) = (tmp_path / "work").glob("*.cubin")
    assert cubin == kept.read_bytes()
    assert ptx is not None
    assert b".entry _ZN" in ptx
    assert not [*(tmp_path / "unpacked").glob("*")]


# ----------------------------------------------------------------------------------------------------------- diffoscope


def test_the_report_of_diffoscope_is_kept_and_named(tmp_path: Path, diffoscope: Path) -> None:
    # Called like the real one: status 1 for a difference.
    script(diffoscope, 'test "$1" = --text && echo "$3 is not $4" > "$2"; exit 1')
    first, second = compile_c(tmp_path / "a"), compile_c(tmp_path / "b", body="x + 8")
    found = compared(tmp_path, first, second)
    assert kinds(found) == {DifferenceKind.FUNCTION, DifferenceKind.DIFFOSCOPE}
    report = tmp_path / "work" / difference.DIFFOSCOPE_REPORT
    assert report.read_text(encoding="utf-8") == f"{first} is not {second}\n"
    assert explain(found)[-1] == f"the report of diffoscope is in {report}"
    assert compared(tmp_path, first, first) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no module named libarchive; exit 2", "it ended with status 2: no module named libarchive"),
        ("sleep 60", "did not end within"),
    ],
)
def test_a_diffoscope_that_fails_or_hangs_is_no_failure_of_ours(
    tmp_path: Path, diffoscope: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(difference, "DIFFOSCOPE_SECONDS", 0.5)
    script(diffoscope, text)
    start = time.monotonic()
    found = compared(tmp_path, compile_c(tmp_path / "a"), compile_c(tmp_path / "b", body="x + 8"))
    assert found[-1].kind is DifferenceKind.DIFFOSCOPE
    assert found[-1].detail.startswith("diffoscope wrote no report: ")
    assert said in found[-1].detail
    assert time.monotonic() - start < 30
