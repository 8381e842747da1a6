"""Explains why two wheels, or two build units, are not the same bytes: from the archive down to a kernel."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from build_config.errors import PackagingError
from build_config.tasks.reproduce.difference import container, diffoscope, libraries, text
from build_config.tasks.reproduce.difference.explanation import explain
from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind, Tools, first_difference
from check_gpu.elf import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from build_config.model import Program

__all__ = ["Difference", "DifferenceKind", "compare_folders", "compare_wheels", "explain"]

_RECORD = ".dist-info/RECORD"


def compare_wheels(first: Path, second: Path, *, cuobjdump: Program | None, folder: Path) -> tuple[Difference, ...]:
    """Everything that differs between two wheels; nothing exactly when the files have the same bytes.

    ``folder`` is for files that other programs read or write; what diffoscope says stays there. Without cuobjdump
    device code that is compressed is named, but not looked into. Raises ``PackagingError`` for a damaged archive.
    """
    data, other = _read(first), _read(second)
    if data == other:
        return ()
    tools = _tools(cuobjdump, folder)
    members, comment = container.read(first)
    members_there, comment_there = container.read(second)
    ours, theirs = ({member.name: member for member in side} for side in (members, members_there))
    found = list(
        _contents(
            {name: member.content for name, member in ours.items()},
            {name: member.content for name, member in theirs.items()},
            tools,
        )
    )
    found += container.compare_order(members, members_there)
    for name, member in ours.items():
        if name in theirs:
            headers = tuple(container.compare_headers(member, theirs[name]))
            found += headers or container.compare_local_headers(member, theirs[name])
    if comment != comment_there:
        detail = f"the archive has the comment {comment!r}, in the other {comment_there!r}"
        found.append(Difference(member=first.name, kind=DifferenceKind.CONTAINER, detail=detail))
    if not found:
        at = first_difference(data, other)
        detail = f"differs from byte {at} on, in what no reader of archives looks at"
        found.append(Difference(member=first.name, kind=DifferenceKind.UNEXPLAINED, detail=detail))
    return (*found, *diffoscope.compare(first, second, folder))


def compare_folders(first: Path, second: Path, *, cuobjdump: Program | None, folder: Path) -> tuple[Difference, ...]:
    """Everything that differs between the files of two folders, names and contents; nothing when none does.

    ``cuobjdump`` and ``folder`` are as in ``compare_wheels``. Raises ``PackagingError`` for a file that is unreadable.
    """
    contents, others = _read_folder(first), _read_folder(second)
    found = tuple(_contents(contents, others, _tools(cuobjdump, folder)))
    return (*found, *diffoscope.compare(first, second, folder)) if found else ()


def _contents(first: Mapping[str, bytes], second: Mapping[str, bytes], tools: Tools) -> Iterator[Difference]:
    for names, where in ((first.keys() - second.keys(), "here"), (second.keys() - first.keys(), "in the other")):
        for name in sorted(names):
            yield Difference(member=name, kind=DifferenceKind.MEMBER, detail=f"is only {where}")
    differing = tuple(name for name, content in first.items() if name in second and second[name] != content)
    changed = frozenset({*differing, *(first.keys() ^ second.keys())})
    for name in differing:
        yield from _member(name, first[name], second[name], changed, tools)


def _member(name: str, first: bytes, second: bytes, changed: frozenset[str], tools: Tools) -> Iterator[Difference]:
    if first.startswith(libraries.MAGIC) and second.startswith(libraries.MAGIC):
        try:
            yield from libraries.compare(name, first, second, tools)
        except UnreadableError as error:
            yield _bytes(name, first, second, f"; as a library it cannot be read: {error}")
        return
    texts = text.decoded(first), text.decoded(second)
    if texts[0] is None or texts[1] is None:
        yield _bytes(name, first, second, "")
    elif name.endswith(_RECORD):
        yield text.compare_record(name, texts[0], texts[1], changed)
    else:
        detail = text.compare_lines(texts[0], texts[1])
        yield Difference(member=name, kind=DifferenceKind.TEXT, detail=detail)


def _bytes(name: str, first: bytes, second: bytes, more: str) -> Difference:
    sizes = f"{len(first)} bytes" + ("" if len(first) == len(second) else f", in the other {len(second)}")
    detail = f"({sizes}) differs from byte {first_difference(first, second)} on{more}"
    return Difference(member=name, kind=DifferenceKind.BYTES, detail=detail)


def _tools(cuobjdump: Program | None, folder: Path) -> Tools:
    return Tools(cuobjdump=cuobjdump, demangler=shutil.which("c++filt"), folder=folder)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackagingError(f"{path.name} cannot be read: {error.strerror}") from error


def _read_folder(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _read(path) for path in paths}
