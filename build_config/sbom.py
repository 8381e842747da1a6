"""The list of what is in the wheel, inside the wheel (PEP 770): CycloneDX, the same for the same inputs.

What is named, and where its version is written, is data (``data/components.toml``). Nothing of the machine gets in but
the compiler's version, and what auditwheel says of the libraries that it brought along.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType, Pedigree
from cyclonedx.model.license import LicenseExpression
from packageurl import PackageURL
from packaging.metadata import parse_email
from packaging.requirements import Requirement

from build_config import bomfile, jsonio, wheelfile
from build_config.errors import PackagingError, SettingsError, StepResultError
from build_config.model import LockedFile, Shard, SourceLock, SourceTree, Toolchain, ToolkitLock, Wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.version import Version

    from build_config.layout import Layout

DISTRIBUTION = "llama-cpp-python"
LIBRARIES = "llama_cpp/lib/"
VENDORED = ".libs"
"""How the name of the folder ends into which auditwheel puts libraries."""
AUDITWHEEL = "sboms/auditwheel.cdx.json"
OWN_MEMBERS = ("llama_cpp/_cuda_loader.py", "llama_cpp/_cuda_build.json")
OWN_SOURCES = ("shard_score.cpp", "shard_archs.h.in")
DATA = "components.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something is written: a file below llama.cpp's root, and a pattern with one group."""

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
    """A component whose version is known from elsewhere. It is contained where ``within`` names a library."""

    name: str
    licence: str
    within: tuple[str, ...] = ()
    what: str | None = None
    purl: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """``components.toml``."""

    sources: tuple[Source, ...]
    cuda: tuple[Piece, ...]
    compiler: Piece
    vendored: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component as the document will name it.

    ``files`` are pairs of name and SHA-256. ``within`` as above; ``always`` means contained though in no library.
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
    """Everything that the document says and that is known before there is a wheel."""

    version: str
    cuda: str
    shards: tuple[Shard, ...]
    parts: tuple[Part, ...]
    vendored: tuple[Piece, ...]


def read_components(layout: Layout) -> Components:
    """Read ``components.toml``. An unknown or missing key raises ``SettingsError``."""
    path = layout.data / DATA
    try:
        return jsonio.from_data(tomllib.loads(path.read_text(encoding="utf-8")), Components)
    except (OSError, ValueError, StepResultError) as error:
        raise SettingsError(f"{DATA} cannot be used: {error}", remedy=f"restore {DATA}") from error


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

    ``toolkit`` is ``None`` for an installed one. Raises ``PackagingError`` where a file of a component is not there,
    or the locked sources do not say a version any more.
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
    gcc = Part(
        name=components.compiler.name,
        version=compiler,
        purl=_purl(components.compiler.purl, compiler),
        licence=components.compiler.licence,
        within=components.compiler.within,
        what=components.compiler.what,
    )
    return Ingredients(
        version=str(version),
        cuda=toolchain.cuda.version,
        shards=shards,
        parts=(
            bindings,
            own,
            gcc,
            *(_source_part(one, tree) for one in components.sources),
            *_cuda_parts(components.cuda, toolchain.cuda.version, toolkit),
        ),
        vendored=components.vendored,
    )


def add(wheel: Wheel, ingredients: Ingredients, out: Path) -> Wheel:
    """Write the wheel again, with its list in it, into the folder ``out``.

    Raises ``PackagingError`` where the document would not be valid.
    """
    contents = wheelfile.read_contents(wheel.path)
    document = describe(ingredients, contents, wheel.path.name)
    if problems := bomfile.problems(document):
        raise PackagingError(f"the SBOM of {wheel.path.name} is not valid CycloneDX: {'; '.join(problems)}")
    return wheelfile.write_normalised(wheel.path, out / wheel.path.name, extra={bomfile.MEMBER: document.encode()})


def describe(ingredients: Ingredients, contents: Mapping[str, bytes], filename: str) -> str:
    """The document about the wheel with these members.

    Its graph: the wheel consists of its libraries and of what is in no library, a library of what was compiled into
    it, and the wheel depends on the distributions that it requires.
    """
    folder = wheelfile.dist_info(contents)
    wheel = Component(
        name=DISTRIBUTION,
        version=ingredients.version,
        type=ComponentType.LIBRARY,
        bom_ref="wheel",
        purl=PackageURL("pypi", name=DISTRIBUTION, version=ingredients.version, qualifiers={"file_name": filename}),
        licenses=[LicenseExpression("MIT")],
        properties=[
            Property(name="llama-cuda-wheels:cuda", value=ingredients.cuda),
            *(
                Property(name=bomfile.SHARD, value=f"{shard.name}: {shard.cmake_architectures}")
                for shard in ingredients.shards
            ),
        ],
    )
    parts = {part: _component(part, contents) for part in ingredients.parts}
    libraries = {
        PurePosixPath(name).name: _file(name, hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
        if name.startswith(LIBRARIES)
    }
    vendored = _vendored(ingredients.vendored, contents, contents.get(f"{folder}/{AUDITWHEEL}"))
    required = _required(contents[f"{folder}/METADATA"])

    bom = Bom(
        metadata=BomMetaData(component=wheel),
        components=[*parts.values(), *libraries.values(), *vendored, *required],
    )
    whole = [component for part, component in parts.items() if part.always]
    bom.register_dependency(wheel, [*whole, *libraries.values(), *vendored, *required])
    for name, library in libraries.items():
        inside = [component for part, component in parts.items() if _matches(name, part.within)]
        bom.register_dependency(library, inside)
    return bomfile.text(bom)


def source_digest() -> str:
    """A digest of the code that writes the document: with other code, another wheel."""
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in (__file__, bomfile.__file__))).hexdigest()


# ------------------------------------------------------------------------------------------------------ ingredients


def _source_part(source: Source, tree: SourceTree) -> Part:
    known = tree.commit if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", tree.commit) else None
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
    """What is written there. A checkout of the user's need not say it."""
    if place is None:
        return None
    try:
        text = (tree.llama_cpp / place.file).read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = ".".join(re.findall(place.pattern, text, re.MULTILINE))
    if not found and tree.locked:
        raise PackagingError(
            f"llama.cpp's {place.file} does not say any more what {place.pattern!r} looks for",
            remedy=f"correct {DATA}: what the SBOM names must have its version",
        )
    return found or None


def _cuda_parts(pieces: tuple[Piece, ...], version: str, toolkit: ToolkitLock | None) -> Iterable[Part]:
    if toolkit is None:  # an installed one: which of its files are in use is not told apart
        yield Part(
            name="cuda-toolkit",
            version=version,
            purl=str(PackageURL("generic", "nvidia", "cuda-toolkit", version)),
            licence="LicenseRef-NVIDIA-Proprietary",
            within=("libggml-cuda-*.so",),
            what="NOT a locked one: headers and device functions of an installed toolkit, compiled in",
        )
        return
    by_name = {piece.name: piece for piece in pieces}
    for file in toolkit.files:
        piece = by_name.get(file.name)
        if piece is None:
            raise PackagingError(
                f"{DATA} does not say what {file.name} is for", remedy=f"give it a row in {DATA}, as for the others"
            )
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
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PackagingError(
            f"{path.name}, which the SBOM has to name, cannot be read: {error.strerror}", remedy=f"correct {DATA}"
        ) from error


# --------------------------------------------------------------------------------------------------------- document


def _component(part: Part, contents: Mapping[str, bytes]) -> Component:
    members = OWN_MEMBERS if part.always and part.sha256 is None else ()
    files = [
        *(_file(name, digest, of=part.name) for name, digest in part.files),
        *(_file(name, hashlib.sha256(contents[name]).hexdigest()) for name in members if name in contents),
    ]
    contained = part.always or bool(part.within)
    return Component(
        name=part.name,
        version=part.version,
        type=ComponentType.LIBRARY if contained else ComponentType.APPLICATION,
        bom_ref=part.purl or f"part:{part.name}",
        purl=PackageURL.from_string(part.purl) if part.purl else None,
        # CycloneDX's word for what was used and is not in the product.
        scope=ComponentScope.REQUIRED if contained else ComponentScope.EXCLUDED,
        licenses=[LicenseExpression(part.licence)] if part.licence else [],
        hashes=[_sha256(part.sha256)] if part.sha256 else [],
        pedigree=Pedigree(notes=part.what) if part.what and contained else None,
        description=part.what if not contained else None,
        components=files,
    )


def _file(name: str, digest: str, *, of: str = "") -> Component:
    ref = f"source:{of}/{name}" if of else f"{bomfile.FILE_REF}{name}"
    return Component(name=name, type=ComponentType.FILE, bom_ref=ref, hashes=[_sha256(digest)])


def _vendored(pieces: tuple[Piece, ...], contents: Mapping[str, bytes], auditwheel: bytes | None) -> list[Component]:
    """The libraries that auditwheel brought along. Whose package each was is known where auditwheel knew it."""
    origins = json.loads(auditwheel)["components"] if auditwheel else []
    components = []
    for name, data in contents.items():
        if not name.split("/", 1)[0].endswith(VENDORED):
            continue
        short = re.split(r"[-.]", PurePosixPath(name).name)[0]  # libgomp of libgomp-f9a9ad78.so.1.0.0
        origin: dict[str, str] = next((one for one in origins if one["name"].startswith(short)), {})
        licence = next((piece.licence for piece in pieces if piece.name == short), None)
        components.append(
            Component(
                name=short,
                version=origin.get("version"),
                type=ComponentType.LIBRARY,
                bom_ref=f"{bomfile.FILE_REF}{name}",
                purl=PackageURL.from_string(origin["purl"]) if "purl" in origin else None,
                licenses=[LicenseExpression(licence)] if licence else [],
                hashes=[_sha256(hashlib.sha256(data).hexdigest())],
                scope=ComponentScope.REQUIRED,
                pedigree=Pedigree(notes=f"{name}: its name and search path were changed, nothing else"),
            )
        )
    return components


def _required(metadata: bytes) -> list[Component]:
    """The distributions that an installer fetches besides: named, with the versions that will do, not contained."""
    raw, _ = parse_email(metadata)
    wanted: dict[str, set[str]] = {}
    for text in raw.get("requires_dist", []):
        requirement = Requirement(text)
        if requirement.marker is None or "extra" not in str(requirement.marker):
            wanted.setdefault(requirement.name.lower(), set()).add(text)
    return [
        Component(
            name=name,
            type=ComponentType.LIBRARY,
            bom_ref=f"required:{name}",
            purl=PackageURL("pypi", name=name),
            scope=ComponentScope.REQUIRED,
            description="required at run time, not contained",
            properties=[Property(name="llama-cuda-wheels:requirement", value=text) for text in texts],
        )
        for name, texts in wanted.items()
    ]


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
