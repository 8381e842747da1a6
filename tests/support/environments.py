"""Clean environments that are made once: a virtual environment with pip takes seconds to make, but not to copy."""

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from build_config.testbed import clean_environment

really_make = clean_environment.make


@dataclass(frozen=True)
class Environments:
    """Replaces ``clean_environment.make``, and calls it once for each lock."""

    folder: Path
    made: dict[str, Path] = field(default_factory=dict)

    def make(self, folder: Path, lock: Path, downloads: Path, log: Path) -> Path:
        """Like the original: an environment in ``folder``, whose files are shared; returns its interpreter."""
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        if digest not in self.made:
            original = self.folder / digest
            original.mkdir(exist_ok=True)
            self.made[digest] = really_make(original, lock, downloads, log)
        python = self.made[digest]
        environment = python.parent.parent
        copied = shutil.copytree(environment, folder / environment.name, symlinks=True, copy_function=_link)
        return copied / python.relative_to(environment)


def _link(source: str, target: str) -> None:
    """Link a file instead of copying it: pip replaces files and never changes one."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)
