import errno
import hashlib
from pathlib import Path

import pytest

from build_config.errors import DiskFullError
from build_config.system.files import disk_full_is_said, file_sha256, listing_sha256


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\r\n\0" * 100_000)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


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
