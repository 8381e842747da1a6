"""Opens a log and decodes it: a file, standard input or a pipe, compressed or not, in any encoding.

One file can have two encodings: Windows PowerShell writes UTF-16, and a program that appends to it writes UTF-8. So the
encoding is that of a line, not of a file.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import importlib
import os
import re
import stat
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Iterator, cast

if TYPE_CHECKING:
    import io

STANDARD_INPUT = "-"

_BLOCK = 1 << 20
_CUT = 1 << 20  # bytes without the end of a line, after which a text is cut
_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gzip -dc"),
    (b"BZh", "bz2", "bzip2 -dc"),
    (b"\xfd7zXZ\0", "lzma", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "compression.zstd", "zstd -dc"),  # in the standard library since Python 3.14
    (b"PK\x03\x04", "", "unzip -p"),
)
"""How the files of each compressor begin, the module that reads them, and a command for a Python that lacks it."""
_MARKS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_ENDS = {"utf-16-le": (b"\n\0", b"\r\0"), "utf-16-be": (b"\0\n", b"\0\r")}
_SAMPLE = 64  # bytes at the beginning of a line that show whether it is UTF-16
_NARROW = re.compile(rb"[^\0\n\r]{6,}(?:\r?\n(?!\0)|\Z)")  # what may be a line of UTF-8 between lines of UTF-16


def problem(file: Path) -> str | None:
    """Say why a log cannot be read; ``None`` if it can. Opens nothing: a pipe can be opened only once."""
    if str(file) == STANDARD_INPUT:
        return None if sys.stdin else "there is no standard input"
    try:
        status = file.stat()
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return f"there is no file {file}" if missing else f"{file} cannot be read: {error.strerror}"
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) or _is_of_kernel(status):
        return f"{file} cannot be read: it is not a file but a part of the system. Save its text first (dmesg > FILE)"
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
        return f"there is no file {file}"
    return None if os.access(str(file), os.R_OK) else f"{file} cannot be read: {os.strerror(errno.EACCES)}"


def _is_of_kernel(status: os.stat_result) -> bool:
    """Whether a file is in ``/proc``, where reading may wait for ever, or take a message away from others."""
    try:
        kernels, root = Path("/proc").stat().st_dev, Path("/").stat().st_dev
    except OSError:
        return False
    return status.st_dev == kernels != root


@contextlib.contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a log for reading its uncompressed bytes. Raises ``OSError``."""
    if str(file) == STANDARD_INPUT:
        yield _unpacked(sys.stdin.buffer, "standard input")
        return
    # A file that other programs extend, such as one of the kernel, is read as far as it is there.
    waits = 0 if stat.S_ISFIFO(file.stat().st_mode) else getattr(os, "O_NONBLOCK", 0)
    with open(file, "rb", opener=lambda name, flags: os.open(name, flags | waits)) as stream:
        yield _unpacked(stream, str(file))


def _unpacked(stream: BinaryIO, name: str) -> BinaryIO:
    begin = cast("io.BufferedReader", stream).peek(1)
    found = next((each for each in _COMPRESSED if begin.startswith(each[0])), None)
    if found is None:
        return stream
    _, module, command = found
    try:
        compressor = importlib.import_module(module) if module else None
    except ImportError:
        compressor = None
    if compressor is None:
        raise OSError(errno.EINVAL, f"this Python cannot uncompress it: {command} {name} | ... --log -")
    return cast("BinaryIO", _Unpacked(compressor.open(stream), compressor, command))


class _Unpacked:
    """Reads a compressed stream. Raises ``OSError`` if it is damaged or cut, because its end is what counts."""

    def __init__(self, stream: BinaryIO, compressor: object, command: str) -> None:
        self._stream = stream
        self._command = command
        names = ("LZMAError", "ZstdError")
        own = tuple(getattr(compressor, name) for name in names if hasattr(compressor, name))
        self._errors = (EOFError, OSError, zlib.error, *own)

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except self._errors as error:
            if isinstance(error, OSError) and error.errno:
                raise
            said = f"its compressed data is damaged or cut: {self._command} FILE | ... --log - reads the rest"
            raise OSError(errno.EIO, said) from error


def blocks(stream: BinaryIO) -> Iterator[str]:
    """Decode a stream into blocks of whole lines, each ended by a line feed; only a very long line is cut."""
    decoder = _Decoder()
    while content := stream.read(_BLOCK):
        yield decoder.decode(content)
    yield decoder.decode(b"", final=True)


class _Decoder:
    """Decodes lines of UTF-8 and of both kinds of UTF-16 that follow one another."""

    def __init__(self) -> None:
        self._rest = b""
        self._wide: str | None = None  # the encoding of the last line, if it was UTF-16

    def decode(self, content: bytes, *, final: bool = False) -> str:
        """Return the lines that are complete; with ``final``, everything."""
        data = self._rest + content
        parts = []
        at = 0
        while at < len(data):
            end, encoding = self._piece(data, at, final=final) if final or len(data) - at >= _SAMPLE else (at, "")
            if end == at:
                break
            parts.append(data[at:end].decode(encoding, "replace"))
            at = end
        self._rest = data[at:]
        return "".join(parts).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").replace("\ufeff", "")

    def _piece(self, data: bytes, at: int, *, final: bool) -> tuple[int, str]:
        """Return the end of the lines from ``at`` on that have one encoding, and that; ``at``: none is complete."""
        end = at
        if self._wide is None:
            end = self._narrow(data, at)
            self._wide = _wide(data, at) if end == at else None
        if self._wide is not None:
            end = self._wide_lines(data, at, final=final)
        if end == at and final:
            end = len(data)
        elif end == at and len(data) - at > _CUT:
            # At best where a line overwrites another, as one of progress does.
            end = _last(data, at, _ENDS[self._wide][1] if self._wide else b"\r") or at + _CUT
        return end, self._wide or "utf-8"

    @staticmethod
    def _narrow(data: bytes, at: int) -> int:
        """Return the end of the lines of UTF-8; the first line that may be UTF-16 is left."""
        if any(data.startswith(mark, at) for mark, _ in _MARKS):
            return at
        zero = data.find(b"\0", at)
        end = data.rfind(b"\n", at, zero if zero >= 0 else len(data)) + 1
        if end > at or zero < 0:
            return max(end, at)
        return at if _wide(data, at) else max(data.find(b"\n", at) + 1, at)

    def _wide_lines(self, data: bytes, at: int, *, final: bool) -> int:
        """Return the end of the lines of UTF-16: where there is UTF-8 again, or the last line ends."""
        assert self._wide is not None  # noqa: S101  # for the type checker
        end = _last(data, at, _ENDS[self._wide][0])
        for found in _NARROW.finditer(data, at, end or len(data)):
            if not _is_utf8(found[0]):
                continue
            if found.start() - at > 1:  # one byte is a line feed after a line of UTF-16 without one
                return found.start() - (found.start() - at) % 2
            if final or found[0].endswith(b"\n"):
                self._wide = None
                return found.end()
            return at
        return end or at


def _wide(data: bytes, at: int) -> str | None:
    """Return the kind of UTF-16 of the line at ``at``, if it is: most of its characters have a byte that is zero."""
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark, at)), None)
    if marked:
        return marked
    end = data.find(b"\n", at, at + _SAMPLE) + 2  # with the second byte of the line feed
    sample = data[at : end if end > 1 else at + _SAMPLE]
    big, little = sample[::2].count(0), sample[1::2].count(0)
    if max(big, little) * 4 < len(sample) or not sample:
        return None
    return "utf-16-le" if little >= big else "utf-16-be"


def _last(data: bytes, at: int, end: bytes) -> int:
    """Return the place after the last ``end``, which begins at a whole character from ``at`` on; 0: there is none."""
    found = data.rfind(end, at)
    while found >= 0 and (found - at) % len(end):
        found = data.rfind(end, at, found + len(end) - 1)
    return found + len(end) if found >= 0 else 0


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
