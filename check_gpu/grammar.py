"""The lines of a log that decide a diagnosis: llama.cpp's own, and those of a failed import or a crash.

The one place that knows their wording, in the tables of the modules ``*_lines``. ``versions`` are those of
llama-cpp-python whose llama.cpp prints a line, of those that were read: 0.1.50, 0.1.55, 0.1.59, 0.1.62, 0.1.64, 0.1.65,
0.1.78, 0.2.11, 0.2.24, 0.2.56, 0.2.75, 0.2.90, 0.3.2, 0.3.8, 0.3.9, 0.3.10, 0.3.16 and 0.3.36. No pattern contains the
name before the colon: it has changed between versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from check_gpu import failure_lines, gpu_error_lines, placement_lines, process_lines, quotation

if TYPE_CHECKING:
    import re

LINES = (*placement_lines.LINES, *process_lines.LINES, *gpu_error_lines.LINES, *failure_lines.LINES)
"""All of them, in the order in which they are tried."""

_WITH_WORD: dict[str, list[int]] = {}
for _place, _known in enumerate(LINES):
    for _word in _known.words:
        _WITH_WORD.setdefault(_word, []).append(_place)

WORDS = tuple(_WITH_WORD)
"""All words: a line without any of them says nothing."""

_SHARED = (
    *("ailed", "rror", "evice", "GPU", "CUDA", "CPU", "buffer", "layer", "arch", "VRAM", "ggml_", "GGML_", "ackend"),
    *("SIG", "ignal", "xit", "ed with", "llegal", "INST", "Kill", "killed", "topp", "nterrupt", "loating", "oom"),
    *("xc0000", "xC0000", "322122", "107374", "emory", "MEMORY", "ELF", "ymbol", "ibrary", "module", "annot"),
    *("mismatch", "returned", "ystem", "ser:"),
)
"""Parts that several words share: to search for these is to search a log a third as often."""

STEMS: dict[str, list[str]] = {}
"""All words by a part of each: a line without any of the parts has none of the words."""
for _word in WORDS:
    STEMS.setdefault(next((part for part in _SHARED if part in _word), _word), []).append(_word)

_WITH_ITS_CAUSE = {"init_failed": "gpu_error", "backend": "import_error"}
_EVIDENCE = frozenset(
    {*(line.kind for line in placement_lines.LINES)} - {"overridden", "overrides", "moved", "image_encoder"}
)
_WHOLE = frozenset({"offloaded", "buffer"})
"""Kinds of lines at whose end nothing follows."""
_FAILURES = frozenset(line.kind for line in (*gpu_error_lines.LINES, *failure_lines.LINES))


def match(line: str) -> list[tuple[str, re.Match[str]]]:
    """Return the kinds of a line, in their order, each with its match.

    An error that llama.cpp survives has its cause in the same line, which is no error of its own. What a line only
    quotes is left out.
    """
    words = [word for stem, some in STEMS.items() if stem in line for word in some if word in line]
    places = {place for word in words for place in _WITH_WORD[word]}
    tried = ((LINES[place].kind, LINES[place].pattern.search(line)) for place in sorted(places))
    found = [(kind, match) for kind, match in tried if match is not None and _is_said(kind, match, line)]
    causes = {_WITH_ITS_CAUSE.get(kind) for kind, _ in found}
    return [(kind, match) for kind, match in found if kind not in causes]


def _is_said(kind: str, found: re.Match[str], line: str) -> bool:
    if kind in _EVIDENCE:
        return quotation.printed(line, found.start(), found.end() if kind in _WHOLE else None)
    return not quotation.quoted(line, found.start()) and not (
        kind in _FAILURES and quotation.survived(line, found.start())
    )
