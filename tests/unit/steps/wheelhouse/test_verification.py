"""Statement, signature and verification: what belongs together is accepted, and any changed byte of it is refused."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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

from build_config import inputs
from build_config.errors import SettingsError, VerificationError
from build_config.formats import wheelfile
from build_config.model import PlatformName
from build_config.reports import BuildRecord, Verdict
from build_config.steps import locks
from build_config.steps.wheelhouse import build_record, publication, statement
from build_config.steps.wheelhouse import signature as dsse
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.system.platforms import PLATFORMS
from build_config.tasks import verify
from tests.support import attested, factories, systems
from tests.support.attested import KEY, LAYOUT, PLATFORM

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


def test_what_was_published_is_accepted_and_only_a_checked_signature_has_a_signer(house: attested.House) -> None:
    assert publication.is_signed(house.wheel)
    result = house.verify()
    assert result.findings == ()
    assert result.signed_by == (dsse.key_id(KEY.public_key()),)
    result = house.verify(None)
    assert result.passed
    assert result.signed_by == ()


def test_an_unsigned_wheel_passes_only_while_no_signature_is_asked_for(tmp_path: Path) -> None:
    house = attested.publish(tmp_path, key=None)
    assert not publication.is_signed(house.wheel)
    assert house.verify(None).passed
    assert house.codes() == {"envelope-missing"}
    assert house.verify().signed_by == ()
    public = tmp_path / "public.pem"
    public.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(VerificationError) as refused:
        verify.verify(house.wheel, LAYOUT, Console(terminal=False), keys=dsse.read_keys((public,)))
    assert "nox -s sign" in str(refused.value.remedy)


# --------------------------------------------------------------------------------------------------- changed bytes


def flipped(sound: bytes, position: int, bit: int = 1) -> bytes:
    return sound[:position] + bytes([sound[position] ^ bit]) + sound[position + 1 :]


FILES = ("wheel", "record", "statement", "envelope")


@pytest.mark.parametrize(
    ("name", "bit", "signed"),
    [*((name, bit, True) for name in FILES for bit in (0x01, 0x20)), *((name, 0x01, False) for name in FILES[:3])],
)
def test_any_changed_byte_is_refused_with_or_without_a_signature(
    tmp_path: Path, name: str, bit: int, *, signed: bool
) -> None:
    key = KEY if signed else None
    house = attested.publish(tmp_path, key=key)
    path = house.files()[name]
    sound = path.read_bytes()
    changed = (flipped(sound, position, bit) for position in range(0, len(sound), max(1, len(sound) // 60)))
    for number, content in enumerate((sound + b"\n", sound[:-1], *changed)):
        path.write_bytes(content)
        assert not house.verify(key).passed, f"change {number} of the {name}"
    path.write_bytes(sound)
    assert house.verify(key).passed


def test_every_byte_of_a_signature_counts(house: attested.House) -> None:
    path = house.files()["envelope"]
    sound = json.loads(path.read_text())
    signature = base64.b64decode(sound["signatures"][0]["sig"])
    for position in range(len(signature)):
        sound["signatures"][0]["sig"] = base64.b64encode(flipped(signature, position)).decode()
        jsonio.write(path, sound)
        assert house.codes() == {"envelope-refused"}


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_named(house: attested.House, name: str) -> None:
    house.files()[name].unlink()
    assert house.codes() == {f"{name}-missing", *(["envelope-of-another-statement"] if name == "statement" else [])}


# ------------------------------------------------------------------------------------------------------- other things


@pytest.mark.parametrize(
    ("key", "payload_type", "keyid"),
    [
        (OTHER_KEY, statement.PAYLOAD_TYPE, OTHER_KEY),
        (OTHER_KEY, statement.PAYLOAD_TYPE, KEY),  # the name of a key is not a signature
        (KEY, "text/plain", KEY),
    ],
    ids=["another key", "another key under the name of the right one", "a payload of another type"],
)
def test_a_signature_that_vouches_for_something_else_is_refused(
    house: attested.House, key: Ed25519PrivateKey, payload_type: str, keyid: Ed25519PrivateKey
) -> None:
    assert house.codes(OTHER_KEY) == {"envelope-refused"}
    data = json.loads(dsse.seal(house.files()["statement"].read_bytes(), payload_type, key))
    data["signatures"][0]["keyid"] = dsse.key_id(keyid.public_key())
    jsonio.write(house.files()["envelope"], data)
    assert house.codes() == {"envelope-refused"}
    assert house.codes(None) == (set() if key is OTHER_KEY else {"envelope-refused"})


def test_a_signed_statement_about_another_wheel_is_refused(house: attested.House, tmp_path: Path) -> None:
    other = attested.publish(tmp_path / "other")
    rewrite(other, lambda record: replace(record, created="2026-02-02T00:00:00Z"))
    house.files()["envelope"].write_bytes(other.files()["envelope"].read_bytes())
    assert house.codes() == {"envelope-of-another-statement"}
    house.files()["statement"].write_bytes(other.files()["statement"].read_bytes())
    assert {"statement-differs", "record-changed"} <= house.codes()


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        *((name, False) for name in ("llama-cpp-python.toml", "requirements.txt", "cuda-13.0-linux-x86_64.toml")),
        *(
            (f"{name}.txt", True)
            for name in (
                "bench",
                "cibuildwheel",
                "clients",
                "conda",
                "gpu-kit",
                "installers",
                "lock",
                "pythons",
                "storage",
                "test",
                "upstream-tests",
            )
        ),
    ],
)
def test_a_lock_of_another_checkout_is_named_and_refuses_the_wheels_that_are_made_from_it(
    house: attested.House, name: str, *, passes: bool
) -> None:
    here = {**dict(locks.lock_digests(LAYOUT)), name: "0" * 64}
    result = house.verify(locks=tuple(here.items()))
    (finding,) = result.findings
    assert (finding.code, result.passed) == ("lock-differs", passes)
    assert name in finding.message
    assert ("another version of this project" in finding.message) is not passes
    del here[name]
    assert house.codes(locks=tuple(here.items())) == {"lock-differs"}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_wheel_is_verified_on_a_machine_of_any_platform(house: attested.House, platform: PlatformName) -> None:
    locked = locks.read(LAYOUT, platform)
    materials = build_record.materials(
        source=locked.source.file,
        toolkit=locked.toolkit("13.0").files,
        tree=factories.source_tree(),
        toolchain=factories.toolchain(),
        tools=inputs.tools(locked.pins),
    )
    rewrite(house, lambda record: replace(record, materials=materials))
    assert house.codes() == set()


def test_an_installed_toolkit_is_accepted_and_said_to_be_one(house: attested.House) -> None:
    said = {"cuda": "11.8.89", "cuda.locked": "no", "reproducibility": "NOT reproducible byte for byte"}
    rewrite(house, lambda record: replace(record, toolchain=tuple((dict(record.toolchain) | said).items())))
    result = house.verify()
    assert result.passed
    assert [finding.code for finding in result.findings] == ["toolkit-installed"]
    assert "CUDA 11.8.89 was an installed toolkit" in result.findings[0].message
    assert "NOT reproducible" in result.findings[0].message


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: replace(r, wheel="other.whl"), "wheel-not-recorded"),
        (lambda r: replace(r, version="0.3.35+cu130.sm89"), "wheel-not-recorded"),
        (lambda r: replace(r, size=r.size + 1), "wheel-not-recorded"),
        (lambda r: replace(r, inspection=replace(r.inspection, wheel_sha256="0" * 64)), "report-of-another-wheel"),
        (lambda r: replace(r, validation=replace(r.validation, wheel_sha256="0" * 64)), "report-of-another-wheel"),
        (lambda r: replace(r, validation=replace(r.validation, verdict=Verdict.FAILED)), "report-failed"),
        (lambda r: replace(r, inspection=replace(r.inspection, checks=())), "report-failed"),
        (lambda r: replace(r, units=r.units[:1]), "units-incomplete"),
        (
            lambda r: replace(r, materials=(replace(r.materials[0], digests=(("sha256", "0" * 64),)),)),
            "material-not-locked",
        ),
    ],
)
def test_a_record_that_contradicts_itself_or_the_locks_is_refused_though_it_is_signed(
    house: attested.House, change: Callable[[BuildRecord], BuildRecord], code: str
) -> None:
    rewrite(house, change)
    assert house.codes() == {code}


def test_all_that_is_wrong_is_said_at_once(house: attested.House) -> None:
    house.wheel.write_bytes(b"no wheel")
    house.files()["envelope"].unlink()
    house.files()["record"].write_text("{}")
    said = {"wheel-damaged", "record-unreadable", "record-changed", "statement-of-another-wheel", "envelope-missing"}
    assert house.codes(locks=()) == said


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


NOBODY_SIGNED = jsonio.dumps({**json.loads(dsse.seal(b"x", "x", KEY)), "signatures": []})


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"payload": "", "payloadType": "x", "signatures": 1}', '{"payload": 1}', NOBODY_SIGNED],
)
def test_what_is_not_an_envelope_or_has_no_signature_is_refused(text: str) -> None:
    said = "0 of 1 valid signatures" if text is NOBODY_SIGNED else "not a DSSE envelope"
    with pytest.raises(dsse.UnsignedError, match=said):
        dsse.verified_payload(text, "x", dsse.Keys(trusted=(KEY.public_key(),)))


# --------------------------------------------------------------------------------------------------------------- keys


def test_made_keys_fit_one_another_and_are_never_replaced(tmp_path: Path) -> None:
    private, public = dsse.make_keys(tmp_path / "keys")
    assert private.stat().st_mode & 0o777 == systems.mode(0o600)
    assert b"\r" not in private.read_bytes() + public.read_bytes()
    assert dsse.key_id(dsse.read_private_key(private).public_key()) == dsse.key_id(dsse.read_public_key(public))
    before = private.read_bytes()
    with pytest.raises(SettingsError, match="never replaced"):
        dsse.make_keys(tmp_path / "keys")
    assert private.read_bytes() == before


@systems.modes
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    private, _ = dsse.make_keys(tmp_path / "a folder")
    private.chmod(mode)
    with pytest.raises(SettingsError, match="other users than its owner") as refused:
        dsse.read_private_key(private)
    assert str(refused.value.remedy).startswith(f"chmod 600 '{private}', and ")


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    private, public = dsse.make_keys(tmp_path)
    other = X25519PrivateKey.generate()
    refused = {
        "foreign.pem": other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "locked.pem": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "text.pem": b"text",
        "public.pem": public.read_bytes(),
        "foreign.pub": other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }
    for name, data in refused.items():
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        with pytest.raises(SettingsError, match="private key"):
            dsse.read_private_key(path)
    for name in ("foreign.pub", "text.pem", private.name):
        with pytest.raises(SettingsError, match="public key"):
            dsse.read_public_key(tmp_path / name)
    for read in (dsse.read_public_key, dsse.read_private_key):
        with pytest.raises(SettingsError, match="cannot be read"):
            read(tmp_path / "none")


# ------------------------------------------------------------------------------------------------------------ commands


def test_the_command_says_plainly_that_no_signature_was_checked(
    house: attested.House, capsys: pytest.CaptureFixture[str]
) -> None:
    verify.verify(house.wheel, LAYOUT, Console(terminal=False))
    assert "NO SIGNATURE was checked" in "".join(capsys.readouterr())


def test_the_command_refuses_with_every_finding(house: attested.House, tmp_path: Path) -> None:
    _, public = dsse.make_keys(tmp_path / "keys")
    house.files()["record"].write_bytes(house.files()["record"].read_bytes() + b" ")
    with pytest.raises(VerificationError) as raised:
        verify.verify(house.wheel, LAYOUT, Console(terminal=False), keys=dsse.read_keys((public,)))
    for code in ("statement-differs", "record-changed", "envelope-refused"):
        assert f"[{code}]" in raised.value.message


def test_a_published_wheel_is_signed_later_and_a_changed_one_is_not(tmp_path: Path) -> None:
    house = attested.publish(tmp_path, key=None)
    private, public = dsse.make_keys(tmp_path / "keys")
    verify.sign(house.wheel, private, LAYOUT, Console(terminal=False))
    verify.verify(house.wheel, LAYOUT, Console(terminal=False), keys=dsse.read_keys((public,)))
    envelope = house.files()["envelope"]
    before = envelope.read_bytes()
    house.wheel.write_bytes(house.wheel.read_bytes() + b" ")
    with pytest.raises(VerificationError):
        verify.sign(house.wheel, private, LAYOUT, Console(terminal=False))
    assert envelope.read_bytes() == before


def test_publishing_again_without_a_key_leaves_no_signature_of_another_record(house: attested.House) -> None:
    record = replace(house.record, created="2026-02-02T00:00:00Z")
    store = house.wheel.parent.parent / "store" / house.wheel.name
    wheel = wheelfile.read(store)
    publication.publish(wheel, record, record.inspection, record.validation, house.wheel.parent)
    assert not house.files()["envelope"].exists()
    assert house.verify(None).passed
