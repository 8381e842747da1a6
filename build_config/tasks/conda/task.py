"""Make a conda package of a published wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.formats import wheelfile
from build_config.reports import BuildRecord
from build_config.steps.wheelhouse import publication
from build_config.steps.wheelhouse.publication import newest_wheel
from build_config.system import jsonio
from build_config.tasks import conda
from build_config.tasks.verify import verified

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.steps.wheelhouse.signature import Keys
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.tasks.conda import CondaPackage


def make_conda_package(
    path: Path | None, layout: Layout, console: Console, *, keys: Keys | None = None
) -> tuple[CondaPackage, Path]:
    """Turn a published wheel, by default the newest of the wheelhouse, into a package of the local conda channel.

    Raises ``VerificationError`` for a wheel that does not belong to its record, ``PackagingError`` for one that a conda
    package cannot express.
    """
    chosen = path or newest_wheel(layout)
    verified(chosen, layout, console, keys)
    wheel = wheelfile.read(chosen)
    record = jsonio.read(publication.record_path(chosen), BuildRecord)
    names = conda.read_names(layout.data / "conda.toml")
    package = conda.describe(wheel, wheelfile.read_contents(chosen), record, names)
    return package, conda.publish(package, wheel, layout.conda_channel)
