"""Remove the paths of a machine from data that is kept or published."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from build_config.system.layout import CANONICAL_WORK_ROOT

# Windows' compilers have options like /MD, so only what has a second slash is a path there.
_ROOT = r"/(?=[\w.-]+/)" if CANONICAL_WORK_ROOT.drive else "/(?!/)"
# An absolute path: after a compiler's -I or -L or a file: address, or not within a word (so not in ``a/b`` and not in
# ``https://host/a``); on Windows with a drive letter in front.
_ABSOLUTE_PATH = re.compile(
    rf"""(?:(?<=-I)|(?<=-L)|(?<=file://)|(?<![\w./]))(?:{_ROOT}|[A-Za-z]:[\\/])[^\s"'<>|;,:=()\[\]]+"""
)


def without_paths(data: Any) -> Any:
    """Replace every absolute path in strings, mappings and lists by ``<path>``.

    Only the canonical work root, which is the same on every machine, stays.
    """
    if isinstance(data, str):
        return _ABSOLUTE_PATH.sub(_replacement, data)
    if isinstance(data, dict):
        return {key: without_paths(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_paths(value) for value in data]
    return data


def _replacement(match: re.Match[str]) -> str:
    return match[0] if PurePath(match[0]).is_relative_to(CANONICAL_WORK_ROOT) else "<path>"
