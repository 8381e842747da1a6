"""Commands to type: quoted for the shell of the system, and for the installer that the environment has.

Every printed command with a path goes through here, those of ``build_config`` too.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import Iterable, Sequence

PIP, UV, ENSUREPIP, NONE = "pip", "uv", "ensurepip", "none"
"""The installer of an environment: its own pip, uv from outside, the pip inside Python, or nothing of these."""

GET_PIP = "https://bootstrap.pypa.io/get-pip.py"
# White space for the program that reads the command line; the rest has a meaning for cmd outside double quotes.
_SPECIAL_ON_WINDOWS = re.compile(r"[\s&|<>^()%!;,\"]")


def quote(words: Iterable[str], *, system: str = sys.platform) -> str:
    """Join words to one command line; ``system`` is ``sys.platform`` of the machine on which it is typed."""
    return " ".join(_quoted(word, system) for word in words)


def install(
    arguments: Sequence[str],
    *,
    python: str = "python",
    installer: str = PIP,
    cmake_args: str = "",
    system: str = sys.platform,
) -> str:
    """Return the command that installs into the environment of ``python``.

    ``arguments`` are options and requirements as for pip; uv has the same, under the same names. ``installer`` is one
    of the constants above. ``cmake_args`` are for a build from source.
    """
    program = ["uv", "pip", "install", "--python", python] if installer == UV else [python, "-m", "pip", "install"]
    command = quote([*program, *arguments], system=system)
    if cmake_args:
        command = setting("CMAKE_ARGS", cmake_args, system=system) + command
    if installer == ENSUREPIP:
        return f"{quote([python, '-m', 'ensurepip'], system=system)} && {command}"
    return f"curl -sS {GET_PIP} | {quote([python, '-'], system=system)} && {command}" if installer == NONE else command


def setting(name: str, value: str, *, system: str = sys.platform) -> str:
    """Set a variable for the command that follows."""
    return f'set "{name}={value}" && ' if system == "win32" else f"{name}={_quoted(value, system)} "


def _quoted(word: str, system: str) -> str:
    if system != "win32":
        # A requirement is always in quotes, as pip's own documentation writes it.
        return f"'{word}'" if re.fullmatch(r"[\w.-]+==[\w.+*!-]+", word, re.ASCII) else shlex.quote(word)
    if word and not _SPECIAL_ON_WINDOWS.search(word):
        return word
    # The rules of Microsoft's C runtime, as in subprocess.list2cmdline: backslashes count double before a quote.
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + (found[2] and '\\"'), word) + '"'
