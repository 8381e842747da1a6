"""The locks: read, checked, and made again.

Three kinds: llama-cpp-python's source distribution, the CUDA toolkit as NVIDIA's wheels (one lock a platform), and
Python requirements (``NAME.in`` compiled to ``NAME.txt`` with hashes by uv).
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tomli_w
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pypi_simple import NoSuchProjectError, PyPISimple
from requests import RequestException

from build_config import jsonio, runner
from build_config.errors import LockError, NetworkError, SettingsError, StepResultError
from build_config.model import LockedFile, PlatformName, SourceLock, ToolkitLock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pypi_simple import DistributionPackage

    from build_config.console import Console
    from build_config.layout import Layout

T = TypeVar("T")
SOURCE = "llama-cpp-python"
SOURCE_LOCK = "llama-cpp-python.toml"
REQUIREMENTS = ("requirements", "test", "lock", "validation")
OLDEST_PYTHON = "3.11"
TOOLKIT_SERIES: dict[str, dict[str, str]] = {
    "13.0": {
        "nvidia-cuda-nvcc": "13.0",
        "nvidia-cuda-crt": "13.0",
        "nvidia-nvvm": "13.0",
        "nvidia-cuda-cccl": "13.0",
        "nvidia-cuda-runtime": "13.0",
        "nvidia-cublas": "13.0",
        "nvidia-cuda-culibos": "13.0",
        # The first release on the index is 13.2.51; it reads what any 13.x compiler wrote.
        "nvidia-cuda-cuobjdump": "13.2",
    }
}
"""The series from which each component of a toolkit is taken: the newest release in it is locked."""
LINUX_ONLY = frozenset({"nvidia-cuda-culibos"})
PLATFORM_TAGS: dict[PlatformName, re.Pattern[str]] = {
    "linux-x86_64": re.compile(r"manylinux.*_x86_64"),
    "win-amd64": re.compile(r"win_amd64"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LockChange:
    """One thing that moved. ``before`` or ``after`` is ``None`` where it came or went."""

    lock: str
    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        """One line."""
        return f"{self.lock}: {self.name} {self.before or 'new'} -> {self.after or 'gone'}"


# -------------------------------------------------------------------------------------------------------- reading


def read_source_lock(layout: Layout) -> SourceLock:
    """The locked source distribution. Raises ``LockError`` when the lock is missing or malformed."""
    return SourceLock(file=_checked(_read_toml(layout.locks / SOURCE_LOCK, LockedFile), SOURCE_LOCK))


def read_toolkit_lock(layout: Layout, cuda: str, platform: PlatformName) -> ToolkitLock:
    """The locked toolkit of a release (``13.0``).

    Raises ``SettingsError`` for a release without a lock, ``LockError`` for a malformed or incomplete one.
    """
    if cuda not in TOOLKIT_SERIES:
        locked = ", ".join(sorted(TOOLKIT_SERIES))
        raise SettingsError(
            f"there is no locked CUDA toolkit {cuda!r}; locked: {locked}",
            remedy=f"--cuda {locked}, or --cuda system for a toolkit that is installed on this machine",
        )
    name = _toolkit_lock_name(cuda, platform)
    toolkit = _read_toml(layout.locks / name, ToolkitLock)
    if (toolkit.cuda, toolkit.platform) != (cuda, platform):
        raise LockError(f"{name} is for CUDA {toolkit.cuda} on {toolkit.platform}", remedy="nox -s lock")
    missing = _components(cuda, platform).keys() - {file.name for file in toolkit.files}
    if missing:
        raise LockError(f"{name} lacks {', '.join(sorted(missing))}", remedy="nox -s lock")
    for file in toolkit.files:
        _checked(file, name)
    return toolkit


def lock_digests(layout: Layout) -> tuple[tuple[str, str], ...]:
    """The name of each lock file and its SHA-256, sorted by name."""
    files = sorted(path for path in layout.locks.iterdir() if path.suffix in {".toml", ".txt"})
    return tuple((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files)


def installed_differences(layout: Layout, requirements: str = "requirements.txt") -> tuple[str, ...]:
    """Where the environment that runs differs from a lock, one line each; empty when they agree."""
    differences = []
    for name, version in sorted(pinned(layout.locks / requirements).items()):
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            differences.append(f"{name}: locked {version}, not installed")
            continue
        if Version(installed) != Version(version):
            differences.append(f"{name}: locked {version}, installed {installed}")
    return tuple(differences)


def pinned(path: Path) -> dict[str, str]:
    """Names and versions in a requirements lock that apply to this interpreter. Raises ``LockError``."""
    versions: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip().rstrip("\\").strip()
        if not text or text.startswith(("#", "--hash")):
            continue
        requirement = Requirement(text)
        pins = [spec.version for spec in requirement.specifier if spec.operator == "=="]
        if len(pins) != 1:
            raise LockError(f"{path.name}: {text!r} is not pinned to one version", remedy="nox -s lock")
        if requirement.marker is None or requirement.marker.evaluate():
            versions[canonicalize_name(requirement.name)] = pins[0]
    return versions


# --------------------------------------------------------------------------------------------------------- making


def refresh(layout: Layout, *, upgrade: tuple[str, ...], console: Console) -> tuple[LockChange, ...]:
    """Make all locks again, and say what changed.

    What is pinned stays pinned, but for the packages in ``upgrade``, which move to their newest release (a toolkit
    component: the newest in its series). Raises ``SettingsError`` for a name that no lock holds, ``NetworkError`` when
    the index does not answer, ``LockError`` when uv finds no solution.
    """
    names = {str(canonicalize_name(name)) for name in upgrade}
    before = _everything_locked(layout)
    unknown = names - {name for _, name in before}
    if before and unknown:
        raise SettingsError(f"no lock holds {', '.join(sorted(unknown))}", remedy="nox -s lock, without --upgrade")
    try:
        with PyPISimple(_index()) as index:
            console.note(f"{SOURCE_LOCK} and the CUDA toolkits")
            _lock_source(layout, index, names)
            for cuda in TOOLKIT_SERIES:
                for platform in PLATFORM_TAGS:
                    _lock_toolkit(layout, index, cuda, platform, names)
    except (RequestException, NoSuchProjectError) as error:
        raise NetworkError(
            f"the package index cannot be asked: {error}", remedy="check the network, try again"
        ) from error
    for name in REQUIREMENTS:
        console.note(f"{name}.txt")
        _compile(layout, name, names)
    return tuple(_changes(before, _everything_locked(layout)))


def _lock_source(layout: Layout, index: PyPISimple, upgrade: set[str]) -> None:
    """Keep the locked release; take the newest where asked to, or where there is no lock yet."""
    path = layout.locks / SOURCE_LOCK
    current = None if SOURCE in upgrade or not path.is_file() else read_source_lock(layout).file.version
    candidates = [
        package
        for package in index.get_project_page(SOURCE).packages
        if package.package_type == "sdist" and package.version and not package.is_yanked
    ]
    chosen = _newest(candidates, lambda version: str(version) == current if current else not version.is_prerelease)
    if chosen is None:
        raise LockError(f"the index has no source distribution of {SOURCE} {current or ''}")
    jsonio.write_text(path, tomli_w.dumps(jsonio.to_data(_describe(SOURCE, chosen))))


def _lock_toolkit(layout: Layout, index: PyPISimple, cuda: str, platform: PlatformName, upgrade: set[str]) -> None:
    path = layout.locks / _toolkit_lock_name(cuda, platform)
    try:
        kept = {file.name: file.version for file in _read_toml(path, ToolkitLock).files}
    except LockError:
        kept = {}
    files = []
    for name, series in _components(cuda, platform).items():
        current = None if name in upgrade else kept.get(name)
        candidates = [
            package
            for package in index.get_project_page(name).packages
            if package.package_type == "wheel"
            and package.version
            and not package.is_yanked
            and PLATFORM_TAGS[platform].search(package.filename)
        ]

        def wanted(version: Version, current: str | None = current, series: str = series) -> bool:
            return str(version) == current if current else f"{version.major}.{version.minor}" == series

        chosen = _newest(candidates, wanted)
        if chosen is None:
            raise LockError(f"the index has no {name} {current or series} for {platform}")
        files.append(_describe(name, chosen))
    locked = ToolkitLock(cuda=cuda, platform=platform, files=tuple(files))
    jsonio.write_text(path, tomli_w.dumps(jsonio.to_data(locked)))


def _compile(layout: Layout, name: str, upgrade: set[str]) -> None:
    """Have uv resolve ``NAME.in`` for all platforms; versions in the present lock are kept."""
    pins = _pins_of_all_markers(layout.locks / f"{name}.txt")
    argv = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--generate-hashes",
        f"--python-version={OLDEST_PYTHON}",
        "--no-emit-index-url",
        "--no-header",
        "--no-annotate",
        *(f"--upgrade-package={package}" for package in sorted(upgrade & pins)),
        f"{name}.in",
        f"--output-file={name}.txt",
    ]
    # The machine's own configuration must not leak into a lock that everybody uses.
    changes = {"UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": _index(), "UV_FIND_LINKS": None, "UV_INDEX": None}
    command = runner.Command(argv=tuple(argv), cwd=layout.locks, changes=changes)
    done = runner.run(command, check=False, timeout=600)
    if done.returncode != 0:
        raise LockError(f"uv could not make {name}.txt:\n{done.output}")


def _index() -> str:
    return os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple/"


def _newest(packages: list[DistributionPackage], wanted: Any) -> DistributionPackage | None:
    fitting = [(Version(package.version), package) for package in packages if package.version]
    return max(
        ((version, package) for version, package in fitting if wanted(version)),
        key=lambda pair: pair[0],
        default=(None, None),
    )[1]


def _describe(name: str, package: DistributionPackage) -> LockedFile:
    size = package.size
    if package.version is None or size is None or "sha256" not in package.digests:
        raise LockError(f"the index gives no version, size or SHA-256 for {package.filename}")
    return LockedFile(
        name=name,
        version=package.version,
        filename=package.filename,
        sha256=package.digests["sha256"],
        size=size,
    )


def _components(cuda: str, platform: PlatformName) -> dict[str, str]:
    left_out = LINUX_ONLY if platform != "linux-x86_64" else frozenset()
    return {name: series for name, series in TOOLKIT_SERIES[cuda].items() if name not in left_out}


def _toolkit_lock_name(cuda: str, platform: PlatformName) -> str:
    return f"cuda-{cuda}-{platform}.toml"


def _read_toml(path: Path, kind: type[T]) -> T:
    try:
        return jsonio.from_data(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except (OSError, tomllib.TOMLDecodeError, StepResultError) as error:
        raise LockError(f"{path.name}: {error}", remedy="git checkout the lock, or nox -s lock") from error


def _checked(file: LockedFile, lock: str) -> LockedFile:
    if not re.fullmatch(r"[0-9a-f]{64}", file.sha256) or file.size <= 0 or Path(file.filename).name != file.filename:
        raise LockError(f"{lock}: {file.filename} has no proper digest, size or name", remedy="nox -s lock")
    return file


def _pins_of_all_markers(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    found = re.findall(r"^([A-Za-z0-9._-]+)==", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {str(canonicalize_name(name)) for name in found}


def _everything_locked(layout: Layout) -> dict[tuple[str, str], str]:
    """(lock, name) -> version, digest and size, or the versions of all markers."""
    everything: dict[tuple[str, str], str] = {}
    for path in sorted(layout.locks.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        for file in data.get("files", [data]):
            description = f"{file['version']} (sha256 {file['sha256'][:12]}, {file['size']} bytes)"
            everything[path.name, file["name"]] = description
    for path in sorted(layout.locks.glob("*.txt")):
        versions: dict[str, list[str]] = {}
        for name, version in re.findall(
            r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            versions.setdefault(str(canonicalize_name(name)), []).append(version)
        everything |= {(path.name, name): " and ".join(found) for name, found in versions.items()}
    return everything


def _changes(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> Iterator[LockChange]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new:
            yield LockChange(lock=key[0], name=key[1], before=old, after=new)
