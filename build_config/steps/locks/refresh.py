"""The locks: read, checked, and made again.

Three kinds: llama-cpp-python's source distribution; a CUDA toolkit as NVIDIA's wheels, one lock a platform, made from
``cuda-RELEASE.in``; and Python requirements with hashes, ``NAME.in`` compiled to ``NAME.txt`` by uv.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sysconfig
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tomli_w
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from pypi_simple import PyPISimple

from build_config.errors import LockError, SettingsError, StepResultError
from build_config.model import LockedFile, PlatformName, SourceLock, ToolkitLock
from build_config.steps.locks import download
from build_config.system import jsonio, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pypi_simple import DistributionPackage

    from build_config.system.console import Console
    from build_config.system.layout import Layout

T = TypeVar("T")

SOURCE = "llama-cpp-python"
SOURCE_LOCK = f"{SOURCE}.toml"
OLDEST_PYTHON = "3.11"
PLATFORMS: dict[PlatformName, tuple[str, re.Pattern[str]]] = {
    "linux-x86_64": ("linux", re.compile(r"manylinux\w*_x86_64\.whl$")),
    "win-amd64": ("win32", re.compile(r"win_amd64\.whl$")),
}
"""Python's ``sys.platform``, and how the names of its wheels end."""
VALIDATED_CUDA = "13.0"
"""The toolkit whose libraries the finished wheel is tried with."""
TOOLKIT_PINS = "toolkit-pins.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementSet:
    """A set of Python requirements. ``shares`` is the file whose versions it must have.

    ``makes_wheels`` says whether a wheel is made or validated with it: a difference in any other lock says nothing
    about a wheel.
    """

    shares: str | None
    makes_wheels: bool


REQUIREMENTS = {
    "requirements": RequirementSet(shares=None, makes_wheels=True),
    "lock": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "bench": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "conda": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "cibuildwheel": RequirementSet(shares="requirements.txt", makes_wheels=False),
    "test": RequirementSet(shares="lock.txt", makes_wheels=False),
    "validation": RequirementSet(shares=TOOLKIT_PINS, makes_wheels=True),
    "validation-cu11": RequirementSet(shares="validation.txt", makes_wheels=True),
    "validation-cu12": RequirementSet(shares="validation.txt", makes_wheels=True),
    "upstream-tests": RequirementSet(shares="validation.txt", makes_wheels=False),
}
UNRELATED_LOCKS = frozenset(f"{name}.txt" for name, each in REQUIREMENTS.items() if not each.makes_wheels)
"""Lock files from which no wheel is made."""
KEPT_UV_SETTINGS = frozenset({"UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS"})
RESTORE = "git checkout build_config/data/locks"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockChange:
    """One thing that moved. ``before`` or ``after`` is ``None`` where it came or went."""

    lock: str
    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        """One line."""
        return f"{self.lock}: {self.name} {self.before or '(new)'} -> {self.after or '(gone)'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A line of a requirements lock: a version where a marker holds, and the hashes of its files."""

    name: str
    version: str
    requirement: Requirement
    hashes: tuple[str, ...]


# -------------------------------------------------------------------------------------------------------- reading


def read_source_lock(layout: Layout) -> SourceLock:
    """The locked source distribution. Raises ``LockError`` when the lock is missing or malformed."""
    return SourceLock(file=_read_source(layout.locks))


def read_toolkit_lock(layout: Layout, cuda: str, platform: PlatformName) -> ToolkitLock:
    """The locked toolkit of a release (``13.0``).

    Raises ``SettingsError`` for a release without a lock, ``LockError`` for a malformed or incomplete one.
    """
    releases = toolkits(layout.locks)
    if cuda not in releases:
        raise SettingsError(
            f"there is no locked CUDA toolkit {cuda!r}; locked: {', '.join(releases)}",
            remedy=f"--cuda {releases[-1]}, or --cuda system for a toolkit that is installed on this machine",
        )
    toolkit = _read_toolkit(layout.locks, cuda, platform)
    wanted = {component.name for component in _components(layout.locks, cuda, platform)}
    if missing := wanted - {file.name for file in toolkit.files}:
        raise LockError(f"{_toolkit_lock(cuda, platform)} lacks {', '.join(sorted(missing))}", remedy="nox -s lock")
    return toolkit


def lock_digests(layout: Layout) -> tuple[tuple[str, str], ...]:
    """The name of each lock file and its SHA-256, sorted by name."""
    return tuple((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in _lock_files(layout.locks))


# --------------------------------------------------------------------------------------------------------- making


def refresh(layout: Layout, *, upgrade: tuple[str, ...], console: Console) -> tuple[LockChange, ...]:
    """Make all locks again, and say what changed.

    What is pinned stays pinned, but for the packages in ``upgrade``, which move to their newest release (a toolkit
    component: the newest in its series). Without a change the files stay as they are to the byte; on an error none is
    touched. Raises ``SettingsError`` for a name that no lock holds, ``NetworkError`` when the index does not answer,
    ``LockError`` when it lacks what is needed, when a present lock is malformed, or when uv finds no solution.
    """
    names = frozenset(str(canonicalize_name(name)) for name in upgrade)
    before = _contents(layout.locks)
    if unknown := names - {name for _, name in before}:
        raise SettingsError(
            f"no lock holds {', '.join(sorted(unknown))}",
            remedy=f"name {SOURCE}, a component of the CUDA toolkit, or a Python requirement of the locks",
        )
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(shutil.copytree(layout.locks, temporary, dirs_exist_ok=True))
        console.note(f"{SOURCE} and the CUDA toolkits")
        with PyPISimple(download.index_url()) as index:
            _lock_source(work, index, names)
            for cuda in toolkits(work):
                for platform in PLATFORMS:
                    _lock_toolkit(work, index, cuda, platform, names)
        _write_toolkit_pins(work)
        for name, requirements in REQUIREMENTS.items():
            console.note(f"Python requirements: {name}")
            _compile(work, name, requirements.shares, names)
        (work / TOOLKIT_PINS).unlink()
        changes = tuple(_changes(before, _contents(work)))
        for path in _lock_files(work):
            kept = layout.locks / path.name
            if not kept.is_file() or kept.read_bytes() != path.read_bytes():
                jsonio.write_text(kept, path.read_text(encoding="utf-8"))
    return changes


def _lock_source(folder: Path, index: PyPISimple, upgrade: frozenset[str]) -> None:
    pinned = None
    if SOURCE not in upgrade and (folder / SOURCE_LOCK).is_file():
        pinned = _read_source(folder).version
    packages = [p for p in download.project_page(index, SOURCE).packages if p.package_type == "sdist"]
    _write_toml(folder / SOURCE_LOCK, _choose(SOURCE, packages, SpecifierSet(), pinned), made_from="the package index")


def _lock_toolkit(folder: Path, index: PyPISimple, cuda: str, platform: PlatformName, upgrade: frozenset[str]) -> None:
    path = folder / _toolkit_lock(cuda, platform)
    present = _read_toolkit(folder, cuda, platform).files if path.is_file() else ()
    pinned = {file.name: file.version for file in present if file.name not in upgrade}
    _, suffix = PLATFORMS[platform]
    files = []
    for component in _components(folder, cuda, platform):
        packages = [p for p in download.project_page(index, component.name).packages if suffix.search(p.filename)]
        files.append(_choose(component.name, packages, component.specifier, pinned.get(component.name)))
    toolkit = ToolkitLock(cuda=cuda, platform=platform, files=tuple(files))
    _write_toml(path, toolkit, made_from=_wanted_toolkit(cuda))


def _choose(name: str, packages: list[DistributionPackage], wanted: SpecifierSet, pinned: str | None) -> LockedFile:
    """The pinned version while it is still wanted, otherwise the newest that is neither yanked nor a pre-release."""
    if pinned is not None and Version(pinned) in wanted:
        fitting = [p for p in packages if p.version and Version(p.version) == Version(pinned)]
    else:
        usable = [p for p in packages if p.version and not p.is_yanked and Version(p.version) in wanted]
        fitting = [p for p in usable if not Version(p.version or "").is_prerelease]
    if not fitting:
        what = f"{name} {pinned or wanted}".strip()
        raise LockError(f"the package index does not have {what}", remedy=f"nox -s lock -- --upgrade {name}")
    newest = max(fitting, key=lambda package: (Version(package.version or ""), package.filename))
    if newest.size is None or "sha256" not in newest.digests:
        remedy = "lock from an index that does (unset PIP_INDEX_URL)"
        raise LockError(f"the package index tells no size or no SHA-256 of {newest.filename}", remedy=remedy)
    return LockedFile(
        name=name,
        version=newest.version or "",
        filename=newest.filename,
        sha256=newest.digests["sha256"],
        size=newest.size,
    )


def _write_toolkit_pins(folder: Path) -> None:
    """The versions of the toolkit as constraints for uv: a wheel is tried with the libraries that it was built for."""
    versions: dict[str, dict[str, str]] = {}
    for platform, (system, _) in PLATFORMS.items():
        for file in _read_toolkit(folder, VALIDATED_CUDA, platform).files:
            versions.setdefault(file.name, {})[system] = file.version
    lines = [
        f"{name}=={version} ; sys_platform == '{system}'\n"
        for name, by_system in versions.items()
        for system, version in by_system.items()
    ]
    (folder / TOOLKIT_PINS).write_text("".join(lines), encoding="utf-8")


def _compile(folder: Path, name: str, shared: str | None, upgrade: frozenset[str]) -> None:
    """Have uv resolve ``NAME.in`` for all platforms; it keeps the versions of the present lock."""
    lock = folder / f"{name}.txt"
    argv = [
        _uv(),
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--generate-hashes",
        f"--python-version={OLDEST_PYTHON}",
        "--only-binary=:all:",  # nothing is built when a lock is installed
        "--no-emit-index-url",
        "--no-header",
        "--no-annotate",
        *([f"--constraint={shared}"] if shared else []),
        *(f"--upgrade-package={package}" for package in sorted(upgrade)),
        f"--output-file={lock.name}",
        f"{name}.in",
    ]
    # The machine's own settings must not leak into a lock that everybody uses.
    changes: dict[str, str | None] = {
        setting: None for setting in os.environ if setting.startswith("UV_") and setting not in KEPT_UV_SETTINGS
    }
    changes |= {"UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": download.index_url()}
    done = processes.run(processes.Command(argv=tuple(argv), cwd=folder, changes=changes), check=False, timeout=600)
    if done.returncode != 0:
        raise LockError(f"uv could not make {lock.name} from {name}.in:\n{done.output}")
    lock.write_text(_header(f"{name}.in") + lock.read_text(encoding="utf-8"), encoding="utf-8")


def _uv() -> str:
    """The locked uv of this environment, and no other that may be on PATH."""
    found = shutil.which("uv", path=sysconfig.get_path("scripts"))
    if found is None:
        raise LockError("uv is not installed in this Python environment", remedy="nox -s lock, which installs it")
    return found


def _changes(
    before: dict[tuple[str, str], tuple[str, str]], after: dict[tuple[str, str], tuple[str, str]]
) -> Iterator[LockChange]:
    for lock, name in sorted(before.keys() | after.keys()):
        old, files = before.get((lock, name), (None, None))
        new, new_files = after.get((lock, name), (None, None))
        if (old, files) != (new, new_files):
            yield LockChange(lock=lock, name=name, before=old, after=f"{new}, other files" if new == old else new)


# ---------------------------------------------------------------------------------------------------------- files


def _lock_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".toml", ".txt"})


def toolkits(folder: Path) -> list[str]:
    """The releases that are locked, oldest first."""
    return sorted((path.stem.removeprefix("cuda-") for path in folder.glob("cuda-*.in")), key=Version)


def _wanted_toolkit(cuda: str) -> str:
    return f"cuda-{cuda}.in"


def _toolkit_lock(cuda: str, platform: PlatformName) -> str:
    return f"cuda-{cuda}-{platform}.toml"


def _components(folder: Path, cuda: str, platform: PlatformName) -> list[Requirement]:
    """What a toolkit is made of on a platform."""
    system, _ = PLATFORMS[platform]
    requirements = [pair[0] for pair in _requirements(folder / _wanted_toolkit(cuda))]
    return [one for one in requirements if one.marker is None or one.marker.evaluate({"sys_platform": system})]


def _contents(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(lock, name) -> what is shown of it, and what else tells its files apart."""
    contents: dict[tuple[str, str], tuple[str, str]] = {}
    if (folder / SOURCE_LOCK).is_file():
        contents[SOURCE_LOCK, SOURCE] = _shown(_read_source(folder))
    for cuda in toolkits(folder):
        for platform in PLATFORMS:
            name = _toolkit_lock(cuda, platform)
            if (folder / name).is_file():
                contents |= {(name, f.name): _shown(f) for f in _read_toolkit(folder, cuda, platform).files}
    for name in (f"{name}.txt" for name in REQUIREMENTS):
        pins = read_pins(folder / name) if (folder / name).is_file() else []
        for pin in pins:
            version, hashes = contents.get((name, pin.name), ("", ""))
            marked = f"{pin.version} ({pin.requirement.marker})" if pin.requirement.marker else pin.version
            contents[name, pin.name] = (f"{version} {marked}".strip(), hashes + "".join(sorted(pin.hashes)))
    return contents


def _shown(file: LockedFile) -> tuple[str, str]:
    return f"{file.version} ({file.size} bytes, SHA-256 {file.sha256[:12]})", file.filename + file.sha256


def _read_source(folder: Path) -> LockedFile:
    return _checked(_read_toml(folder / SOURCE_LOCK, LockedFile), SOURCE_LOCK)


def _read_toolkit(folder: Path, cuda: str, platform: PlatformName) -> ToolkitLock:
    name = _toolkit_lock(cuda, platform)
    toolkit = _read_toml(folder / name, ToolkitLock)
    if (toolkit.cuda, toolkit.platform) != (cuda, platform):
        raise LockError(f"{name} is for CUDA {toolkit.cuda} on {toolkit.platform}", remedy=RESTORE)
    for file in toolkit.files:
        _checked(file, name)
    return toolkit


def _checked(file: LockedFile, lock: str) -> LockedFile:
    named = re.fullmatch(r"[\w.+-]+", file.filename)  # it becomes a path
    if not named or not re.fullmatch(r"[0-9a-f]{64}", file.sha256) or file.size <= 0:
        raise LockError(f"{lock}: {file.filename!r} has no proper name, digest or size", remedy=RESTORE)
    return file


def _read_toml(path: Path, kind: type[T]) -> T:
    try:
        return jsonio.from_data(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except (OSError, ValueError, StepResultError) as error:
        raise LockError(f"{path.name} cannot be read: {error}", remedy=RESTORE) from error


def _write_toml(path: Path, value: Any, *, made_from: str) -> None:
    path.write_text(_header(made_from) + tomli_w.dumps(jsonio.to_data(value)), encoding="utf-8")


def _header(made_from: str) -> str:
    return f"# Made from {made_from} by `nox -s lock`; not to be edited.\n"


def read_pins(path: Path) -> list[Pin]:
    """The lines of a requirements lock. Raises ``LockError`` for a malformed one."""
    pins = []
    for requirement, hashes in _requirements(path):
        versions = [specifier.version for specifier in requirement.specifier if specifier.operator == "=="]
        if len(versions) != 1:
            raise LockError(f"{path.name}: {requirement} is not pinned to one version", remedy=RESTORE)
        name = str(canonicalize_name(requirement.name))
        pins.append(Pin(name=name, version=versions[0], requirement=requirement, hashes=hashes))
    return pins


def _requirements(path: Path) -> Iterator[tuple[Requirement, tuple[str, ...]]]:
    """The lines of a requirements file, each with its hashes."""
    try:
        for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            text, *hashes = re.split(r"\s--hash=", line.partition("#")[0])
            if text.strip():
                yield Requirement(text.strip()), tuple(one.strip() for one in hashes)
    except (OSError, UnicodeDecodeError, InvalidRequirement) as error:
        raise LockError(f"{path.name} cannot be read: {error}", remedy=RESTORE) from error
