"""The rules of an index: a catalogue in, a change out. Nothing is written here.

A name that was published keeps its bytes. Locks and caches of users have its digest, so other bytes under that name
would break their installations.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from packaging.version import Version

from build_config.errors import PublishedError, SettingsError
from build_config.formats import variants
from build_config.steps.wheelhouse import publication, signature, statement
from build_config.system import jsonio
from build_config.tasks.index import catalogue
from build_config.tasks.index.catalogue import Catalogue, Content, Entry
from build_config.tasks.index.folder import NewFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Supersede:
    """Publish the wheel ``name`` under a build tag, and yank the one that has that name; ``key`` signs it again."""

    name: str
    reason: str
    key: Ed25519PrivateKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A new catalogue, the files that have to be there before it, and those to remove after it. ``said`` are notes."""

    catalogue: Catalogue
    files: tuple[NewFile, ...] = ()
    removed: tuple[str, ...] = ()
    said: tuple[str, ...] = field(default=())


# ----------------------------------------------------------------------------------------------------- publication


def add(old: Catalogue, offered: Iterable[Content], *, supersede: Supersede | None = None) -> Change:
    """Add wheels. The bytes of a wheel that is there already are no change; better evidence about them is added.

    Raises ``PublishedError`` for other bytes under a published name, ``SettingsError`` for a supersession of a wheel
    that is not replaced; then nothing is to be written.
    """
    entries = {entry.file: entry for entry in old.wheels}
    new: list[NewFile] = []
    said: list[str] = []
    superseded = False
    for content in offered:
        known = _same_bytes(entries.values(), content)
        if known is not None:
            entry, files, note = _again(known, content)
            superseded |= supersede is not None and _is_done(supersede, known, entries)
        elif content.name not in entries:
            entry, files, note = _first(content)
        elif supersede is None or content.name != variants.with_build(supersede.name, None):
            raise _refusal(entries[content.name], content)
        else:
            superseded = True
            renamed = _renamed(content, entries, supersede.key)
            for replaced in [one for one in entries.values() if _family(one.file) == _family(content.name)]:
                entries[replaced.file], marker = _yanked(replaced, replaced.yanked or supersede.reason)
                new.append(marker)
            entry, files, note = _first(renamed)
            if statement.ENVELOPE_SUFFIX in content.texts and supersede.key is None:
                note += "; its signature was about the other name and is left out: --sign-key KEY signs it again"
        entries[entry.file] = entry
        new += files
        said.append(note)
    if supersede is not None and not superseded:
        message = f"--supersede {supersede.name}: none of these wheels has other bytes under that name"
        raise SettingsError(message, remedy="leave it out, or name the wheel that is to be replaced")
    made = catalogue.make(entries.values(), old.base_url)
    said += [
        f"{catalogue.VARIANTS}/ has no portable wheel {version}: publish it, too, or uv fails where no variant fits"
        for version in made.variants_alone
    ]
    return Change(catalogue=made, files=tuple(new), said=tuple(said))


def _is_done(supersede: Supersede, known: Entry, entries: Mapping[str, Entry]) -> bool:
    """Whether an earlier run, which may have been killed later, has put ``known`` in the place of the named wheel."""
    named = entries.get(supersede.name)
    replaced = named is not None and named.yanked is not None and named.file != known.file
    return replaced and _family(supersede.name) == _family(known.file)


def conflict(known: Catalogue, name: str, sha256: str) -> str | None:
    """The command that publishes a wheel whose name is published with other bytes; ``None`` if there is no conflict."""
    family = [entry for entry in known.wheels if _family(entry.file) == _family(name)]
    if any(entry.sha256 == sha256 for entry in family) or name not in {entry.file for entry in family}:
        return None
    return f"nox -s publish -- --supersede {name} --reason TEXT"


def _first(content: Content) -> tuple[Entry, list[NewFile], str]:
    """A wheel that is not there yet. It is written last, so a wheel in ``files/`` always has the files next to it."""
    texts = [NewFile(name=content.name + suffix, source=text) for suffix, text in content.texts.items()]
    wheel = NewFile(name=content.name, source=content.wheel.path, sha256=content.wheel.sha256)
    return content.entry(content.name), [*texts, wheel], f"{content.name}: published"


def _again(known: Entry, content: Content) -> tuple[Entry, list[NewFile], str]:
    """The same bytes again. Better evidence gets names of its own: that which was published keeps its bytes, too."""
    if known.file != content.name:
        return known, [], f"{content.name}: published already, as {known.file}"
    evidence = catalogue.later_evidence(known.file, known.evidence)
    offered = content.entry(evidence)
    if offered.trust <= known.trust:
        return known, [], f"{content.name}: published already, no change"
    texts = [
        NewFile(name=evidence + suffix, source=content.texts[suffix])
        for suffix in reversed(catalogue.EVIDENCE_SUFFIXES)  # the record last: it says that the others are there
        if suffix in content.texts
    ]
    signed = ", signed" if offered.envelope else ""
    note = f"{content.name}: published already; a new record is added: {offered.verdict}{signed}"
    return dataclasses.replace(offered, yanked=known.yanked), texts, note


def _refusal(known: Entry, content: Content) -> PublishedError:
    message = (
        f"{content.name} is published with other bytes: SHA-256 {known.sha256}, this one has {content.wheel.sha256}. "
        "A published name keeps its bytes: users' locks and caches have its digest. Nothing was changed."
    )
    remedy = (
        f"publish this one under a build tag and yank the other: nox -s publish -- --supersede {content.name} "
        "--reason TEXT, with the same folders; it is not built again. Or keep the other, and publish this one as a new "
        "version"
    )
    return PublishedError(message, remedy=remedy)


def _same_bytes(entries: Iterable[Entry], content: Content) -> Entry | None:
    """The entry with these bytes: under the same name, else under one that differs in the build tag alone."""
    same = [one for one in entries if one.sha256 == content.wheel.sha256 and _family(one.file) == _family(content.name)]
    return next((one for one in same if one.file == content.name), same[-1] if same else None)


def _renamed(content: Content, entries: Iterable[str], key: Ed25519PrivateKey | None) -> Content:
    """The wheel under the next free build tag: the same bytes, and evidence about the new name."""
    taken = [variants.parse(name).build for name in entries if _family(name) == _family(content.name)]
    renamed = variants.with_build(content.name, max(tag[0] if tag else 0 for tag in taken) + 1)
    record = dataclasses.replace(content.record, wheel=renamed)
    record_file = jsonio.dumps(record).encode()
    stated = statement.statement(record, record_file).encode()
    texts = {suffix: text for suffix, text in content.texts.items() if suffix != statement.ENVELOPE_SUFFIX}
    texts |= {publication.RECORD_SUFFIX: record_file, statement.STATEMENT_SUFFIX: stated}
    if key is not None:
        texts[statement.ENVELOPE_SUFFIX] = signature.seal(stated, statement.PAYLOAD_TYPE, key).encode()
    return dataclasses.replace(content, name=renamed, record=record, texts=texts)


def _family(file: str) -> tuple[object, ...]:
    """What the names of all builds of one wheel have in common: all but the build tag."""
    name = variants.parse(file)
    return name.name, name.version, name.tags, name.label


# ------------------------------------------------------------------------------------------------------------ yanks


def yank(old: Catalogue, names: Iterable[str], reason: str) -> Change:
    """Yank wheels: installers take them only where a lock or a user names them. Raises ``SettingsError``."""
    entries = {entry.file: entry for entry in old.wheels}
    new: list[NewFile] = []
    said = []
    for name in names:
        _require(entries, name)
        entries[name], marker = _yanked(entries[name], reason)
        new.append(marker)
        said.append(f"{name}: yanked, {reason}")
    made = catalogue.make(entries.values(), old.base_url)
    return Change(catalogue=made, files=tuple(new), said=tuple(said))


def unyank(old: Catalogue, names: Iterable[str]) -> Change:
    """Take a yank back. Raises ``SettingsError`` for a wheel that is not in the index."""
    entries = {entry.file: entry for entry in old.wheels}
    removed, said = [], []
    for name in names:
        _require(entries, name)
        entries[name] = dataclasses.replace(entries[name], yanked=None)
        removed.append(name + catalogue.YANK_SUFFIX)
        said.append(f"{name}: not yanked any more")
    made = catalogue.make(entries.values(), old.base_url)
    return Change(catalogue=made, removed=tuple(removed), said=tuple(said))


def limit(old: Catalogue, keep: int, *, delete: bool = False) -> Change:
    """Yank all but the newest ``keep`` versions of each index and platform; with ``delete``, remove those."""
    surplus = [entry for entries in _by_place(old) for entry in entries if _age(entries, entry) >= keep]
    reason = f"an older release: this index keeps {keep}"
    if not delete:
        fresh = [entry.file for entry in surplus if entry.yanked is None]
        return yank(old, fresh, reason)
    gone = {entry.file for entry in surplus}
    # Yanked first: a run that is killed before the end leaves them yanked, even for who makes the catalogue again.
    markers = tuple(_yanked(entry, entry.yanked or reason)[1] for entry in surplus)
    made = catalogue.make((entry for entry in old.wheels if entry.file not in gone), old.base_url)
    removed = tuple(name for entry in surplus for name in belongings(entry))
    said = tuple(f"{name}: deleted" for name in sorted(gone))
    return Change(catalogue=made, files=markers, removed=removed, said=said)


def belongings(entry: Entry) -> tuple[str, ...]:
    """The files of a wheel in ``files/``, the wheel first and the marker of a yank last."""
    texts = (name + suffix for name in entry.all_evidence for suffix in catalogue.EVIDENCE_SUFFIXES)
    others = (catalogue.METADATA_SUFFIX, catalogue.SBOM_SUFFIX, catalogue.YANK_SUFFIX)
    return (entry.file, *texts, *(entry.file + suffix for suffix in others))


def _yanked(entry: Entry, reason: str) -> tuple[Entry, NewFile]:
    if not reason or not reason.isprintable():
        raise SettingsError(f"--reason {reason!r}: it must be one line of text, for those who have the wheel")
    text = jsonio.dumps(catalogue.Yank(reason=reason)).encode()
    return dataclasses.replace(entry, yanked=reason), NewFile(name=entry.file + catalogue.YANK_SUFFIX, source=text)


def _require(entries: Iterable[str], name: str) -> None:
    if name not in entries:
        raise SettingsError(f"{name} is not in the index", remedy="name one of its wheels, as the page writes it")


def _by_place(old: Catalogue) -> Iterator[list[Entry]]:
    """The wheels that compete for the same users: those of one index, one CUDA and one platform."""

    def place(entry: Entry) -> tuple[str, ...]:
        platform = re.sub(r"_\d+_\d+_", "_", entry.tags[0].rpartition("-")[2])
        return entry.index, str(Version(entry.version).local), platform

    for _, entries in groupby(sorted(old.wheels, key=place), key=place):
        yield list(entries)


def _age(entries: list[Entry], entry: Entry) -> int:
    """How many newer versions there are."""
    versions = {Version(one.version) for one in entries}
    return sum(version > Version(entry.version) for version in versions)
