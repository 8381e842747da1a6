"""Puts wheels that were built elsewhere into the wheelhouse, if each is what its record says."""

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
    """Put every wheel that lies in ``folders`` or below them into the wheelhouse, with all that lies beside it.

    Returns where they are now. Raises ``SettingsError`` where there is none, and ``VerificationError`` for one that
    does not belong to its record, or for two of one name; then none is published.
    """
    key = None if public_key is None else signature.read_public_key(public_key)
    found = sorted({path.absolute() for folder in folders for path in folder.rglob("*.whl")})
    if not found:
        listed = ", ".join(map(str, folders))
        raise SettingsError(f"there is no wheel in {listed}", remedy="name the folder that the wheels were put into")
    digests: dict[str, str] = {}
    for path in found:
        result = verified(path, layout, console, key)
        if digests.setdefault(path.name, result.sha256) != result.sha256:
            message = f"{path.name} is there twice, with different bytes: {digests[path.name]} and {result.sha256}"
            raise VerificationError(message, remedy="find out which build is at fault: nox -s reproduce")
    return tuple(_published(path, layout) for path in {path.name: path for path in found}.values())


def _published(path: Path, layout: Layout) -> Path:
    """Into the wheelhouse with a wheel that was verified; its signature, if there is one, goes along."""
    record = jsonio.read(publication.record_path(path), BuildRecord)
    envelope = statement.envelope_path(path)
    signed = envelope.read_text(encoding="utf-8") if envelope.exists() else None
    final = publication.publish(wheelfile.read(path), record, record.inspection, record.validation, layout.wheelhouse)
    if signed is not None:
        jsonio.write_text(statement.envelope_path(final), signed)
    return final
