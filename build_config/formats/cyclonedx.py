"""CycloneDX documents in a wheel: their place, their form, and their validation."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom

MEMBER = "sboms/llama-cpp-python.cdx.json"
"""Below ``.dist-info``: https://peps.python.org/pep-0770/"""
SHARD = "llama-cuda-wheels:shard"
"""Property of the wheel itself, one for each shard: ``sm89: 89-real``."""
FILE_REF = "member:"
"""The prefix of the reference of a component that is a member of the wheel; its name follows."""
_SERIALS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:llama-cuda-wheels:sbom")


def text(bom: Bom) -> str:
    """A document as CycloneDX 1.6 JSON: the same contents give the same text.

    It contains no time, and its serial number is derived from the rest.
    """
    from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415  # reading a document needs none of cyclonedx

    data: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    data["metadata"].pop("timestamp", None)
    data.pop("serialNumber", None)
    data["serialNumber"] = uuid.uuid5(_SERIALS, json.dumps(data, sort_keys=True)).urn
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def problems(document: str) -> tuple[str, ...]:
    """The violations of the strict schema of CycloneDX 1.6 in a text, one sentence each."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415  # as in text
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415  # takes over a second for grammars

    try:
        errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document, all_errors=True)
    except ValueError as reason:
        return (f"it is not JSON: {reason}",)
    found = [str(error.data.message) for error in errors or ()]
    if not found and json.loads(document)["specVersion"] != SchemaVersion.V1_6.to_version():  # the schema accepts any
        found.append("it is of another version of the specification")
    return tuple(found)


def file_digests(document: dict[str, Any]) -> dict[str, str]:
    """The members of the wheel that a document lists, at any depth, each with its SHA-256."""
    found: dict[str, str] = {}
    waiting = list(document.get("components", []))
    while waiting:
        component = waiting.pop()
        waiting += component.get("components", [])
        reference = component.get("bom-ref", "")
        if reference.startswith(FILE_REF):
            digests = {each["alg"]: each["content"] for each in component.get("hashes", [])}
            found[reference.removeprefix(FILE_REF)] = digests.get("SHA-256", "")
    return found
