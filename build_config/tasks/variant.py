"""Make variant wheels, a preview: uv then takes the wheel for the GPU of each machine by itself (docs/sharing.md)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import SettingsError
from build_config.formats import wheelfile
from build_config.reports import BuildRecord
from build_config.steps.wheel import variant
from build_config.steps.wheelhouse import build_record, publication, signature
from build_config.system import jsonio
from build_config.tasks.verify import OTHER_LOCKS, verified

if TYPE_CHECKING:
    from build_config.steps.wheelhouse.signature import Keys
    from build_config.system.console import Console
    from build_config.system.layout import Layout


def make_variants(
    wheels: tuple[Path, ...],
    layout: Layout,
    console: Console,
    *,
    keys: Keys | None = None,
    sign_key: Path | None = None,
) -> tuple[Path, ...]:
    """Make the variant wheel of each of these wheels, in a folder of the wheelhouse; returns their paths.

    Each has a record and a statement of its own, which name its source wheel, and with ``sign_key`` a signature. The
    same wheels give the same bytes. Raises ``VerificationError`` for a wheel that does not belong to its record, and
    ``PackagingError`` for one that cannot become a variant; then none is made.
    """
    if not wheels:
        raise SettingsError("no wheel is named", remedy="nox -s variant -- WHEEL..., each for one shard set")
    key = None if sign_key is None else signature.read_private_key(sign_key)
    with tempfile.TemporaryDirectory(prefix="variant-") as temporary:
        made = []
        for path in wheels:
            verified(path, layout, console, keys, ignored=OTHER_LOCKS)
            record_file = publication.record_path(path)
            record = jsonio.read(record_file, BuildRecord)
            wheel = variant.make(wheelfile.read(path), record.archs, Path(temporary))
            made.append((wheel, build_record.of_variant(wheel, record, record_file.read_bytes())))
        return tuple(
            publication.publish(wheel, record, record.inspection, record.validation, layout.variants, key=key)
            for wheel, record in made
        )
