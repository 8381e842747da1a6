"""Change an index: what is there, what a change makes of it, and all pages from that."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from build_config.errors import PackagingError, SettingsError, StepResultError, VerificationError
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio
from build_config.system.storage import Bucket
from build_config.tasks.index import catalogue, folder, pages, remote, rules
from build_config.tasks.index.catalogue import FILES, Catalogue, Yank
from build_config.tasks.index.folder import NewFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.system.storage import Reader
    from build_config.tasks.index.catalogue import Content, Entry
    from build_config.tasks.index.rules import Change


T = TypeVar("T")
Place = Path | Bucket
"""Of an index: a folder, or storage that others share."""


def write(layout: Layout, console: Console, *, out: Place | None = None, base_url: str | None = None) -> None:
    """Make all of an index again from wheels and records, those of the wheelhouse included.

    Every file is read and compared with what was published. Raises ``VerificationError`` for one that was changed,
    ``PublishedError`` if the wheelhouse has other bytes for a published name; then nothing is changed.
    """
    index = out or layout.index
    if base_url is not None and not base_url.startswith(("https://", "http://")):
        raise SettingsError(f"--base-url {base_url}: not an address", remedy="https://example.org/whl/")

    def again(known: Catalogue | None, copy: Path) -> Change:
        address = base_url or (known.base_url if known else None)
        offered = tuple(own_wheels(layout, console))
        return rules.add(scan(copy, console, known, address), offered)

    if isinstance(index, Path):
        with folder.locked(index, console):
            made = again(folder.read(index), index)
            apply(index, made)
    else:
        made = remote.change(index, console, lambda known: _with_copy(index, lambda copy: again(known, copy)))
    for said in made.said:
        console.note(said)


def change(index: Place, console: Console, make: Callable[[Catalogue], Change]) -> Change:
    """Change an index. What ``make`` raises leaves it as it was.

    Other publishers of a folder wait. Those of storage do not, so ``make`` may be called again.
    """
    if isinstance(index, Path):
        with folder.locked(index, console):
            made = make(current(index, console))
            apply(index, made)
    else:
        made = remote.change(index, console, lambda known: make(known or _lost(index, console)))
    for said in made.said:
        console.note(said)
    return made


def begin(index: Place, start: Reader, console: Console) -> None:
    """Copy the index ``start`` into an empty one: a site that is replaced as a whole keeps what it had.

    If there is no index at ``start`` yet, a warning says so. Raises ``VerificationError`` if a file is missing or is
    not as published, ``SettingsError`` if ``index`` has wheels already.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        if start.read(catalogue.CATALOGUE) is None:
            console.warn(f"{start.url} has no {catalogue.CATALOGUE}: a new index begins")
            return
        known, missing = remote.fetch(start, copy)
        if missing:
            raise VerificationError(f"{start.url} lacks {', '.join(missing)}", remedy="nox -s verify -- --all ADDRESS")
        scanned = scan(copy, console, known, known.base_url)
        there = sorted((copy / FILES).iterdir(), key=lambda path: (path.suffix == ".whl", path.name))
        files = tuple(NewFile(name=path.name, source=path) for path in there)

        def copied(present: Catalogue) -> Change:
            if present.wheels and present.wheels != scanned.wheels:
                message = f"--from {start.url}: the index that is to begin with it has wheels already"
                raise SettingsError(message, remedy="name an empty folder, or leave --from out")
            return rules.Change(catalogue=scanned, files=files)

        change(index, console, copied)
    console.note(f"begins with the {len(known.wheels)} wheels of {start.url}")


def apply(index: Path, made: Change) -> None:
    """Write the files, then the catalogue and the pages, then remove files that are no longer wanted."""
    folder.place(index, made.files)
    folder.write_pages(index, pages.render(made.catalogue))
    folder.remove_pages(index, made.catalogue.indexes)
    folder.remove(index, made.removed)


def current(index: Path, console: Console) -> Catalogue:
    """The catalogue of an index; without one, it is made from the files. The index is locked."""
    return folder.read(index) or scan(index, console, None, None)


def _lost(index: Bucket, console: Console) -> Catalogue:
    """The catalogue of storage that has none, made from its files."""
    return _with_copy(index, lambda copy: scan(copy, console, None, None))


def _with_copy(index: Bucket, use: Callable[[Path], T]) -> T:
    """Call ``use`` with a copy of all files in storage."""
    with tempfile.TemporaryDirectory() as copy:
        remote.fetch_all(index, Path(copy))
        return use(Path(copy))


def scan(index: Path, console: Console, known: Catalogue | None, base_url: str | None) -> Catalogue:
    """The catalogue of the files of an index. Raises ``VerificationError`` for a file that was changed or damaged."""
    wheels = sorted((index / FILES).glob("*.whl"))
    entries = []
    for path in wheels:
        published = known.find(path.name) if known else None
        found = _entry(path)
        if published and (found.sha256, found.metadata_sha256) != (published.sha256, published.metadata_sha256):
            message = f"{path} has SHA-256 {found.sha256} and was published with {published.sha256}"
            raise VerificationError(message, remedy="put the published file back; its record is next to it")
        entries.append(found)
    lost = {entry.file for entry in known.wheels} - {path.name for path in wheels} if known else ()
    for name in sorted(lost):
        console.warn(f"{name} was published and is missing: the index no longer lists it")
    return catalogue.make(entries, base_url)


def own_wheels(layout: Layout, console: Console) -> Iterator[Content]:
    """The wheels of the wheelhouse. Raises ``VerificationError`` for one without a record of its bytes."""
    for path in (*sorted(layout.wheelhouse.glob("*.whl")), *sorted(layout.variants.glob("*.whl"))):
        try:
            yield catalogue.read(path)
        except PackagingError as reason:
            console.warn(f"{path.name} is left out: {reason.message}")


def _entry(path: Path) -> Entry:
    """The entry of a file of the index, with its newest evidence and its yank."""
    evidence = _newest_evidence(path)
    content = catalogue.read(path, evidence=evidence)
    metadata = path.with_name(path.name + catalogue.METADATA_SUFFIX)
    if not metadata.is_file() or metadata.read_bytes() != content.texts[catalogue.METADATA_SUFFIX]:
        raise VerificationError(f"{metadata.name} is not the metadata in the wheel", remedy="remove that file")
    try:
        yanked = jsonio.read(path.with_name(path.name + catalogue.YANK_SUFFIX), Yank).reason
    except StepResultError:
        yanked = None
    return dataclasses.replace(content.entry(evidence.name), yanked=yanked)


def _newest_evidence(wheel: Path) -> Path:
    newest = wheel
    while publication.record_path(later := _later_evidence(wheel, newest)).is_file():
        newest = later
    return newest


def _later_evidence(wheel: Path, evidence: Path) -> Path:
    return wheel.with_name(catalogue.later_evidence(wheel.name, evidence.name))


def names(given: Iterable[str]) -> tuple[str, ...]:
    """File names of wheels, given as names or as paths."""
    return tuple(name.replace("\\", "/").rpartition("/")[2] for name in given)
