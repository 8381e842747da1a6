"""All paths, derived from two roots: the checkout and the work root.

The work root is the same for every checkout and every user of a machine, because nvcc hashes the absolute path of a
source file into the symbols of its device code: the same bytes need the same path (``docs/architecture.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from build_config.system import platforms

CANONICAL_WORK_ROOT = Path(platforms.HERE.work_root)
PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The paths of a checkout and its work root. Nothing is created here."""

    checkout: Path
    work_root: Path

    # -- in the checkout

    @property
    def vendor(self) -> Path:
        """Unpacked upstream sources, for reading; never edited, never built in."""
        return self.checkout / "vendor"

    @property
    def wheelhouse(self) -> Path:
        """Published wheels, their records and the find-links page."""
        return self.checkout / "wheelhouse"

    @property
    def conda_channel(self) -> Path:
        """Conda packages of published wheels."""
        return self.wheelhouse / "conda"

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

    @property
    def downloads(self) -> Path:
        """Verified downloads, by their own file names."""
        return self.work_root / "downloads"

    @property
    def toolkits(self) -> Path:
        """CUDA toolkit roots made from wheels."""
        return self.work_root / "toolkit"

    @property
    def tools(self) -> Path:
        """Programs whose path enters compile commands, at paths that do not depend on the checkout."""
        return self.work_root / "tools"

    @property
    def staged(self) -> Path:
        """The sources that are compiled."""
        return self.work_root / "src"

    @property
    def build(self) -> Path:
        """CMake build trees, one for each unit."""
        return self.work_root / "build"

    @property
    def store(self) -> Path:
        """Finished units and wheels, by key."""
        return self.work_root / "store"

    @property
    def object_cache(self) -> Path:
        """The compiler launcher's cache."""
        return self.work_root / "cache"

    @property
    def logs(self) -> Path:
        """Log files, one for each step."""
        return self.work_root / "logs"

    @property
    def state(self) -> Path:
        """Step results as JSON, and the seconds of earlier builds."""
        return self.work_root / "state"

    @property
    def bench(self) -> Path:
        """Reports of benchmarks, and their models and environments."""
        return self.work_root / "bench"

    @property
    def lock_file(self) -> Path:
        """The lock that is held while a build runs."""
        return self.work_root / "lock"
