"""Reads a log of any size and wrapping in little memory.

Terminals keep colours, Docker and journald wrap each line in JSON. The prefixes of Compose,
journald and others need nothing: no pattern of ``grammar`` begins at the beginning of a line.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import TYPE_CHECKING, Iterable, Iterator

from check_gpu import grammar, log_stream
from check_gpu.log import Reader, Signs

if TYPE_CHECKING:
    from pathlib import Path

TAIL = 500
"""Number of lines from the end of a log that are kept."""

_LONGEST = 2048  # characters of a line before and after a word of the grammar; the lines of llama.cpp are shorter
_LONGEST_JSON = 1 << 16  # which is read whole
_ESCAPE = re.compile(r"(?:\x1b|#033)(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_MESSAGES = ("log", "MESSAGE", "message", "msg", "line")
"""The names of the text in a line of JSON: Docker's, journald's, and those of common collectors."""
_BYTES_OF_JOURNALD = ('"MESSAGE":[', '"MESSAGE" : [', '"MESSAGE": [')  # its form of a message with control characters


def read(file: Path) -> tuple[tuple[str, ...], Signs]:
    """Return the end of a log and its signs. Raises ``OSError``."""
    reader = Reader()
    tail: deque[str] = deque(maxlen=TAIL)
    with log_stream.opened(file) as stream:
        for text in log_stream.blocks(stream):
            block = _plain(text)
            for line in _marked(block):
                for message in unwrap(line):
                    reader.feed(message)
            tail.extend(line[:_LONGEST] for line in block[-TAIL * _LONGEST :].splitlines()[-TAIL:])
    return tuple(text for line in tail for text in unwrap(line)), reader.signs()


def _plain(text: str) -> str:
    return _ESCAPE.sub("", text) if "\x1b" in text or "#033" in text else text


def unwrap(line: str) -> list[str]:
    """Return the text of a line: itself, or the message in a line of JSON, also behind a prefix."""
    begin = line.find("{")
    if begin < 0 or not line.endswith("}"):
        return [line]
    try:
        document = json.loads(line[begin:])
    except (ValueError, RecursionError):
        return [line]
    text = _message(document)
    return [line] if text is None else _plain(text).splitlines()


def _message(document: object) -> str | None:
    """Find the message in a document: as deep as it is, but never the text of a user in a request."""
    if not isinstance(document, dict):
        return None
    for name in _MESSAGES:
        text = document.get(name)
        if isinstance(text, list) and all(isinstance(byte, int) and 0 <= byte < 1 << 8 for byte in text):
            text = bytes(text).decode("utf-8", "replace")
        if text and isinstance(text, str):
            return text
    return next((text for text in map(_message, document.values()) if text is not None), None)


def _marked(block: str) -> Iterator[str]:
    """Find the lines that may have a word of the grammar; the others need no pattern."""
    found: dict[int, int] = {}
    for stem, words in (*grammar.STEMS.items(), *((word, [word]) for word in _BYTES_OF_JOURNALD)):
        at = block.find(stem)
        while at >= 0:
            start = block.rfind("\n", 0, at) + 1
            end = block.find("\n", at)
            end = end if end >= 0 else len(block)
            if end - start <= (_LONGEST_JSON if block[end - 1] == "}" else _LONGEST):
                found[start] = end
            else:
                for first, last in _around(words, block, start, end):
                    found[first] = max(last, found.get(first, 0))
            at = block.find(stem, end)
    for start, end in sorted(found.items()):
        yield block[start:end]


def _around(words: Iterable[str], block: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Find the parts of a very long line around its words."""
    for word in words:
        at = block.find(word, start, end)
        while at >= 0:
            last = min(end, at + _LONGEST)
            yield max(start, at - _LONGEST), last
            at = block.find(word, last, end)
