"""The ingredients of the document: the components of the data file, with the versions and digests in use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packageurl import PackageURL

from build_config.errors import PackagingError, SettingsError
from build_config.model import DISTRIBUTION, LockedFile, Shard, SourceLock, SourceTree, Toolchain, ToolkitLock
from build_config.system import git, platforms, tomlio
from build_config.system.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from packaging.version import Version

    from build_config.system.layout import Layout

OWN_SOURCES = ("shard_score.cpp", "shown_devices.cpp", "shown_names.h", "shard.h", "shard_archs.h.in")
DATA = "components.toml"
TEMPLATES = "nvidia-cuda-cccl"
"""The only part of a toolkit that is under free licences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a version: a file below llama.cpp's root, and a pattern with one group."""

    file: str
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A component of llama.cpp's tree. ``of_tree`` means that llama.cpp's commit is its revision."""

    name: str
    purl: str
    licence: str
    within: tuple[str, ...]
    files: tuple[str, ...] = ()
    version: Place | None = None
    revision: Place | None = None
    of_tree: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A component whose version is known from elsewhere. It is contained if ``within`` names a library."""

    name: str
    licence: str
    within: tuple[str, ...] = ()
    what: str | None = None
    purl: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The contents of ``components.toml``."""

    sources: tuple[Source, ...]
    cuda: tuple[Piece, ...]
    compiler: Piece
    compiler_of_windows: Piece
    vendored: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component as the document lists it.

    ``files`` are pairs of name and SHA-256. ``within`` is as above; ``always`` means contained, but in no library.
    """

    name: str
    version: str | None
    purl: str | None
    licence: str | None
    within: tuple[str, ...] = ()
    always: bool = False
    sha256: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    what: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """All facts for the document that are known before the wheel exists."""

    version: str
    cuda: str
    shards: tuple[Shard, ...]
    parts: tuple[Part, ...]
    vendored: tuple[Piece, ...]


def read_components(layout: Layout) -> Components:
    """Read ``components.toml``. An unknown or missing key raises ``SettingsError``."""
    return tomlio.read(layout.data / DATA, Components, error=SettingsError)


def collect(
    components: Components,
    *,
    version: Version,
    shards: tuple[Shard, ...],
    tree: SourceTree,
    source: SourceLock,
    toolchain: Toolchain,
    toolkit: ToolkitLock | None,
    wheel_project: Path,
) -> Ingredients:
    """Look up the version and the digests of every component.

    ``toolkit`` is ``None`` for an installed one. Raises ``PackagingError`` if a file of a component is missing, or if
    the locked sources do not contain a version any more.
    """
    compiler = toolchain.host.cxx.version
    bindings = Part(
        name=DISTRIBUTION,
        version=source.file.version,
        purl=str(PackageURL("pypi", name=DISTRIBUTION, version=source.file.version)),
        licence="MIT",
        always=True,
        sha256=source.file.sha256,
        what=f"{source.file.filename}: the bindings, with one line appended to llama_cpp/__init__.py",
    )
    own = Part(
        name="llama-cuda-wheels",
        version=None,
        purl=None,
        licence="MIT",
        within=("libggml-cuda-*.so",),
        always=True,
        files=tuple((name, _digest(wheel_project / name)) for name in OWN_SOURCES),
        what="the loader, its facts, and the score in each shard",
    )
    msvc = platforms.of(toolchain.platform).uses_msvc
    piece = components.compiler_of_windows if msvc else components.compiler
    gcc = Part(
        name=piece.name,
        version=compiler,
        purl=_purl(piece.purl, compiler),
        licence=piece.licence,
        within=piece.within,
        what=piece.what,
    )
    return Ingredients(
        version=str(version),
        cuda=toolchain.cuda.version,
        shards=shards,
        parts=(
            bindings,
            own,
            gcc,
            *(_source_part(one, tree) for one in components.sources if _is_there(one, tree)),
            *_cuda_parts(components.cuda, toolchain.cuda.version, toolkit),
        ),
        vendored=components.vendored,
    )


def _is_there(source: Source, tree: SourceTree) -> bool:
    """The user's own checkout may vendor less; in the locked tree a missing file is an error."""
    return tree.locked or all((tree.llama_cpp / name).is_file() for name in source.files)


def _source_part(source: Source, tree: SourceTree) -> Part:
    known = tree.commit if git.is_commit(tree.commit) else None
    version = _read(source.version, tree)
    revision = known if source.of_tree else _read(source.revision, tree)
    mine = "" if tree.locked or not source.of_tree else "NOT the locked one: a checkout of the user's"
    return Part(
        name=source.name,
        version=version or revision,
        purl=_purl(source.purl, revision),
        licence=source.licence,
        within=source.within,
        files=tuple((name, _digest(tree.llama_cpp / name)) for name in source.files),
        what=mine or None,
    )


def _read(place: Place | None, tree: SourceTree) -> str | None:
    """The text at a place. The user's own checkout need not have it."""
    if place is None:
        return None
    try:
        text = (tree.llama_cpp / place.file).read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = ".".join(re.findall(place.pattern, text, re.MULTILINE))
    if not found and tree.locked:
        raise PackagingError(
            f"llama.cpp's {place.file} does not contain {place.pattern!r} any more",
            remedy=f"correct {DATA}: a component of the SBOM must have its version",
        )
    return found or None


def _cuda_parts(pieces: tuple[Piece, ...], version: str, toolkit: ToolkitLock | None) -> Iterable[Part]:
    if toolkit is None:  # an installed one: its used files are not distinguished
        yield Part(
            name="cuda-toolkit",
            version=version,
            purl=str(PackageURL("generic", "nvidia", "cuda-toolkit", version)),
            licence="LicenseRef-NVIDIA-Proprietary",
            within=("libggml-cuda-*.so",),
            what="NOT a locked one: headers and device functions of an installed toolkit, compiled in",
        )
        # Distributions package this part separately, with versions of their own.
        yield from (
            Part(name="cccl", version=None, purl=None, licence=free.licence, within=free.within, what=free.what)
            for free in pieces
            if free.name == TEMPLATES
        )
        return
    by_name = {piece.name: piece for piece in pieces}
    for file in toolkit.files:
        piece = by_name.get(file.name)
        if piece is None:
            raise PackagingError(f"{DATA} does not describe {file.name}", remedy=f"add a row for it to {DATA}")
        yield _locked_part(file, piece)


def _locked_part(file: LockedFile, piece: Piece) -> Part:
    return Part(
        name=file.name,
        version=file.version,
        purl=str(PackageURL("pypi", name=file.name, version=file.version, qualifiers={"file_name": file.filename})),
        licence=piece.licence,
        within=piece.within,
        sha256=file.sha256,
        what=piece.what,
    )


def _purl(text: str | None, version: str | None) -> str | None:
    if text is None:
        return None
    parsed = PackageURL.from_string(text)
    return str(PackageURL(parsed.type, parsed.namespace, parsed.name, version, parsed.qualifiers, parsed.subpath))


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise PackagingError(
            f"{path.name}, which the SBOM must list, cannot be read: {error.strerror}", remedy=f"correct {DATA}"
        ) from error
