"""Signatures and digests with the tools that anybody has: the commands of docs/provenance.md, as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config.errors import VerificationError
from build_config.steps.wheelhouse import publication, signature, statement
from build_config.system.layout import PACKAGE
from tests.integration.conftest import run
from tests.support import attested
from tests.support.command_line import call, call_here
from tests.support.publishable import make

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL is not installed"),
]

DOCUMENT = (PACKAGE.parent / "docs" / "provenance.md").read_text(encoding="utf-8")


@pytest.fixture(name="published")
def _published(tmp_path: Path) -> Path:
    private, _ = signature.make_keys(tmp_path)
    return publication.publish(
        *make(tmp_path / "store"), tmp_path / "wheelhouse", key=signature.read_private_key(private)
    )


def by_hand(wheel: Path, key: Path) -> subprocess.CompletedProcess[str]:
    (script,) = re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)
    environment = {**os.environ, "WHEEL": str(wheel), "KEY": str(key), "LC_ALL": "C"}
    return run("bash", "-o", "pipefail", "-c", script, env=environment)


def test_the_documented_commands_accept_what_was_published(published: Path, tmp_path: Path) -> None:
    done = by_hand(published, tmp_path / signature.PUBLIC_NAME)
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout


@pytest.mark.parametrize("suffix", ["", ".record.json", statement.STATEMENT_SUFFIX, statement.ENVELOPE_SUFFIX])
def test_the_documented_commands_refuse_a_changed_byte(published: Path, tmp_path: Path, suffix: str) -> None:
    path = published.with_name(published.name + suffix)
    changed = bytearray(path.read_bytes())
    place = changed.index(b'"payload": "') + 40 if suffix == statement.ENVELOPE_SUFFIX else len(changed) // 2
    changed[place] ^= 1
    path.write_bytes(bytes(changed))
    assert by_hand(published, tmp_path / signature.PUBLIC_NAME).returncode != 0


def test_the_documented_commands_refuse_another_key(published: Path, tmp_path: Path) -> None:
    _, other = signature.make_keys(tmp_path / "other")
    done = by_hand(published, other)
    assert done.returncode != 0
    assert "Signature Verification Failure" in done.stdout


def test_a_key_that_openssl_made_signs_as_well(tmp_path: Path) -> None:
    (line,) = re.findall(r"^openssl genpkey.*$", DOCUMENT, re.MULTILINE)
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    key = signature.read_private_key(tmp_path / "key.pem")
    published = publication.publish(*make(tmp_path / "store"), tmp_path / "wheelhouse", key=key)
    assert by_hand(published, tmp_path / "pub.pem").returncode == 0
    (line,) = re.findall(r"`(openssl pkey -pubin -in pub\.pem.*?)`", DOCUMENT)
    told = subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert told.stdout.split()[0] == signature.key_id(key.public_key())


def test_the_command_line_makes_keys_signs_accepts_and_refuses(tmp_path: Path) -> None:
    house = attested.publish(tmp_path, key=None)
    assert call("keygen", tmp_path / "keys").returncode == 0
    private, public = tmp_path / "keys" / signature.PRIVATE_NAME, tmp_path / "keys" / signature.PUBLIC_NAME
    assert call_here("verify", house.wheel, "--public-key", public).returncode == VerificationError.exit_code
    assert call("sign", house.wheel, "--sign-key", private).returncode == 0
    accepted = call("verify", house.wheel, "--public-key", public)
    assert accepted.returncode == 0, accepted.stderr
    assert signature.key_id(signature.read_public_key(public)) in accepted.stdout
    changed = bytearray(house.wheel.read_bytes())
    changed[len(changed) // 2] ^= 1
    house.wheel.write_bytes(bytes(changed))
    refused = call_here("verify", house.wheel, "--public-key", public)
    assert refused.returncode == VerificationError.exit_code
    assert "[wheel-not-recorded]" in refused.stdout
