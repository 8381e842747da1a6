"""Publish wheels that other jobs built in the wheelhouse, if each matches its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.errors import SettingsError, VerificationError
from build_config.formats import wheelfile
from build_config.reports import BuildRecord
from build_config.steps.wheelhouse import publication, signature, statement
from build_config.system import jsonio
from build_config.tasks.verify import verified

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.system.console import Console
    from build_config.system.layout import Layout


def publish(
    folders: tuple[Path, ...], layout: Layout, console: Console, *, public_key: Path | None = None
) -> tuple[Path, ...]:
    """Publish every wheel in or below ``folders`` in the wheelhouse, with the files next to it.

    Returns the new paths. Raises ``SettingsError`` without any wheel, and ``VerificationError`` for one that does not
    belong to its record, or for two of one name; then none is published.
    """
    key = None if public_key is None else signature.read_public_key(public_key)
    found = sorted({path.absolute() for folder in folders for path in folder.rglob("*.whl")})
    if not found:
        listed = ", ".join(map(str, folders))
        raise SettingsError(f"there is no wheel in {listed}", remedy="pass the folder that contains the wheels")
    digests: dict[str, str] = {}
    for path in found:
        result = verified(path, layout, console, key)
        if digests.setdefault(path.name, result.sha256) != result.sha256:
            message = f"{path.name} was found twice, with different bytes: {digests[path.name]} and {result.sha256}"
            raise VerificationError(message, remedy="find out which build is wrong: nox -s reproduce")
    return tuple(_published(path, layout) for path in {path.name: path for path in found}.values())


def _published(path: Path, layout: Layout) -> Path:
    """Publish a verified wheel in the wheelhouse, with its signature if there is one."""
    record = jsonio.read(publication.record_path(path), BuildRecord)
    envelope = statement.envelope_path(path)
    signed = envelope.read_text(encoding="utf-8") if envelope.exists() else None
    final = publication.publish(wheelfile.read(path), record, record.inspection, record.validation, layout.wheelhouse)
    if signed is not None:
        jsonio.write_text(statement.envelope_path(final), signed)
    return final
