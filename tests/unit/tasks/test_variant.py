"""Variant wheels: the same libraries, another version, and a record and a statement about both wheels."""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING

import pytest

from build_config.errors import PackagingError, SettingsError, VerificationError
from build_config.formats import variants, wheelfile
from build_config.reports import BuildRecord, Verdict
from build_config.steps.wheelhouse import publication, signature, statement
from build_config.steps.wheelhouse.signature import read_keys
from build_config.system import jsonio
from build_config.tasks.index.catalogue import Catalogue
from tests.support import attested
from tests.support.indexed import PORTABLE, TAG, House

if TYPE_CHECKING:
    from pathlib import Path

NAME = f"llama_cpp_python-0.3.36+cu130-{TAG}-cu130_sm89.whl"


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> House:
    return House(tmp_path / "checkout")


def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def record_of(wheel: Path) -> BuildRecord:
    return jsonio.read(publication.record_path(wheel), BuildRecord)


def test_only_the_metadata_changes(house: House) -> None:
    source = house.build()
    (made,) = house.variant(source)
    assert made == house.layout.variants / NAME
    assert wheelfile.record_problems(wheelfile.read_contents(made)) == ()
    old, new = (members(wheel) for wheel in (source, made))
    before, after = "llama_cpp_python-0.3.36+cu130.sm89.dist-info", "llama_cpp_python-0.3.36+cu130.dist-info"
    changed = {
        name.replace(before, after) for name, data in old.items() if new.get(name.replace(before, after)) != data
    }
    assert changed == {f"{after}/METADATA", f"{after}/RECORD"}
    assert new.keys() - {name.replace(before, after) for name in old} == {f"{after}/{variants.MEMBER}"}
    assert new[f"{after}/METADATA"] == old[f"{before}/METADATA"].replace(b"+cu130.sm89", b"+cu130")
    assert json.loads(new[f"{after}/{variants.MEMBER}"])["variants"].keys() == {"cu130_sm89"}


def test_the_same_wheel_gives_the_same_bytes(house: House, tmp_path: Path) -> None:
    first = house.variant(house.build())
    other = House(tmp_path / "another checkout")
    second = other.variant(other.build())
    files = [sorted(path for path in made[0].parent.iterdir() if path.name != ".lock") for made in (first, second)]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_record_and_statement_name_the_source_wheel(house: House) -> None:
    source = house.build()
    (made,) = house.variant(source)
    record, old = record_of(made), record_of(source)
    assert record.variant_of is not None
    assert (record.variant_of.wheel, record.variant_of.sha256) == (source.name, old.sha256)
    record_file = publication.record_path(source).read_bytes()
    assert record.variant_of.record_sha256 == hashlib.sha256(record_file).hexdigest()
    assert (record.units, record.materials, record.created) == (old.units, old.materials, old.created)
    for report in (record.inspection, record.validation):
        assert [finding.code for finding in report.findings] == ["variant-of"]
        assert source.name in report.findings[0].message
    stated = json.loads(statement.statement_path(made).read_bytes())
    assert stated["predicate"]["buildDefinition"]["buildType"] == statement.VARIANT_TYPE
    first, second = stated["predicate"]["buildDefinition"]["resolvedDependencies"][:2]
    assert first == {"name": source.name, "digest": {"sha256": old.sha256}}
    assert second["digest"]["sha256"] == record.variant_of.record_sha256


def test_it_is_verified_and_signed_as_other_wheels_are(house: House, tmp_path: Path) -> None:
    private, public = signature.make_keys(tmp_path)
    source = house.build()
    with pytest.raises(VerificationError, match="not signed"):
        house.variant(source, keys=read_keys((public,)))
    publication.attest(source, record_of(source), signature.read_private_key(private))
    (made,) = house.variant(source, keys=read_keys((public,)), sign_key=private)
    found = attested.House(wheel=made, record=record_of(made))
    assert found.verify(signature.read_private_key(private)).signed_by
    made.write_bytes(made.read_bytes() + b"more")
    assert "wheel-not-recorded" in found.codes(None)


def test_the_file_about_the_labels_has_all_variants_of_the_version(house: House) -> None:
    house.variant(house.build())
    house.variant(house.build("0.3.36+cu130.sm86.sm120a"), house.build("0.3.37+cu130.sm89"))
    found = {path.name: json.loads(path.read_bytes()) for path in house.layout.variants.glob("*-variants.json")}
    assert {name: set(data["variants"]) for name, data in found.items()} == {
        "llama_cpp_python-0.3.36+cu130-variants.json": {"cu130_sm89", "cu130_sm86.120a"},
        "llama_cpp_python-0.3.37+cu130-variants.json": {"cu130_sm89"},
    }
    assert not (house.layout.variants / publication.PAGE).exists(), "pip could not read the names on it"
    assert NAME not in (house.layout.wheelhouse / publication.PAGE).read_text(encoding="utf-8")


def test_the_sbom_is_about_the_variant(house: House) -> None:
    text = (
        '{"serialNumber": "urn:uuid:af32fa8c-a1e5-5a4e-9a62-38b00644b70f", "version": "0.3.36+cu130.sm89", '
        f'"purl": "pkg:pypi/x@0.3.36%2Bcu130.sm89?file_name=llama_cpp_python-0.3.36%2Bcu130.sm89-{TAG}.whl", '
        '"libraries": ["libggml-cuda-sm89.so"]}'
    )
    source = house.build(sbom=text)
    (made,) = house.variant(source)
    (sbom,) = (json.loads(data) for name, data in members(made).items() if "/sboms/" in name)
    assert sbom["version"] == "0.3.36+cu130"
    assert sbom["purl"] == f"pkg:pypi/x@0.3.36%2Bcu130?file_name={NAME.replace('+', '%2B')}"
    assert sbom["libraries"] == ["libggml-cuda-sm89.so"]
    assert sbom["serialNumber"] not in text, "another document has another number"


def test_one_that_cannot_be_a_variant_keeps_the_others_from_being_made(house: House) -> None:
    wheels = house.build(), house.build(PORTABLE)
    with pytest.raises(PackagingError, match="not a wheel for one shard set"):
        house.variant(*wheels)
    assert not house.layout.variants.exists()


def test_what_installs_a_wheel_refuses_a_variant_and_names_its_source(house: House) -> None:
    (made,) = house.variant(house.build())
    with pytest.raises(PackagingError, match="a variant wheel, which pip cannot install") as failure:
        wheelfile.read(made)
    assert "variant_of" in str(failure.value.remedy)


def test_a_better_record_of_the_source_becomes_one_of_the_variant(house: House) -> None:
    (made,) = house.variant(house.build())
    house.build(PORTABLE)
    house.write()
    before = made.read_bytes()
    house.variant(house.build(verdict=Verdict.GPU_VERIFIED))
    assert made.read_bytes() == before
    index = house.write()
    known = jsonio.read(index / "index.json", Catalogue)
    assert {entry.file: entry.verdict for entry in known.wheels if entry.label} == {NAME: "gpu-verified"}


def test_a_wheel_that_was_changed_is_refused(house: House) -> None:
    source = house.build()
    source.write_bytes(source.read_bytes() + b"more")
    with pytest.raises(VerificationError, match="wheel-not-recorded"):
        house.variant(source)


def test_a_wheel_must_be_named(house: House) -> None:
    with pytest.raises(SettingsError, match="no wheel is named"):
        house.variant()
