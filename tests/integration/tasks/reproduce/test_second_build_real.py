"""Build the miniature twice: equal bytes, and every corrupted input is detected and named."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import DigestMismatchError, ReproductionError
from build_config.steps import locks
from build_config.steps.locks import download
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks.reproduce import difference, second_build
from build_config.tasks.reproduce.difference import DifferenceKind
from tests.support import wheels
from tests.support.workshop import QUIET, Workshop, workshop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import BuildUnit, CudaToolkit, ToolkitLock
    from build_config.tasks.reproduce.difference import Difference

pytestmark = pytest.mark.integration

FIRST_CU = "ggml/src/ggml-cuda/first.cu"
LOCAL_CU = "ggml/src/ggml-cuda/local.cu"
LOCAL = """
namespace {
struct tag {};
template <class T> __global__ void scale(float * x) { x[threadIdx.x] *= 2.0f; }
template __global__ void scale<tag>(float *);
}
"""


@dataclasses.dataclass(frozen=True)
class Twice:
    """A finished shard, and the same work root prepared for building it again."""

    shop: Workshop
    first: Path

    def again(self, *, launcher: str = "none", entries: dict[str, str] | None = None) -> Path:
        """Build the shard again from the beginning; returns the folder of its library."""
        shop = workshop(self.shop.layout.work_root, self.shop.chain.cuda, launcher)
        spec = shop.specs()[1]
        spec = dataclasses.replace(spec, entries=spec.entries | (entries or {}))
        (unit,) = shop.build(spec)
        assert shop.compiled(spec.name)
        return kept(unit, self.first.with_name("second"))

    def edit(self, source: str, old: str, new: str) -> None:
        """Replace text of the staged miniature, or write a new file. The workshop then does not stage it again."""
        path = self.shop.tree.llama_cpp / source
        path.write_text(path.read_text(encoding="utf-8").replace(old, new) if old else new, encoding="utf-8")
        (self.shop.tree.llama_cpp / "edited").touch()

    def start_again(self) -> None:
        """Make the library of the edited sources the first one."""
        shutil.rmtree(self.first)
        self.again().rename(self.first)

    def compare(self, second: Path) -> tuple[Difference, ...]:
        folder = self.first.with_name("differences")
        folder.mkdir(exist_ok=True)
        return difference.compare_folders(self.first, second, cuobjdump=self.shop.chain.cuobjdump, folder=folder)


def kept(unit: BuildUnit, target: Path) -> Path:
    """Copy a unit out of the store; delete the store and the build tree."""
    shutil.copytree(unit.folder, target)
    root = unit.folder.parents[3]
    for name in ("build", "store"):
        shutil.rmtree(root / name)
    return target


@pytest.fixture(name="built_once", scope="module")
def _built_once(toolkit: CudaToolkit, tmp_path_factory: pytest.TempPathFactory) -> Twice:
    folder = tmp_path_factory.mktemp("twice")
    shop = workshop(folder / "w", toolkit)
    (unit,) = shop.build(shop.specs()[1])
    return Twice(shop, kept(unit, folder / "first"))


@pytest.fixture(name="twice")
def _twice(built_once: Twice, tmp_path: Path) -> Iterator[Twice]:
    """Share the first build: each test has its own copy of the library, and leaves only staged files of its build."""
    yield Twice(built_once.shop, Path(shutil.copytree(built_once.first, tmp_path / "first")))
    layout, llama_cpp = built_once.shop.layout, built_once.shop.tree.llama_cpp
    for folder in (layout.build, layout.store, layout.object_cache, llama_cpp):
        shutil.rmtree(folder, ignore_errors=True)
    built_once.shop.specs()  # stages the miniature again


def explained(differences: tuple[Difference, ...]) -> str:
    return "\n".join(difference.explain(differences))


def test_a_second_build_in_another_environment_gives_the_same_bytes(
    twice: Twice, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"SOURCE_DATE_EPOCH": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "HOME": "/x"}
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    old = os.umask(0o077)
    try:
        assert twice.compare(twice.again()) == ()
    finally:
        os.umask(old)


def test_a_changed_flag_is_detected_and_named(twice: Twice) -> None:
    changed = twice.again(entries={"CMAKE_CUDA_FLAGS": "-O1 -Xptxas=-O1"})
    differences = twice.compare(changed)
    assert any("first_op" in text or "apply" in text for text in explained(differences).splitlines())


def test_a_changed_byte_of_the_sources_is_detected_and_named(twice: Twice) -> None:
    twice.edit(FIRST_CU, "2.0f", "3.0f")
    assert "apply" in explained(twice.compare(twice.again()))


def test_a_file_without_its_seed_is_detected_and_named(twice: Twice) -> None:
    """In files without external names, nvcc uses the number of its process in local names."""
    twice.edit(LOCAL_CU, "", LOCAL)
    twice.start_again()
    differences = twice.compare(twice.again(entries={"LCW_RANDOM_SEED": "OFF"}))
    assert {one.kind for one in differences} == {DifferenceKind.RANDOM_SEED, DifferenceKind.CONSEQUENCE}
    assert "local.cu" in explained(differences)


def test_a_header_of_an_installed_toolkit_is_not_used(twice: Twice, tmp_path: Path) -> None:
    """CUB includes NVIDIA's profiling headers if it finds them: Debian's nvidia-cuda-dev has one in /usr/include."""
    twice.edit(LOCAL_CU, "", f"#include <cub/detail/nvtx.cuh>\n{LOCAL}")
    twice.start_again()
    header = tmp_path / "installed" / "nvtx3" / "nvToolsExt.h"
    header.parent.mkdir(parents=True)
    header.write_text("#error this is not part of the locked toolkit\n", encoding="utf-8")
    flags = twice.shop.specs()[1].entries["CMAKE_CUDA_FLAGS"]
    installed = {"CMAKE_CUDA_FLAGS": f"{flags} -isystem {header.parents[1]}"}
    assert twice.compare(twice.again(entries=installed)) == ()


def test_a_changed_wheel_of_the_toolkit_is_refused_and_named(
    reduced_lock: ToolkitLock, toolkit_wheels: tuple[Path, ...], tmp_path: Path
) -> None:
    small = min(reduced_lock.files, key=lambda file: file.size)
    wheel = next(path for path in toolkit_wheels if path.name == small.filename)
    swapped = bytearray(wheel.read_bytes())
    swapped[len(swapped) // 2] ^= 1
    (tmp_path / wheel.name).write_bytes(swapped)
    with pytest.raises(DigestMismatchError, match=small.filename):
        download._verify(tmp_path / wheel.name, tmp_path / wheel.name, small)


def test_a_time_stamp_in_the_wheel_is_detected_and_named(tmp_path: Path) -> None:
    wheel = wheels.write(tmp_path, wheels.contents({}))
    stamped = tmp_path / "second" / wheel.path.name
    stamped.parent.mkdir()
    with zipfile.ZipFile(wheel.path) as source, zipfile.ZipFile(stamped, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == "llama_cpp/__init__.py":
                info.date_time = (2026, 11, 25, 12, 0, 0)
            target.writestr(info, data)
    (found,) = difference.compare_wheels(wheel.path, stamped, cuobjdump=None, folder=tmp_path)
    assert found.kind is DifferenceKind.TIME
    assert found.member == "llama_cpp/__init__.py"
    assert "2026" in found.detail


def test_a_poisoned_object_in_the_cache_is_detected_and_named(twice: Twice) -> None:
    """The cache contains other code under the key of this source: the build is fast, and wrong."""
    cache = twice.shop.layout.object_cache
    shutil.rmtree(twice.again(launcher="sccache"))
    honest = cached(cache)
    twice.edit(FIRST_CU, "2.0f", "3.0f")
    shutil.rmtree(cache)
    shutil.rmtree(twice.again(launcher="sccache"))
    other = cached(cache)
    changed = sorted(honest.keys() - other.keys(), key=lambda name: len(honest[name]))
    instead = sorted(other.keys() - honest.keys(), key=lambda name: len(other[name]))
    assert len(changed) == len(instead) > 0
    for name, data in honest.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(data)
    for name, poison in zip(changed, instead, strict=True):
        (cache / name).write_bytes(other[poison])

    twice.edit(FIRST_CU, "3.0f", "2.0f")
    poisoned = twice.again(launcher="sccache")
    assert "apply" in explained(twice.compare(poisoned))
    shutil.rmtree(poisoned)
    assert twice.compare(twice.again()) == (), "without the cache the result must be correct"


def cached(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------- second environment

LOOK_AROUND = """
import json, os, socket, time
from pathlib import Path
root = Path({root!r})
mask = os.umask(0)
print("SEEN " + json.dumps({{
    "user": os.getuid(), "host name": socket.gethostname(), "umask": mask, "folder": os.getcwd(),
    "environment": dict(os.environ), "time zone": time.tzname, "root": sorted(path.name for path in root.iterdir()),
    "sources": os.statvfs(root / "src").f_type if hasattr(os.statvfs(root / "src"), "f_type") else None,
    "mounts": [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()],
}}))
(root / "made").write_text("here")
"""


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    checkout = tmp_path / "checkout"
    (checkout / ".git").mkdir(parents=True)
    (checkout / "build_config").mkdir()
    (checkout / "build_config" / "__main__.py").write_text(LOOK_AROUND.format(root=str(tmp_path / "root")))
    for name in ("build_config/compiler_cache.py", "build_config/steps/wheelhouse/publication.py", "wheelhouse/x.whl"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    layout = Layout(checkout=checkout, work_root=tmp_path / "root")
    layout.downloads.mkdir(parents=True)
    (layout.downloads / "file").write_text("fetched", encoding="utf-8")
    (layout.work_root / "store").mkdir()
    return layout


@contextlib.contextmanager
def second_environment(layout: Layout) -> Iterator[second_build.SecondEnvironment]:
    try:
        with second_build.second_environment(layout, jobs=(2, 3), launchers=("sccache", "none")) as second:
            yield second
    except ReproductionError as error:
        if "namespace" in str(error):
            pytest.skip(str(error))
        raise


def test_the_second_environment_differs_as_it_reports(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DEVIL=ON")
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.invalid/simple")
    with second_environment(layout) as second:
        second_build.run(second, (), layout, QUIET, log=layout.logs / "log")
        assert (second.work_root / "made").read_text() == "here"
        copied = [path for path in second.checkout.rglob("*") if path.name in {"compiler_cache.py", "publication.py"}]
        assert len(copied) == 2, "a part of the package was left behind"
        assert not [name for name in (".git", "wheelhouse") if (second.checkout / name).exists()]
        varied = {one.what: (one.first, one.second) for one in second.varied}
    line = next(line for line in (layout.logs / "log").read_text().splitlines() if line.startswith("SEEN "))
    seen = json.loads(line.partition("SEEN ")[2])
    assert seen["folder"] == varied["checkout"][1] != str(layout.checkout)
    assert seen["host name"] == varied["host name"][1] != varied["host name"][0]
    assert f"{seen['umask']:03o}" == varied["umask"][1]
    assert seen["environment"]["HOME"] == varied["HOME"][1]
    assert seen["environment"]["SOURCE_DATE_EPOCH"] == varied["SOURCE_DATE_EPOCH"][1]
    assert "CMAKE_ARGS" not in seen["environment"]
    assert seen["environment"]["PIP_INDEX_URL"] == "https://example.invalid/simple"
    assert seen["root"] == ["downloads", "src"], "the first build's store is not visible"
    assert [str(layout.staged), "tmpfs"] in seen["mounts"]
    assert not (layout.work_root / "made").exists(), "the second build changed the first work root"
    assert not second.folder.exists()
    assert (layout.work_root / "store").is_dir()


def test_a_machine_without_downloads_can_build_a_second_time(layout: Layout) -> None:
    shutil.rmtree(layout.downloads)
    with second_environment(layout) as second:
        assert list(second.work_root.iterdir()) == []


def test_another_module_of_the_checkout_can_run_in_the_second_environment(layout: Layout) -> None:
    (layout.checkout / "other.py").write_text("from pathlib import Path; Path('was here').touch()", encoding="utf-8")
    with second_environment(layout) as second:
        second_build.run(second, (), layout, QUIET, log=layout.logs / "log", module="other")
        assert (second.checkout / "was here").exists()


def test_a_failed_second_build_is_reported_with_its_last_output(layout: Layout) -> None:
    (layout.checkout / "build_config" / "__main__.py").write_text("raise SystemExit('no C++ compiler')")
    ended = pytest.raises(ReproductionError, match="ended with status 1: no C\\+\\+ compiler")
    with ended, second_environment(layout) as second:
        second_build.run(second, (), layout, QUIET, log=layout.logs / "log")


def test_every_lock_of_this_checkout_has_a_digest_for_the_record() -> None:
    digests = dict(locks.lock_digests(Layout(checkout=PACKAGE.parent, work_root=Path("/none"))))
    assert digests
    assert all(len(digest) == 64 for digest in digests.values())
