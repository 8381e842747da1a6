"""The finished wheel of the wheelhouse and the files next to it: accepted, and refused after one changed byte."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from build_config import inputs
from build_config.errors import VerificationError
from build_config.formats import cyclonedx, wheelfile
from build_config.steps import locks
from build_config.steps.wheel.sbom import ingredients
from build_config.steps.wheelhouse import publication, statement, verification
from build_config.steps.wheelhouse.signature import PRIVATE_NAME, PUBLIC_NAME, make_keys, read_keys
from build_config.system.console import Console
from build_config.tasks import verify

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Wheel
    from build_config.system.layout import Layout

pytestmark = pytest.mark.wheel

NOT_COMPILED = ("vendor/nlohmann/", "vendor/cpp-httplib/")
"""Folders that only targets outside the wheel include."""
LLAMA_CPPS_OWN = frozenset({"vendor/hash/hash.h", "vendor/hash/hash.cpp"})


@pytest.fixture(name="signed", scope="module")
def _signed(wheel: Wheel, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the wheel and of the files next to it, signed with a new key."""
    folder = tmp_path_factory.mktemp("signed")
    for path in (wheel.path, publication.record_path(wheel.path), statement.statement_path(wheel.path)):
        shutil.copyfile(path, folder / path.name)
    make_keys(folder)
    copy = folder / wheel.path.name
    verify.sign(copy, folder / PRIVATE_NAME, layout, Console(terminal=False))
    return copy


def findings(path: Path, layout: Layout) -> set[str]:
    keys = read_keys((path.with_name(PUBLIC_NAME),))
    result = verification.verify(path, inputs.evidence(layout, keys=keys))
    assert result.passed == (not [each for each in result.findings if each.severity == "error"])
    return {finding.code for finding in result.findings}


def test_the_wheel_is_accepted(signed: Path, layout: Layout) -> None:
    verify.verify(signed, layout, Console(terminal=False), keys=read_keys((signed.with_name(PUBLIC_NAME),)))


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        ("", "wheel-not-recorded"),
        (".record.json", "record-changed"),
        (statement.STATEMENT_SUFFIX, "statement-differs"),
        (statement.ENVELOPE_SUFFIX, "envelope-refused"),
    ],
)
def test_one_changed_byte_is_refused(signed: Path, layout: Layout, suffix: str, expected: str) -> None:
    path = signed.with_name(signed.name + suffix)
    sound = path.read_bytes()
    chosen = random.Random(suffix)  # noqa: S311  # positions, no secrets
    try:
        for position in (0, len(sound) - 1, *(chosen.randrange(len(sound)) for _ in range(3))):
            changed = bytearray(sound)
            changed[position] ^= 1
            path.write_bytes(bytes(changed))
            assert expected in findings(signed, layout)
            with pytest.raises(VerificationError):
                verify.verify(signed, layout, Console(terminal=False), keys=read_keys((signed.with_name(PUBLIC_NAME),)))
    finally:
        path.write_bytes(sound)
    assert not findings(signed, layout)


def test_every_byte_of_the_signature_counts(signed: Path, layout: Layout) -> None:
    path = statement.envelope_path(signed)
    sound = path.read_text(encoding="utf-8")
    signature = json.loads(sound)["signatures"][0]["sig"]
    try:
        for position in range(0, len(signature) - 2, 9):
            letter = "A" if signature[position] != "A" else "B"
            changed = signature[:position] + letter + signature[position + 1 :]
            path.write_text(sound.replace(signature, changed), encoding="utf-8")
            assert findings(signed, layout) == {"envelope-refused"}
    finally:
        path.write_text(sound, encoding="utf-8")


def test_the_lock_of_another_checkout_is_refused(signed: Path, layout: Layout) -> None:
    against = inputs.evidence(layout, keys=None)
    other = tuple({**dict(against.locks), "llama-cpp-python.toml": "0" * 64}.items())
    result = verification.verify(signed, dataclasses.replace(against, locks=other))
    assert [finding.code for finding in result.findings] == ["lock-differs"]
    assert not result.passed


# --------------------------------------------------------------------------------------------------------------- SBOM


def test_the_sbom_lists_the_contents_of_the_wheel(wheel: Wheel, layout: Layout) -> None:
    contents = wheelfile.read_contents(wheel.path)
    text = contents[f"{wheelfile.dist_info(contents)}/{cyclonedx.MEMBER}"].decode()
    assert cyclonedx.problems(text) == ()
    document = json.loads(text)
    libraries = {name for name in contents if ".so" in name}
    assert libraries <= cyclonedx.file_digests(document).keys()
    found = {each["name"]: each for each in document["components"] if not each["bom-ref"].startswith("required:")}
    assert found["llama-cpp-python"]["hashes"][0]["content"] == locks.read_source_lock(layout).file.sha256
    assert re.fullmatch(r"pkg:github/ggml-org/llama\.cpp@[0-9a-f]{40}", found["llama.cpp"]["purl"])
    assert found["libgomp"]["licenses"] == [{"expression": "GPL-3.0-or-later WITH GCC-exception-3.1"}]


def test_the_versions_in_the_sbom_are_those_in_the_libraries(wheel: Wheel) -> None:
    """Libraries that contain their version show that the sources of the SBOM are those that were compiled."""
    contents = wheelfile.read_contents(wheel.path)
    document = json.loads(contents[f"{wheelfile.dist_info(contents)}/{cyclonedx.MEMBER}"])
    versions = {each["name"]: each.get("version", "") for each in document["components"]}
    assert versions["ggml"].encode() in contents["llama_cpp/lib/libggml-base.so"]
    assert versions["gcc"].encode() in contents["llama_cpp/lib/libllama.so"]


def test_every_file_that_llama_cpp_vendors_is_named_or_known_not_to_be_compiled(wheel: Wheel, layout: Layout) -> None:
    """A new upstream release can add a library: somebody must check whether it is compiled."""
    root = layout.staged / "llama.cpp"
    files = {path.relative_to(root).as_posix() for path in (root / "vendor").rglob("*.[ch]*")}
    there = {name for name in files if not name.startswith(NOT_COMPILED)} - LLAMA_CPPS_OWN
    assert wheel.path.exists()
    assert there == {
        name
        for source in ingredients.read_components(layout).sources
        for name in source.files
        if name.startswith("vendor/")
    }
