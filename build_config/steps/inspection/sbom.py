"""Check the SBOM inside the wheel: it exists, it is valid, and it is about this wheel."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from build_config.errors import PackagingError
from build_config.formats import cyclonedx, wheelfile
from build_config.steps.inspection.archive import parse_version
from build_config.steps.inspection.contents import NotRunError, error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.reports import Finding
    from build_config.steps.inspection.contents import Subject


def check_sbom(subject: Subject) -> Iterator[Finding]:
    """The wheel contains a valid SBOM with its version and shards, which lists every library with its digest."""
    try:
        name = f"{wheelfile.dist_info(subject.contents)}/{cyclonedx.MEMBER}"
    except PackagingError as reason:
        raise NotRunError(reason.message) from reason
    data = subject.contents.get(name)
    if data is None:
        yield error("sbom-missing", f"{name} is missing: nothing lists the contents of the wheel")
        return
    text = data.decode("utf-8", errors="replace")
    problems = cyclonedx.problems(text)
    for problem in problems:
        yield error("sbom-invalid", f"{name} is not valid CycloneDX: {problem}")
    if not problems:
        yield from _compare(subject, name, json.loads(text))


def _compare(subject: Subject, name: str, document: dict[str, Any]) -> Iterator[Finding]:
    declaration = subject.declaration
    wheel = document.get("metadata", {}).get("component", {})
    if parse_version(wheel.get("version", "")) != declaration.version:
        yield error("sbom-version", f"{name} is about version {wheel.get('version')}, not {declaration.version}")
    listed = sorted(each.get("value", "") for each in wheel.get("properties", []) if each["name"] == cyclonedx.SHARD)
    declared = sorted(f"{shard.name}: {shard.cmake_architectures}" for shard in declaration.shards)
    if listed != declared:
        yield error("sbom-shards", f"{name} lists {'; '.join(listed) or 'no shard'}, not {'; '.join(declared)}")
    digests = cyclonedx.file_digests(document)
    for library in sorted(subject.libraries):
        if library not in digests:
            yield error("sbom-library-missing", f"{name} does not list {library}")
    for member, digest in sorted(digests.items()):
        held = subject.contents.get(member)
        if held is None:
            yield error("sbom-library-absent", f"{name} lists {member}, which is not in the wheel")
        elif hashlib.sha256(held).hexdigest() != digest:
            yield error("sbom-digest", f"{name} lists {member} with another digest than the file has")
