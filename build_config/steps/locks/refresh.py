"""Make the locks again, and report the changes."""

from __future__ import annotations

import itertools
import os
import shutil
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from pypi_simple import PyPISimple

from build_config.archs import LOCKED_CUDA
from build_config.errors import LockError, SettingsError
from build_config.model import DISTRIBUTION, LockedFile, PlatformName, ToolkitLock
from build_config.steps import locks
from build_config.steps.locks import download
from build_config.system import jsonio, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pypi_simple import DistributionPackage

    from build_config.steps.locks import RequirementSet
    from build_config.system.console import Console
    from build_config.system.layout import Layout


KEPT_UV_SETTINGS = frozenset({"UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LockChange:
    """One changed entry. ``before`` is ``None`` for a new one, ``after`` for a removed one."""

    lock: str
    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        """One line."""
        return f"{self.lock}: {self.name} {self.before or '(new)'} -> {self.after or '(gone)'}"


# --------------------------------------------------------------------------------------------------------- making


def refresh(layout: Layout, *, upgrade: tuple[str, ...], console: Console) -> tuple[LockChange, ...]:
    """Make all locks again, and return the changes.

    All pins stay, except for the packages in ``upgrade``, which move to their newest release (a toolkit component: the
    newest in its series). A lock without changes stays the same to the byte; after an error no file is changed. Raises
    ``SettingsError`` for a name in no lock, ``NetworkError`` if the index does not answer, ``LockError`` if it lacks a
    required file, if a present lock is malformed, or if uv finds no solution.
    """
    names = frozenset(str(canonicalize_name(name)) for name in upgrade)
    before = _contents(layout.locks)
    if unknown := names - {name for _, name in before}:
        message = f"no lock contains {', '.join(sorted(unknown))}"
        remedy = f"name {DISTRIBUTION}, a component of the CUDA toolkit, or a Python requirement of the locks"
        raise SettingsError(message, remedy=remedy)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(shutil.copytree(layout.locks, temporary, dirs_exist_ok=True))
        console.note(f"{DISTRIBUTION} and the CUDA toolkits")
        with PyPISimple(download.index_url()) as index:
            _lock_source(work, index, names)
            for cuda, platform in itertools.product(locks.releases(locks.contents(work)), locks.PLATFORMS):
                _lock_toolkit(work, index, cuda, platform, names)
        _write_toolkit_pins(work)
        for name, requirements in locks.REQUIREMENTS.items():
            console.note(f"Python requirements: {name}")
            _compile(work, name, requirements, names)
        (work / locks.TOOLKIT_PINS).unlink()
        changes = tuple(_changes(before, _contents(work)))
        kept = locks.contents(layout.locks)
        for name, content in locks.contents(work).items():
            if kept.get(name) != content:
                jsonio.write_text(layout.locks / name, content.decode("utf-8"))
    return changes


def _lock_source(folder: Path, index: PyPISimple, upgrade: frozenset[str]) -> None:
    pinned = None
    if DISTRIBUTION not in upgrade and (folder / locks.SOURCE_LOCK).is_file():
        pinned = locks.read_source(locks.contents(folder)).version
    packages = [p for p in download.project_page(index, DISTRIBUTION).packages if p.package_type == "sdist"]
    chosen = _choose(DISTRIBUTION, packages, SpecifierSet(), pinned)
    _write_toml(folder / locks.SOURCE_LOCK, chosen, made_from="the package index")


def _lock_toolkit(folder: Path, index: PyPISimple, cuda: str, platform: PlatformName, upgrade: frozenset[str]) -> None:
    name, lists = locks.toolkit_lock_name(cuda, platform), locks.contents(folder)
    present = locks.read_toolkit(lists, cuda, platform).files if name in lists else ()
    pinned = {file.name: file.version for file in present if file.name not in upgrade}
    _, suffix = locks.PLATFORMS[platform]
    files = []
    for component in locks.components(lists, cuda, platform):
        packages = [p for p in download.project_page(index, component.name).packages if suffix.search(p.filename)]
        files.append(_choose(component.name, packages, component.specifier, pinned.get(component.name)))
    toolkit = ToolkitLock(cuda=cuda, platform=platform, files=tuple(files))
    _write_toml(folder / name, toolkit, made_from=locks.toolkit_input(cuda))


def _choose(name: str, packages: list[DistributionPackage], wanted: SpecifierSet, pinned: str | None) -> LockedFile:
    """The pinned version if it is still wanted, else the newest that is neither yanked nor a pre-release."""
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
        raise LockError(f"the package index gives no size or no SHA-256 for {newest.filename}", remedy=remedy)
    return LockedFile(
        name=name,
        version=newest.version or "",
        filename=newest.filename,
        sha256=newest.digests["sha256"],
        size=newest.size,
    )


def _write_toolkit_pins(folder: Path) -> None:
    """Write the toolkit's versions as constraints for uv: a wheel is validated with the libraries it was built for."""
    versions: dict[str, dict[str, str]] = {}
    for platform, (system, _) in locks.PLATFORMS.items():
        for file in locks.read_toolkit(locks.contents(folder), LOCKED_CUDA, platform).files:
            versions.setdefault(file.name, {})[system] = file.version
    lines = [
        f"{name}=={version} ; sys_platform == '{system}'\n"
        for name, by_system in versions.items()
        for system, version in by_system.items()
    ]
    (folder / locks.TOOLKIT_PINS).write_text("".join(lines), encoding="utf-8")


def _compile(folder: Path, name: str, requirements: RequirementSet, upgrade: frozenset[str]) -> None:
    """Let uv resolve ``NAME.in`` for all platforms; it keeps the versions of the present lock."""
    lock = folder / f"{name}.txt"
    argv = [
        *(uv_program(), "pip", "compile", "--quiet", "--universal", "--generate-hashes"),
        f"--python-version={'.'.join(map(str, requirements.python))}",
        *(["--fork-strategy=fewest"] if requirements.one_version else []),
        "--only-binary=:all:",  # nothing is built when a lock is installed
        *("--no-emit-index-url", "--no-header", "--no-annotate"),
        *([f"--constraint={requirements.shares}"] if requirements.shares else []),
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
    jsonio.write_text(lock, _header(f"{name}.in") + lock.read_text(encoding="utf-8"))


def uv_program() -> str:
    """The locked uv of this environment, not another one on PATH."""
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


def _contents(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Map (lock, name) to the text that is shown, and to whatever else distinguishes the files."""
    files = locks.contents(folder)
    contents: dict[tuple[str, str], tuple[str, str]] = {}
    if locks.SOURCE_LOCK in files:
        contents[locks.SOURCE_LOCK, DISTRIBUTION] = _shown(locks.read_source(files))
    for cuda, platform in itertools.product(locks.releases(files), locks.PLATFORMS):
        if (name := locks.toolkit_lock_name(cuda, platform)) in files:
            contents |= {(name, f.name): _shown(f) for f in locks.read_toolkit(files, cuda, platform).files}
    for name in (f"{name}.txt" for name in locks.REQUIREMENTS):
        for pin in locks.read_pins(files, name) if name in files else ():
            version, hashes = contents.get((name, pin.name), ("", ""))
            marked = f"{pin.version} ({pin.requirement.marker})" if pin.requirement.marker else pin.version
            contents[name, pin.name] = (f"{version} {marked}".strip(), hashes + "".join(sorted(pin.hashes)))
    return contents


def _shown(file: LockedFile) -> tuple[str, str]:
    return f"{file.version} ({file.size} bytes, SHA-256 {file.sha256[:12]})", file.filename + file.sha256


def _write_toml(path: Path, value: Any, *, made_from: str) -> None:
    jsonio.write_text(path, _header(made_from) + tomli_w.dumps(jsonio.to_data(value)))


def _header(made_from: str) -> str:
    return f"# Made from {made_from} by `nox -s lock`; not to be edited.\n"
