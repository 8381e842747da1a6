"""Signed envelopes (DSSE) with Ed25519 keys; securesystemslib and cryptography do the cryptography.

https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error
from securesystemslib.signer import CryptoSigner, SSlibKey

from build_config.errors import SettingsError, VerificationError
from build_config.system import jsonio, platforms
from check_gpu import shell

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_NAME = "llama-cuda-wheels.key.pem"
PUBLIC_NAME = "llama-cuda-wheels.pub.pem"
BINARY = getattr(os, "O_BINARY", 0)
"""Without it, Windows writes other line ends than it was given."""
READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_HOW_TO_MAKE = "nox -s keygen -- FOLDER makes a key pair"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Whose signatures count. ``needed`` is how many of the ``trusted`` keys must have signed.

    ``revoked`` are identifiers of keys whose signatures never count, each with the reason if one is known.
    """

    trusted: tuple[Ed25519PublicKey, ...]
    needed: int = 1
    revoked: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """A payload with the identifiers of the keys that signed it; ``revoked`` are those of its signers that were."""

    payload: bytes
    signed_by: tuple[str, ...]
    revoked: tuple[str, ...]


class UnsignedError(Exception):
    """A text is not an envelope, or not signed by enough keys; the message says why."""


class ForgedError(UnsignedError):
    """A trusted key is named as a signer, and its signature is not valid."""


def make_keys(folder: Path) -> tuple[Path, Path]:
    """Make a key pair: the private key, readable by its owner alone, and the public one.

    Raises ``SettingsError`` rather than replace a key.
    """
    key = Ed25519PrivateKey.generate()
    private, public = folder / PRIVATE_NAME, folder / PUBLIC_NAME
    folder.mkdir(parents=True, exist_ok=True)
    private_text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_text = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for path, text, mode in ((private, private_text, 0o600), (public, public_text, 0o644)):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, mode)
        except FileExistsError as error:
            message = f"{path} exists; a key is never replaced"
            raise SettingsError(message, remedy="name another folder, or move the key away") from error
        with os.fdopen(handle, "wb") as file:
            file.write(text)
    return private, public


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a key to sign with. Raises ``SettingsError`` if others may read it or it is not a key."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode  # of the file that is read, not of one that takes its place
            data = file.read()
    except OSError as error:
        raise SettingsError(f"the key {path} cannot be read: {error.strerror}", remedy=_HOW_TO_MAKE) from error
    if platforms.HERE.has_modes and mode & READABLE_BY_OTHERS:
        message = f"other users than its owner can read the key {path} (mode {stat.S_IMODE(mode):04o}): it was not used"
        command = shell.quote(["chmod", "600", str(path)])
        raise SettingsError(message, remedy=f"{command}, and make a new key if somebody may have read it")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{path} is not a private key in PEM without a password", remedy=_HOW_TO_MAKE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path} is a private key, but not an Ed25519 key", remedy=_HOW_TO_MAKE)
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a key to check signatures with. Raises ``SettingsError``."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"the key {path} cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{path} is not a public key in PEM", remedy=f"pass the file {PUBLIC_NAME}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(f"{path} is a public key, but not an Ed25519 key")
    return key


def read_keys(
    public: tuple[Path, ...], *, needed: int = 1, revoked: Path | None = None, option: str = "--public-key"
) -> Keys | None:
    """The keys of a user's options; ``None`` if no signature is to be checked. Raises ``SettingsError``.

    ``option`` is the one that names a key.

    A list of revoked keys has one identifier a line (``key_id``), and then the reason if there is one; ``#`` begins a
    comment. A line that is not understood is an error: the key that it means would count.
    """
    if not public:
        if revoked is not None or needed != 1:
            message = "--revoked and --signers are about the signatures of keys, and no key is given"
            raise SettingsError(message, remedy=f"pass {option} KEY")
        return None
    trusted = {key_id(key): key for key in map(read_public_key, public)}
    if needed > len(trusted):
        message = f"--signers {needed}: only {len(trusted)} different keys are given"
        raise SettingsError(message, remedy=f"pass {option} KEY once for each signer")
    return Keys(
        trusted=tuple(trusted.values()),
        needed=needed,
        revoked=() if revoked is None else tuple(_read_revoked(revoked).items()),
    )


def _read_revoked(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the list of revoked keys {path} cannot be read: {error}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        match = re.fullmatch(r"([0-9a-fA-F]{64})(?:\s+(.*))?", text)
        if text and match is None:
            message = f"line {number} of {path} does not begin with the identifier of a key"
            raise SettingsError(message, remedy="it is 64 hexadecimal digits: docs/provenance.md says how to get it")
        if match is not None:
            found[match[1].lower()] = match[2] or "no reason given"
    return found


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the public key in DER, as ``openssl pkey -pubin -outform DER | sha256sum`` prints it."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def seal(payload: bytes, payload_type: str, key: Ed25519PrivateKey) -> str:
    """An envelope around the payload, as JSON. The same payload and key give the same text."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(CryptoSigner(key, _public(key.public_key())))
    return jsonio.dumps(envelope.to_dict())


def cosign(text: str, payload_type: str, key: Ed25519PrivateKey) -> str:
    """The envelope with the signature of this key, too; that of the same key is replaced. Raises ``UnsignedError``."""
    envelope = _envelope(text, payload_type)
    envelope.sign(CryptoSigner(key, _public(key.public_key())))
    envelope.signatures = dict(sorted(envelope.signatures.items()))
    return jsonio.dumps(envelope.to_dict())


def unverified_payload(text: str, payload_type: str) -> bytes:
    """The payload of an envelope; NO signature is checked.

    Raises ``UnsignedError`` if it is not an envelope, has another type, or is not in the one form that ``seal`` writes:
    in that form every byte of the file has a meaning.
    """
    return _envelope(text, payload_type).payload


def verified_payload(text: str, payload_type: str, keys: Keys) -> Vouched:
    """The payload of an envelope that enough trusted keys signed; the signature of a revoked key does not count.

    Raises ``UnsignedError``, and ``ForgedError`` if that is because a signature of a trusted key is not valid.
    """
    envelope = _envelope(text, payload_type)
    revoked = dict(keys.revoked)
    named = {key_id(key): key for key in keys.trusted if key_id(key) in envelope.signatures}
    usable = {identifier: _has_signed(envelope, key) for identifier, key in named.items() if identifier not in revoked}
    counted = tuple(identifier for identifier, valid in usable.items() if valid)
    if len(counted) < keys.needed:
        forged = [f"the signature of the key {one} is not valid" for one, valid in usable.items() if not valid]
        said = [f"the key {one} was revoked: {revoked[one]}" for one in named if one in revoked]
        signers = ", ".join(envelope.signatures) or "nobody"
        wanted = " or ".join(map(key_id, keys.trusted))
        said += [f"it has {len(counted)} of {keys.needed} valid signatures of {wanted}; it names {signers}"]
        raise (ForgedError if forged else UnsignedError)("; ".join([*forged, *said]))
    return Vouched(
        payload=envelope.payload,
        signed_by=counted,
        revoked=tuple(one for one in envelope.signatures if one in revoked),
    )


def _has_signed(envelope: Envelope, key: Ed25519PublicKey) -> bool:
    try:
        envelope.verify([_public(key)], threshold=1)
    except Error:
        return False
    return True


def payload_of_anybody(text: str, payload_type: str) -> bytes:
    """As ``unverified_payload``, for those who know no ``UnsignedError``: raises ``VerificationError``."""
    try:
        return unverified_payload(text, payload_type)
    except UnsignedError as reason:
        raise VerificationError(str(reason)) from reason


def trusted_payload(text: str, payload_type: str, keys: Keys) -> tuple[bytes | None, str]:
    """As ``verified_payload``, for those who go on without it: the payload and a key that counts, or the reason.

    Raises ``VerificationError`` for a forged signature: somebody has changed the text.
    """
    try:
        vouched = verified_payload(text, payload_type, keys)
    except ForgedError as reason:
        raise VerificationError(str(reason)) from reason
    except UnsignedError as reason:
        return None, str(reason)
    return vouched.payload, vouched.signed_by[0]


def _envelope(text: str, payload_type: str) -> Envelope:
    try:
        envelope = Envelope.from_dict(json.loads(text))
        again = jsonio.dumps(envelope.to_dict())
    except (Error, *jsonio.NOT_JSON, KeyError, TypeError, AttributeError) as error:
        raise UnsignedError(f"it is not a DSSE envelope: {error}") from error
    if again != text or list(envelope.signatures) != sorted(envelope.signatures):
        raise UnsignedError("it is not written as this project writes envelopes")
    if envelope.payload_type != payload_type:
        raise UnsignedError(f"its payload is {envelope.payload_type}, not {payload_type}")
    return envelope


def _public(key: Ed25519PublicKey) -> SSlibKey:
    return SSlibKey.from_crypto(key, keyid=key_id(key))
