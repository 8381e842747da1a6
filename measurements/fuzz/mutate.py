"""Damage an input: flipped bits, extreme numbers, pieces that are missing, repeated, or from another input."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

LARGEST = 1 << 17
"""Bytes of a damaged input. Hangs show on small ones, too."""
NUMBERS = (0, 1, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)
TEXTS = (
    *(b"", b"\0", b"\n", b"\r\n", b" ", b"\t", b'"', b"\\", b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 3000, b"<"),
    *(b"../", b"/", b"\xff", b"\xef\xbb\xbf", "\u2028".encode(), "é".encode(), b"%s", b"-1", b"1e999", b"NaN", b"null"),
    *(b"9" * 5000, b"==", b"--hash=sha256:", b";", b"#", b"\x1b[31m", b"(" * 2000, b"true"),
)


def damaged(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One of the inputs after one to six damages."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(DAMAGES)(data, seeds, chance)
    return bytes(data[:LARGEST])


def _flip(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _number(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    """Write an extreme number over one of 1, 2, 4 or 8 bytes; most formats align theirs."""
    form, size = chance.choice((("<B", 1), ("<H", 2), ("<I", 4), ("<Q", 8)))
    if len(data) >= size:
        place = chance.randrange(len(data) - size + 1)
        place -= place % size if chance.random() < 0.7 else 0  # noqa: PLR2004  # more often than not
        data[place : place + size] = struct.pack(form, chance.choice(NUMBERS) & ((1 << 8 * size) - 1))


def _decimal(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    """Replace a number in a text."""
    found = list(re.finditer(rb"-?[0-9]+", bytes(data[:LARGEST])))
    if found:
        match = chance.choice(found)
        data[match.start() : match.end()] = str(chance.choice((-1, *NUMBERS))).encode()


def _cut(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    if data:
        del data[chance.randrange(len(data)) :]


def _remove(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    if data:
        place = chance.randrange(len(data))
        del data[place : place + chance.choice((1, 2, 4, 16, 64, 500))]


def _repeat(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    if data:
        place = chance.randrange(len(data))
        piece = data[place : place + chance.choice((1, 4, 24, 200))]
        data[place:place] = piece * chance.choice((1, 2, 50))


def _insert(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    data[place:place] = chance.choice(TEXTS)


def _splice(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    other = chance.choice(seeds)
    if other and data:
        data[chance.randrange(len(data)) :] = other[chance.randrange(len(other)) :]


DAMAGES = (_flip, _flip, _number, _number, _decimal, _cut, _remove, _repeat, _insert, _splice)
