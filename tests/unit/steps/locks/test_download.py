from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from build_config.errors import DigestMismatchError
from build_config.model import LockedFile
from build_config.steps.locks import download
from build_config.system.console import Console

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
CONTENT = b"the locked bytes"


@pytest.fixture(autouse=True)
def _nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("the package index was asked")

    monkeypatch.setattr(download, "PyPISimple", forbidden)


def locked(content: bytes = CONTENT) -> LockedFile:
    digest = hashlib.sha256(content).hexdigest()
    return LockedFile(name="a", version="1", filename="a-1.tar.gz", sha256=digest, size=len(content))


def count_digests(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []
    original = hashlib.file_digest

    def counting(stream: object, name: str) -> object:
        calls.append(stream)
        return original(stream, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return calls


def test_a_cached_file_is_hashed_once_and_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-1.tar.gz").write_bytes(CONTENT)
    hashed = count_digests(monkeypatch)
    for _ in range(3):
        assert download.fetch((locked(),), tmp_path, Console(terminal=False)) == (tmp_path / "a-1.tar.gz",)
    assert len(hashed) == 1


def test_a_file_of_the_same_size_and_time_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "a-1.tar.gz"
    path.write_bytes(CONTENT)
    download.fetch((locked(),), tmp_path, Console(terminal=False))
    before = path.stat()
    path.write_bytes(b"x" * len(CONTENT))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DigestMismatchError):
        download.fetch((locked(),), tmp_path, Console(terminal=False))


def test_another_locked_digest_is_not_taken_for_verified(tmp_path: Path) -> None:
    (tmp_path / "a-1.tar.gz").write_bytes(CONTENT)
    download.fetch((locked(),), tmp_path, Console(terminal=False))
    with pytest.raises(DigestMismatchError):
        download.fetch((locked(CONTENT[::-1]),), tmp_path, Console(terminal=False))


def test_a_cached_file_that_is_not_the_locked_one_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "a-1.tar.gz").write_bytes(b"something else")
    with pytest.raises(DigestMismatchError) as failure:
        download.fetch((locked(),), tmp_path, Console(terminal=False))
    assert not (tmp_path / "a-1.tar.gz").exists()
    assert (tmp_path / "rejected" / "a-1.tar.gz").read_bytes() == b"something else"
    assert locked().sha256 in failure.value.message
    assert hashlib.sha256(b"something else").hexdigest() in failure.value.message
    assert "nox -s lock" in (failure.value.remedy or "")


def test_an_unreadable_marker_only_costs_a_digest(tmp_path: Path) -> None:
    (tmp_path / "a-1.tar.gz").write_bytes(CONTENT)
    (tmp_path / download.VERIFIED).write_text("{ half a f")
    assert download.fetch((locked(),), tmp_path, Console(terminal=False))
