"""The hashes by which nvcc makes names unique that are local to a source file: what they say when they differ.

Such a name looks like ``_ZN42_GLOBAL__N__5fccf7c0_4_k_cu_f192b797_304135scaleEPf``: a hash of the source's path, the
file, a second hash and, without ``--frandom-seed`` in some files, the number of nvcc's process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_START = re.compile(r"(?P<length>\d*)(?P<kind>_GLOBAL__N_|_INTERNAL)_(?P<path>[0-9a-f]{8})_(?P<file>\d{1,3})_")
_SEED = re.compile(r"_(?P<seed>[0-9a-f]{8})(?:_(?P<process>\d+))?")
_NAME = re.compile(r"[\w$.]*(?:_GLOBAL__N_|_INTERNAL)_[0-9a-f]{8}_\d[\w$.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleId:
    """What stands in the names of one source file.

    ``path`` is a hash of the source's path. ``seed`` is a hash of the file's first external name; where it has none, of
    ``--frandom-seed``, and without that of the file's time, with the number of nvcc's ``process`` behind it.
    """

    source: str
    path: str
    seed: str
    process: str

    @property
    def ending(self) -> str:
        """The second hash, and the number of the process where there is one."""
        return f"{self.seed}_{self.process}" if self.process else self.seed


def module_ids(names: Iterable[str]) -> tuple[ModuleId, ...]:
    """The different ones in these names, sorted by source file."""
    found = {module for name in names for _, _, module in _find(name)}
    return tuple(sorted(found, key=lambda module: (module.source, module.path, module.ending)))


def without_hashes(text: str) -> str:
    """The text with every such hash taken out: equal for two builds of the same sources. Only to be compared."""
    parts = []
    position = 0
    for start, end, module in _find(text):
        parts += [text[position:start], f"<{module.source}>"]
        position = end
    return "".join([*parts, text[position:]])


def names_in(text: str) -> list[str]:
    """The names in a text that hold such a hash."""
    return _NAME.findall(text)


def compare(member: str, label: str, names: Iterable[str], others: Iterable[str]) -> Iterator[Difference]:
    """The source files whose hashes differ, and what that means."""
    there = {module.source: module for module in module_ids(others)}
    for module in module_ids(names):
        other = there.get(module.source)
        if other is None:
            continue
        about = f"{label}: names that are local to {module.source}"
        if module.path != other.path:
            detail = (
                f"{about} have the hash {module.path}, in the other {other.path}: nvcc hashed another source path; "
                "build at the canonical path"
            )
            yield Difference(member=member, kind=DifferenceKind.SOURCE_PATH, detail=detail)
        if module.ending != other.ending:
            why = "made of another --frandom-seed, or of another first external name in that file"
            if module.process or other.process:
                why = "made of the time of the file and the process of nvcc: no --frandom-seed for that file"
            detail = f"{about} end in {module.ending}, in the other in {other.ending}: {why}"
            yield Difference(member=member, kind=DifferenceKind.RANDOM_SEED, detail=detail)


def _find(text: str) -> Iterator[tuple[int, int, ModuleId]]:
    """Where each begins, with the length in front of it, and ends."""
    position = 0
    while (match := _START.search(text, position)) is not None:
        # The length says where the name of the file ends, which may itself look like a hash.
        file_end = match.end() + int(match["file"])
        seed = _SEED.match(text, file_end)
        position = match.end()
        if seed is not None:
            digits = seed["process"] or ""
            process = _process(match["length"], seed.end("seed") - match.start("kind"), digits)
            position = seed.end("seed") + (len(process) + 1 if process else 0)
            stem, _, suffix = text[match.end() : file_end].rpartition("_")
            module = ModuleId(source=f"{stem}.{suffix}", path=match["path"], seed=seed["seed"], process=process)
            yield match.start(), position, module


def _process(lengths: str, without: int, digits: str) -> str:
    """The number of the process: the name's length says where it ends and the length of the next name begins.

    Other digits may stand in front of that length too.
    """
    for start in range(len(lengths)):
        rest = int(lengths[start:]) - without
        if rest == 0 or 1 < rest <= len(digits) + 1:
            return digits[: max(0, rest - 1)]
    return digits
