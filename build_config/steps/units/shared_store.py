"""A store of finished units that several machines share; every unit in it is described by a signed file.

``units/v1/AA/KEY.dsse`` is the description of the unit with that key in a signed envelope: all inputs of the key, and
name, size and SHA-256 of each file. ``blobs/sha256/AA/DIGEST`` is a file. Files are created and never replaced, the
description last. Nothing enters the store of this machine unless a trusted key has signed its digest.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_config.errors import (
    BuildError,
    NetworkError,
    SettingsError,
    StepResultError,
    TransferError,
    VerificationError,
)
from build_config.steps.units import store
from build_config.system import jsonio, storage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from build_config.model import BuildUnit, BuiltFile
    from build_config.steps.units.spec import UnitSpec
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.system.storage import Bucket, Reader

DESCRIPTION_TYPE = "application/vnd.llama-cuda-wheels.unit.v1+json"
"""The type of a description in an envelope: a signature of anything else is not one of a unit."""
KEPT = {"Content-Type": storage.ANYTHING, "Cache-Control": storage.IMMUTABLE}
REMEDY_REFUSED = "do not use this store until somebody has found out who changed it; no file is replaced by itself"
REMEDY_MISSING = "build the units into that store: nox -s units -- --arch ARCH --push URL --sign-key KEY"
REMEDY_DIFFERENT = "find out which build is wrong (nox -s reproduce), then remove the wrong one from the store by hand"
SHOWN = 12


def description_name(key: str) -> str:
    """The name of the description of a unit by the digest of its key."""
    return f"units/v1/{key[:2]}/{key}.dsse"


def blob_name(sha256: str) -> str:
    """The name of a file by its digest."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


# ---------------------------------------------------------------------------------------------------------- import


def import_units(  # the specs, where they are looked for, whom to trust, where they go
    specs: tuple[UnitSpec, ...],
    place: Reader,
    opened: Callable[[str], tuple[bytes | None, str]],
    layout: Layout,
    console: Console,
    *,
    required: bool,
) -> None:
    """Take the units that the store here lacks from a shared one.

    ``opened`` returns the payload of an envelope and the trusted key that signed it, or no payload and the reason why
    the envelope does not count; it raises ``VerificationError`` for a bad signature of a trusted key. A unit that is
    missing, unsigned or signed by others is said, and so is a store that does not answer; with ``required`` that is an
    error. Raises ``TransferError`` for a bad signature, another unit, and a file with another digest.
    """
    lacking = []
    for spec in specs:
        if store.find(spec, layout) is None:
            try:
                reason = _import(spec, place, opened, layout, console)
            except (NetworkError, SettingsError) as error:  # a bucket that does not list refuses what is missing
                reason = error.message
            if reason is not None:
                lacking.append(f"unit {spec.name} ({spec.key.digest[:SHOWN]}): {reason}")
    if lacking and required:
        raise TransferError("\n".join(lacking), remedy=REMEDY_MISSING)
    for line in lacking:
        console.warn(f"{line}; it is compiled here")


def discard(specs: tuple[UnitSpec, ...], revoked: Collection[str], layout: Layout, console: Console) -> None:
    """Remove from the store here what was taken from a shared one with the signature of a key that is revoked now."""
    for spec in specs if revoked else ():  # to find a unit is to hash it
        unit = store.find(spec, layout)
        if unit is not None and unit.origin is not None and unit.origin.endswith(tuple(map(_signed_by, revoked))):
            store.remove(unit)
            console.warn(
                f"unit {unit.name} is removed from the store of this machine, as its key was revoked:"
                f" it came from {unit.origin}"
            )


def _signed_by(key: str) -> str:
    """The end of the origin of a unit from a shared store."""
    return f"signed by the key {key}"


def _import(
    spec: UnitSpec, place: Reader, opened: Callable[[str], tuple[bytes | None, str]], layout: Layout, console: Console
) -> str | None:
    """Take one unit; returns the reason why it is not taken."""
    name = description_name(spec.key.digest)
    text = place.read(name)
    if text is None:
        return f"{place.url} does not have it"
    where = f"{place.url}/{name}"
    try:
        payload, signer = opened(text.decode(errors="replace"))
    except VerificationError as error:
        raise TransferError(f"{where}: {error.message}", remedy=REMEDY_REFUSED) from error
    if payload is None:
        return f"{where} is not used: {signer}"
    offered = _described(payload, where)
    if offered.key != spec.key:
        message = f"{where} describes the unit {offered.name} with the key {offered.key.digest}"
        raise TransferError(message, remedy=REMEDY_REFUSED)
    if (offered.name, offered.shard, tuple(file.name for file in offered.files)) != (
        spec.name,
        spec.shard,
        spec.expected,
    ):
        message = f"{where} has the key of {spec.name}, but declares other contents"
        raise TransferError(message, remedy=REMEDY_REFUSED)
    layout.store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.store, prefix=".import-") as folder:
        for file in offered.files:
            if not _receive(file, place, Path(folder)):
                return f"{place.url}/{blob_name(file.sha256)}, its {file.name}, is missing"
        try:
            store.keep(
                spec,
                Path(folder),
                layout,
                network=offered.network,
                headers=offered.headers,
                launcher=offered.launcher,
                declared=offered.files,
                origin=f"the shared store {place.url}, {_signed_by(signer)}",
            )
        except (BuildError, StepResultError) as error:
            raise TransferError(error.message, remedy=REMEDY_REFUSED) from error
    console.note(f"unit {spec.name}: from {place.url}, signed by the key {signer[:SHOWN]}")
    return None


def _receive(file: BuiltFile, place: Reader, folder: Path) -> bool:
    """Receive a file whose digest is signed; whether it is there."""
    name = blob_name(file.sha256)
    there = place.fetch(name, folder / file.name, limit=file.size)
    if there is not None and there != file.sha256:
        size = (folder / file.name).stat().st_size
        size_said = f"{size} bytes" if size <= file.size else f"more than {file.size} bytes"
        message = (
            f"{place.url}/{name}, the {file.name}, has SHA-256 {there} and {size_said}; signed was {file.sha256} with"
            f" {file.size} bytes. Nothing of it was used"
        )
        raise TransferError(message, remedy=REMEDY_REFUSED)
    return there is not None


def _described(payload: bytes, where: str) -> BuildUnit:
    try:
        return store.described(jsonio.loads(payload, dict[str, Any]), Path())
    except StepResultError as error:
        raise TransferError(f"{where} is signed, but describes no unit: {error}", remedy=REMEDY_REFUSED) from error


# ------------------------------------------------------------------------------------------------------------ push


def push_units(
    units: tuple[BuildUnit, ...],
    place: Bucket,
    sealed: Callable[[bytes], str],
    unverified: Callable[[str], bytes],
    console: Console,
) -> None:
    """Put units that this machine compiled into a shared store; the first one of a key stays.

    ``sealed`` signs a description, ``unverified`` reads one whoever signed it. Units that came from elsewhere are left
    out: a signature says who compiled. Raises ``TransferError`` if the store has other bytes for the same inputs, with
    both digests, after the other units have been put there.
    """
    different = []
    for unit in units:
        if unit.origin is not None:
            console.note(f"unit {unit.name}: not pushed, it came from {unit.origin}")
            continue
        where = f"{place.url}/{description_name(unit.key.digest)}"
        there = place.read(description_name(unit.key.digest))
        if there is None:
            different += _put_files(unit, place)
            if different:
                continue
            text = sealed(jsonio.dumps(store.description(unit)).encode())
            if place.create(description_name(unit.key.digest), text.encode(), KEPT):
                console.note(f"unit {unit.name}: pushed to {place.url} ({unit.key.digest[:SHOWN]})")
                continue
            there = place.read(description_name(unit.key.digest)) or b""  # somebody else was faster
        try:
            known = _described(unverified(there.decode(errors="replace")), where)
        except (VerificationError, TransferError) as error:
            different.append(f"{where} is in the way: {error.message}")
            continue
        differs = [line for file in unit.files if (line := _difference(unit, file, known.files))]
        different += differs
        if not differs:
            console.note(f"unit {unit.name}: {place.url} has it already, with the same bytes")
    if different:
        raise TransferError("\n".join(different), remedy=REMEDY_DIFFERENT)


def _put_files(unit: BuildUnit, place: Bucket) -> list[str]:
    """Put the files of a unit into the store; returns what is wrong with one that is there already."""
    wrong = []
    for file in unit.files:
        path, name = unit.folder / file.name, blob_name(file.sha256)
        if store.describe(path) != file:
            raise TransferError(f"{file.name} of unit {unit.name} has changed since it was built")
        if not place.create(name, path, KEPT):
            there = place.sha256(name)
            if there != file.sha256:
                wrong.append(f"{place.url}/{name} has SHA-256 {there}: it is not {file.name} of unit {unit.name}")
    return wrong


def _difference(unit: BuildUnit, file: BuiltFile, known: tuple[BuiltFile, ...]) -> str | None:
    """A sentence with both digests if the store has another file for the same inputs."""
    there = next((one for one in known if one.name == file.name), None)
    if there == file:
        return None
    digest = "no such file" if there is None else f"SHA-256 {there.sha256}"
    return f"unit {unit.name} ({unit.key.digest[:SHOWN]}): {file.name} has SHA-256 {file.sha256} here, {digest} there"
