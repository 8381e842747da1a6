"""Explains why two wheels, or two build units, are not the same bytes: from the archive down to a kernel."""

from __future__ import annotations

import io
import itertools
import operator
import shutil
import stat
import zipfile
from typing import TYPE_CHECKING

from build_config.errors import CommandError, PackagingError
from build_config.formats import wheelfile
from build_config.system import processes
from build_config.tasks.reproduce.difference import libraries, text
from build_config.tasks.reproduce.difference.result import Difference, DifferenceKind, Tools, explain, one_sided, place
from check_gpu.elf import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from build_config.model import Program
    from build_config.tasks.reproduce.difference.result import Finding

__all__ = ["Difference", "DifferenceKind", "compare_folders", "compare_wheels", "explain"]

DIFFOSCOPE_REPORT = "diffoscope.txt"
DIFFOSCOPE_SECONDS = 300.0
_RECORD = ".dist-info/RECORD"
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate"}
_REST = ("comment", "extra", "create_system", "create_version", "extract_version", "flag_bits", "internal_attr")
_HEADERS: tuple[tuple[DifferenceKind, str, Callable[[zipfile.ZipInfo], object]], ...] = (
    (DifferenceKind.TIME, "time", lambda info: "{}-{:02}-{:02} {:02}:{:02}:{:02}".format(*info.date_time)),
    (DifferenceKind.MODE, "mode", lambda info: f"{(mode := info.external_attr >> 16):06o} ({stat.filemode(mode)})"),
    (DifferenceKind.COMPRESSION, "compression", lambda info: _METHODS.get(info.compress_type, info.compress_type)),
    (DifferenceKind.CONTAINER, "DOS attributes", lambda info: hex(info.external_attr & 0xFFFF)),
    *((DifferenceKind.CONTAINER, name, operator.attrgetter(name)) for name in _REST),
)


def compare_wheels(first: Path, second: Path, *, cuobjdump: Program | None, folder: Path) -> tuple[Difference, ...]:
    """Everything that differs between two wheels, nothing if they are equal. Raises ``PackagingError``.

    ``folder`` keeps the report of diffoscope. Without cuobjdump compressed device code is named, but not looked into.
    """
    data, other_data = _read(first), _read(second)
    if data == other_data:
        return ()
    members, contents = _archive(first.name, data)
    others, other_contents = _archive(second.name, other_data)
    tools = Tools(cuobjdump=cuobjdump, demangler=shutil.which("c++filt"), folder=folder)
    found = [*_contents(contents, other_contents, tools), *_order(list(members), list(others))]
    for name in (name for name in members if name in others):
        headers = _headers(members[name], others[name], same=contents[name] == other_contents[name])
        found += (Difference(name, *header) for header in headers)
    if not found:
        where = "in a comment, in a header that few programs read, or in compressed bytes of the same size"
        found.append(Difference(first.name, DifferenceKind.UNEXPLAINED, f"{place(data, other_data)}, {where}"))
    return (*found, *_diffoscope(first, second, folder))


def compare_folders(first: Path, second: Path, *, cuobjdump: Program | None, folder: Path) -> tuple[Difference, ...]:
    """The same for the files of two folders."""
    tools = Tools(cuobjdump=cuobjdump, demangler=shutil.which("c++filt"), folder=folder)
    contents, others = (
        {path.relative_to(side).as_posix(): _read(path) for path in sorted(side.rglob("*")) if path.is_file()}
        for side in (first, second)
    )
    found = tuple(_contents(contents, others, tools))
    return (*found, *_diffoscope(first, second, folder)) if found else ()


def _contents(first: Mapping[str, bytes], second: Mapping[str, bytes], tools: Tools) -> Iterator[Difference]:
    for names, where in one_sided(first, second):
        yield from (Difference(name, DifferenceKind.MEMBER, f"is only {where}") for name in names)
    differing = [name for name, content in first.items() if second.get(name, content) != content]
    changed = frozenset({*differing, *(first.keys() ^ second.keys())})
    for name in differing:
        yield from (Difference(name, *each) for each in _content(name, first[name], second[name], changed, tools))


def _content(name: str, first: bytes, second: bytes, changed: frozenset[str], tools: Tools) -> Iterator[Finding]:
    lines, other_lines = text.decoded(first), text.decoded(second)
    if first.startswith(libraries.MAGIC) and second.startswith(libraries.MAGIC):
        try:
            yield from libraries.compare(first, second, tools)
        except UnreadableError as error:
            yield DifferenceKind.BYTES, f"{place(first, second)}; as a library it cannot be read: {error}"
    elif lines is None or other_lines is None:
        yield DifferenceKind.BYTES, place(first, second)
    elif name.endswith(_RECORD):
        yield text.compare_record(lines, other_lines, changed)
    else:
        yield DifferenceKind.TEXT, text.compare_lines(lines, other_lines)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackagingError(f"{path.name} cannot be read: {error.strerror}") from error


def _archive(name: str, data: bytes) -> tuple[dict[str, zipfile.ZipInfo], dict[str, bytes]]:
    """The headers and the contents of all members in their order."""
    headers: dict[str, zipfile.ZipInfo] = {}
    contents: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                member = wheelfile.member_name(info)
                while member in headers:
                    member += " (again)"
                headers[member], contents[member] = info, archive.read(info)
    except (*wheelfile.DAMAGE, ValueError) as error:  # of a name that is not UTF-8, or an offset below zero
        raise PackagingError(f"{name} is not a sound archive: {error}") from error
    return headers, contents


def _order(names: list[str], others: list[str]) -> Iterator[Difference]:
    """The first member that has another place among those of both."""
    common = {*names} & {*others}
    names, others = ([name for name in side if name in common] for side in (names, others))
    moved = (each for each in zip(["", *names], names, others, strict=False) if each[1] != each[2])
    for before, name, other in itertools.islice(moved, 1):
        here = f"this one comes {f'after {before}' if before else 'first'}, in the other {other} does"
        yield Difference(name, DifferenceKind.ORDER, f"the members are in another order: {here}")


def _headers(first: zipfile.ZipInfo, second: zipfile.ZipInfo, *, same: bool) -> Iterator[Finding]:
    """The headers of a member that differ; its compressed size only if its contents do not, from which it follows."""
    for kind, what, read in _HEADERS:
        value, other = read(first), read(second)
        if value != other:
            yield kind, f"has the {what} {value}, in the other {other}"
    size, other_size = first.compress_size, second.compress_size
    if same and first.compress_type == second.compress_type and size != other_size:
        how = f"{size} bytes, in the other to {other_size}: another level, or another version of zlib"
        yield DifferenceKind.COMPRESSION, f"has the same contents compressed to {how}"


def _diffoscope(first: Path, second: Path, folder: Path) -> Iterator[Difference]:
    """The place of its report, or why it wrote none; nothing if diffoscope is not installed."""
    program = shutil.which("diffoscope")
    if program is None:
        return
    report = folder / DIFFOSCOPE_REPORT
    folder.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = processes.Command(argv=(program, "--text", str(report), str(first), str(second)))
    try:
        done = processes.run(command, check=False, timeout=DIFFOSCOPE_SECONDS)
        said = f"it {done.ending}: {done.last_words}"
    except CommandError as error:
        said = error.message
    detail = f"the report of diffoscope is in {report}" if report.is_file() else f"diffoscope wrote no report: {said}"
    yield Difference(first.name, DifferenceKind.DIFFOSCOPE, detail)
