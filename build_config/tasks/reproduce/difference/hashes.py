"""The hashes by which nvcc makes names unique that are local to a source file, and the meaning of a changed one.

Such a name looks like ``_ZN42_GLOBAL__N__5fccf7c0_4_k_cu_f192b797_304135scaleEPf``: a hash of the source's path, the
file, a second hash and, without ``--frandom-seed`` in some files, the number of nvcc's process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference.result import DifferenceKind, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_START = re.compile(r"(?P<length>\d{0,9})(?P<kind>_GLOBAL__N_|_INTERNAL)_(?P<path>[0-9a-f]{8})_(?P<file>\d{1,3})_")
_SEED = re.compile(r"_(?P<seed>[0-9a-f]{8})(?:_(?P<process>\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ModuleId:
    """The part that all local names of one source file share; ``path`` is a hash of the source's path.

    ``ending`` is a hash of the file's first external name; without such a name, of ``--frandom-seed``, and without that
    of the file's time, followed by the number of nvcc's process.
    """

    source: str
    path: str
    ending: str


def module_ids(texts: Iterable[str]) -> tuple[ModuleId, ...]:
    """The different ones in these names or longer texts, sorted by source file."""
    return tuple(sorted({module for text in texts for _, _, module in _find(text)}))


def without_hashes(text: str) -> str:
    """The text with every such hash taken out: equal for two builds of the same sources. Only to be compared."""
    parts, position = [], 0
    for start, end, module in _find(text):
        parts += [text[position:start], f"<{module.source}>"]
        position = end
    return "".join([*parts, text[position:]])


def compare(label: str, texts: Iterable[str], others: Iterable[str]) -> Iterator[Finding]:
    """The source files whose hashes differ, and what that means."""
    there = {module.source: module for module in module_ids(others)}
    for module in module_ids(texts):
        other = there.get(module.source, module)
        about = f"{label}: names that are local to {module.source}"
        if module.path != other.path:
            why = "nvcc hashed another source path; build at the canonical path"
            yield DifferenceKind.SOURCE_PATH, f"{about} have the hash {module.path}, in the other {other.path}: {why}"
        if module.ending != other.ending:
            why = "made of another --frandom-seed, or of another first external name in that file"
            if "_" in module.ending + other.ending:
                why = "made of the time of the file and the process of nvcc: no --frandom-seed for that file"
            yield DifferenceKind.RANDOM_SEED, f"{about} end in {module.ending}, in the other in {other.ending}: {why}"


def _find(text: str) -> Iterator[tuple[int, int, ModuleId]]:
    """Where each begins, with the length in front of it, and ends."""
    position = 0
    while (match := _START.search(text, position)) is not None:
        # The length says where the name of the file ends, which may itself look like a hash.
        file_end = match.end() + int(match["file"])
        seed = _SEED.match(text, file_end)
        position = match.end()
        if seed is not None:
            process = _process(match["length"], seed.end("seed") - match.start("kind"), seed["process"] or "")
            position = seed.end("seed") + len(process)
            stem, _, suffix = text[match.end() : file_end].rpartition("_")
            module = ModuleId(source=f"{stem}.{suffix}", path=match["path"], ending=seed["seed"] + process)
            yield match.start(), position, module


def _process(lengths: str, without: int, digits: str) -> str:
    """The number of the process, after a ``_``: the name's length says where the length of the next name begins."""
    rests = (int(lengths[start:]) - without for start in range(len(lengths)))  # other digits may stand in front
    end = next((rest for rest in rests if rest == 0 or 1 < rest <= len(digits) + 1), len(digits) + 1)
    return f"_{digits[: end - 1]}" if digits and end else ""
