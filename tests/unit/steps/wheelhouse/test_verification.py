"""Statement, signature and verification: what belongs together is accepted, and any changed byte of it is refused."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from build_config.errors import SettingsError, VerificationError
from build_config.formats import wheelfile
from build_config.reports import BuildRecord, Verdict
from build_config.steps import locks
from build_config.steps.locks import refresh
from build_config.steps.wheelhouse import publication, statement
from build_config.steps.wheelhouse import signature as dsse
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.tasks import verify
from tests.support import attested
from tests.support.attested import KEY, LAYOUT, PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.unit

OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> attested.House:
    return attested.publish(tmp_path)


def rewrite(house: attested.House, change: Callable[[BuildRecord], BuildRecord]) -> None:
    """What a careless or malicious builder could publish: a changed record, and a signed statement that fits it."""
    record = change(house.record)
    jsonio.write(publication.record_path(house.wheel), record)
    publication.attest(house.wheel, record, KEY)


# ------------------------------------------------------------------------------------------------------- acceptance


def test_what_was_published_is_accepted(house: attested.House) -> None:
    result = house.verify()
    assert result.findings == ()
    assert result.passed
    assert result.signed_by == dsse.key_id(KEY.public_key())


def test_without_a_key_nobody_is_said_to_have_signed(house: attested.House) -> None:
    result = house.verify(None)
    assert result.passed
    assert result.signed_by is None


def test_an_unsigned_wheel_passes_only_while_no_signature_is_asked_for(tmp_path: Path) -> None:
    house = attested.publish(tmp_path, key=None)
    assert house.verify(None).passed
    assert house.codes() == {"envelope-missing"}
    assert house.verify().signed_by is None


# --------------------------------------------------------------------------------------------------- changed bytes


@pytest.mark.parametrize("flipped", [0x01, 0x20], ids=["low-bit", "case-bit"])
@pytest.mark.parametrize("name", ["wheel", "record", "statement", "envelope"])
def test_one_changed_byte_anywhere_is_refused(house: attested.House, name: str, flipped: int) -> None:
    path = house.files()[name]
    sound = path.read_bytes()
    for position in range(0, len(sound), max(1, len(sound) // 60)):
        changed = bytearray(sound)
        changed[position] ^= flipped
        path.write_bytes(bytes(changed))
        result = house.verify()
        assert not result.passed, f"byte {position} of the {name}"
    path.write_bytes(sound)
    assert house.verify().passed


@pytest.mark.parametrize("name", ["wheel", "record", "statement"])
def test_a_changed_byte_is_refused_without_any_signature(tmp_path: Path, name: str) -> None:
    house = attested.publish(tmp_path, key=None)
    path = house.files()[name]
    sound = path.read_bytes()
    for position in range(0, len(sound), max(1, len(sound) // 60)):
        changed = bytearray(sound)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        assert not house.verify(None).passed, f"byte {position} of the {name}"


def test_every_byte_of_a_signature_counts(house: attested.House) -> None:
    path = house.files()["envelope"]
    sound = json.loads(path.read_text())
    signature = base64.b64decode(sound["signatures"][0]["sig"])
    for position in range(len(signature)):
        changed = bytearray(signature)
        changed[position] ^= 1
        sound["signatures"][0]["sig"] = base64.b64encode(bytes(changed)).decode()
        path.write_text(jsonio.dumps(sound))
        assert house.codes() == {"envelope-refused"}


@pytest.mark.parametrize("name", ["wheel", "record", "statement", "envelope"])
def test_appended_and_missing_bytes_are_refused(house: attested.House, name: str) -> None:
    path = house.files()[name]
    sound = path.read_bytes()
    for changed in (sound + b"\n", sound[:-1]):
        path.write_bytes(changed)
        assert not house.verify().passed


@pytest.mark.parametrize("name", ["record", "statement", "envelope"])
def test_a_missing_file_is_named(house: attested.House, name: str) -> None:
    house.files()[name].unlink()
    expected = {f"{name}-missing"}
    if name == "statement":
        expected.add("envelope-of-another-statement")
    assert house.codes() == expected


# ------------------------------------------------------------------------------------------------------- other things


def test_another_key_is_refused(house: attested.House) -> None:
    assert house.codes(OTHER_KEY) == {"envelope-refused"}
    publication.attest(house.wheel, house.record, OTHER_KEY)
    assert house.codes() == {"envelope-refused"}


def test_the_name_of_the_key_is_no_signature(house: attested.House) -> None:
    """The other key signs, under the name of the right one."""
    payload = house.files()["statement"].read_bytes()
    data = json.loads(dsse.seal(payload, statement.PAYLOAD_TYPE, OTHER_KEY))
    data["signatures"][0]["keyid"] = dsse.key_id(KEY.public_key())
    house.files()["envelope"].write_text(jsonio.dumps(data))
    assert house.codes() == {"envelope-refused"}


def test_a_signed_statement_about_another_wheel_is_refused(house: attested.House, tmp_path: Path) -> None:
    other = attested.publish(tmp_path / "other")
    rewrite(other, lambda record: dataclasses.replace(record, created="2026-02-02T00:00:00Z"))
    house.files()["envelope"].write_bytes(other.files()["envelope"].read_bytes())
    assert house.codes() == {"envelope-of-another-statement"}
    house.files()["statement"].write_bytes(other.files()["statement"].read_bytes())
    assert {"statement-differs", "record-changed"} <= house.codes()


def test_a_payload_of_another_type_is_refused(house: attested.House) -> None:
    payload = house.files()["statement"].read_bytes()
    house.files()["envelope"].write_text(dsse.seal(payload, "text/plain", KEY))
    assert house.codes() == {"envelope-refused"}
    assert house.codes(None) == {"envelope-refused"}


def test_a_lock_of_another_checkout_is_named(house: attested.House) -> None:
    here = dict(locks.lock_digests(LAYOUT))
    for name in ("llama-cpp-python.toml", "requirements.txt", "cuda-13.0-linux-x86_64.toml"):
        result = house.verify(locks=tuple({**here, name: "0" * 64}.items()))
        assert not result.passed
        assert [name in finding.message for finding in result.findings] == [True]
        assert "another version of this project" in result.findings[0].message
    gone = tuple(pair for pair in here.items() if pair[0] != "requirements.txt")
    assert house.codes(locks=gone) == {"lock-differs"}


@pytest.mark.parametrize("name", ["bench", "cibuildwheel", "conda", "lock", "test", "upstream-tests"])
def test_a_lock_that_no_wheel_is_made_from_is_a_note(house: attested.House, name: str) -> None:
    here = {**dict(locks.lock_digests(LAYOUT)), f"{name}.txt": "0" * 64}
    result = house.verify(locks=tuple(here.items()))
    assert result.passed
    assert [finding.code for finding in result.findings] == ["lock-differs"]


def test_a_material_that_is_in_no_lock_is_refused(house: attested.House) -> None:
    def change(record: BuildRecord) -> BuildRecord:
        first, *rest = record.materials
        return dataclasses.replace(
            record, materials=(dataclasses.replace(first, digests=(("sha256", "0" * 64),)), *rest)
        )

    rewrite(house, change)
    assert house.codes() == {"material-not-locked"}


def test_an_installed_toolkit_is_accepted_and_said_to_be_one(house: attested.House) -> None:
    def change(record: BuildRecord) -> BuildRecord:
        said = {"cuda": "11.8.89", "cuda.locked": "no", "reproducibility": "NOT reproducible byte for byte"}
        return dataclasses.replace(record, toolchain=tuple((dict(record.toolchain) | said).items()))

    rewrite(house, change)
    result = house.verify()
    assert result.passed
    assert [finding.code for finding in result.findings] == ["toolkit-installed"]
    assert "CUDA 11.8.89 was an installed toolkit" in result.findings[0].message
    assert "NOT reproducible" in result.findings[0].message


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: dataclasses.replace(r, wheel="other.whl"), "wheel-not-recorded"),
        (lambda r: dataclasses.replace(r, version="0.3.35+cu130.sm89"), "wheel-not-recorded"),
        (lambda r: dataclasses.replace(r, size=r.size + 1), "wheel-not-recorded"),
        (
            lambda r: dataclasses.replace(r, inspection=dataclasses.replace(r.inspection, wheel_sha256="0" * 64)),
            "report-of-another-wheel",
        ),
        (
            lambda r: dataclasses.replace(r, validation=dataclasses.replace(r.validation, wheel_sha256="0" * 64)),
            "report-of-another-wheel",
        ),
        (
            lambda r: dataclasses.replace(r, validation=dataclasses.replace(r.validation, verdict=Verdict.FAILED)),
            "report-failed",
        ),
        (
            lambda r: dataclasses.replace(r, inspection=dataclasses.replace(r.inspection, checks=())),
            "report-failed",
        ),
        (lambda r: dataclasses.replace(r, units=r.units[:1]), "units-incomplete"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused_though_it_is_signed(
    house: attested.House, change: Callable[[BuildRecord], BuildRecord], code: str
) -> None:
    rewrite(house, change)
    assert house.codes() == {code}


def test_all_that_is_wrong_is_said_at_once(house: attested.House) -> None:
    house.wheel.write_bytes(b"no wheel")
    house.files()["envelope"].unlink()
    house.files()["record"].write_text("{}")
    codes = house.codes(locks=())
    assert codes == {
        "wheel-damaged",
        "record-unreadable",
        "record-changed",
        "statement-of-another-wheel",
        "envelope-missing",
    }


# ---------------------------------------------------------------------------------------------------------- statement


def test_the_statement_is_valid_by_the_messages_of_in_toto_and_slsa(house: attested.House) -> None:
    data = json.loads(house.files()["statement"].read_text())
    Statement.copy_from_pb(ParseDict(data, StatementMessage())).validate()
    provenance = ParseDict(data["predicate"], Provenance())
    assert provenance.build_definition.build_type == statement.BUILD_TYPE
    assert provenance.run_details.metadata.started_on.seconds > 0
    named = {material.name: dict(material.digest) for material in provenance.build_definition.resolved_dependencies}
    for file in locks.read_toolkit_lock(LAYOUT, "13.0", PLATFORM).files:
        assert named[file.filename] == {"sha256": file.sha256}
    assert named["requirements.txt"] == {"sha256": dict(locks.lock_digests(LAYOUT))["requirements.txt"]}


def test_the_statement_is_about_the_wheel_and_of_the_record(house: attested.House) -> None:
    data = json.loads(house.files()["statement"].read_text())
    assert data["_type"] == "https://in-toto.io/Statement/v1"
    assert data["predicateType"] == "https://slsa.dev/provenance/v1"
    digest = hashlib.sha256(house.wheel.read_bytes()).hexdigest()
    assert data["subject"] == [{"name": house.wheel.name, "digest": {"sha256": digest}}]
    (byproduct,) = data["predicate"]["runDetails"]["byproducts"]
    assert byproduct["digest"]["sha256"] == hashlib.sha256(house.files()["record"].read_bytes()).hexdigest()
    definition = data["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["arch"] == "89"
    assert definition["internalParameters"]["units"]["c" * 64] == {"flag": "x"}


def test_no_path_of_the_machine_is_published(house: attested.House, tmp_path: Path) -> None:
    for name in ("record", "statement"):
        text = house.files()[name].read_text()
        assert str(tmp_path) not in text
        assert not re.search(r'"/|[ =]/', text)


# ---------------------------------------------------------------------------------------------------------- envelopes


def test_the_signature_is_over_the_encoding_that_dsse_prescribes() -> None:
    payload = '{"größe": 1}'.encode()
    data = json.loads(dsse.seal(payload, "application/x", KEY))
    encoded = b"DSSEv1 13 application/x %d %b" % (len(payload), payload)
    KEY.public_key().verify(base64.b64decode(data["signatures"][0]["sig"]), encoded)
    der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert data["signatures"][0]["keyid"] == hashlib.sha256(der).hexdigest()
    assert base64.b64decode(data["payload"]) == payload


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"payload": "", "payloadType": "x", "signatures": 1}', '{"payload": 1}']
)
def test_what_is_no_envelope_is_refused(text: str) -> None:
    with pytest.raises(dsse.UnsignedError, match="not a DSSE envelope"):
        dsse.verified_payload(text, "x", KEY.public_key())


def test_an_envelope_that_nobody_signed_is_refused() -> None:
    data = json.loads(dsse.seal(b"x", "x", KEY))
    with pytest.raises(dsse.UnsignedError, match="no valid signature"):
        dsse.verified_payload(jsonio.dumps({**data, "signatures": []}), "x", KEY.public_key())


# --------------------------------------------------------------------------------------------------------------- keys


def test_made_keys_fit_one_another_and_are_never_replaced(tmp_path: Path) -> None:
    private, public = dsse.make_keys(tmp_path / "keys")
    assert private.stat().st_mode & 0o777 == 0o600
    signer = dsse.read_private_key(private)
    assert dsse.key_id(signer.public_key()) == dsse.key_id(dsse.read_public_key(public))
    before = private.read_bytes()
    with pytest.raises(SettingsError, match="never replaced"):
        dsse.make_keys(tmp_path / "keys")
    assert private.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    private, _ = dsse.make_keys(tmp_path)
    private.chmod(mode)
    with pytest.raises(SettingsError, match="users other than its owner"):
        dsse.read_private_key(private)


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    private, public = dsse.make_keys(tmp_path)
    other = X25519PrivateKey.generate()
    raw = {
        "foreign.pem": other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "locked.pem": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "text.pem": b"text",
        "public.pem": public.read_bytes(),
    }
    for name, data in raw.items():
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        with pytest.raises(SettingsError):
            dsse.read_private_key(path)
    (tmp_path / "foreign.pub").write_bytes(
        other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for path in (tmp_path / "foreign.pub", tmp_path / "text.pem", private, tmp_path / "none"):
        with pytest.raises(SettingsError):
            dsse.read_public_key(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        dsse.read_private_key(tmp_path / "none")


# --------------------------------------------------------------------------------------------------------------- doors


def test_the_door_says_plainly_that_no_signature_was_checked(
    house: attested.House, capsys: pytest.CaptureFixture[str]
) -> None:
    verify.verify(house.wheel, LAYOUT, Console(terminal=False))
    assert "NO SIGNATURE was checked" in "".join(capsys.readouterr())


def test_the_door_refuses_with_every_finding(house: attested.House, tmp_path: Path) -> None:
    _, public = dsse.make_keys(tmp_path / "keys")
    house.files()["record"].write_bytes(house.files()["record"].read_bytes() + b" ")
    with pytest.raises(VerificationError) as raised:
        verify.verify(house.wheel, LAYOUT, Console(terminal=False), public_key=public)
    for code in ("statement-differs", "record-changed", "envelope-refused"):
        assert f"[{code}]" in raised.value.message


def test_a_published_wheel_is_signed_later_and_a_changed_one_is_not(tmp_path: Path) -> None:
    house = attested.publish(tmp_path, key=None)
    private, public = dsse.make_keys(tmp_path / "keys")
    verify.sign(house.wheel, private, LAYOUT, Console(terminal=False))
    verify.verify(house.wheel, LAYOUT, Console(terminal=False), public_key=public)
    envelope = house.files()["envelope"]
    before = envelope.read_bytes()
    house.wheel.write_bytes(house.wheel.read_bytes() + b" ")
    with pytest.raises(VerificationError):
        verify.sign(house.wheel, private, LAYOUT, Console(terminal=False))
    assert envelope.read_bytes() == before


def test_publishing_again_without_a_key_leaves_no_signature_of_another_record(house: attested.House) -> None:
    record = dataclasses.replace(house.record, created="2026-02-02T00:00:00Z")
    store = house.wheel.parent.parent / "store" / house.wheel.name
    wheel = wheelfile.read(store)
    publication.publish(wheel, record, record.inspection, record.validation, house.wheel.parent)
    assert not house.files()["envelope"].exists()
    assert house.verify(None).passed
