"""Spoilt inputs of the compilers: a flag, a byte of a source, a seed, an object in the cache."""

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
from measurements.spoilt.bench import Bench, changed_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.system.layout import Layout

KERNELS = Path("ggml/src/ggml-cuda")
FLAG = ("softcap.cu", "softcap_f32", "-Xptxas=-O1")
"""The file that gets another flag, its kernel, the flag."""
BYTE = ("upscale.cu", "upscale_f32_bicubic", "a = -0.75f;", "a = -0.76f;")
"""The file with one byte changed, the kernel that this constant is for, the text before and after."""
LOCAL = "local.cu"
"""A file that is added to the sources: it defines nothing for others. llama.cpp has no such file with local names."""
LOCAL_SOURCE = """
namespace {
struct tag {};
template <class T> __global__ void scale(float * x) { x[threadIdx.x] *= 2.0f; }
template __global__ void scale<tag>(float *);
}
"""


def honest_build(bench: Bench, started: float) -> None:
    """From the copied object cache, in an empty build tree, with the toolkit unpacked anew."""
    bench.expect_equal("the honest build, everything from the object cache", bench.first, started)


def one_flag(bench: Bench) -> None:
    """One more option for one file."""
    source, kernel, flag = FLAG
    line = f'set_property(SOURCE "${{LCW_LLAMA_CPP}}/{KERNELS / source}" TARGET_DIRECTORY ggml-cuda APPEND PROPERTY '
    with edited_project(bench, "one flag changed", f'{line}COMPILE_OPTIONS "{flag}")\n') as started:
        bench.expect_different("one flag changed", bench.differences(bench.build()), started, (kernel, "'-O 1"))


def no_seed(bench: Bench) -> None:
    """``--frandom-seed`` left out: of files that define something for others, and of one that does not."""
    local = files_with_local_names(bench)
    with edited_project(bench, f"no seed for {', '.join(local)}", without_seed(*local)) as started:
        bench.expect_equal(f"no seed for {len(local)} files that define names for others", bench.build(), started)

    added = bench.layout.vendor / "llama.cpp" / KERNELS / LOCAL
    added.write_text(LOCAL_SOURCE, encoding="utf-8")
    stage = bench.stage
    bench.expect_refused(f"{LOCAL} added: the pipeline", stage, ("vendor/llama.cpp is not as it was unpacked",))
    seeded = bench.given / "seeded"
    shutil.copytree(bench.build().folder, seeded)
    with edited_project(bench, f"no seed for {LOCAL}", without_seed(LOCAL), put_back=seeded) as started:
        found = bench.differences(bench.build(), seeded)
        named = (LOCAL, "no --frandom-seed for that file")
        bench.expect_different("no seed for one file that defines nothing for others", found, started, named)
    added.unlink()
    stage()
    started = time.monotonic()
    bench.expect_equal(f"{LOCAL} taken away", bench.build(), started)


def without_seed(*files: str) -> str:
    """A line for our CMake project."""
    paths = " ".join(f'"${{LCW_LLAMA_CPP}}/{KERNELS / file}"' for file in files)
    return f"set_property(SOURCE {paths} TARGET_DIRECTORY ggml-cuda PROPERTY COMPILE_OPTIONS)\n"


def files_with_local_names(bench: Bench) -> tuple[str, ...]:
    """The source files whose device code has names of internal linkage, which nvcc makes unique by a hash."""
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
    """Our CMake project with a line more, staged: that is another key, so the unit is built against the old one.

    Afterwards the line is taken away, and the unit is again what it was: the stored one, or that in ``put_back``.
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
    bench.expect_equal(f"{what}: put back", bench.build(), started, put_back)


def one_byte_and_a_poisoned_object(bench: Bench) -> None:
    """A byte of a source file changed; then what was cached of that, under the names of the honest objects."""
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
    with cache_of_its_own(bench.layout) as spoilt:
        found = bench.differences(bench.build())
    bench.expect_different("one byte of the sources changed", found, started, (source, kernel))

    file.write_text(text, encoding="utf-8")
    bench.stage()
    started = time.monotonic()
    with cache_of_its_own(bench.layout) as honest:
        unit = bench.build()
    bench.expect_equal("the byte put back", unit, started)

    replaced = poison(bench.layout, honest, spoilt)
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
    """An empty object cache for the length of the block; what was put into it, by name, afterwards."""
    warm = layout.object_cache.rename(layout.work_root / "cache of all")
    entries: dict[str, Path] = {}
    try:
        yield entries
    finally:
        kept = layout.object_cache.rename(layout.work_root / f"cache {time.monotonic_ns()}")
        entries |= {path.relative_to(kept).as_posix(): path for path in kept.rglob("*") if path.is_file()}
        warm.rename(layout.object_cache)


def poison(layout: Layout, honest: dict[str, Path], spoilt: dict[str, Path]) -> tuple[str, ...]:
    """Put what the spoilt source gave under the honest names, kind by kind; returns those names."""
    names, others = (
        sorted(ours.keys() - theirs.keys(), key=lambda name: (kind(ours[name]), ours[name].stat().st_size))
        for ours, theirs in ((honest, spoilt), (spoilt, honest))
    )
    for name, other in zip(names, others, strict=True):
        if kind(honest[name]) != kind(spoilt[other]) or not (layout.object_cache / name).is_file():
            raise SystemExit(f"{name} of the cache is not what {other} could stand for")
        shutil.copyfile(spoilt[other], layout.object_cache / name)
    return tuple(names)


def kind(entry: Path) -> tuple[str, ...]:
    """What an entry of sccache's holds: an archive of the files that a compiler's step wrote."""
    with zipfile.ZipFile(entry) as archive:
        return tuple(sorted(archive.namelist()))
