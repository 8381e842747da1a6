"""Reads a log from a file of any size, encoding and wrapping, in little memory.

PowerShell writes UTF-16, terminals keep colours, Docker and journald wrap each line in JSON. The prefixes of Compose,
journald and others need nothing: no pattern of ``grammar`` begins at the beginning of a line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from typing import TYPE_CHECKING, BinaryIO, Iterator

from check_gpu import grammar
from check_gpu.log import Reader, Signs

if TYPE_CHECKING:
    from pathlib import Path

TAIL = 500
"""Number of lines from the end of a log that are kept."""


_BLOCK = 1 << 20
_CUT = 1 << 20  # characters without the end of a line, after which a text is cut
_LONGEST = 2048  # characters of a line before and after a word of the grammar; the lines of llama.cpp are shorter
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPE = re.compile(r"(?:\x1b|#033)(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_MESSAGES = ("log", "MESSAGE", "message", "msg", "line")
"""The names of the text in a line of JSON: Docker's, journald's, and those of common collectors."""
_BYTES_OF_JOURNALD = ('"MESSAGE":[', '"MESSAGE" : [', '"MESSAGE": [')  # its form of a message with control characters


def read(file: Path) -> tuple[tuple[str, ...], Signs]:
    """Return the end of a log and its signs. Raises ``OSError``."""
    reader = Reader()
    tail: deque[str] = deque(maxlen=TAIL)
    with file.open("rb") as stream:
        for block in blocks(stream):
            for line in _marked(block):
                for text in unwrap(line):
                    reader.feed(text)
            tail.extend(line[:_LONGEST] for line in block[-TAIL * _LONGEST :].splitlines()[-TAIL:])
    return tuple(text for line in tail for text in unwrap(line)), reader.signs()


def blocks(stream: BinaryIO) -> Iterator[str]:
    """Decode a stream into blocks of whole lines, without colours; only a very long line is cut."""
    content = stream.read(max(_BLOCK, len(codecs.BOM_UTF8)))
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    rest = ""
    while content:
        # The zero bytes of UTF-16 that was appended to a file that began with another encoding.
        text = rest + decoder.decode(content).replace("\0", "")
        end = text.rfind("\n") + 1 or (len(text) if len(text) > _CUT else 0)
        if end:
            yield _plain(text[:end])
        rest = text[end:]
        content = stream.read(_BLOCK)
    yield _plain(rest + decoder.decode(b"", final=True))


def _plain(text: str) -> str:
    return _ESCAPE.sub("", text) if "\x1b" in text or "#033" in text else text


def unwrap(line: str) -> list[str]:
    """Return the text of a line: itself, or the message in a line of JSON."""
    if not line.startswith("{"):
        return [line]
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return [line]
    text = next((document[name] for name in _MESSAGES if document.get(name)), None)
    if isinstance(text, list) and all(isinstance(byte, int) and 0 <= byte < 1 << 8 for byte in text):
        text = bytes(text).decode("utf-8", "replace")
    return _plain(text).splitlines() if isinstance(text, str) else [line]


def _marked(block: str) -> Iterator[str]:
    """Find the lines with a word of the grammar; the others need no pattern."""
    found: dict[int, str] = {}
    for word in (*grammar.WORDS, *_BYTES_OF_JOURNALD):
        at = block.find(word)
        while at >= 0:
            start = max(block.rfind("\n", 0, at) + 1, at - _LONGEST)
            end = block.find("\n", at)
            end = min(end if end >= 0 else len(block), at + _LONGEST)
            found[start] = block[start:end]
            at = block.find(word, end)
    for start in sorted(found):
        yield found[start].rstrip("\r")
