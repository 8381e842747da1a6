"""Corrupted inputs of the compilers: a flag, a byte of a source, a seed, an object in the cache."""

from __future__ import annotations

import contextlib
import shutil
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import inputs
from build_config.tasks.reproduce.difference import elf, extraction, hashes
from build_config.tasks.reproduce.difference.result import Tools
from measurements.corrupted.bench import Bench, changed_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.system.layout import Layout

KERNELS = Path("ggml/src/ggml-cuda")
FLAG = ("softcap.cu", "softcap_f32", "-Xptxas=-O1")
"""The file with another flag, its kernel, the flag."""
BYTE = ("upscale.cu", "upscale_f32_bicubic", "a = -0.75f;", "a = -0.76f;")
"""The file with a changed byte, the kernel that uses this constant, the text before and after."""
LOCAL = "local.cu"
"""A file added to the sources, without external names. llama.cpp has no such file with local names."""
LOCAL_SOURCE = """
namespace {
struct tag {};
template <class T> __global__ void scale(float * x) { x[threadIdx.x] *= 2.0f; }
template __global__ void scale<tag>(float *);
}
"""


def unmodified_build(bench: Bench, started: float) -> None:
    """Build from the copied object cache, in an empty build tree, with the toolkit unpacked again."""
    bench.expect_equal("the unmodified build, everything from the object cache", bench.first, started)


def one_flag(bench: Bench) -> None:
    """Add an option for one file."""
    source, kernel, flag = FLAG
    line = f'set_property(SOURCE "${{LCW_LLAMA_CPP}}/{KERNELS / source}" TARGET_DIRECTORY ggml-cuda APPEND PROPERTY '
    with edited_project(bench, "one flag changed", f'{line}COMPILE_OPTIONS "{flag}")\n') as started:
        bench.expect_different("one flag changed", bench.differences(bench.build()), started, (kernel, "'-O 1"))


def no_seed(bench: Bench) -> None:
    """Leave out ``--frandom-seed``: for files with external names, and for one without."""
    local = files_with_local_names(bench)
    with edited_project(bench, f"no seed for {', '.join(local)}", without_seed(*local)) as started:
        bench.expect_equal(f"no seed for {len(local)} files with external names", bench.build(), started)

    added = bench.layout.vendor / "llama.cpp" / KERNELS / LOCAL
    added.write_text(LOCAL_SOURCE, encoding="utf-8")
    stage = bench.stage
    bench.expect_refused(f"{LOCAL} added: the pipeline", stage, ("vendor/llama.cpp is not as it was unpacked",))
    seeded = bench.given / "seeded"
    shutil.copytree(bench.build().folder, seeded)
    with edited_project(bench, f"no seed for {LOCAL}", without_seed(LOCAL), put_back=seeded) as started:
        found = bench.differences(bench.build(), seeded)
        named = (LOCAL, "no --frandom-seed for that file")
        bench.expect_different("no seed for one file without external names", found, started, named)
    added.unlink()
    stage()
    started = time.monotonic()
    bench.expect_equal(f"{LOCAL} removed", bench.build(), started)


def without_seed(*files: str) -> str:
    """A line for our CMake project that removes the options of these files."""
    paths = " ".join(f'"${{LCW_LLAMA_CPP}}/{KERNELS / file}"' for file in files)
    return f"set_property(SOURCE {paths} TARGET_DIRECTORY ggml-cuda PROPERTY COMPILE_OPTIONS)\n"


def files_with_local_names(bench: Bench) -> tuple[str, ...]:
    """The source files whose device code has names with internal linkage, which nvcc makes unique with a hash."""
    (library,) = bench.reference.iterdir()
    tools = Tools(cuobjdump=bench.chain.cuobjdump, demangler=None, folder=bench.layout.work_root / "differences")
    cubins = (extraction.unpack(code, tools) for code in extraction.read(section(library.read_bytes())))
    modules = {module.source for cubin in cubins if cubin for module in hashes.module_ids(names_in(cubin))}
    files = (bench.tree.llama_cpp / KERNELS).glob("*.cu")
    return tuple(sorted(file.name for file in files if file.name.replace("-", "_") in modules))


def section(library: bytes) -> bytes:
    """The device code of a library."""
    return elf.read(library).parts[".nv_fatbin"].content


def names_in(cubin: bytes) -> Iterator[str]:
    """The names of everything that a cubin defines."""
    return (symbol.name for symbol in elf.read(cubin).symbols)


@contextlib.contextmanager
def edited_project(bench: Bench, what: str, addition: str, *, put_back: Path | None = None) -> Iterator[float]:
    """Stage our CMake project with another line; that changes the unit's key.

    Afterwards remove the line and expect the earlier unit: the stored one, or the one in ``put_back``.
    """
    file = bench.layout.wheel_project / "cmake" / "cuda.cmake"
    text = file.read_text(encoding="utf-8")
    started = time.monotonic()
    file.write_text(text + addition, encoding="utf-8")
    other = bench.spec_for(inputs.stage_wheel_project(bench.layout)[0])
    changed = changed_inputs(bench, other)
    bench.show(f"{what}: the unit's key", changed, started, named=("wheel project",), caught=bool(changed))
    yield time.monotonic()
    file.write_text(text, encoding="utf-8")
    inputs.stage_wheel_project(bench.layout)
    started = time.monotonic()
    bench.expect_equal(f"{what}: restored", bench.build(), started, put_back)


def one_byte_and_a_poisoned_object(bench: Bench) -> None:
    """Change a byte of a source file; then put its cached objects under the names of the unmodified ones."""
    source, kernel, before, after = BYTE
    file = bench.layout.vendor / "llama.cpp" / KERNELS / source
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(before, after), encoding="utf-8")
    bench.expect_refused(  # it stages them nevertheless
        "one byte of the sources changed: the pipeline",
        bench.stage,
        ("vendor/llama.cpp is not as it was unpacked",),
    )
    started = time.monotonic()
    with cache_of_its_own(bench.layout) as corrupted:
        found = bench.differences(bench.build())
    bench.expect_different("one byte of the sources changed", found, started, (source, kernel))

    file.write_text(text, encoding="utf-8")
    bench.stage()
    started = time.monotonic()
    with cache_of_its_own(bench.layout) as unmodified:
        unit = bench.build()
    bench.expect_equal("the byte restored", unit, started)

    replaced = poison(bench.layout, unmodified, corrupted)
    bench.console.note(f"poisoned: {', '.join(sorted(replaced))}")
    shutil.rmtree(bench.layout.build)
    started = time.monotonic()
    found = bench.differences(bench.build())
    bench.expect_different("a poisoned object in the cache", found, started, (source, kernel))

    for name in replaced:
        (bench.layout.object_cache / name).unlink()
    for compiled in bench.layout.build.rglob(f"{source}.o"):
        compiled.unlink()
    started = time.monotonic()
    bench.expect_equal("the cache without that object", bench.build(), started)


@contextlib.contextmanager
def cache_of_its_own(layout: Layout) -> Iterator[dict[str, Path]]:
    """Use an empty object cache in the block; afterwards the mapping contains its entries by name."""
    warm = layout.object_cache.rename(layout.work_root / "cache of all")
    entries: dict[str, Path] = {}
    try:
        yield entries
    finally:
        kept = layout.object_cache.rename(layout.work_root / f"cache {time.monotonic_ns()}")
        entries |= {path.relative_to(kept).as_posix(): path for path in kept.rglob("*") if path.is_file()}
        warm.rename(layout.object_cache)


def poison(layout: Layout, unmodified: dict[str, Path], corrupted: dict[str, Path]) -> tuple[str, ...]:
    """Put the objects of the corrupted source under the unmodified names, kind by kind; returns those names."""
    names, others = (
        sorted(ours.keys() - theirs.keys(), key=lambda name: (kind(ours[name]), ours[name].stat().st_size))
        for ours, theirs in ((unmodified, corrupted), (corrupted, unmodified))
    )
    for name, other in zip(names, others, strict=True):
        if kind(unmodified[name]) != kind(corrupted[other]) or not (layout.object_cache / name).is_file():
            raise SystemExit(f"{name} in the cache cannot be replaced by {other}")
        shutil.copyfile(corrupted[other], layout.object_cache / name)
    return tuple(names)


def kind(entry: Path) -> tuple[str, ...]:
    """The names of the files in an entry of sccache, an archive of the outputs of one compiler call."""
    with zipfile.ZipFile(entry) as archive:
        return tuple(sorted(archive.namelist()))
