"""A whole index is verified: what was changed, and where, is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from build_config.errors import NetworkError, PipelineError, SettingsError, VerificationError
from build_config.reports import Verdict
from build_config.steps.wheelhouse.signature import read_keys
from build_config.system import storage
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks.index import rules, update, whole
from build_config.tasks.index.whole import verify_index
from build_config.tasks.publish import PublishRequest, publish
from tests.support.indexed import PORTABLE, SM89, TAG, House

if TYPE_CHECKING:
    from pathlib import Path

NAME = f"llama_cpp_python-{SM89}-{TAG}.whl"
OURS, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> House:
    """An index with two wheels, one of them signed and then with a second record, the other one yanked."""
    house = House(tmp_path / "house")
    house.build(key=OURS)
    portable = house.build(PORTABLE, key=OTHER).name
    publish(PublishRequest(), house.layout, Console())
    house.build(key=OURS, verdict=Verdict.GPU_VERIFIED)
    publish(PublishRequest(), house.layout, Console())
    update.change(house.index, Console(), lambda known: rules.yank(known, (portable,), "a fault"))
    return house


def public(folder: Path, key: Ed25519PrivateKey, name: str) -> Path:
    path = folder / name
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def verify(house: House, *keys: Path) -> None:
    layout = Layout(checkout=PACKAGE.parent, work_root=house.folder / "none")
    verify_index(str(house.index), layout, Console(), keys=read_keys(keys))


def test_a_whole_index_passes_and_says_that_no_signature_was_checked(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (house.index / "files" / f"{NAME}.2.record.json").is_file()
    verify(house)
    said = " ".join("".join(capsys.readouterr()).split())
    assert "2 wheels, their files and all pages belong together" in said
    assert "NO SIGNATURE was checked" in said


def test_each_wheel_must_be_signed_by_one_of_the_keys(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, other = public(tmp_path, OURS, "ours"), public(tmp_path, OTHER, "other")
    verify(house, ours, other)
    assert "NO SIGNATURE" not in "".join(capsys.readouterr())
    with pytest.raises(VerificationError) as caught:
        verify(house, ours)
    assert f"{PORTABLE}-{TAG}.whl: " in caught.value.message
    assert "envelope-refused" in caught.value.message
    assert NAME not in caught.value.message


CHANGES = {
    f"files/{NAME}": "wheel-not-recorded",
    f"files/{NAME}.record.json": "statement-differs",
    f"files/{NAME}.2.record.json": "statement-differs",
    f"files/{NAME}.2.intoto.json": "statement-differs",
    f"files/{NAME}.metadata": "member-differs",
    f"files/{NAME}.cdx.json": "member-differs",
    "index.html": "page-differs",
    "cu130-sm89/llama-cpp-python/index.html": "page-differs",
    "cu130-sm89/llama-cpp-python/index.json": "page-differs",
    "cu130/index.html": "page-differs",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_is_named(house: House, name: str) -> None:
    path = house.index / name
    content = path.read_bytes()
    path.write_bytes(content.replace(b"2026-11", b"2025-11") if b"2026-11" in content else content + b" ")
    assert path.read_bytes() != content
    with pytest.raises(VerificationError) as caught:
        verify(house)
    assert f"[{CHANGES[name]}]" in caught.value.message
    assert (NAME if name.startswith("files/") else name) in caught.value.message


@pytest.mark.parametrize("name", [f"files/{NAME}", f"files/{NAME}.record.json", f"files/{NAME}.2.intoto.dsse.json"])
def test_a_missing_file_is_named(house: House, name: str) -> None:
    (house.index / name).unlink()
    with pytest.raises(VerificationError) as caught:
        verify(house)
    assert f"{name.removeprefix('files/')} is missing [file-missing]" in caught.value.message


class Unlisted:
    """A bucket that does not list its files refuses what is missing, as what may not be read."""

    def __init__(self, folder: Path, refusal: type[PipelineError]) -> None:
        self.url = "s3://bucket/whl"
        self._there = storage.writer(folder)
        self._refusal = refusal

    def read(self, name: str) -> bytes | None:
        return self._there.read(name)

    def fetch(self, name: str, target: Path, *, limit: int | None = None) -> str | None:
        if (found := self._there.fetch(name, target, limit=limit)) is None:
            raise self._refusal(f"no right to read {name}")
        return found


@pytest.mark.parametrize("refusal", [NetworkError, SettingsError])
def test_what_need_not_be_there_may_be_refused(house: House, refusal: type[PipelineError]) -> None:
    layout = Layout(checkout=PACKAGE.parent, work_root=house.folder / "none")
    place = Unlisted(house.index, refusal)
    assert whole.verify(place, None, layout, Console()) == len((NAME, PORTABLE))
    (house.index / "files" / f"{NAME}.record.json").unlink()
    with pytest.raises(refusal, match=r"no right to read .*record\.json"):
        whole.verify(place, None, layout, Console())


def change_catalogue(house: House, **changes: object) -> None:
    path = house.index / "index.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    (entry,) = (each for each in data["wheels"] if each["file"] == NAME)
    entry.update(changes)
    path.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"verdict": "failed"}, "catalogue-differs"),
        ({"sha256": "0" * 64}, "catalogue-differs"),
        ({"archs": ["120a"]}, "catalogue-differs"),
        ({"yanked": "never"}, "yank-differs"),
    ],
)
def test_a_changed_catalogue_is_found(house: House, changes: dict[str, object], code: str) -> None:
    change_catalogue(house, **changes)
    with pytest.raises(VerificationError, match=code):
        verify(house)


@pytest.mark.parametrize("name", ["../../escaped.whl", "a/b.whl", "..", ".lock", "/etc/passwd", "x\\y.whl", ""])
@pytest.mark.parametrize("evidence", ["", ".2", ".2000000000"])
def test_a_catalogue_that_names_a_path_is_refused(house: House, tmp_path: Path, name: str, evidence: str) -> None:
    change_catalogue(house, file=name, record=f"{name}{evidence}.record.json")
    with pytest.raises(VerificationError, match="not the files of a wheel"):
        verify(house)
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("evidence", [".1", ".02", ".100", "2", ".2.2"])
def test_a_catalogue_that_numbers_evidence_in_another_way_is_refused(house: House, evidence: str) -> None:
    change_catalogue(house, record=f"{NAME}{evidence}.record.json")
    with pytest.raises(VerificationError, match="not the files of a wheel"):
        verify(house)


def test_a_folder_that_is_no_index_is_refused(house: House) -> None:
    (house.index / "index.json").unlink()
    with pytest.raises(VerificationError, match="not the address of an index"):
        verify(house)
    (house.index / "index.json").write_text("[]", encoding="utf-8")
    with pytest.raises(VerificationError, match="not the catalogue of an index"):
        verify(house)
