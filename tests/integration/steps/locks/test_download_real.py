from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from build_config.errors import DigestMismatchError, DiskFullError, NetworkError
from build_config.model import LockedFile
from build_config.steps.locks import download
from build_config.system import network
from build_config.system.console import Console
from build_config.system.layout import PACKAGE
from tests.support import local_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.local_index import LocalIndex

pytestmark = pytest.mark.integration
CONTENT = bytes(range(256)) * 20_000
NAME = "thing-1.0.tar.gz"
FILE = LockedFile(
    name="thing", version="1.0", filename=NAME, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT)
)


@pytest.fixture(name="index")
def _index(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIndex]:
    monkeypatch.setattr(network, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with local_index.serve() as index:
        index.files[NAME] = CONTENT
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


def get(folder: Path) -> bytes:
    (path,) = download.fetch((FILE,), folder, Console(terminal=False))
    assert path == folder / NAME
    assert sorted(found.name for found in folder.iterdir() if found.is_file()) == sorted([NAME, download.VERIFIED])
    return path.read_bytes()


def test_a_file_is_fetched(index: LocalIndex, tmp_path: Path) -> None:
    assert get(tmp_path / "new" / "folder") == CONTENT
    assert index.ranges == [None]


def test_a_lost_connection_is_resumed_in_the_same_run(index: LocalIndex, tmp_path: Path) -> None:
    index.cut_after = [30 * download.CHUNK, 10 * download.CHUNK + 5]
    assert get(tmp_path) == CONTENT
    assert index.ranges == [None, f"bytes={30 * download.CHUNK}-", f"bytes={40 * download.CHUNK}-"]


def test_a_partial_download_is_resumed_by_the_next_run(index: LocalIndex, tmp_path: Path) -> None:
    index.cut_after = [10 * download.CHUNK, 0, 0, 0]
    with pytest.raises(NetworkError):
        get(tmp_path)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 10 * download.CHUNK
    index.ranges.clear()
    assert get(tmp_path) == CONTENT
    assert index.ranges == [f"bytes={10 * download.CHUNK}-"]


def test_without_resumption_it_starts_again(index: LocalIndex, tmp_path: Path) -> None:
    index.resumes = False
    index.cut_after = [30 * download.CHUNK]
    assert get(tmp_path) == CONTENT


@pytest.mark.parametrize("length", [len(CONTENT) + 5, 5 * len(CONTENT)])
def test_a_partial_file_that_is_too_long_is_thrown_away(index: LocalIndex, tmp_path: Path, length: int) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(bytes(length))
    assert get(tmp_path) == CONTENT
    assert index.ranges == [None]


def test_a_broken_server_is_asked_again(index: LocalIndex, tmp_path: Path) -> None:
    index.refusals = [503, 429]
    assert get(tmp_path) == CONTENT


@pytest.mark.parametrize(
    "served", [b"x" * len(CONTENT), CONTENT + b"more", CONTENT[:-7], b""], ids=["other", "longer", "shorter", "empty"]
)
def test_another_file_on_the_index_is_moved_aside(index: LocalIndex, tmp_path: Path, served: bytes) -> None:
    index.files[NAME] = served
    with pytest.raises(DigestMismatchError, match=FILE.sha256) as failure:
        get(tmp_path)
    assert str(tmp_path / "rejected" / NAME) in failure.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["rejected"]
    index.files[NAME] = CONTENT
    assert download.fetch((FILE,), tmp_path, Console(terminal=False))[0].read_bytes() == CONTENT


def test_no_network_and_nothing_cached(tmp_path: Path, index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:secret@127.0.0.1:1/simple/")
    with pytest.raises(NetworkError, match="Connection refused") as failure:
        get(tmp_path)
    assert NAME in failure.value.message
    assert str(tmp_path) in (failure.value.remedy or "")
    assert "secret" not in str(failure.value)
    assert index.ranges == []


def test_a_file_put_there_by_hand_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple/")
    (tmp_path / NAME).write_bytes(CONTENT)
    assert get(tmp_path) == CONTENT


def test_an_index_without_the_file_says_so(index: LocalIndex, tmp_path: Path) -> None:
    index.files = {"thing-2.0.tar.gz": b"later"}
    with pytest.raises(NetworkError, match="does not have it"):
        get(tmp_path)
    index.files = {}
    with pytest.raises(NetworkError, match=NAME):
        get(tmp_path)


@pytest.mark.usefixtures("index")
def test_a_full_disk_says_so(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match="disk is full"):
        get(tmp_path)


def test_a_killed_download_is_resumed(index: LocalIndex, tmp_path: Path) -> None:
    """SIGINT in the middle of the second half: what was received stays and is used."""
    script = (
        "import pathlib, sys, time\n"
        "from build_config.steps.locks import download\n"
        "from build_config.system.console import Console, ProgressBar\n"
        "from tests.integration.steps.locks import test_download_real\n"
        "ProgressBar.update = lambda *_, **__: (print('moving', flush=True), time.sleep(20))\n"
        "download.fetch((test_download_real.FILE,), pathlib.Path(sys.argv[1]), Console(terminal=False))\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(argv, cwd=PACKAGE.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while b"moving" not in process.stdout.readline():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        start = time.monotonic()
        assert process.wait(timeout=10) != 0
    assert time.monotonic() - start < 2
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    index.ranges.clear()
    assert get(tmp_path) == CONTENT
    assert index.ranges == [f"bytes={kept}-"]
