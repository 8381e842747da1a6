"""Addresses of storage, a folder as storage, and messages without secrets. Services: tests/integration/."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from build_config.errors import NetworkError, SettingsError
from build_config.system import network, storage

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://KEY:SECRET@bucket/whl", "must not contain credentials"),
        ("https://user:SECRET@example.org/whl", "must not contain credentials"),
        ("az://container/whl?sig=SECRET", "must not contain credentials"),
        ("https://example.org/whl#SECRET", "must not contain credentials"),
        ("ftp://example.org/whl", "not an address of storage"),
        ("s3:///whl", "not an address of storage"),
        ("file:///srv/whl", "not an address of storage"),
        ("az://container/whl", "cannot be used"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_without_its_secret(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match=said) as caught:
        storage.reader(address)
    assert "SECRET" not in str(caught.value)
    assert caught.value.remedy


def test_a_web_server_is_only_read_from() -> None:
    assert storage.reader("https://example.org/whl/").url == "https://example.org/whl"
    with pytest.raises(SettingsError, match="only read from"):
        storage.writer("https://example.org/whl/")


def test_a_folder_as_storage(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder"):
        storage.reader(tmp_path / "place")
    bucket = storage.writer(tmp_path / "place")
    (tmp_path / "source").write_bytes(b"first")
    assert bucket.create("a/b+c.whl", tmp_path / "source", {"Content-Type": "text/plain"})
    assert not bucket.create("a/b+c.whl", b"second", {})
    assert bucket.read("a/b+c.whl") == b"first"
    assert (tmp_path / "place" / "a" / "b+c.whl").is_file()
    bucket.write("a/b+c.whl", b"third", {})
    assert bucket.read("a/b+c.whl") == b"third"
    assert bucket.fetch("a/b+c.whl", tmp_path / "target") == hashlib.sha256(b"third").hexdigest()
    assert (tmp_path / "target").read_bytes() == b"third"
    assert (bucket.read("a/none"), bucket.fetch("a/none", tmp_path / "none")) == (None, None)
    assert (bucket.names(""), bucket.folders()) == (["a/b+c.whl"], ["a"])
    bucket.remove(["a/b+c.whl", "a/none"])
    assert not bucket.names("")


def test_a_file_that_is_too_long_is_not_received_whole(tmp_path: Path) -> None:
    bucket = storage.writer(tmp_path / "place")
    bucket.write("long", b"x" * 10_000_000, {})
    assert bucket.fetch("long", tmp_path / "target", limit=10) != hashlib.sha256(b"x" * 10).hexdigest()
    assert (tmp_path / "target").stat().st_size <= storage.CHUNK * 2


def test_a_server_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PAUSE", 0.0)
    with pytest.raises(NetworkError, match=r"http://127\.0\.0\.1:9/whl: cannot read index\.json") as caught:
        storage.reader("http://127.0.0.1:9/whl").read("index.json")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "GET https://x.blob/y?sig=SECRET in 2s - 403 Forbidden: <Error>SECRET",
            "GET https://x.blob/y in 2s - 403 Forbidden",
        ),
        ("Generic S3 error\nDebug source:\nSECRET", "Generic S3 error"),
        ("https://user:SECRET@host/x: refused", "https://host/x: refused"),
        ("", "ValueError"),
    ],
)
def test_the_reason_of_an_error_has_no_secret(text: str, expected: str) -> None:
    assert storage._reason(ValueError(text)) == expected
