"""The in-toto statement about a wheel, as a function of its record: SLSA provenance v1.

Everything in the statement comes from the record, and the record's digest is in the statement. So whoever has both can
write the statement again and compare the bytes, and a signature of the statement covers the record.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Any

from build_config.system import jsonio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.reports import BuildRecord, Material

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:llama-cuda-wheels:build:v1"
"""docs/provenance.md explains the parameters."""
VARIANT_TYPE = "urn:llama-cuda-wheels:variant:v1"
"""A run of ``nox -s variant`` with the wheel that comes first among the dependencies; the rest is about that wheel."""
BUILDER_ID = "urn:llama-cuda-wheels:builder:own-machine"
"""Any user who ran the main job on their own machine: docs/provenance.md."""
STATEMENT_SUFFIX = ".intoto.json"
ENVELOPE_SUFFIX = ".intoto.dsse.json"
_INVOCATIONS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:llama-cuda-wheels:invocation")


def statement_path(wheel: Path) -> Path:
    """The path of the statement about a published wheel."""
    return wheel.with_name(wheel.name + STATEMENT_SUFFIX)


def envelope_path(wheel: Path) -> Path:
    """The path of the signed statement about a published wheel, if there is one."""
    return wheel.with_name(wheel.name + ENVELOPE_SUFFIX)


def statement(record: BuildRecord, record_file: bytes) -> str:
    """The statement; the same record gives the same text. ``record_file`` are the bytes of the published record."""
    digest = hashlib.sha256(record_file).hexdigest()
    provenance: dict[str, Any] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE if record.variant_of is None else VARIANT_TYPE,
            "externalParameters": dict(record.request),
            "internalParameters": {
                "units": {key.digest: dict(key.inputs) for key in record.units},
                "shards": {shard.name: shard.cmake_architectures for shard in record.shards},
                "toolchain": dict(record.toolchain),
            },
            "resolvedDependencies": [
                *_source(record),
                *(_descriptor(material) for material in record.materials),
                *({"name": name, "digest": {"sha256": sha256}} for name, sha256 in record.locks),
            ],
        },
        "runDetails": {
            "builder": {"id": BUILDER_ID, "version": {"llama-cuda-wheels": record.pipeline}},
            "metadata": {
                "invocationId": uuid.uuid5(_INVOCATIONS, digest).urn,
                "startedOn": record.started,
                "finishedOn": record.created,
            },
            "byproducts": [
                {"name": f"{record.wheel}.record.json", "digest": {"sha256": digest}, "mediaType": "application/json"}
            ],
        },
    }
    return jsonio.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": record.wheel, "digest": {"sha256": record.sha256}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": provenance,
        }
    )


def _source(record: BuildRecord) -> Iterator[dict[str, Any]]:
    """The wheel that a variant wheel was made of, and its record."""
    if source := record.variant_of:
        yield {"name": source.wheel, "digest": {"sha256": source.sha256}}
        yield {"name": f"{source.wheel}.record.json", "digest": {"sha256": source.record_sha256}}


def _descriptor(material: Material) -> dict[str, Any]:
    described = {
        "name": material.name,
        "uri": material.uri,
        "digest": dict(material.digests),
        "annotations": {name: list(values) for name, values in material.annotations},
    }
    return {name: value for name, value in described.items() if value}
