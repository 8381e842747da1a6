"""Several signers, the rotation of keys, and keys that were revoked."""

import dataclasses
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from build_config.errors import SettingsError, VerificationError
from build_config.steps.wheelhouse import signature as dsse
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.tasks import verify
from tests.support import attested
from tests.support.attested import KEY, LAYOUT

OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> attested.House:
    return attested.publish(tmp_path)


def keys(*trusted: Ed25519PrivateKey, needed: int = 1, revoked: tuple[Ed25519PrivateKey, ...] = ()) -> dsse.Keys:
    return dsse.Keys(
        trusted=tuple(key.public_key() for key in trusted),
        needed=needed,
        revoked=tuple((dsse.key_id(key.public_key()), "stolen") for key in revoked),
    )


def write_key(folder: Path, key: Ed25519PrivateKey, name: str) -> tuple[Path, Path]:
    """A private and a public key in PEM."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(name="cosigned")
def _cosigned(house: attested.House, tmp_path: Path) -> attested.House:
    """A wheel that KEY signed first, and OTHER_KEY later."""
    private, _ = write_key(tmp_path, OTHER_KEY, "other")
    verify.sign(house.wheel, private, LAYOUT, Console(terminal=False))
    return house


def test_a_second_signature_leaves_the_first_and_either_is_enough(cosigned: attested.House) -> None:
    for key in (KEY, OTHER_KEY):
        assert cosigned.verify(key).signed_by == (dsse.key_id(key.public_key()),)
    third = Ed25519PrivateKey.from_private_bytes(b"t" * 32)
    assert cosigned.codes(third) == {"envelope-refused"}
    assert cosigned.codes(keys=keys(third, OTHER_KEY)) == set()
    named = [one["keyid"] for one in json.loads(cosigned.files()["envelope"].read_text())["signatures"]]
    assert named == sorted(dsse.key_id(key.public_key()) for key in (KEY, OTHER_KEY))


def test_several_signers_can_be_required(cosigned: attested.House, house: attested.House, tmp_path: Path) -> None:
    assert cosigned.codes(keys=keys(KEY, OTHER_KEY, needed=2)) == set()
    once = attested.publish(tmp_path / "once")
    (finding,) = once.verify(keys=keys(KEY, OTHER_KEY, needed=2)).findings
    assert finding.code == "envelope-refused"
    assert "1 of 2 valid signatures" in finding.message
    data = json.loads(house.files()["envelope"].read_text())
    data["signatures"][0]["sig"] = data["signatures"][1]["sig"]  # one signature under two names
    jsonio.write(house.files()["envelope"], data)
    assert house.codes(keys=keys(KEY, OTHER_KEY, needed=2)) == {"envelope-refused"}


def test_a_forged_signature_counts_for_nothing_and_is_an_error_where_it_is_needed(cosigned: attested.House) -> None:
    data = json.loads(cosigned.files()["envelope"].read_text())
    data["signatures"][0]["sig"] = data["signatures"][1]["sig"]
    text, kind = jsonio.dumps(data), data["payloadType"]
    forged, valid = (one["keyid"] for one in data["signatures"])
    trusted = keys(KEY, OTHER_KEY)
    assert dsse.trusted_payload(text, kind, trusted) == (dsse.unverified_payload(text, kind), valid)
    with pytest.raises(VerificationError, match=f"the signature of the key {forged} is not valid"):
        dsse.trusted_payload(text, kind, dataclasses.replace(trusted, needed=2))
    payload, reason = dsse.trusted_payload(
        text, kind, dataclasses.replace(trusted, needed=2, revoked=((forged, "lost"),))
    )
    assert payload is None, "a revoked key is nobody's, whatever is said in its name"
    assert f"the key {forged} was revoked: lost" in reason


def test_one_signer_is_not_two_although_the_key_is_named_twice(tmp_path: Path) -> None:
    _, public = write_key(tmp_path, KEY, "key")
    with pytest.raises(SettingsError, match="only 1 different keys"):
        dsse.read_keys((public, public), needed=2)


def test_the_signature_of_a_revoked_key_does_not_count(cosigned: attested.House) -> None:
    result = cosigned.verify(keys=keys(KEY, revoked=(KEY,)))
    assert not result.passed
    assert result.signed_by == ()
    assert "was revoked: stolen" in result.findings[0].message
    result = cosigned.verify(keys=keys(KEY, OTHER_KEY, revoked=(KEY,)))
    assert result.passed
    assert result.signed_by == (dsse.key_id(OTHER_KEY.public_key()),)
    assert [finding.code for finding in result.findings] == ["signer-revoked"]
    assert cosigned.codes(keys=keys(KEY, OTHER_KEY, needed=2, revoked=(KEY,))) == {"envelope-refused"}


def test_a_stolen_key_is_replaced(cosigned: attested.House, tmp_path: Path) -> None:
    private, _ = write_key(tmp_path, OTHER_KEY, "new")
    verify.sign(cosigned.wheel, private, LAYOUT, Console(terminal=False), replace_others=True)
    assert cosigned.codes(KEY) == {"envelope-refused"}
    assert cosigned.codes(keys=keys(KEY, OTHER_KEY, revoked=(KEY,))) == set()


def test_signing_twice_with_one_key_changes_nothing(house: attested.House, tmp_path: Path) -> None:
    private, _ = write_key(tmp_path, KEY, "key")
    before = house.files()["envelope"].read_bytes()
    verify.sign(house.wheel, private, LAYOUT, Console(terminal=False))
    assert house.files()["envelope"].read_bytes() == before


def test_signatures_in_another_order_are_another_file_and_refused(cosigned: attested.House) -> None:
    data = json.loads(cosigned.files()["envelope"].read_text())
    data["signatures"].reverse()
    jsonio.write(cosigned.files()["envelope"], data)
    assert cosigned.codes() == {"envelope-refused"}


def test_a_list_of_revoked_keys_is_read(tmp_path: Path) -> None:
    _, public = write_key(tmp_path, KEY, "key")
    listed = tmp_path / "revoked.txt"
    listed.write_text(f"# ours\n\n{'A' * 64}  lost in a train # really\n{'b' * 64}\n", encoding="utf-8")
    read = dsse.read_keys((public,), revoked=listed)
    assert read is not None
    assert read.revoked == (("a" * 64, "lost in a train"), ("b" * 64, "no reason given"))


@pytest.mark.parametrize("line", ["a" * 63, "a" * 65, "sha256:" + "a" * 64, "key.pub.pem"])
def test_a_line_that_is_not_understood_is_an_error(tmp_path: Path, line: str) -> None:
    _, public = write_key(tmp_path, KEY, "key")
    listed = tmp_path / "revoked.txt"
    listed.write_text(f"{'b' * 64}\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"line 2 of .* does not begin with the identifier of a key"):
        dsse.read_keys((public,), revoked=listed)


def test_a_list_without_a_key_is_no_check(tmp_path: Path) -> None:
    assert dsse.read_keys(()) is None
    for needed, listed in ((1, tmp_path / "revoked.txt"), (2, None)):
        with pytest.raises(SettingsError, match="no key is given"):
            dsse.read_keys((), needed=needed, revoked=listed)
    _, public = write_key(tmp_path, KEY, "key")
    with pytest.raises(SettingsError, match=r"revoked keys .* cannot be read"):
        dsse.read_keys((public,), revoked=tmp_path / "revoked.txt")
