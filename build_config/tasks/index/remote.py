"""An index in storage that others share: files first, each created once; then the catalogue; then pages.

Nobody can lock such storage. So the catalogue is replaced only if nobody else has replaced it since it was read, and
whoever has written pages reads the catalogue again: the last one to write pages wrote those of the newest catalogue.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from build_config.errors import NetworkError, PublishedError, SettingsError, StepResultError, VerificationError
from build_config.steps.wheelhouse import statement
from build_config.system import jsonio
from build_config.system.storage import ANYTHING, IMMUTABLE
from build_config.tasks.index import catalogue, pages, rules
from build_config.tasks.index.catalogue import CATALOGUE, FILES, YANK_SUFFIX, Catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from obstore import UpdateVersion

    from build_config.system.console import Console
    from build_config.system.storage import Bucket, Reader
    from build_config.tasks.index.catalogue import Entry
    from build_config.tasks.index.folder import NewFile
    from build_config.tasks.index.rules import Change

PAGES_KEPT = "max-age=600"
"""What uv assumes of a page that does not say."""
ATTEMPTS = 20
"""Publishers that may come first, one after the other."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    catalogue.METADATA_SUFFIX: "text/plain; charset=utf-8",
}
_NAME = re.compile(r"[\w+!][\w.+!-]*")
_LATER = re.compile(r"(\.([2-9]|[1-9]\d))?")
"""What follows the name of a wheel in that of its newest evidence: nothing, or ``.2``."""


def change(storage: Bucket, console: Console, make: Callable[[Catalogue | None], Change]) -> Change:
    """Change an index in storage. What ``make`` raises leaves it as it was; it is called again if somebody was faster.

    Raises ``PublishedError`` if a new file is there with other bytes, ``NetworkError``, ``SettingsError``.
    """
    made = _change_catalogue(storage, console, make)
    written = made.catalogue
    while True:
        _write_pages(storage, written)
        newest, _ = _read(storage)
        if newest is None or newest == written:
            break
        written = newest
    storage.remove(f"{FILES}/{name}" for name in made.removed)
    return made


def _change_catalogue(storage: Bucket, console: Console, make: Callable[[Catalogue | None], Change]) -> Change:
    for _ in range(ATTEMPTS):
        known, version = _read(storage)
        made = make(known)
        for file in made.files:
            _place(storage, file)
        text = jsonio.dumps(made.catalogue).encode()
        if made.catalogue == known or storage.replace(CATALOGUE, text, attributes(CATALOGUE), version):
            return made
        console.note(f"another publisher has changed {storage.url}: again, from its catalogue")
    raise NetworkError(f"{storage.url} is changed by others all the time", remedy="run the same command again, later")


def attributes(name: str) -> Mapping[str, str]:
    """The type of a file, and how long caches may keep it."""
    path = PurePosixPath(name)
    kept = IMMUTABLE if path.parts[0] == FILES and not name.endswith(YANK_SUFFIX) else PAGES_KEPT
    kind = _TYPES.get(path.suffix, ANYTHING)
    if path.name == pages.JSON and len(path.parts) > 1:  # for installers; the catalogue is at the top
        kind = pages.TYPES[pages.JSON].value
    return {"Content-Type": kind, "Cache-Control": kept}


# ---------------------------------------------------------------------------------------------------------- reading


def fetch(place: Reader, folder: Path) -> tuple[Catalogue, tuple[str, ...]]:
    """Copy the catalogue of an index and all files that it names into ``folder``, with the names of what is missing.

    Digests are not compared. Raises ``VerificationError`` if the place has no catalogue, or a name in it is not that of
    a file, and ``NetworkError``.
    """
    text = place.read(CATALOGUE)
    if text is None:
        message = f"{place.url} has no {CATALOGUE}: it is not the address of an index"
        raise VerificationError(message, remedy="name the folder that contains index.json and files/")
    try:
        known = jsonio.loads(text, Catalogue)
    except StepResultError as error:
        raise VerificationError(f"{CATALOGUE} of {place.url} is not the catalogue of an index") from error
    (folder / FILES).mkdir(parents=True)
    (folder / CATALOGUE).write_bytes(text)
    missing = []
    for entry in known.wheels:
        if not _NAME.fullmatch(entry.file) or not _LATER.fullmatch(entry.evidence.removeprefix(entry.file)):
            message = f"{CATALOGUE} of {place.url} names {entry.file!r} with {entry.record!r}: not the files of a wheel"
            raise VerificationError(message)
        for name, required in _named(entry):
            try:
                there = place.fetch(f"{FILES}/{name}", folder / FILES / name) is not None
            except (NetworkError, SettingsError):
                if required:
                    raise
                there = False  # a bucket that does not list its files refuses what is missing
            if required and not there:
                missing.append(name)
    return known, tuple(missing)


def fetch_all(storage: Bucket, folder: Path) -> None:
    """Copy all files of an index whose catalogue is lost."""
    (folder / FILES).mkdir(parents=True)
    for name in storage.names(FILES):
        storage.fetch(name, folder / FILES / Path(name).name)


def _named(entry: Entry) -> Iterator[tuple[str, bool]]:
    """The files of a wheel, and whether each must be there; a signature and a yank need not."""
    optional = (statement.ENVELOPE_SUFFIX, YANK_SUFFIX, catalogue.SBOM_SUFFIX)
    named = {entry.envelope, entry.sbom, f"{entry.file}{YANK_SUFFIX}" if entry.yanked else None}
    for name in rules.belongings(entry):
        yield name, name in named or not name.endswith(optional)


def _read(storage: Bucket) -> tuple[Catalogue | None, UpdateVersion | None]:
    """The catalogue of an index and its version; ``None`` if it is missing or cannot be read."""
    text, version = storage.read_version(CATALOGUE)
    try:
        return (None if text is None else jsonio.loads(text, Catalogue)), version
    except StepResultError:
        return None, version


# ---------------------------------------------------------------------------------------------------------- writing


def _place(storage: Bucket, file: NewFile) -> None:
    """Put a file into ``files/``; one with the same bytes may be there, of a publisher that was stopped."""
    name = f"{FILES}/{file.name}"
    content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if file.sha256 is not None and digest != file.sha256:
        message = f"{file.name} changed while it was published: SHA-256 {file.sha256} was read before"
        raise StepResultError(message, remedy="run the same command again")
    if file.name.endswith(YANK_SUFFIX):
        storage.write(name, content, attributes(name))
    elif not storage.create(name, content, attributes(name)):
        there = storage.sha256(name)
        if there != digest:
            message = f"{storage.url}/{name} is there with other bytes: SHA-256 {there}, this one has {digest}"
            remedy = (
                "somebody publishes it now, or was stopped: if no page names it in an hour, remove that file and run"
                " the same command again"
            )
            raise PublishedError(message, remedy=remedy)


def _write_pages(storage: Bucket, known: Catalogue) -> None:
    """Write the pages that have changed; remove those of indexes that have no wheel any more."""
    for name, content in pages.render(known).items():
        if name != CATALOGUE and storage.read(name) != content:
            storage.write(name, content, attributes(name))
    for name in storage.folders():
        if catalogue.is_folder(name) and name not in known.indexes:
            storage.remove(storage.names(name))
