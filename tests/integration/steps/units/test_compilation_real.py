"""The real CMake project, nvcc, Ninja and sccache on a miniature with llama.cpp's target names."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from build_config.errors import BuildError, ConfigureError, DiskFullError
from build_config.steps.units import compilation, object_cache
from build_config.system import jsonio, processes
from build_config.system.console import Console
from build_config.system.layout import PACKAGE
from tests.integration.conftest import run
from tests.support.workshop import Workshop, workshop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import BuildUnit, CudaToolkit

pytestmark = pytest.mark.integration


@pytest.fixture(name="shop")
def _shop(tmp_path: Path, toolkit: CudaToolkit) -> Workshop:
    return workshop(tmp_path / "w", toolkit)


@pytest.fixture(name="built", scope="module")
def _built(toolkit: CudaToolkit, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, tuple[BuildUnit, ...]]:
    """The miniature, built. What is in its store stays as it is."""
    shop = workshop(tmp_path_factory.mktemp("built") / "w", toolkit)
    return shop, shop.build()


def exported(library: Path) -> set[str]:
    with library.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym")
        assert isinstance(symbols, SymbolTableSection)
        return {symbol.name for symbol in symbols.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF"}


def soname(library: Path) -> str:
    with library.open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        return next(str(vars(tag)["soname"]) for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_SONAME")


def test_units_are_built_stored_and_taken_from_the_store(built: tuple[Workshop, tuple[BuildUnit, ...]]) -> None:
    shop, (core, shard) = built
    stems = ("ggml-base", "ggml", "llama", "mtmd", "ggml-cpu-x64", "ggml-cpu-haswell")
    assert {file.name for file in core.files} == {f"lib{stem}.so" for stem in stems}
    assert [file.name for file in shard.files] == ["libggml-cuda-sm89.so"]
    library = shard.folder / "libggml-cuda-sm89.so"
    assert "ggml_backend_score" in exported(library)
    for unit in (core, shard):
        for file in unit.files:
            if "ggml-c" not in file.name:
                assert soname(unit.folder / file.name) == file.name
            assert str(shop.layout.work_root).encode() not in (unit.folder / file.name).read_bytes()
        assert unit.headers is not None
        assert unit.headers.number > 0
        assert unit.headers.unexpected == ()

    (shop.layout.build / "sm89" / "build.ninja").unlink()  # nothing could be compiled any more
    again = shop.build()
    assert [shop.compiled(unit.name) for unit in again] == [0, 0]
    assert [unit.files for unit in again] == [core.files, shard.files]
    assert [unit.headers for unit in again] == [core.headers, shard.headers]


def test_a_header_that_lay_where_compilers_look_is_named(
    shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = shop.specs()
    (core,) = shop.build(specs[0])
    header = tmp_path / "elsewhere" / "extra.h"
    header.parent.mkdir()
    header.touch()
    for source in ("src/llama.cpp", "ggml/src/ggml-cuda/second.cu"):
        with (shop.tree.llama_cpp / source).open("a", encoding="utf-8") as file:
            file.write(f'\n#include "{header}"\n')
    shutil.rmtree(shop.layout.store)
    # Ninja's list is longer, as that of a real unit is than what is kept by default.
    monkeypatch.setattr(processes, "TAIL_LINES", 20)
    console = Console(terminal=False)
    for unit in compilation.build_units(specs, shop.chain, shop.layout, console, jobs=2):
        assert unit.headers is not None
        assert unit.headers.unexpected == (header,)
        if unit.name == "core":
            assert core.headers is not None
            assert unit.headers.number == core.headers.number + 1
    said = "".join(capsys.readouterr().out.split())
    assert said.count(f"1inall({header})") == 2


def test_the_device_code_is_for_the_architecture_that_was_asked_for(
    built: tuple[Workshop, tuple[BuildUnit, ...]],
) -> None:
    shop, (_, shard) = built
    assert shop.chain.cuobjdump is not None
    listing = run(shop.chain.cuobjdump.path, "--list-elf", "--list-ptx", shard.folder / "libggml-cuda-sm89.so").stdout
    files = [line for line in listing.splitlines() if "file" in line]
    assert len(files) == 2
    assert all("sm_89.cubin" in line for line in files)


def test_sccache_and_plain_nvcc_give_the_same_bytes(
    tmp_path: Path, toolkit: CudaToolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits: list[int] = []
    session = object_cache.session

    @contextlib.contextmanager
    def counted(*arguments: Any) -> Iterator[object_cache.CacheSession]:
        with session(*arguments) as ready:
            yield ready
            hits.append(ready.uses().hits)

    monkeypatch.setattr(object_cache, "session", counted)
    root = tmp_path / "w"
    cached = workshop(root, toolkit, "sccache")
    first = cached.build()
    assert workshop(root, toolkit).build()[1].launcher == first[1].launcher, "from the store: as it was compiled"
    (root / "store").rename(root / "first-store")
    (root / "build").rename(root / "first-build")
    second = cached.build()
    (root / "store").rename(root / "second-store")
    (root / "build").rename(root / "second-build")
    third = workshop(root, toolkit).build()
    assert hits[1] > hits[0], "what was compiled once was compiled again"
    assert hits[2] == 0
    assert [str(units[1].launcher).split()[0] for units in (first, second, third)] == ["sccache", "sccache", "none"]
    assert [unit.files for unit in first] == [unit.files for unit in second] == [unit.files for unit in third]


def test_an_error_in_one_file_is_named_and_what_was_finished_is_kept(shop: Workshop) -> None:
    spec = shop.specs()[1]
    broken = shop.tree.llama_cpp / "ggml" / "src" / "ggml-cuda" / "second.cu"
    good = broken.read_text()
    broken.write_text(good + "\nint broken() { return undeclared_name; }\n")
    with pytest.raises(BuildError) as caught:
        shop.build(spec, jobs=1)
    assert "second.cu" in str(caught.value)
    assert 'identifier "undeclared_name" is undefined' in str(caught.value)
    assert caught.value.log is not None
    assert "undeclared_name" in caught.value.log.read_text()
    broken.write_text(good)
    shop.build(spec)
    assert 0 < shop.compiled(spec.name) <= 4, "more than the failed file, those after it, and the link were made again"


def test_a_variant_that_llama_cpp_does_not_have_is_named(shop: Workshop) -> None:
    with pytest.raises(ConfigureError, match="no-such") as caught:
        shop.build(shop.specs(variants=("x64", "no-such"))[0])
    assert caught.value.log is not None


def test_a_full_disk_is_called_a_full_disk(shop: Workshop) -> None:
    spec = shop.specs()[1]
    (shop.tree.llama_cpp / "ggml" / "src" / "ggml-cuda" / "second.cu").write_text(
        '#error "fatal error: cannot write: No space left on device"\n'
    )
    with pytest.raises(DiskFullError):
        shop.build(spec)


def programs_from(*roots: Path) -> list[str]:
    """What runs of the programs in these folders."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(Path(process.exe()).is_relative_to(root) for root in roots):
                said = (str(process.pid), str(process.ppid()), process.status(), *process.cmdline())
                found.append(" ".join(said)[:150])
    return found


TAKES_LONG = """
template <int N> __device__ float slow(float x) { return slow<N - 1>(sinf(x)) + slow<N - 1>(cosf(x)); }
template <> __device__ float slow<0>(float x) { return x; }
__global__ void takes_long(float * x) { *x = slow<11>(*x); }
"""
KILLED = """
import signal, sys
if sys.argv[4] == "deaf":  # as in a background job of a script
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from pathlib import Path
from tests.support.workshop import workshop
from build_config.model import CudaToolkit
from build_config.system import jsonio
toolkit = jsonio.from_data(__import__("json").loads(sys.argv[2]), CudaToolkit)
shop = workshop(Path(sys.argv[1]), toolkit, sys.argv[3])
shop.specs()  # stages the miniature
with (shop.tree.llama_cpp / "ggml/src/ggml-cuda/second.cu").open("a") as file:
    file.write(sys.argv[5])
(shop.tree.llama_cpp / "edited").touch()
shop.build(shop.specs()[1], jobs=1)
"""


@contextlib.contextmanager
def started(root: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A build in a process of its own. In the end nothing of it runs, even if the test failed or was interrupted."""
    argv = [sys.executable, "-c", KILLED, str(root), *arguments, TAKES_LONG]
    child = subprocess.Popen(
        argv, cwd=PACKAGE.parent, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
        processes.stop_strays(root)


@pytest.mark.parametrize(
    ("sign", "launcher", "ears"),
    [
        ("SIGKILL", "none", "open"),
        ("SIGKILL", "sccache", "open"),
        ("SIGINT", "none", "open"),
        ("SIGINT", "sccache", "open"),
        ("SIGINT", "sccache", "deaf"),
    ],
)
def test_a_killed_build_goes_on_where_it_stopped(
    tmp_path: Path, toolkit: CudaToolkit, sign: str, launcher: str, ears: str
) -> None:
    root = tmp_path / "w"
    root.mkdir()
    log = root / "build" / "sm89" / ".ninja_log"
    deadline = time.monotonic() + 120
    with started(root, jsonio.dumps(toolkit), launcher, ears) as child:
        # In the middle of the second file: its device code is being compiled.
        while not (log.is_file() and ".cu.o" in log.read_text() and "cicc" in " ".join(programs_from(toolkit.root))):
            assert time.monotonic() < deadline
            assert child.poll() is None, "the build ended before it could be killed"
            time.sleep(0.01)
        finished = log.read_text().count(".cu.o")
        start = time.monotonic()
        os.killpg(child.pid, signal.Signals[sign])  # by name: Windows has no SIGKILL
        _, said = child.communicate(timeout=20)
        if sign == "SIGINT":
            assert time.monotonic() - start < 2.5
            assert "InterruptedRunError" in said
            assert programs_from(root, toolkit.root) == [], "compilers or their cache ran on"
        assert finished == 1, "both files were done: nothing was in flight"

        shop = workshop(root, toolkit, launcher)
        (shop.tree.llama_cpp / "edited").unlink()  # the second file is a quick one again
        shop.build(shop.specs()[1])
    with contextlib.suppress(FileNotFoundError):
        assert (root / "build" / "sm89" / ".ninja_log").read_text().count("first.cu.o") == 1
    assert 0 < shop.compiled("sm89") < 5, "the finished file was compiled again"
