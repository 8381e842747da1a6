import errno
import hashlib
from pathlib import Path
from unittest.mock import Mock

import pytest

from build_config.errors import DiskFullError
from build_config.system import files, platforms
from build_config.system.files import disk_full_is_said, file_sha256, listing_sha256, rename
from build_config.system.platforms.linux import LINUX
from build_config.system.platforms.windows import WINDOWS


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\r\n\0" * 100_000)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_another_program_has_open_for_a_moment_is_renamed_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A virus scanner opens every new file. On other systems, an error is one at once."""
    old, new = tmp_path / "old", tmp_path / "new"
    if kind == "folder":
        old.mkdir()
    else:
        new.write_bytes(b"before")
        old.write_bytes(b"after")
    refusals = [PermissionError, PermissionError]
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if refusals:
            raise refusals.pop()
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(platforms, "HERE", LINUX)
    with pytest.raises(PermissionError):
        rename(old, new)
    monkeypatch.setattr(platforms, "HERE", WINDOWS)
    assert rename(old, new) == new
    assert not old.exists()
    assert new.is_dir() if kind == "folder" else new.read_bytes() == b"after"


def test_a_file_that_stays_open_is_an_error_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "HERE", WINDOWS)
    monkeypatch.setattr(files, "RENAMING", (0.0, 0.0))
    monkeypatch.setattr(Path, "replace", Mock(side_effect=PermissionError))
    with pytest.raises(PermissionError):
        rename(tmp_path / "old", tmp_path / "new")


def test_names_digests_and_their_order_make_the_digest_of_a_listing() -> None:
    listing = [("b/c", "1" * 64), ("a", "2" * 64)]
    # Keys of finished units are made of this: another value would compile everything again.
    assert listing_sha256(listing) == "38e23a36e3d9e58303299661f9e7635e52bff72e0aef9f7d8e6adf11955964c9"
    assert len({listing_sha256(each) for each in (listing, listing[::-1], listing[:1], [])}) == 4


def test_a_full_disk_is_named_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="the disk is full") as caught, disk_full_is_said(tmp_path, "downloads"):
        Path("/dev/full").write_bytes(b"x" * 100_000)
    assert f"downloads could not be written to {tmp_path}" in caught.value.message
    assert "free some space" in str(caught.value)


def test_a_full_share_of_the_disk_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError), disk_full_is_said(tmp_path, "downloads"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_any_other_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_full_is_said(tmp_path, "downloads"):
        (tmp_path / "not there").read_bytes()
