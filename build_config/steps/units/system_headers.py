"""Record the headers that a unit was compiled with and that are in no lock: of compiler, C library and kernel.

They belong to the machine. Another version of one of them can change the bytes of a wheel, and so can a header that
some package has installed where compilers look. The first kind is recorded by digest, the second by name.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.model import SystemHeaders
from build_config.system.files import file_sha256, listing_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable

    from build_config.system.layout import Layout

OBJECTS = (".o", ".obj")
_COMPILER_HEADER = re.compile(r"/gcc/[^/]+/[0-9.]+/include(?:-fixed)?/|/include/(?:[\w-]+/)?c\+\+/[0-9.]+/")
_KERNEL_HEADERS = "/usr/lib/linux/uapi/"  # Debian 13 keeps some there, with links in /usr/include
_LIBC_HEADER = re.compile(r"^(?:.*/sysroot)?/usr/include/(?:[\w-]+-linux-gnu\w*/)?(?P<name>[^/]+)")


def parse(lines: Iterable[str], build: Path) -> tuple[Path, ...]:
    """The files that ``ninja -t deps`` lists for object files, each once.

    Paths below ``build`` are relative to it. With some linkers, the list also has what a library was linked from.
    """
    listed, compiled = set(), False
    for line in lines:
        if line.startswith("    "):
            if compiled:
                listed.add(line.strip())
        else:
            compiled = line.partition(": #deps ")[0].endswith(OBJECTS)
    return tuple(sorted({Path(os.path.normpath(build / path)) for path in listed}))


def describe(
    headers: Iterable[Path], layout: Layout, *, inputs: tuple[Path, ...], expected: tuple[Path, ...]
) -> SystemHeaders:
    """Describe the headers outside the work root and ``inputs``, which have digests of their own.

    An unexpected one is neither below ``expected`` nor the compiler's, the C library's or the kernel's.
    One that cannot be read any more is in the digest as that: by then the unit is finished.
    """
    known = frozenset(tomllib.loads((layout.data / "system_headers.toml").read_text(encoding="utf-8"))["known"])
    outside = sorted(path for path in headers if not _below(path, (layout.work_root, *inputs)))
    digest = listing_sha256((path.as_posix(), _digest(path)) for path in outside)
    unexpected = (path for path in outside if not _below(path, expected) and not _systems(path, known))
    return SystemHeaders(number=len(outside), sha256=digest, unexpected=tuple(unexpected))


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return "unreadable"


def _below(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _systems(path: Path, known: frozenset[str]) -> bool:
    text = path.as_posix()
    library = _LIBC_HEADER.match(text)
    if text.startswith(_KERNEL_HEADERS) or _COMPILER_HEADER.search(text) is not None:
        return True
    return library is not None and library["name"] in known
