"""A variant wheel of a finished wheel: the same libraries, and the GPUs that they are for, in a form for installers."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote

from build_config.errors import PackagingError
from build_config.formats import variants, wheelfile

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import CudaArch, Wheel


def make(source: Wheel, code: tuple[CudaArch, ...], out: Path) -> Wheel:
    """Write the variant wheel of ``source``, whose shards have this code, into the folder ``out``.

    Only ``.dist-info`` differs: its name, the version in METADATA and in the SBOMs, ``variant.json`` and RECORD. The
    same wheel gives the same bytes. Raises ``PackagingError`` for a wheel that cannot become a variant.
    """
    variants.check(code)
    target = variants.file_name(source.path.name)
    name = variants.parse(target)
    contents = wheelfile.read_contents(source.path)
    folder = wheelfile.dist_info(contents)
    extra = {variants.MEMBER: variants.document(name.version, {str(name.label): code})}
    extra["METADATA"] = _metadata(contents[f"{folder}/METADATA"].decode(), str(source.version), str(name.version))
    for member, data in contents.items():
        if member.startswith(f"{folder}/sboms/"):
            sbom = _sbom(data.decode(), source.path.name, target, (str(source.version), str(name.version)))
            extra[member.removeprefix(f"{folder}/")] = sbom
    encoded = {member: text.encode() for member, text in extra.items()}
    return wheelfile.write_normalised(source.path, out / target, extra=encoded, version=name.version)


def _metadata(text: str, old: str, new: str) -> str:
    """METADATA with the other version. The description, after an empty line, stays as it is."""
    header, empty, description = text.partition("\n\n")
    header, found = re.subn(rf"^Version: {re.escape(old)}$", f"Version: {new}", header, flags=re.MULTILINE)
    if found != 1:
        raise PackagingError(f"METADATA does not have the version {old} once")
    return header + empty + description


def _sbom(text: str, old_file: str, new_file: str, versions: tuple[str, str]) -> str:
    """An SBOM about the other file. It names file and version as they are, and as a part of an address."""
    for old, new in ((old_file, new_file), versions):
        text = text.replace(quote(old), quote(new)).replace(old, new)
    serial = json.loads(text).get("serialNumber")
    return text.replace(serial, uuid.uuid5(uuid.UUID(serial), new_file).urn) if serial else text
