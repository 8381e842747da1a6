"""The catalogue of an index: one entry for each wheel, read from the wheel and its record. All pages follow from it."""

from __future__ import annotations

import email
import hashlib
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from build_config.errors import PackagingError, StepResultError, VerificationError
from build_config.formats import cyclonedx, variants, wheelfile
from build_config.model import DISTRIBUTION, CudaArch, Wheel
from build_config.reports import BuildRecord, Verdict
from build_config.steps.wheelhouse import publication, statement
from build_config.system import jsonio

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CATALOGUE = "index.json"
"""At the root of an index, for programs."""
VARIANTS = "variants"
"""The index of the variant wheels, a preview: other clients than uv may fail on its page."""
FILES = "files"
"""The folder with every file of an index, each once."""
METADATA_SUFFIX = ".metadata"
"""Of the core metadata next to a wheel: https://peps.python.org/pep-0658/"""
SBOM_SUFFIX = ".cdx.json"
YANK_SUFFIX = ".yanked.json"
_CUDA_TAG = re.compile(r"cu\d{3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Yank:
    """The file ``WHEEL.yanked.json``: why nobody should install a wheel any more."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A published wheel.

    ``uploaded`` is the time in the record, in UTC. ``archs`` are those that it has code for. ``record``, ``statement``,
    ``envelope`` and ``sbom`` are names of files in ``files/``. ``yanked`` is the reason.
    """

    file: str
    version: str
    tags: tuple[str, ...]
    sha256: str
    size: int
    requires_python: str | None
    metadata_sha256: str
    uploaded: str
    archs: tuple[str, ...]
    verdict: str
    record: str
    statement: str
    envelope: str | None
    sbom: str | None
    yanked: str | None = None

    @property
    def index(self) -> str:
        """The folder of the index that lists it: ``cu130-sm89``; ``cu130`` has the portable wheels.

        That of the variant wheels lists a portable wheel of the same version, too.
        """
        return VARIANTS if self.label is not None else folder_name(Version(self.version))

    @property
    def label(self) -> str | None:
        """The label of a variant wheel."""
        return variants.label(self.file)

    @property
    def build(self) -> tuple[int, str] | tuple[()]:
        """The build tag of the file name."""
        return variants.parse(self.file).build

    @property
    def code(self) -> tuple[CudaArch, ...]:
        """The architectures that it has code for."""
        return tuple(map(CudaArch.parse, self.archs))

    @property
    def trust(self) -> tuple[int, bool]:
        """How good the evidence is: a later record of the same bytes counts only if this is greater."""
        return -tuple(Verdict).index(Verdict(self.verdict)), self.envelope is not None

    @property
    def evidence(self) -> str:
        """The name before the suffixes of its newest evidence: ``WHEEL``, then ``WHEEL.2``."""
        return self.record.removesuffix(publication.RECORD_SUFFIX)

    @property
    def all_evidence(self) -> tuple[str, ...]:
        """The names before the suffixes of all evidence, the oldest first."""
        number = int(self.evidence.removeprefix(self.file).removeprefix(".") or 1)
        return (self.file, *(f"{self.file}.{later}" for later in range(2, number + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All wheels of an index, sorted. ``base_url`` is its address, if it is known."""

    wheels: tuple[Entry, ...] = ()
    base_url: str | None = None

    @property
    def indexes(self) -> dict[str, tuple[Entry, ...]]:
        """The wheels of each index, by the name of its folder; the newest wheel comes first.

        Variant wheels come last, after the portable wheels of their versions, which uv takes if no variant fits.
        """
        names = sorted({entry.index for entry in self.wheels} - {VARIANTS}, key=lambda name: (-int(name[2:5]), name))
        found = {name: tuple(entry for entry in self.wheels if entry.index == name) for name in names}
        labelled = tuple(entry for entry in self.wheels if entry.label is not None)
        if labelled:
            versions = {entry.version for entry in labelled}
            plain = (entry for entry in self.wheels if entry.label is None and entry.version in versions)
            found[VARIANTS] = (*plain, *labelled)
        return found

    @property
    def variants_alone(self) -> tuple[str, ...]:
        """The versions of variant wheels without a portable wheel that is not yanked."""
        plain = {entry.version for entry in self.wheels if entry.label is None and entry.yanked is None}
        return tuple(sorted({entry.version for entry in self.wheels if entry.label is not None} - plain))

    @property
    def labels(self) -> dict[str, str]:
        """The files that say what the labels of variant wheels mean, by their names."""
        found: dict[Version, dict[str, tuple[CudaArch, ...]]] = {}
        for entry in self.wheels:
            if entry.label is not None:
                found.setdefault(Version(entry.version), {})[entry.label] = entry.code
        return {variants.index_file(str(version)): variants.document(version, code) for version, code in found.items()}

    def find(self, file: str) -> Entry | None:
        """The entry of a file name."""
        return next((entry for entry in self.wheels if entry.file == file), None)


def make(wheels: Iterable[Entry], base_url: str | None) -> Catalogue:
    """A catalogue in the one order: the same wheels give the same bytes."""
    return Catalogue(wheels=tuple(sorted(wheels, key=_newest_first)), base_url=base_url)


def folder_name(version: Version) -> str:
    """``cu130-sm89`` for ``0.3.36+cu130.sm89``. Raises ``PackagingError`` for a version of another project."""
    tag, *shards = (version.local or "").split(".")
    if not _CUDA_TAG.fullmatch(tag):
        raise PackagingError(f"the version {version} does not name the CUDA release of this project's wheels")
    return "-".join((tag, *shards))


def is_folder(name: str) -> bool:
    """Whether this is the name of an index: that of variants, or one that ``folder_name`` gives for some version."""
    return name == VARIANTS or bool(_CUDA_TAG.match(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A wheel, its record and the texts next to it, compared with one another.

    ``name`` is the file name in the index, ``texts`` are files by their suffixes.
    """

    name: str
    wheel: Wheel
    record: BuildRecord
    texts: Mapping[str, bytes]
    requires_python: str | None

    def entry(self, evidence: str) -> Entry:
        """The entry of this wheel. ``evidence`` is the name before the suffixes of its evidence."""
        return Entry(
            file=self.name,
            version=str(self.wheel.version),
            tags=self.wheel.tags,
            sha256=self.wheel.sha256,
            size=self.wheel.size,
            requires_python=self.requires_python,
            metadata_sha256=hashlib.sha256(self.texts[METADATA_SUFFIX]).hexdigest(),
            uploaded=self.record.created,
            archs=tuple(map(str, self.record.archs)),
            verdict=str(self.record.validation.verdict),
            record=evidence + publication.RECORD_SUFFIX,
            statement=evidence + statement.STATEMENT_SUFFIX,
            envelope=evidence + statement.ENVELOPE_SUFFIX if statement.ENVELOPE_SUFFIX in self.texts else None,
            sbom=self.name + SBOM_SUFFIX if SBOM_SUFFIX in self.texts else None,
        )


EVIDENCE_SUFFIXES = (publication.RECORD_SUFFIX, statement.STATEMENT_SUFFIX, statement.ENVELOPE_SUFFIX)
"""Of the files that say what was found out about a wheel. A later record gets names of its own."""


def later_evidence(file: str, evidence: str) -> str:
    """The name before the suffixes of the next evidence about the wheel ``file``: ``WHEEL.2`` after ``WHEEL``."""
    number = evidence.removeprefix(file).removeprefix(".")
    return f"{file}.{int(number or 1) + 1}"


def read(path: Path, *, evidence: Path | None = None) -> Content:
    """Read a wheel and the evidence next to it, or next to the path ``evidence``.

    Raises ``PackagingError`` for a wheel that is damaged or not this project's, ``VerificationError`` if the record is
    missing, unreadable or about other bytes.
    """
    wheel = wheelfile.read_any(path)
    if not path.name.startswith(f"{DISTRIBUTION.replace('-', '_')}-"):
        raise PackagingError(f"{path.name} is not a wheel of {DISTRIBUTION}")
    folder_name(wheel.version)
    next_to = evidence or path
    remedy = "get it and the files next to it again, or take the wheel away"
    try:
        record = jsonio.read(publication.record_path(next_to), BuildRecord)
        texts = {suffix: next_to.with_name(next_to.name + suffix).read_bytes() for suffix in EVIDENCE_SUFFIXES[:2]}
    except (StepResultError, OSError) as error:
        raise VerificationError(f"{path.name} has no readable record or statement: {error}", remedy=remedy) from error
    if (record.wheel, record.sha256) != (path.name, wheel.sha256):
        message = f"{path.name} has SHA-256 {wheel.sha256}; its record is about {record.wheel} with {record.sha256}"
        raise VerificationError(message, remedy=remedy)
    stated = statement.statement(record, texts[publication.RECORD_SUFFIX]).encode()
    if stated != texts[statement.STATEMENT_SUFFIX]:
        raise VerificationError(f"the record and the statement of {path.name} do not belong together", remedy=remedy)
    envelope = statement.envelope_path(next_to)
    if envelope.exists():
        texts[statement.ENVELOPE_SUFFIX] = envelope.read_bytes()
    members, requires_python = _members(path)
    texts |= members
    return Content(name=path.name, wheel=wheel, record=record, texts=texts, requires_python=requires_python)


def _members(path: Path) -> tuple[dict[str, bytes], str | None]:
    """The core metadata and the SBOM of a wheel, by their suffixes, and the Pythons that it is for."""
    try:
        with zipfile.ZipFile(path) as archive:
            folder = wheelfile.dist_info(archive.namelist())
            found = {METADATA_SUFFIX: archive.read(f"{folder}/METADATA")}
            if (sbom := f"{folder}/{cyclonedx.MEMBER}") in archive.namelist():
                found[SBOM_SUFFIX] = archive.read(sbom)
    except (KeyError, *wheelfile.DAMAGE) as error:
        raise PackagingError(f"{path.name} is not a sound wheel: {error}") from error
    return found, email.message_from_bytes(found[METADATA_SUFFIX])["Requires-Python"]


def _newest_first(entry: Entry) -> tuple[object, ...]:
    version = Version(entry.version)
    newer = _Reversed((Version(version.public), entry.build))
    return (entry.index, newer, entry.file)


@dataclass(frozen=True, slots=True)
class _Reversed:
    """Sorts in the opposite order."""

    key: tuple[Version, tuple[int, str] | tuple[()]]

    def __lt__(self, other: _Reversed) -> bool:
        return self.key > other.key
