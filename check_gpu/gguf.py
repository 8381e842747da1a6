"""Finds out which layers of a GGUF file lie in which part of it.

A process that maps its model keeps only the part for the CPU mapped once the rest is on a GPU.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from typing import Sequence

MAGIC = b"GGUF"

_OLDEST = 2
"""The version since which counts have 64 bits."""
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_ALIGNMENT = 32
_DEEPEST = 8
"""Of arrays in arrays. llama.cpp knows none of them."""
_LAYER = re.compile(r"blk\.(\d+)\.")


class UnreadableError(Exception):
    """The file is not a GGUF file that can be read."""


@dataclass(frozen=True)
class Layer:
    """A repeating layer: the places of its tensors in the file, as beginnings and ends."""

    number: int
    tensors: tuple[tuple[int, int], ...]

    def is_in(self, ranges: Sequence[tuple[int, int]]) -> bool:
        """Whether a tensor of it, larger than a page, lies whole in one of the ranges of the file.

        A page at the edge of a range is mapped for its neighbour. A tensor that small says nothing.
        """
        return any(
            first <= begin and end <= last and end - begin > mmap.PAGESIZE
            for begin, end in self.tensors
            for first, last in ranges
        )


def layers(data: mmap.mmap | bytes) -> tuple[Layer, ...]:
    """Return the repeating layers of a model. Raises ``UnreadableError``."""
    try:
        places = _Reader(data).places()
    except (struct.error, ValueError, KeyError) as error:
        raise UnreadableError(f"cannot read it: {error}") from error
    ends = sorted({*(begin for _, begin in places), len(data)})
    following = dict(zip(ends, ends[1:]))
    tensors: dict[int, list[tuple[int, int]]] = {}
    for name, begin in places:
        if match := _LAYER.match(name):
            tensors.setdefault(int(match[1]), []).append((begin, following.get(begin, len(data))))
    return tuple(Layer(number, tuple(found)) for number, found in sorted(tensors.items()))


class _Reader:
    """Reads the header from its beginning to its end."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data, self._at, self._alignment = data, 0, _ALIGNMENT

    def places(self) -> list[tuple[str, int]]:
        """Return the name of each tensor and its place in the file."""
        if self._data[: len(MAGIC)] != MAGIC:
            raise ValueError("it is not a GGUF file")
        self._at = len(MAGIC)
        version = self._number("<I")
        if not _OLDEST <= version < 1 << 16:  # of the other byte order
            raise ValueError(f"version {version}")
        tensors, entries = self._number("<Q"), self._number("<Q")
        for _ in range(entries):
            self._entry()
        listed = [(self._tensor(), self._number("<Q")) for _ in range(tensors)]
        start = -(-self._at // self._alignment) * self._alignment
        return [(name, start + offset) for name, offset in listed]

    def _number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def _text(self) -> str:
        size = self._number("<Q")
        begin = self._at
        self._skip(size)  # before a text of any size is copied
        text = self._data[begin : self._at]
        return text.decode("utf-8", "replace")

    def _skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("it ends early")

    def _entry(self) -> None:
        key, kind = self._text(), self._number("<I")
        if key == "general.alignment" and kind == _UINT32:
            self._alignment = max(self._number("<I"), 1)
        else:
            self._value(kind)

    def _value(self, kind: int, depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise ValueError("its arrays are nested too deeply")
        if kind == _STRING:
            self._skip(self._number("<Q"))
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in _SIZES:
                self._skip(_SIZES[inner] * count)
                return
            for _ in range(count):
                self._value(inner, depth + 1)
        else:
            self._skip(_SIZES[kind])

    def _tensor(self) -> str:
        name = self._text()
        self._skip(8 * self._number("<I") + 4)  # its shape and its type
        return name
