"""All paths, derived from two roots: the checkout and the work root.

The work root is the same for every checkout and every user of a machine, because nvcc hashes the absolute path of a
source file into the symbols of its device code: the same bytes need the same path (``docs/architecture.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from build_config.system import platforms

CANONICAL_WORK_ROOT = Path(platforms.HERE.work_root)
PACKAGE = Path(__file__).resolve().parent.parent


class _Below:
    """A path below one of the two roots."""

    def __init__(self, root: Literal["checkout", "work_root"], name: str) -> None:
        self._root = root
        self._name = name

    def __get__(self, layout: Layout, _: type[Layout]) -> Path:
        root: Path = getattr(layout, self._root)
        return root / self._name


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The paths of a checkout and its work root. Nothing is created here."""

    checkout: Path
    work_root: Path

    # -- in the checkout

    vendor = _Below("checkout", "vendor")
    """Unpacked upstream sources, for reading; never edited, never built in."""
    wheelhouse = _Below("checkout", "wheelhouse")
    """Published wheels, their records and the find-links page."""
    index = _Below("checkout", "wheelhouse/whl")
    """The package index of published wheels, for any web server."""
    variants = _Below("checkout", "wheelhouse/variants")
    """Variant wheels of published wheels, and their records: no installer but uv can read their names."""
    conda_channel = _Below("checkout", "wheelhouse/conda")
    """Conda packages of published wheels."""

    # -- in the package

    @property
    def data(self) -> Path:
        """Data files: variants, policy, weights of the progress bar."""
        return PACKAGE / "data"

    @property
    def locks(self) -> Path:
        """The lock files."""
        return self.data / "locks"

    @property
    def wheel_project(self) -> Path:
        """Our own part of the project that becomes the wheel."""
        return PACKAGE / "wheel_project"

    # -- in the work root

    downloads = _Below("work_root", "downloads")
    """Verified downloads, by their own file names."""
    toolkits = _Below("work_root", "toolkit")
    """CUDA toolkit roots made from wheels."""
    tools = _Below("work_root", "tools")
    """Programs whose path enters compile commands, at paths that do not depend on the checkout."""
    staged = _Below("work_root", "src")
    """The sources that are compiled."""
    build = _Below("work_root", "build")
    """CMake build trees, one for each unit."""
    store = _Below("work_root", "store")
    """Finished units and wheels, by key."""
    object_cache = _Below("work_root", "cache")
    """The compiler launcher's cache."""
    emulation = _Below("work_root", "emulation")
    """PTX of shards, and their kernels compiled for this machine, by key."""
    logs = _Below("work_root", "logs")
    """Log files, one for each step."""
    state = _Below("work_root", "state")
    """Step results as JSON, and the seconds of earlier builds."""
    bench = _Below("work_root", "bench")
    """Reports of benchmarks, and their models and environments."""
    lock_file = _Below("work_root", "lock")
    """The lock that is held while a build runs."""
