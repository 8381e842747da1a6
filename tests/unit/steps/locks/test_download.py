import hashlib
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from build_config.errors import DigestMismatchError
from build_config.model import LockedFile
from build_config.steps.locks import download
from build_config.system import platforms
from build_config.system.console import Console
from build_config.system.platforms import Platform
from build_config.system.platforms.linux import LINUX
from build_config.system.platforms.windows import WINDOWS

CONTENT = b"the locked bytes"


@pytest.fixture(name="cached")
def _cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was fetched earlier. The index must not be asked for it."""
    monkeypatch.setattr(download, "PyPISimple", Mock(side_effect=AssertionError("the package index was asked")))
    (tmp_path / "a-1.tar.gz").write_bytes(CONTENT)
    return tmp_path / "a-1.tar.gz"


def fetch(cached: Path, content: bytes = CONTENT) -> tuple[Path, ...]:
    digest = hashlib.sha256(content).hexdigest()
    locked = LockedFile(name="a", version="1", filename=cached.name, sha256=digest, size=len(content))
    return download.fetch((locked,), cached.parent, Console(terminal=False))


@pytest.mark.parametrize(("platform", "times"), [(LINUX, 1), (WINDOWS, 3)], ids=["Linux", "Windows"])
def test_a_cached_file_is_hashed_once_if_a_change_shows_and_never_fetched(
    cached: Path, monkeypatch: pytest.MonkeyPatch, platform: Platform, times: int
) -> None:
    monkeypatch.setattr(platforms, "HERE", platform)
    monkeypatch.setattr(hashlib, "file_digest", hashed := Mock(wraps=hashlib.file_digest))
    for _ in range(3):
        assert fetch(cached) == (cached,)
    assert hashed.call_count == times


def test_a_file_of_the_same_size_and_time_is_hashed_again(cached: Path) -> None:
    """On Windows ``st_ctime`` is the time of creation, which a change does not change."""
    fetch(cached)
    before = cached.stat()
    cached.write_bytes(b"x" * len(CONTENT))
    os.utime(cached, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DigestMismatchError):
        fetch(cached)


@pytest.mark.parametrize("verified", [False, True])
def test_a_file_with_another_than_the_locked_digest_is_moved_aside(cached: Path, *, verified: bool) -> None:
    if verified:
        fetch(cached)
    with pytest.raises(DigestMismatchError) as failure:
        fetch(cached, CONTENT[::-1])
    assert not cached.exists()
    assert (cached.parent / "rejected" / cached.name).read_bytes() == CONTENT
    for content in (CONTENT, CONTENT[::-1]):
        assert hashlib.sha256(content).hexdigest() in failure.value.message
    assert "nox -s lock" in (failure.value.remedy or "")


def test_an_unreadable_marker_only_costs_a_digest(cached: Path) -> None:
    (cached.parent / download.VERIFIED).write_text("{ half a f")
    assert fetch(cached)
