"""The text of a PTX file: positions in it, errors at a position, tokens.

PTX ISA 9.0, chapter 4 (Syntax): comments, identifiers (4.4), integer and floating-point constants (4.5).
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field
from typing import NamedTuple


class Position(NamedTuple):
    """A place in a PTX file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """As compilers write it: ``file:line:column``."""
        return f"{self.file}:{self.line}:{self.column}"


class PtxError(Exception):
    """PTX that is malformed, or that this translator does not know; it says where and what."""

    def __init__(self, position: Position, what: str) -> None:
        super().__init__(f"{position}: {what}")
        self.position = position
        self.what = what


class Token(NamedTuple):
    """A token: its kind (``word``, ``directive``, ``number``, ``string`` or ``mark``), text, and offset in the file."""

    kind: str
    text: str
    offset: int


# A word is an identifier, a register, or an opcode with its modifiers, whose parts are joined by "." or "::".
_TOKEN = re.compile(
    r"""
    (?P<blank> (?: \s+ | //[^\n]* | /\*.*?\*/ )+ )
  | (?P<word> [%A-Za-z_$] [\w$]* (?: (?:\.|::) \w+ )* )
  | (?P<directive> \. [A-Za-z_] \w* (?: :: \w+ )* )
  | (?P<number> 0[fF][0-9a-fA-F]{8}\b | 0[dD][0-9a-fA-F]{16}\b | 0[xX][0-9a-fA-F]+U?\b | 0[bB][01]+U?\b
              | \d+ (?: \.\d* (?: [eE][+-]?\d+ )? | U )? )
  | (?P<string> "[^"\n]*" )
  | (?P<mark> [{}()\[\];:,|!@+\-=<>*] )
    """,
    re.VERBOSE | re.DOTALL,
)
_BRACES = re.compile(r'[{}]|//[^\n]*|/\*.*?\*/|"[^"\n]*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class PtxSource:
    """The text of a PTX file and the name by which messages call it."""

    file: str
    text: str
    _lines: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Where the lines begin."""

    def __post_init__(self) -> None:
        """Find the lines once: a kernel asks for that of each instruction."""
        object.__setattr__(self, "_lines", (0, *(match.end() for match in re.finditer("\n", self.text))))

    def position(self, offset: int) -> Position:
        """Where ``offset`` is."""
        line = self.line(offset)
        return Position(self.file, line, offset - self._lines[line - 1] + 1)

    def line(self, offset: int) -> int:
        """The line of ``offset``."""
        return bisect.bisect_right(self._lines, offset)

    def error(self, offset: int, what: str) -> PtxError:
        """The error ``what`` at ``offset``, to be raised."""
        return PtxError(self.position(offset), what)

    def tokens(self, start: int, end: int) -> list[Token]:
        """The tokens between two offsets; raises ``PtxError`` at a character that begins none."""
        found = []
        offset = start
        match_at = _TOKEN.match
        while offset < end:
            match = match_at(self.text, offset, end)
            if match is None:
                raise self.error(offset, f"{self.text[offset]!r} begins no token")
            kind = match.lastgroup or ""
            if kind != "blank":
                found.append(Token(kind, match.group(), offset))
            offset = match.end()
        return found

    def closing_brace(self, opening: int) -> int:
        """The offset of the brace that closes the one at ``opening``."""
        depth = 0
        for match in _BRACES.finditer(self.text, opening):
            if match.group() == "{":
                depth += 1
            elif match.group() == "}":
                depth -= 1
                if depth == 0:
                    return match.start()
        raise self.error(opening, "this brace is never closed")
