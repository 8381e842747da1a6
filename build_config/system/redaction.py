"""Takes the paths of a machine out of what is kept or published."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from build_config.system.layout import CANONICAL_WORK_ROOT

# An absolute path: after a compiler's -I or -L or a file: address, or where no word goes on (so not in ``a/b`` and not
# in ``https://host/a``); on Windows a drive letter in front.
_ABSOLUTE_PATH = re.compile(
    r"""(?:(?<=-I)|(?<=-L)|(?<=file://)|(?<![\w./]))(?:/(?!/)|[A-Za-z]:[\\/])[^\s"'<>|;,:=()\[\]]+"""
)


def without_paths(data: Any) -> Any:
    """The same strings, mappings and lists, with ``<path>`` for every absolute path.

    Only the canonical work root, which is the same on every machine, may stay.
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
