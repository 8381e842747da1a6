"""Making locks with the real uv, from an index on this machine."""

from __future__ import annotations

import contextlib
import io
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

from build_config.errors import LockError, NetworkError, SettingsError
from build_config.steps import locks
from build_config.steps.locks import refresh as lock
from build_config.system import layout as layout_module
from build_config.system import network
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from tests.support import local_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.local_index import LocalIndex

pytestmark = pytest.mark.integration
INPUTS = {
    "cuda-13.0.in": 'nvidia-cublas==13.0.*\nnvidia-cuda-culibos==13.0.*; sys_platform == "linux"\n',
    "requirements.in": 'alpha\nonly-windows; sys_platform == "win32"\n',
    "lock.in": "-r requirements.in\nmaker\n",
    "bench.in": "-r requirements.in\n",
    "cibuildwheel.in": "maker\n",
    "conda.in": "-r requirements.in\n",
    "gpu-kit.in": "elder\n",
    "test.in": "-r lock.in\ntester\n",
    "validation.in": "nvidia-cublas\n",
    "validation-cu11.in": "maker\n",
    "validation-cu12.in": "maker\n",
    "upstream-tests.in": "-r validation.in\n",
    "clients.in": "-r validation.in\n",
    "installers.in": "maker\n",
    "storage.in": "maker\n",
    "index.in": "maker\n",
    "pythons.in": 'nvidia-cublas\nmaker; python_version < "3.9"\n',
}


@contextlib.contextmanager
def prepared(folder: Path) -> Iterator[LocalIndex]:
    """An index with a first release of everything, and ``folder`` as the package that holds the locks."""
    with local_index.serve() as index, pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "PAUSE", 0.0)
        patch.setattr(layout_module, "PACKAGE", folder)
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setenv("PIP_INDEX_URL", index.url)
        patch.setenv("UV_CACHE_DIR", str(folder / "uv-cache"))
        patch.setenv("UV_CONSTRAINT", str(folder / "settings-of-this-machine"))
        index.files["llama_cpp_python-0.3.0.tar.gz"] = b"sources"
        for tag in ("manylinux_2_27_x86_64", "manylinux_2_27_aarch64", "win_amd64"):
            add(index, "nvidia_cublas", "13.0.1", tag=tag)
        add(index, "nvidia_cuda_culibos", "13.0.1", tag="manylinux2014_x86_64.manylinux_2_17_x86_64")
        add(index, "alpha", "1.0", requires="beta")
        for name in ("beta", "only_windows", "maker", "tester"):
            add(index, name, "1.0")
        add(index, "elder", "1.0", python=">=3.9")
        add(index, "elder", "2.0", python=">=3.11")
        yield index


@pytest.fixture(name="first_locks", scope="module")
def _first_locks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Locks made from nothing."""
    folder = tmp_path_factory.mktemp("package")
    layout = Layout(checkout=PACKAGE.parent, work_root=folder)
    with prepared(folder):
        layout.locks.mkdir(parents=True)
        for name, text in INPUTS.items():
            (layout.locks / name).write_text(text)
        assert {before for before, _ in refresh(layout).values()} == {None}
        return layout.locks


@pytest.fixture(name="index")
def _index(tmp_path: Path) -> Iterator[LocalIndex]:
    with prepared(tmp_path) as index:
        yield index


@pytest.fixture(name="layout")
def _layout(index: LocalIndex, first_locks: Path, tmp_path: Path) -> Layout:
    """The first locks, and an index that has what they name."""
    assert index.files
    layout = Layout(checkout=PACKAGE.parent, work_root=tmp_path)
    shutil.copytree(first_locks, layout.locks)
    return layout


def add(
    index: LocalIndex,
    name: str,
    version: str,
    *,
    tag: str = "any",
    requires: str | None = None,
    python: str = ">=3",
) -> None:
    """Put a wheel that can be resolved, if not installed, on the index."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}\n"
    members = {
        "METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-{tag}\n",
        "RECORD": "",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for member, text in members.items():
            wheel.writestr(zipfile.ZipInfo(f"{name}-{version}.dist-info/{member}"), text)  # without today's date
    index.files[f"{name}-{version}-py3-none-{tag}.whl"] = buffer.getvalue()


def refresh(layout: Layout, *upgrade: str) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    changes = lock.refresh(layout, upgrade=upgrade, console=Console(terminal=False))
    return {(change.lock, change.name): (change.before, change.after) for change in changes}


def files(layout: Layout) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in layout.locks.iterdir()}


def release_everything_anew(index: LocalIndex) -> None:
    for version in ("0.4.0", "0.5.0rc1", "0.6.0"):
        index.files[f"llama_cpp_python-{version}.tar.gz"] = version.encode()
    index.files["llama_cpp_python-0.7.0-py3-none-any.whl"] = b"no source distribution"
    index.yanked.add("llama_cpp_python-0.6.0.tar.gz")
    for version in ("13.0.2", "13.0.3rc1", "13.1.0"):
        for tag in ("manylinux_2_27_x86_64", "win_amd64"):
            add(index, "nvidia_cublas", version, tag=tag)
    for name in ("alpha", "beta", "tester"):
        add(index, name, "2.0")


def test_locks_are_made_from_nothing(layout: Layout) -> None:
    assert {path.name for path in layout.locks.iterdir()} == {
        *INPUTS,
        "llama-cpp-python.toml",
        "cuda-13.0-linux-x86_64.toml",
        "cuda-13.0-win-amd64.toml",
        *(name.replace(".in", ".txt") for name in INPUTS if not name.startswith("cuda")),
    }
    assert locks.read_source_lock(layout).file.filename == "llama_cpp_python-0.3.0.tar.gz"
    linux = locks.read_toolkit_lock(layout, "13.0", "linux-x86_64").files
    windows = locks.read_toolkit_lock(layout, "13.0", "win-amd64").files
    assert [file.filename for file in linux] == [
        "nvidia_cublas-13.0.1-py3-none-manylinux_2_27_x86_64.whl",
        "nvidia_cuda_culibos-13.0.1-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    ]
    assert [file.filename for file in windows] == ["nvidia_cublas-13.0.1-py3-none-win_amd64.whl"]
    requirements = (layout.locks / "requirements.txt").read_text()
    assert "beta==1.0" in requirements
    assert "only-windows==1.0 ; sys_platform == 'win32'" in requirements
    assert "maker==1.0" in (layout.locks / "pythons.txt").read_text(), "for Pythons older than the pipeline's"
    assert all("127.0.0.1" not in content.decode() for content, _ in files(layout).values())


def test_the_lock_for_an_older_python_has_one_version_for_every_python(layout: Layout) -> None:
    (pin,) = locks.read_pins(locks.contents(layout.locks), "gpu-kit.txt")
    assert (pin.name, pin.version, pin.requirement.marker) == ("elder", "1.0", None)


def test_nothing_moves_unasked(layout: Layout, index: LocalIndex) -> None:
    before = files(layout)
    release_everything_anew(index)
    index.yanked.add("llama_cpp_python-0.3.0.tar.gz")
    assert refresh(layout) == {}
    assert files(layout) == before


def test_the_sources_move_to_the_newest_proper_release(layout: Layout, index: LocalIndex) -> None:
    release_everything_anew(index)
    changes = refresh(layout, "llama_cpp-python")
    ((before, after),) = changes.values()
    assert list(changes) == [("llama-cpp-python.toml", "llama-cpp-python")]
    assert str(before).startswith("0.3.0 (7 bytes, SHA-256 ")
    assert str(after).startswith("0.4.0 (5 bytes, SHA-256 ")


def test_a_component_moves_within_its_series_and_validation_with_it(layout: Layout, index: LocalIndex) -> None:
    release_everything_anew(index)
    changes = refresh(layout, "nvidia-cublas")
    assert {key: str(after).split(" ")[0] for key, (_, after) in changes.items()} == {
        ("cuda-13.0-linux-x86_64.toml", "nvidia-cublas"): "13.0.2",
        ("cuda-13.0-win-amd64.toml", "nvidia-cublas"): "13.0.2",
        ("validation.txt", "nvidia-cublas"): "13.0.2",
        ("upstream-tests.txt", "nvidia-cublas"): "13.0.2",
        ("clients.txt", "nvidia-cublas"): "13.0.2",
        ("pythons.txt", "nvidia-cublas"): "13.0.2",
    }


def test_a_requirement_moves_in_every_lock_that_has_it(layout: Layout, index: LocalIndex) -> None:
    release_everything_anew(index)
    assert refresh(layout, "Beta") == {
        (f"{name}.txt", "beta"): ("1.0", "2.0") for name in ("requirements", "lock", "bench", "conda", "test")
    }
    assert refresh(layout, "tester") == {("test.txt", "tester"): ("1.0", "2.0")}


def test_a_changed_file_behind_the_same_version_is_reported(layout: Layout, index: LocalIndex) -> None:
    index.files["llama_cpp_python-0.3.0.tar.gz"] = b"another"
    ((before, after),) = refresh(layout).values()
    assert before != after


def test_a_failure_leaves_all_locks_as_they_were(layout: Layout, index: LocalIndex) -> None:
    (layout.locks / "validation.in").write_text("nvidia-cublas\nno-such-thing\n")
    release_everything_anew(index)
    before = files(layout)
    with pytest.raises(LockError, match="no-such-thing"):
        refresh(layout, "llama-cpp-python")
    assert files(layout) == before


def test_a_pinned_release_that_is_gone_is_not_replaced_in_silence(layout: Layout, index: LocalIndex) -> None:
    release_everything_anew(index)
    del index.files["llama_cpp_python-0.3.0.tar.gz"]
    with pytest.raises(LockError, match=r"llama-cpp-python 0\.3\.0") as failure:
        refresh(layout)
    assert failure.value.remedy == "nox -s lock -- --upgrade llama-cpp-python"


def test_an_unknown_name_is_refused(layout: Layout) -> None:
    with pytest.raises(SettingsError, match="no lock contains llama-cpp-pyton"):
        refresh(layout, "llama-cpp-pyton")


def test_without_network_it_says_so(layout: Layout) -> None:
    # Not the fixture, which is older than the index: undone last, it would put the address of the closed index back.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple/")
        with pytest.raises(NetworkError, match="Connection refused"):
            refresh(layout)
