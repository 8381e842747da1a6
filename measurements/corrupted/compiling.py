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
from measurements.corrupted.bench import Bench, edited

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.system.layout import Layout

KERNELS = Path("ggml/src/ggml-cuda")
FLAG = ("softcap.cu", "softcap_f32", "-Xptxas=-O1")
"""The file with another flag, its kernel, the flag."""
BYTE = ("upscale.cu", "upscale_f32_bicubic", "a = -0.75f;", "a = -0.76f;")
"""The file with a changed byte, the kernel that uses this constant, the text before and after."""
NOT_AS_UNPACKED = ("vendor/llama.cpp is not as it was unpacked",)
"""The expected report about changed sources."""
LOCAL = "local.cu"
"""A file added to the sources, without external names. llama.cpp has no such file with local names."""
LOCAL_SOURCE = """
namespace {
struct tag {};
template <class T> __global__ void scale(float * x) { x[threadIdx.x] *= 2.0f; }
template __global__ void scale<tag>(float *);
}
"""


def one_flag(bench: Bench) -> None:
    """Add an option for one file."""
    source, kernel, flag = FLAG
    line = f'set_property(SOURCE "${{LCW_LLAMA_CPP}}/{KERNELS / source}" TARGET_DIRECTORY ggml-cuda APPEND PROPERTY '
    with edited_project(bench, "one flag changed", f'{line}COMPILE_OPTIONS "{flag}")\n'):
        bench.expect_different("one flag changed", (kernel, "'-O 1"), bench.differences)


def no_seed(bench: Bench) -> None:
    """Leave out ``--frandom-seed``: for files with external names, and for one without."""
    local = files_with_local_names(bench)
    with edited_project(bench, f"no seed for {', '.join(local)}", without_seed(*local)):
        bench.expect_equal(f"no seed for {len(local)} files with external names", bench.build)

    added = bench.layout.vendor / "llama.cpp" / KERNELS / LOCAL
    added.write_text(LOCAL_SOURCE, encoding="utf-8")
    bench.expect_refused(f"{LOCAL} added: the pipeline", NOT_AS_UNPACKED, bench.stage)
    seeded = bench.given / "seeded"
    shutil.copytree(bench.build().folder, seeded)
    with edited_project(bench, f"no seed for {LOCAL}", without_seed(LOCAL), put_back=seeded):
        bench.expect_different(
            "no seed for one file without external names",
            (LOCAL, "no --frandom-seed for that file"),
            lambda: bench.differences(seeded),
        )
    added.unlink()
    bench.stage()
    bench.expect_equal(f"{LOCAL} removed", bench.build)


def without_seed(*files: str) -> str:
    """A line for our CMake project that removes the options of these files."""
    paths = " ".join(f'"${{LCW_LLAMA_CPP}}/{KERNELS / file}"' for file in files)
    return f"set_property(SOURCE {paths} TARGET_DIRECTORY ggml-cuda PROPERTY COMPILE_OPTIONS)\n"


def files_with_local_names(bench: Bench) -> tuple[str, ...]:
    """The source files whose device code has names with internal linkage, which nvcc makes unique with a hash."""
    (library,) = bench.reference.iterdir()
    tools = Tools(cuobjdump=bench.chain.cuobjdump, demangler=None, folder=bench.layout.work_root / "differences")
    device_code = elf.read(library.read_bytes()).parts[".nv_fatbin"].content
    cubins = filter(None, (extraction.unpack(code, tools) for code in extraction.read(device_code)))
    names = (symbol.name for cubin in cubins for symbol in elf.read(cubin).symbols)
    modules = {module.source for module in hashes.module_ids(names)}
    files = (bench.tree.llama_cpp / KERNELS).glob("*.cu")
    return tuple(sorted(file.name for file in files if file.name.replace("-", "_") in modules))


@contextlib.contextmanager
def edited_project(bench: Bench, what: str, addition: str, *, put_back: Path | None = None) -> Iterator[None]:
    """Stage our CMake project with another line; that changes the unit's key.

    Afterwards remove the line and expect the earlier unit: the stored one, or the one in ``put_back``.
    """
    file = bench.layout.wheel_project / "cmake" / "cuda.cmake"
    text = file.read_text(encoding="utf-8")
    with edited(file, text, text + addition):
        bench.expect_another_key(
            what, ("wheel project",), lambda: bench.spec_for(inputs.stage_wheel_project(bench.layout)[0])
        )
        yield
    inputs.stage_wheel_project(bench.layout)
    bench.expect_equal(f"{what}: restored", bench.build, put_back)


def one_byte_and_a_poisoned_object(bench: Bench) -> None:
    """Change a byte of a source file; then put its cached objects under the names of the unmodified ones."""
    source, kernel, before, after = BYTE
    # The pipeline stages changed sources nevertheless.
    with edited(bench.layout.vendor / "llama.cpp" / KERNELS / source, before, after):
        bench.expect_refused("one byte of the sources changed: the pipeline", NOT_AS_UNPACKED, bench.stage)
        with cache_of_its_own(bench.layout) as corrupted:
            bench.expect_different("one byte of the sources changed", (source, kernel), bench.differences)

    bench.stage()
    with cache_of_its_own(bench.layout) as unmodified:
        bench.expect_equal("the byte restored", bench.build)

    replaced = poison(bench.layout, unmodified, corrupted)
    bench.console.note(f"poisoned: {', '.join(sorted(replaced))}")
    shutil.rmtree(bench.layout.build)
    bench.expect_different("a poisoned object in the cache", (source, kernel), bench.differences)

    for name in replaced:
        (bench.layout.object_cache / name).unlink()
    for compiled in bench.layout.build.rglob(f"{source}.o"):
        compiled.unlink()
    bench.expect_equal("the cache without that object", bench.build)


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
