"""Libraries in the current directory that must not be loaded; each leaves a mark if it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from build_config.errors import CommandError
from build_config.system import platforms
from build_config.system.platforms import Platform
from build_config.system.processes import Command, run

STEMS = ("ggml-cuda-evil", "ggml-cpu-evil", "ggml-cuda")
"""The names that ggml searches for by itself: variants by their score, and the bare name whatever its score."""

_SOURCE = """
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) {
    FILE * file = fopen(MARK, "w");
    if (file != NULL) {
        fclose(file);
    }
}
int ggml_backend_score(void) {
    return 1000000;
}
void * ggml_backend_init(void) {
    return NULL;
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedLibraries:
    """A folder with such libraries, which becomes the current directory of a process of ``platform``."""

    folder: Path
    platform: Platform = platforms.HERE

    @classmethod
    def compile(
        cls, folder: Path, *, cc: str, platform: Platform = platforms.HERE, log: Path | None = None
    ) -> Self | None:
        """Compile the libraries into ``folder``; ``None`` without a working C compiler."""
        folder.mkdir()
        planted = cls(folder=folder, platform=platform)
        for name in planted.names:
            source = folder / f"{name}.c"
            source.write_text(_SOURCE, encoding="utf-8")
            mark = f'-DMARK="{planted._mark(name).name}"'  # relative: the folder can be moved
            command = Command(
                argv=(cc, "-shared", "-fPIC", "-Wall", "-Werror", mark, str(source), "-o", str(folder / name)), log=log
            )
            try:
                run(command, timeout=60)
            except CommandError:
                return None
        return planted

    @property
    def names(self) -> tuple[str, ...]:
        """The file names of the libraries."""
        return tuple(map(self.platform.library, STEMS))

    def loaded(self) -> tuple[str, ...]:
        """The libraries that were loaded since the last call."""
        found = tuple(name for name in self.names if self._mark(name).exists())
        for name in found:
            self._mark(name).unlink()
        return found

    def _mark(self, name: str) -> Path:
        return self.folder / f"{name}.loaded"
