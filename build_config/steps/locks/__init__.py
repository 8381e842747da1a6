"""The three kinds of locks, and their parsers.

A lock is for llama-cpp-python's source distribution; for a CUDA toolkit as NVIDIA's wheels on one platform, made from
``cuda-RELEASE.in``; or for Python requirements with hashes, which uv compiles from ``NAME.in`` to ``NAME.txt``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from build_config.errors import LockError, SettingsError
from build_config.model import DISTRIBUTION, OLDEST_PYTHON, LockedFile, PlatformName, SourceLock, ToolkitLock
from build_config.system import tomlio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from build_config.system.layout import Layout

T = TypeVar("T")
SOURCE_LOCK = f"{DISTRIBUTION}.toml"
PLATFORMS: dict[PlatformName, tuple[str, re.Pattern[str]]] = {
    "linux-x86_64": ("linux", re.compile(r"manylinux\w*_x86_64\.whl$")),
    "win-amd64": ("win32", re.compile(r"win_amd64\.whl$")),
}
"""``sys.platform`` of each platform, and the pattern at the end of its wheels' names."""
TOOLKIT_PINS = "toolkit-pins.txt"
OLDEST_PYTHON_OF_WHEELS = (3, 8)
"""The oldest Python that a finished wheel supports: upstream's."""
OLDEST_PYTHON_OF_KITS = (3, 9)
"""The oldest Python that runs a GPU kit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementSet:
    """A set of Python requirements. ``shares`` is the file whose versions it must use.

    ``makes_wheels`` says whether a wheel is made or validated with it: a difference in any other lock does not affect
    a wheel. ``python`` is the oldest Python that it is for; with ``one_version`` the same files serve every later one.
    """

    shares: str | None
    makes_wheels: bool
    python: tuple[int, int] = OLDEST_PYTHON
    one_version: bool = False


REQUIREMENTS = {
    "requirements": RequirementSet(shares=None, makes_wheels=True),
    "lock": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "bench": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "conda": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "index": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "cibuildwheel": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "test": RequirementSet(shares="lock.txt", makes_wheels=False),
    "validation": RequirementSet(shares=TOOLKIT_PINS, makes_wheels=True),
    "validation-cu11": RequirementSet(shares="validation.txt", makes_wheels=True),
    "validation-cu12": RequirementSet(shares="validation.txt", makes_wheels=True),
    "gpu-kit": RequirementSet(shares=None, makes_wheels=False, python=OLDEST_PYTHON_OF_KITS, one_version=True),
    "upstream-tests": RequirementSet(shares="validation.txt", makes_wheels=False),
    "clients": RequirementSet(shares="validation.txt", makes_wheels=False),
    "installers": RequirementSet(shares="lock.txt", makes_wheels=False),
    "storage": RequirementSet(shares=None, makes_wheels=False),
    "pythons": RequirementSet(shares=TOOLKIT_PINS, makes_wheels=False, python=OLDEST_PYTHON_OF_WHEELS),
}
UNRELATED_LOCKS = frozenset(f"{name}.txt" for name, each in REQUIREMENTS.items() if not each.makes_wheels)
"""Lock files that do not affect a wheel."""
PIPELINE = "requirements.txt"
"""The requirements of the pipeline itself."""
LOCK_SUFFIXES = frozenset({".toml", ".txt"})
RESTORE = "git checkout build_config/data/locks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One line of a requirements lock: a version, its marker if there is one, and the hashes of its files."""

    name: str
    version: str
    requirement: Requirement
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locks:
    """All locks of a checkout for one platform; every lock file is read once.

    ``digests`` are the name and the SHA-256 of each lock file, sorted by name. ``pins`` are those of the pipeline's own
    requirements.
    """

    digests: tuple[tuple[str, str], ...]
    source: SourceLock
    toolkits: tuple[ToolkitLock, ...]
    pins: tuple[Pin, ...]

    @property
    def releases(self) -> tuple[str, ...]:
        """The locked CUDA releases, oldest first."""
        return tuple(toolkit.cuda for toolkit in self.toolkits)

    @property
    def files(self) -> tuple[LockedFile, ...]:
        """The source distribution and the files of all toolkits."""
        return (self.source.file, *(file for toolkit in self.toolkits for file in toolkit.files))

    def toolkit(self, cuda: str) -> ToolkitLock:
        """The locked toolkit of a release (``13.0``). Raises ``SettingsError`` for a release without a lock."""
        for toolkit in self.toolkits:
            if toolkit.cuda == cuda:
                return toolkit
        message = f"there is no locked CUDA toolkit {cuda!r}; locked: {', '.join(self.releases)}"
        remedy = f"--cuda {self.releases[-1]}, or --cuda system for a toolkit that is installed on this machine"
        raise SettingsError(message, remedy=remedy)


def read(layout: Layout, platform: PlatformName) -> Locks:
    """Read all locks of this checkout. Raises ``LockError`` for a lock that is missing, malformed or incomplete."""
    files = contents(layout.locks)
    return Locks(
        digests=_digests(files),
        source=SourceLock(file=read_source(files)),
        toolkits=tuple(_complete_toolkit(files, cuda, platform) for cuda in releases(files)),
        pins=tuple(read_pins(files, PIPELINE)),
    )


def read_source_lock(layout: Layout) -> SourceLock:
    """The locked source distribution. Raises ``LockError`` if the lock is missing or malformed."""
    return SourceLock(file=read_source(contents(layout.locks)))


def read_toolkit_lock(layout: Layout, cuda: str, platform: PlatformName) -> ToolkitLock:
    """The locked toolkit of a release (``13.0``). Raises as ``read`` and ``Locks.toolkit`` do."""
    return read(layout, platform).toolkit(cuda)


def lock_digests(layout: Layout) -> tuple[tuple[str, str], ...]:
    """The name of each lock file and its SHA-256, sorted by name."""
    return _digests(contents(layout.locks))


def toolkit_input(cuda: str) -> str:
    """The name of the file that lists the components of a toolkit."""
    return f"cuda-{cuda}.in"


def toolkit_lock_name(cuda: str, platform: PlatformName) -> str:
    """The name of a toolkit's lock for a platform."""
    return f"cuda-{cuda}-{platform}.toml"


# --------------------------------------------------------------------------------------------------------- parsing


def contents(folder: Path) -> dict[str, bytes]:
    """The contents of all locks, and of all lists that locks are made from, by file name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {*LOCK_SUFFIXES, ".in"}}


def _digests(files: Mapping[str, bytes]) -> tuple[tuple[str, str], ...]:
    locks = (name for name in sorted(files) if not name.endswith(".in"))
    return tuple((name, hashlib.sha256(files[name]).hexdigest()) for name in locks)


def releases(files: Mapping[str, bytes]) -> list[str]:
    """The locked CUDA releases, oldest first."""
    matches = (re.fullmatch(r"cuda-(.+)\.in", name) for name in files)
    return sorted((match[1] for match in matches if match), key=Version)


def _text(files: Mapping[str, bytes], name: str) -> str:
    try:
        return files[name].decode("utf-8")
    except (KeyError, UnicodeDecodeError) as error:
        reason = "there is no such file" if isinstance(error, KeyError) else str(error)
        raise LockError(f"{name} cannot be read: {reason}", remedy=RESTORE) from error


def _toml(files: Mapping[str, bytes], name: str, kind: type[T]) -> T:
    return tomlio.parse(_text(files, name), kind, name=name, error=LockError, remedy=RESTORE)


def read_source(files: Mapping[str, bytes]) -> LockedFile:
    """The locked source distribution. Raises ``LockError``."""
    return _checked(_toml(files, SOURCE_LOCK, LockedFile), SOURCE_LOCK)


def _complete_toolkit(files: Mapping[str, bytes], cuda: str, platform: PlatformName) -> ToolkitLock:
    toolkit = read_toolkit(files, cuda, platform)
    wanted = {component.name for component in components(files, cuda, platform)}
    if missing := wanted - {file.name for file in toolkit.files}:
        raise LockError(f"{toolkit_lock_name(cuda, platform)} lacks {', '.join(sorted(missing))}", remedy="nox -s lock")
    return toolkit


def read_toolkit(files: Mapping[str, bytes], cuda: str, platform: PlatformName) -> ToolkitLock:
    """The locked toolkit of a release, complete or not. Raises ``LockError``."""
    name = toolkit_lock_name(cuda, platform)
    toolkit = _toml(files, name, ToolkitLock)
    if (toolkit.cuda, toolkit.platform) != (cuda, platform):
        raise LockError(f"{name} is for CUDA {toolkit.cuda} on {toolkit.platform}", remedy=RESTORE)
    for file in toolkit.files:
        _checked(file, name)
    return toolkit


def _checked(file: LockedFile, lock: str) -> LockedFile:
    named = re.fullmatch(r"[\w.+-]+", file.filename)  # it becomes a path
    if not named or not re.fullmatch(r"[0-9a-f]{64}", file.sha256) or file.size <= 0:
        raise LockError(f"{lock}: {file.filename!r} has an invalid name, digest or size", remedy=RESTORE)
    if not _is_file_of(file):  # the record and the SBOM say its name and version
        raise LockError(f"{lock}: {file.filename} is not {file.name} {file.version}", remedy=RESTORE)
    return file


def _is_file_of(file: LockedFile) -> bool:
    """Whether the name of a file is one of the locked release."""
    parse = parse_wheel_filename if file.filename.endswith(".whl") else parse_sdist_filename
    try:
        name, version, *_ = parse(file.filename)
        return (name, version) == (canonicalize_name(file.name), Version(file.version))
    except ValueError:  # those of packaging are such errors, too
        return False


def components(files: Mapping[str, bytes], cuda: str, platform: PlatformName) -> list[Requirement]:
    """The components of a toolkit on a platform."""
    system, _ = PLATFORMS[platform]
    requirements = [pair[0] for pair in _requirements(files, toolkit_input(cuda))]
    return [one for one in requirements if one.marker is None or one.marker.evaluate({"sys_platform": system})]


def read_pins(files: Mapping[str, bytes], name: str) -> Iterator[Pin]:
    """The lines of a requirements lock. Raises ``LockError`` for a malformed one."""
    for requirement, hashes in _requirements(files, name):
        versions = [specifier.version for specifier in requirement.specifier if specifier.operator == "=="]
        if len(versions) != 1:
            raise LockError(f"{name}: {requirement} is not pinned to one version", remedy=RESTORE)
        package = str(canonicalize_name(requirement.name))
        yield Pin(name=package, version=versions[0], requirement=requirement, hashes=hashes)


def _requirements(files: Mapping[str, bytes], name: str) -> Iterator[tuple[Requirement, tuple[str, ...]]]:
    """The lines of a requirements file, each with its hashes."""
    try:
        for line in _text(files, name).replace("\\\n", " ").splitlines():
            text, *hashes = re.split(r"\s--hash=", line.partition("#")[0])
            if text.strip():
                yield Requirement(text.strip()), tuple(one.strip() for one in hashes)
    except InvalidRequirement as error:
        raise LockError(f"{name} cannot be read: {error}", remedy=RESTORE) from error
