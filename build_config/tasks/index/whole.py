"""Verify a whole index, wherever it is: catalogue, pages, and each wheel with all that is next to it."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import inputs
from build_config.errors import PackagingError, StepResultError, VerificationError
from build_config.reports import Severity
from build_config.steps.wheelhouse import verification
from build_config.system import jsonio, storage
from build_config.tasks.index import catalogue, pages, remote
from build_config.tasks.index.catalogue import CATALOGUE, FILES, METADATA_SUFFIX, SBOM_SUFFIX, YANK_SUFFIX, Yank
from build_config.tasks.verify import OTHER_LOCKS, UNSIGNED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.steps.wheelhouse.signature import Keys
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.tasks.index.catalogue import Catalogue, Entry

REMEDY = "install nothing of it; its publisher makes it again from the wheels: nox -s index"


def verify_index(place: str, layout: Layout, console: Console, *, keys: Keys | None = None) -> None:
    """Verify all wheels and pages of an index, a folder or an address, and say what was found.

    Raises ``VerificationError`` with all contradictions, ``NetworkError``, and ``SettingsError``.
    """
    number = verify(storage.reader(storage.place(place)), keys, layout, console)
    console.note(f"{number} wheels, their files and all pages belong together")
    if keys is None:
        console.warn(UNSIGNED)


def verify(place: storage.Reader, keys: Keys | None, layout: Layout, console: Console) -> int:
    """Compare an index with itself and, if there are keys, each wheel's newest signatures with them.

    The locks of the wheels may be those of other commits. Nothing of a wheel is run. Returns the number of wheels.
    Raises ``VerificationError`` with all contradictions, ``NetworkError``.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        known, missing = remote.fetch(place, copy)
        problems = [f"{name} is missing [file-missing]" for name in missing]
        for entry in known.wheels:
            found = tuple(_wheel(copy / FILES / entry.file, entry, keys, layout, console))
            problems += [f"{entry.file}: {problem}" for problem in found]
            if not found:
                console.note(f"{entry.file}: SHA-256 {entry.sha256}")
        problems += _pages(place, known)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise VerificationError(f"{place.url} was refused:\n{listed}", remedy=REMEDY)
    return len(known.wheels)


def _wheel(path: Path, entry: Entry, keys: Keys | None, layout: Layout, console: Console) -> Iterator[str]:
    """The contradictions of one wheel."""
    if not path.is_file():
        return
    for name in entry.all_evidence:
        newest = name == entry.evidence
        yield from _evidence(path, path.with_name(name), keys if newest else None, layout, console)
    try:
        content = catalogue.read(path, evidence=path.with_name(entry.evidence))
    except (PackagingError, VerificationError) as reason:
        yield reason.message
        return
    read = dataclasses.replace(content.entry(entry.evidence), yanked=entry.yanked)
    if read != entry:
        names = (field.name for field in dataclasses.fields(entry))
        differs = ", ".join(name for name in names if getattr(read, name) != getattr(entry, name))
        yield f"{CATALOGUE} differs from the wheel or its record in {differs} [catalogue-differs]"
    for suffix in (METADATA_SUFFIX, SBOM_SUFFIX):
        member = path.with_name(path.name + suffix)
        if member.is_file() and member.read_bytes() != content.texts.get(suffix):
            yield f"{member.name} is not the one in the wheel [member-differs]"
    if _yank(path) != entry.yanked:
        yield f"{CATALOGUE} says {entry.yanked!r}, the file of the yank {_yank(path)!r} [yank-differs]"


def _evidence(wheel: Path, evidence: Path, keys: Keys | None, layout: Layout, console: Console) -> Iterator[str]:
    """The contradictions between a wheel and one record."""
    result = verification.verify(wheel, inputs.evidence(layout, keys=keys), about=evidence)
    findings = [finding for finding in result.findings if finding.code not in OTHER_LOCKS]
    console.findings(tuple(finding for finding in findings if finding.severity is not Severity.ERROR))
    yield from (f"{one.message} [{one.code}]" for one in findings if one.severity is Severity.ERROR)


def _yank(path: Path) -> str | None:
    try:
        return jsonio.read(path.with_name(path.name + YANK_SUFFIX), Yank).reason
    except StepResultError:
        return None


def _pages(place: storage.Reader, known: Catalogue) -> Iterator[str]:
    """The pages that are not those of the catalogue; the catalogue itself was read already."""
    for name, content in pages.render(known).items():
        if name != CATALOGUE and place.read(name) != content:
            yield f"the page {name} is not the one of {CATALOGUE} [page-differs]"
