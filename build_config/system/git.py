"""Read the commit of a checkout from git's files: git itself is not needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

UNKNOWN = "unknown"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REFERENCE = "ref:"
_MAX_SYMBOLIC_REFERENCES = 5


def commit(checkout: Path) -> str:
    """The commit that is checked out, also of a worktree or submodule; ``UNKNOWN`` if it cannot be read.

    Changed files of the checkout are not noticed.
    """
    try:
        git = checkout / ".git"
        if git.is_file():  # a worktree or a submodule: the file names the folder with HEAD
            git = checkout / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        pointer = git / "commondir"  # of a worktree, to the folder with the branches
        common = git / pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else git
        value = (git / "HEAD").read_text(encoding="utf-8").strip()
        for _ in range(_MAX_SYMBOLIC_REFERENCES):
            if not value.startswith(_REFERENCE):
                break
            value = _resolve(value.removeprefix(_REFERENCE).strip(), git, common)
    except (OSError, UnicodeDecodeError):
        return UNKNOWN
    return value if is_commit(value) else UNKNOWN


def is_commit(text: str) -> bool:
    """Whether this is the name of a commit (SHA-1 or SHA-256), and not ``UNKNOWN``."""
    return _COMMIT.fullmatch(text) is not None


def _resolve(reference: str, git: Path, common: Path) -> str:
    """The target of a reference, from its own file, which is newer, or from the list of packed ones."""
    for folder in (git, common):
        if (folder / reference).is_file():
            return (folder / reference).read_text(encoding="utf-8").strip()
    packed = common / "packed-refs"
    for line in packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else ():
        value, _, name = line.partition(" ")
        if name == reference:
            return value
    return UNKNOWN
