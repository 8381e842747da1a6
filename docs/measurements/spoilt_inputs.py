"""Spoils the inputs of a real build, one at a time, and shows that each is caught and named.

    python -m docs.measurements.spoilt_inputs [--arch 89] [--output spoilt-inputs.json]

As root, or where users may have namespaces; after ``nox -s build_cuda_wheel -- --arch 89``. Everything takes place in a
second world (``build_config.reproduction``) with a work root of its own at the canonical path: a copy of the checkout,
of the downloads, of the object cache and of the finished units, so that the store of this machine is out of reach. What
was said of each spoilt input is printed and written to ``--output``, with a log beside it. The status is 0 when all of
them were caught and named, and the honest build was the stored unit bit for bit before, in between and afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import getpass
import os
import shutil
import struct
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from pypi_simple import PyPISimple

from build_config import (
    compilation,
    difference,
    fetch,
    jsonio,
    lock,
    machine,
    pipeline,
    provision,
    reproduce,
    reproduction,
    settings,
    trials,
    units,
    workroot,
)
from build_config.console import Console
from build_config.difference import elf, extraction, hashes
from build_config.difference.result import Tools
from build_config.errors import PipelineError
from build_config.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout
from build_config.model import LockedFile
from build_config.reports import BuildRecord
from build_config.reproduce import ReproduceRequest
from build_config.toolchain import cuda_pypi
from tests import local_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from build_config.difference import Difference
    from build_config.model import BuildUnit
    from build_config.units import UnitSpec

MODULE = "docs.measurements.spoilt_inputs"
CUDA = "13.0"
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
WHEEL = "nvidia-cuda-crt"
"""A small wheel of the toolkit, with headers that every CUDA file includes."""
STAMPED = "llama_cpp/llama.py"
STAMP = (2026, 11, 25, 12, 0, 0)
NO_INDEX = "http://127.0.0.1:9/simple/"
CENTRAL_ENTRY = struct.calcsize("<4s4B4HL2L5H2L")
TIME_IN_LOCAL_HEADER, TIME_IN_CENTRAL_ENTRY = 10, 12


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What came of one input. ``named`` is what had to be said of it, ``said`` what was."""

    what: str
    caught: bool
    named: tuple[str, ...]
    said: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """It was caught, and everything that it had to be called by was said."""
        return self.caught and all(any(name in line for line in self.said) for name in self.named)


class Bench:
    """The second world from inside: one unit, built again and again, and held against the stored one."""

    def __init__(self, arch: str, given: Path, layout: Layout, console: Console) -> None:
        self.layout, self.console, self.results = layout, console, []  # type: tuple[Layout, Console, list[Shown]]
        self.given, self.request = given, pipeline.BuildRequest(arch=arch, cuda=CUDA, launcher="sccache")
        self.name = f"sm{arch}"
        compiled = pipeline.compile_units(self.request, machine.describe(), layout, console, only=(self.name,))
        self.tree, self.chain = compiled.tree, compiled.toolchain
        (self.first,) = compiled.units
        (self.shard,) = compiled.selection.shards
        self.spec = self.spec_for(pipeline.stage_wheel_project(layout)[0])
        recorded = jsonio.read(published(self).with_name(f"{published(self).name}.record.json"), BuildRecord)
        folders = (given / "store" / self.name / key.digest[:32] / "lib" for key in recorded.units)
        self.reference = next(folder for folder in folders if folder.is_dir())

    def spec_for(self, project_digest: str) -> UnitSpec:
        """The unit with that digest of our CMake project."""
        config = settings.read(self.layout.data / "variants.toml")
        return units.shard_spec(config, self.tree, self.layout, self.chain, project_digest, self.shard)

    def build(self) -> BuildUnit:
        """The unit from what is staged now, whatever its key says; the one built before is gone."""
        shutil.rmtree(self.layout.store, ignore_errors=True)
        (unit,) = compilation.build_units(
            (self.spec,), self.chain, self.layout, self.console, jobs=pipeline.default_jobs()
        )
        self.console.note(f"{unit.compiled} steps, {unit.cache.hits} cache hits, {unit.cache.misses} misses")
        return unit

    def differences(self, unit: BuildUnit, reference: Path | None = None) -> tuple[Difference, ...]:
        """What tells a unit from the stored one, or from that in ``reference``."""
        return difference.compare_folders(
            reference or self.reference,
            unit.folder,
            cuobjdump=self.chain.cuobjdump,
            folder=self.layout.work_root / "differences",
        )

    def expect_equal(self, what: str, unit: BuildUnit, started: float, reference: Path | None = None) -> None:
        """The unit is the stored one, or that in ``reference``, bit for bit."""
        said = difference.explain(self.differences(unit, reference)) or tuple(
            f"equal: {file.sha256}" for file in unit.files
        )
        self.show(what, said, started, named=("equal: ",), caught=True)

    def expect_different(
        self, what: str, found: tuple[Difference, ...], started: float, named: tuple[str, ...]
    ) -> None:
        """Something differs, and the explanation names it."""
        self.show(what, difference.explain(found), started, named=named, caught=bool(found))

    def expect_refused(self, what: str, step: Callable[[], object], named: tuple[str, ...]) -> None:
        """A step of the pipeline refuses what it was given."""
        started = time.monotonic()
        said = ("nobody objected",)
        caught = False
        try:
            step()
        except PipelineError as error:
            said, caught = (f"{type(error).__name__}: {error.message}",), True
        self.show(what, said, started, named=named, caught=caught)

    def show(self, what: str, said: tuple[str, ...], started: float, *, named: tuple[str, ...], caught: bool) -> None:
        """Print a result and keep it."""
        shown = Shown(what=what, caught=caught, named=named, said=said, seconds=round(time.monotonic() - started, 1))
        self.results.append(shown)
        self.console.note(f"{'as it should be' if shown.passed else 'NOT AS IT SHOULD BE'}: {what}")
        for line in said:
            self.console.note(f"  {line}")


# ------------------------------------------------------------------------------------------------------ what is built


def honest_build(bench: Bench, started: float) -> None:
    """From the copied object cache, in an empty build tree, with the toolkit unpacked anew."""
    bench.console.note(
        f"{bench.first.compiled} steps, {bench.first.cache.hits} cache hits, {bench.first.cache.misses} misses"
    )
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
    stage = functools.partial(provision.provide_sources, None, bench.layout, bench.console)
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
    other = bench.spec_for(pipeline.stage_wheel_project(bench.layout)[0])
    inputs = changed_inputs(bench, other)
    bench.show(f"{what}: the unit's key", inputs, started, named=("wheel project",), caught=bool(inputs))
    yield time.monotonic()
    file.write_text(text, encoding="utf-8")
    pipeline.stage_wheel_project(bench.layout)
    started = time.monotonic()
    bench.expect_equal(f"{what}: put back", bench.build(), started, put_back)


def changed_inputs(bench: Bench, other: UnitSpec) -> tuple[str, ...]:
    """Which inputs make another key of it; none when the key is the same."""
    before, after = dict(bench.spec.key.inputs), dict(other.key.inputs)
    return tuple(f"another key, by {name}" for name in sorted(after) if after[name] != before.get(name))


def one_byte_and_a_poisoned_object(bench: Bench) -> None:
    """A byte of a source file changed; then what was cached of that, under the names of the honest objects."""
    source, kernel, before, after = BYTE
    file = bench.layout.vendor / "llama.cpp" / KERNELS / source
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(before, after), encoding="utf-8")
    bench.expect_refused(  # it stages them nevertheless
        "one byte of the sources changed: the pipeline",
        lambda: provision.provide_sources(None, bench.layout, bench.console),
        ("vendor/llama.cpp is not as it was unpacked",),
    )
    started = time.monotonic()
    with cache_of_its_own(bench.layout) as spoilt:
        found = bench.differences(bench.build())
    bench.expect_different("one byte of the sources changed", found, started, (source, kernel))

    file.write_text(text, encoding="utf-8")
    provision.provide_sources(None, bench.layout, bench.console)
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


# -------------------------------------------------------------------------------------------- what is fetched, packed


def another_wheel(bench: Bench) -> None:
    """Another version of a toolkit wheel under the name of the locked one; then in the lock itself."""
    layout = bench.layout
    toolkit = lock.read_toolkit_lock(layout, CUDA, provision.PLATFORM)
    locked = next(file for file in toolkit.files if file.name == WHEEL)
    other = other_version(locked)
    (fetched,) = fetch.fetch((other,), layout.work_root / "other", bench.console)
    there = layout.downloads / locked.filename
    provide = functools.partial(provision.provide_toolkit, CUDA, layout, bench.console)
    named = (locked.filename, other.sha256)

    shutil.copyfile(fetched, there)
    bench.expect_refused(f"{WHEEL} {other.version} as {locked.version}, verified before", provide, named)
    shutil.copyfile(fetched, there)
    (layout.downloads / fetch.VERIFIED).unlink()
    bench.expect_refused(f"{WHEEL} {other.version} as {locked.version}, no note of what was verified", provide, named)
    with local_index.serve() as index:
        index.files[locked.filename] = fetched.read_bytes()
        with package_index(index.url):
            bench.expect_refused(f"the index serves {other.version} as {locked.version}", provide, named)
    with package_index(NO_INDEX):
        bench.expect_refused("the refused wheel is gone, and there is no network", provide, (locked.filename,))
    started = time.monotonic()
    again = provide()
    equal = again.identity == bench.chain.cuda.identity and there.stat().st_size == locked.size
    said = (f"{locked.filename} fetched anew, toolkit {again.identity}",)
    bench.show("the network is there: run again", said, started, named=(locked.filename,), caught=equal)

    with relocked(layout, locked, other):
        changed = lock.read_toolkit_lock(layout, CUDA, provision.PLATFORM)
        cuda = dataclasses.replace(bench.chain.cuda, identity=cuda_pypi.lock_digest(changed))
        config = settings.read(layout.data / "variants.toml")
        chain = dataclasses.replace(bench.chain, cuda=cuda)
        project = dict(bench.spec.key.inputs)["wheel project"]
        spec = units.shard_spec(config, bench.tree, layout, chain, project, bench.shard)
        inputs = changed_inputs(bench, spec)
        what = f"{WHEEL} {other.version} in the lock"
        bench.show(f"{what}: the unit's key", inputs, started, named=("cuda",), caught=bool(inputs))
        wheel = published(bench)
        record = ReproduceRequest(record=wheel.with_name(f"{wheel.name}.record.json"))
        rebuild = functools.partial(reproduce.reproduce, record, layout, bench.console)
        bench.expect_refused(f"{what}: reproduce --record", rebuild, (file_of_lock(layout).name,))
        check = functools.partial(trials.verify, wheel, layout, bench.console)
        bench.expect_refused(f"{what}: verify", check, (file_of_lock(layout).name, locked.filename))


def other_version(locked: LockedFile) -> LockedFile:
    """The same wheel for the same machines in another version of the same release."""
    with PyPISimple(fetch.index_url()) as index:
        packages = fetch.project_page(index, locked.name).packages
    for package in packages:
        version = package.version or locked.version
        name = locked.filename.replace(locked.version, version)
        if version.startswith(f"{CUDA}.") and version != locked.version and package.filename == name:
            return LockedFile(
                name=locked.name,
                version=version,
                filename=name,
                sha256=package.digests["sha256"],
                size=package.size or 0,
            )
    raise SystemExit(f"the index has no other version of {locked.filename}")


def file_of_lock(layout: Layout) -> Path:
    """The lock file of the toolkit."""
    return layout.locks / f"cuda-{CUDA}-{provision.PLATFORM}.toml"


@contextlib.contextmanager
def relocked(layout: Layout, locked: LockedFile, other: LockedFile) -> Iterator[None]:
    """The lock of this world's checkout with another version of one wheel in it."""
    file = file_of_lock(layout)
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(entry(locked), entry(other)), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")


def entry(file: LockedFile) -> str:
    """What stands in the lock of one file."""
    return "\n".join(
        f"{name} = {value}" if isinstance(value, int) else f'{name} = "{value}"'
        for name, value in dataclasses.asdict(file).items()
    )


@contextlib.contextmanager
def package_index(url: str) -> Iterator[None]:
    """Everything is fetched from there."""
    before = os.environ.get("PIP_INDEX_URL")
    os.environ["PIP_INDEX_URL"] = url
    try:
        yield
    finally:
        del os.environ["PIP_INDEX_URL"]
        if before is not None:
            os.environ["PIP_INDEX_URL"] = before


def published(bench: Bench) -> Path:
    """The copy of the published wheel."""
    (wheel,) = (bench.given / "wheelhouse").glob(f"*.{bench.name}-*.whl")
    return wheel


def time_stamp(bench: Bench) -> None:
    """The time of packing let into the zip, at one member of the published wheel."""
    wheel = published(bench)
    stamped = bench.given / "stamped" / wheel.name
    shutil.copytree(wheel.parent, stamped.parent)
    with zipfile.ZipFile(wheel) as archive:
        header = archive.getinfo(STAMPED).header_offset
    data = bytearray(wheel.read_bytes())
    central = data.rindex(STAMPED.encode()) - CENTRAL_ENTRY
    year, month, day, hour, minute, second = STAMP
    packed = struct.pack("<HH", hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
    for at in (header + TIME_IN_LOCAL_HEADER, central + TIME_IN_CENTRAL_ENTRY):
        data[at : at + len(packed)] = packed
    stamped.write_bytes(data)
    started = time.monotonic()
    found = difference.compare_wheels(
        wheel, stamped, cuobjdump=bench.chain.cuobjdump, folder=bench.layout.work_root / "differences"
    )
    bench.expect_different("a time stamp in the wheel", found, started, (STAMPED, "2026-11-25 12:00:00"))
    check = functools.partial(trials.verify, stamped, bench.layout, bench.console)
    bench.expect_refused("a time stamp in the wheel: verify", check, (stamped.name, "wheel-not-recorded"))
    started = time.monotonic()
    check_honest = functools.partial(trials.verify, wheel, bench.layout, bench.console)
    check_honest()
    bench.show("the published wheel: verify", ("accepted",), started, named=("accepted",), caught=True)


# ------------------------------------------------------------------------------------------------------------ worlds


def inside(arch: str, given: Path) -> int:
    """In the second world; ``given`` is the folder with what the first one has finished."""
    layout = Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)
    console = Console()
    with workroot.claim(layout, purpose="spoilt inputs", console=console):
        started = time.monotonic()
        bench = Bench(arch, given, layout, console)
        try:
            honest_build(bench, started)
            another_wheel(bench)
            time_stamp(bench)
            one_flag(bench)
            no_seed(bench)
            one_byte_and_a_poisoned_object(bench)
        finally:
            jsonio.write(given / "shown.json", tuple(bench.results))
    return 0 if all(shown.passed for shown in bench.results) else 1


def outside(arch: str, output: Path, checkout: Path) -> int:
    """Make the second world, give it copies, and bring back what came of it."""
    layout = Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)
    console = Console()
    jobs = pipeline.default_jobs()
    try:
        with (
            workroot.claim(layout, purpose="spoilt inputs", console=console),
            reproduction.second_world(
                layout, jobs=(jobs, jobs), launchers=("sccache", "sccache"), user=getpass.getuser()
            ) as world,
        ):
            given = world.folder / "given"
            shutil.copytree(layout.store, given / "store")
            shutil.copytree(checkout / "wheelhouse", given / "wheelhouse")
            shutil.copytree(layout.object_cache, world.work_root / "cache")
            try:
                arguments = ("--arch", arch, "--given", str(given))
                reproduction.run(world, arguments, layout, console, log=output.with_suffix(".log"), module=MODULE)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(given / "shown.json", output)
    except PipelineError as error:
        console.error(error.message)
        return 1
    console.note(f"all caught and named; {output}")
    return 0


def main() -> int:
    """Run in this world or in the second one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", default="89")
    parser.add_argument("--output", type=Path, default=Path("spoilt-inputs.json"))
    parser.add_argument("--checkout", type=Path, default=PACKAGE.parent, help="whose wheelhouse has the wheel")
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.given is not None:
        return inside(options.arch, options.given)
    return outside(options.arch, options.output.absolute(), options.checkout)


if __name__ == "__main__":
    sys.exit(main())
