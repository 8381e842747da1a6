"""Name, requirements and constraints of a wheel's conda package: a pure function of the wheel and its record."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from build_config.errors import PackagingError, SettingsError
from build_config.formats import build_facts, wheelfile
from build_config.system import tomlio
from check_gpu import coverage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from packaging.specifiers import Specifier

    from build_config.model import CudaArch, Wheel
    from build_config.reports import BuildRecord

SUBDIR = "linux-64"
"""conda's name of the only platform with wheels."""
OLDEST_CUDA = 12
"""The first major release of CUDA whose libraries are separate packages on conda-forge."""
_TAG = re.compile(r"py3-none-manylinux_(\d+_\d+)_x86_64")
_EXACT = {">=", "<=", ">", "!=", "==", "~="}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The contents of ``data/conda.toml``, which explains the fields."""

    pythons: tuple[str, ...]
    licence: str
    homepage: str
    compiler_libraries: tuple[str, ...]
    packages: dict[str, str]
    cuda_packages: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaPackage:
    """The description of a conda package. ``depends`` and ``constrains`` are conda's match specifications.

    A package in ``constrains`` need not be installed, but must match if it is. ``dropped`` are the distributions that
    the installed METADATA does not require.
    """

    name: str
    version: str
    build: str
    depends: tuple[str, ...]
    constrains: tuple[str, ...]
    dropped: tuple[str, ...]
    summary: str
    licence: str
    homepage: str
    subdir: str = SUBDIR

    @property
    def file_name(self) -> str:
        """The name of the file in a channel."""
        return f"{self.name}-{self.version}-{self.build}.conda"


def read_names(path: Path) -> Names:
    """Read the table. Raises ``SettingsError`` if it is missing or malformed."""
    return tomlio.read(path, Names, error=SettingsError)


def describe(wheel: Wheel, contents: Mapping[str, bytes], record: BuildRecord, names: Names) -> CondaPackage:
    """Describe the package of a wheel; ``contents`` are its members, ``record`` is the record next to it.

    Raises ``PackagingError`` for a wheel of another platform, or with something that the package cannot express: a
    requirement that the table does not name, programs, or a marker that is true for some Pythons only.
    """
    folder = wheelfile.dist_info(contents)
    if f"{folder}/entry_points.txt" in contents or any(name.partition("/")[0].endswith(".data") for name in contents):
        raise PackagingError(f"{wheel.path.name} has programs or data files, which the conda package cannot express")
    metadata, _ = parse_email(contents[f"{folder}/METADATA"])
    requirements = [Requirement(text) for text in metadata.get("requires_dist", [])]
    if build_facts.MEMBER not in contents:
        raise PackagingError(f"{wheel.path.name} is not a wheel of this project: it does not name its CUDA")
    facts = build_facts.parse(contents[build_facts.MEMBER])
    if facts.major < OLDEST_CUDA:
        message = f"conda-forge has no packages of CUDA {facts.cuda}'s libraries"
        remedy = f"build with CUDA {OLDEST_CUDA} or later, or install the wheel itself with pip"
        raise PackagingError(message, remedy=remedy)
    depends = [
        f"python {_python_range(metadata.get('requires_python', ''), names)}",
        *_depends(requirements, names),
        f"cuda-version >={facts.cuda},<{facts.major + 1}.0a0",
        *(f"{library} >={_gcc_major(record)}" for library in names.compiler_libraries),
        f"__glibc >={_glibc(wheel)},<3.0.a0",
    ]
    constrains = (
        f"__cuda >={facts.major}",
        f"__cuda_arch {capabilities(arch for s in record.shards for arch in s.archs)}",
    )
    digest = hashlib.sha256("\n".join((wheel.sha256, *depends, *constrains)).encode()).hexdigest()[:7]
    tag, *shards = (wheel.version.local or "").split(".")
    return CondaPackage(
        name=str(canonicalize_name(metadata.get("name", ""))),
        version=wheel.version.public,
        build="_".join((tag.replace("cu", "cuda"), *(shards or ["portable"]), f"h{digest}", "0")),
        depends=tuple(depends),
        constrains=constrains,
        dropped=tuple(sorted(names.cuda_packages)),
        summary=metadata.get("summary", ""),
        licence=names.licence,
        homepage=names.homepage,
    )


def without_requirements(metadata: bytes, dropped: Iterable[str]) -> bytes:
    """METADATA without the lines that require the ``dropped`` distributions; every other byte stays."""
    unwanted = set(dropped)
    head, separator, body = metadata.partition(b"\n\n")

    def wanted(line: bytes) -> bool:
        key, _, value = line.decode().partition(":")
        return key.lower() != "requires-dist" or canonicalize_name(Requirement(value.strip()).name) not in unwanted

    return b"\n".join(line for line in head.split(b"\n") if wanted(line)) + separator + body


def capabilities(archs: Iterable[CudaArch]) -> str:
    """The compute capabilities that run code for one of ``archs``, as ranges of versions in conda's syntax.

    ``>=8.9,<9.0`` for ``89-real``, ``>=9.0`` for ``90-virtual``; the parts of a union are joined by ``|``.
    """
    merged: list[tuple[int, float]] = []
    for low, high in sorted(coverage.span(str(arch)) for arch in archs):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return "|".join(f">={_dotted(low)}" + (f",<{_dotted(high)}" if high < math.inf else "") for low, high in merged)


def _dotted(number: float) -> str:
    return f"{number // 10:.0f}.{number % 10:.0f}"


def _python_range(requires: str, names: Names) -> str:
    """The range from the oldest Python of conda-forge that the wheel allows; it must allow all later ones."""
    allowed = [version for version in names.pythons if version in SpecifierSet(requires)]
    if not allowed or allowed != list(names.pythons[-len(allowed) :]):
        raise PackagingError(f"the wheel's Requires-Python {requires!r} is not one range up to the newest Python")
    return f">={allowed[0]}"


def _depends(requirements: Iterable[Requirement], names: Names) -> Iterable[str]:
    known = {**names.packages, **names.cuda_packages}
    for requirement in requirements:
        if not _holds(requirement, names):
            continue
        name = str(canonicalize_name(requirement.name))
        if name not in known or requirement.extras or requirement.url:
            message = f"the wheel requires {requirement}, whose name on conda-forge is unknown"
            remedy = "look it up at https://anaconda.org/conda-forge and add a line to build_config/data/conda.toml"
            raise PackagingError(message, remedy=remedy)
        ranges = sorted((_conda_clause(each) for each in requirement.specifier), reverse=True)
        yield " ".join((known[name], ",".join(ranges))).strip()


def _holds(requirement: Requirement, names: Names) -> bool:
    """Whether an installation without extras needs it on Linux; the answer must be the same for every Python."""
    if requirement.marker is None:
        return True
    environment = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": ""}
    answers = {
        requirement.marker.evaluate({**environment, "python_version": version, "python_full_version": f"{version}.0"})
        for version in names.pythons
    }
    if len(answers) != 1:
        raise PackagingError(f"the wheel requires {requirement} for some Pythons only, but the package is for all")
    return answers.pop()


def _conda_clause(specifier: Specifier) -> str:
    """Translate one clause for conda. ``<14`` excludes the pre-releases of 14, which conda needs explicitly."""
    operator, version = specifier.operator, specifier.version
    if "*" in version or "+" in version or operator not in {*_EXACT, "<"}:
        raise PackagingError(f"the wheel requires a version {specifier}, which cannot be translated for conda yet")
    if operator != "<" or Version(version).is_prerelease:
        return f"{operator}{version}"
    return f"<{version}.0a0" if "." not in version else f"<{version}a0"


def _gcc_major(record: BuildRecord) -> str:
    """The major version of the compiler in the record: ``12`` for ``g++ 12.2.0 (…)``."""
    match = re.match(r"\S+ (\d+)\.", dict(record.toolchain).get("cxx", ""))
    if match is None:
        raise PackagingError("the record does not say which GCC compiled the wheel")
    return match[1]


def _glibc(wheel: Wheel) -> str:
    """The oldest glibc that the wheel's tags allow."""
    found = [_TAG.fullmatch(tag) for tag in wheel.tags]
    versions = [match[1].replace("_", ".") for match in found if match]
    if len(versions) != len(found):
        raise PackagingError(
            f"{wheel.path.name} is not for every Python 3 on x86-64 with glibc: no conda package can be made of it"
        )
    return min(versions, key=Version)
