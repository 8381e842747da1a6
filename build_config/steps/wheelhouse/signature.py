"""Signed envelopes (DSSE) with Ed25519 keys; securesystemslib and cryptography do the cryptography.

https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
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


class UnsignedError(Exception):
    """A text is not an envelope, or not signed by the key; the message says why."""


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


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the public key in DER, as ``openssl pkey -pubin -outform DER | sha256sum`` prints it."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def seal(payload: bytes, payload_type: str, key: Ed25519PrivateKey) -> str:
    """An envelope around the payload, as JSON. The same payload and key give the same text."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(CryptoSigner(key, _public(key.public_key())))
    return jsonio.dumps(envelope.to_dict())


def unverified_payload(text: str, payload_type: str) -> bytes:
    """The payload of an envelope; NO signature is checked.

    Raises ``UnsignedError`` if it is not an envelope, has another type, or is not in the one form that ``seal`` writes:
    in that form every byte of the file has a meaning.
    """
    return _envelope(text, payload_type).payload


def verified_payload(text: str, payload_type: str, key: Ed25519PublicKey) -> bytes:
    """The payload of an envelope that this key signed. Raises ``UnsignedError``."""
    envelope = _envelope(text, payload_type)
    try:
        envelope.verify([_public(key)], threshold=1)
    except Error as error:
        signers = ", ".join(envelope.signatures) or "nobody"
        raise UnsignedError(f"it has no valid signature of the key {key_id(key)}; it names {signers}") from error
    return envelope.payload


def payload_of_anybody(text: str, payload_type: str) -> bytes:
    """As ``unverified_payload``, for those who know no ``UnsignedError``: raises ``VerificationError``."""
    try:
        return unverified_payload(text, payload_type)
    except UnsignedError as reason:
        raise VerificationError(str(reason)) from reason


def trusted_payload(text: str, payload_type: str, keys: tuple[Ed25519PublicKey, ...]) -> tuple[bytes | None, str]:
    """The payload of an envelope and the identifier of the trusted key that signed it.

    Without one that any of the keys is said to have signed: ``None``, and the reason. Raises ``VerificationError`` if a
    key is named as the signer, and its signature is not valid.
    """
    try:
        envelope = _envelope(text, payload_type)
    except UnsignedError as reason:
        return None, str(reason)
    named = [key for key in keys if key_id(key) in envelope.signatures]
    if not named:
        signers = ", ".join(envelope.signatures)
        return None, f"it is signed by {signers}, which is not trusted" if signers else "it is not signed"
    for key in named:
        try:
            envelope.verify([_public(key)], threshold=1)
        except Error as error:
            raise VerificationError(f"the signature of the key {key_id(key)} is not valid") from error
    return envelope.payload, key_id(named[0])


def _envelope(text: str, payload_type: str) -> Envelope:
    try:
        envelope = Envelope.from_dict(json.loads(text))
        again = jsonio.dumps(envelope.to_dict())
    except (Error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsignedError(f"it is not a DSSE envelope: {error}") from error
    if again != text:
        raise UnsignedError("it is not written as this project writes envelopes")
    if envelope.payload_type != payload_type:
        raise UnsignedError(f"its payload is {envelope.payload_type}, not {payload_type}")
    return envelope


def _public(key: Ed25519PublicKey) -> SSlibKey:
    return SSlibKey.from_crypto(key, keyid=key_id(key))
