"""Write the document from the ingredients and the members of the finished wheel."""

from __future__ import annotations

import hashlib
import json
import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType, Pedigree
from cyclonedx.model.license import LicenseExpression
from packageurl import PackageURL
from packaging.metadata import parse_email
from packaging.requirements import Requirement

from build_config.formats import build_facts, cyclonedx, wheelfile
from build_config.model import DISTRIBUTION
from build_config.steps.wheel.assemble import OWN_MODULES, SHARED_MODULES
from build_config.steps.wheel.sbom.ingredients import Ingredients, Part, Piece

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from build_config.steps.wheel.sbom.ingredients import Ingredients, Part, Piece

LIBRARIES = "llama_cpp/lib/"
VENDORED = ".libs"
"""The end of the name of the folder into which auditwheel puts libraries."""
AUDITWHEEL = "sboms/auditwheel.cdx.json"
OWN_MEMBERS = tuple(
    f"llama_cpp/{name}"
    for name in (
        *dict.fromkeys(module for modules in OWN_MODULES.values() for module in modules),
        *SHARED_MODULES,
        build_facts.FILE,
    )
)
"""Files that this project adds to upstream's package, on any platform."""


def describe(ingredients: Ingredients, contents: Mapping[str, bytes], filename: str) -> str:
    """Write the document about the wheel with these members.

    Its graph: the wheel consists of its libraries and of the components in no library; a library consists of the
    components compiled into it; the wheel depends on the distributions that it requires.
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
                Property(name=cyclonedx.SHARD, value=f"{shard.name}: {shard.cmake_architectures}")
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
    return cyclonedx.text(bom)


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
        # CycloneDX's term for a component that was used and is not in the product.
        scope=ComponentScope.REQUIRED if contained else ComponentScope.EXCLUDED,
        licenses=[LicenseExpression(part.licence)] if part.licence else [],
        hashes=[_sha256(part.sha256)] if part.sha256 else [],
        pedigree=Pedigree(notes=part.what) if part.what and contained else None,
        description=part.what if not contained else None,
        components=files,
    )


def _file(name: str, digest: str, *, of: str = "") -> Component:
    ref = f"source:{of}/{name}" if of else f"{cyclonedx.FILE_REF}{name}"
    return Component(name=name, type=ComponentType.FILE, bom_ref=ref, hashes=[_sha256(digest)])


def _vendored(pieces: tuple[Piece, ...], contents: Mapping[str, bytes], auditwheel: bytes | None) -> list[Component]:
    """The libraries that auditwheel added, each with its package if auditwheel reports it."""
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
                bom_ref=f"{cyclonedx.FILE_REF}{name}",
                purl=PackageURL.from_string(origin["purl"]) if "purl" in origin else None,
                licenses=[LicenseExpression(licence)] if licence else [],
                hashes=[_sha256(hashlib.sha256(data).hexdigest())],
                scope=ComponentScope.REQUIRED,
                pedigree=Pedigree(notes=f"{name}: its name and search path were changed, nothing else"),
            )
        )
    return components


def _required(metadata: bytes) -> list[Component]:
    """The distributions that an installer also fetches: listed with the accepted versions, not contained."""
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
    """Patterns use the names on Linux, where ``ggml-cuda-sm89.dll`` is ``libggml-cuda-sm89.so``."""
    if name.endswith(".dll"):
        name = f"lib{name.removesuffix('.dll')}.so"
    return any(fnmatchcase(name, pattern) for pattern in patterns)
