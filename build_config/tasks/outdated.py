"""Name newer releases of everything that is locked, and known advisories about the locked ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pypi_simple import PyPISimple

from build_config.errors import NetworkError, SettingsError, StepResultError
from build_config.model import DISTRIBUTION, OLDEST_PYTHON
from build_config.steps import locks, sources
from build_config.steps.locks import download
from build_config.system import git, jsonio, network

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pypi_simple import DistributionPackage

    from build_config.system.console import Console
    from build_config.system.layout import Layout

OSV = "https://api.osv.dev/v1/querybatch"
"""The database of advisories: PyPI's own, GitHub's and others (https://google.github.io/osv.dev/api/)."""
LLAMA_CPP = "llama.cpp"
PYPI = "PyPI"
PER_QUESTION = 1000
"""The most questions that the database takes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A locked release, the names of the locks that contain it, and the oldest Python that these are for."""

    name: str
    version: str
    locks: tuple[str, ...]
    python: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outdated:
    """A locked release, and the newest one of the package index."""

    locked: Locked
    newest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """The identifiers of what is known about a locked release, or about a commit of llama.cpp."""

    name: str
    version: str
    identifiers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found. ``advisories`` is ``None`` if nobody could be asked, and ``problem`` says why."""

    asked: int
    outdated: tuple[Outdated, ...]
    advisories: tuple[Advisory, ...] | None
    problem: str | None


def examine(layout: Layout, console: Console, *, only: tuple[str, ...] = (), osv: str = OSV) -> Answer:
    """Ask the package index and the database of advisories about all locked releases, or about those in ``only``.

    Raises ``SettingsError`` for a name in no lock, ``LockError`` for a malformed lock, and ``NetworkError`` if the
    package index does not answer.
    """
    known = locked(locks.contents(layout.locks))
    if unknown := set(only) - {one.name for one in known}:
        raise SettingsError(f"no lock contains {', '.join(sorted(unknown))}", remedy="name a package of the locks")
    asked = tuple(one for one in known if not only or one.name in only)
    names = sorted({one.name for one in asked})
    newest: dict[str, tuple[DistributionPackage, ...]] = {}
    with PyPISimple(download.index_url()) as index, console.progress("asking the package index", len(names)) as bar:
        for number, name in enumerate(names, start=1):
            newest[name] = tuple(download.project_page(index, name).packages)
            bar.update(number, note=name)
    try:
        advisories, problem = _advisories(asked, _commit(layout), osv), None
    except NetworkError as error:
        advisories, problem = None, error.message
    return Answer(asked=len(asked), outdated=compare(asked, newest), advisories=advisories, problem=problem)


def locked(files: Mapping[str, bytes]) -> tuple[Locked, ...]:
    """All locked releases, by name. Raises ``LockError``."""
    found: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    for lock, requirements in locks.REQUIREMENTS.items():
        if (name := f"{lock}.txt") in files:
            for pin in locks.read_pins(files, name):
                found.setdefault((pin.name, pin.version), {})[name] = requirements.python
    source = locks.read_source(files)
    found.setdefault((DISTRIBUTION, source.version), {})[locks.SOURCE_LOCK] = OLDEST_PYTHON
    for release in locks.releases(files):
        for platform in locks.PLATFORMS:
            if (name := locks.toolkit_lock_name(release, platform)) in files:
                for file in locks.read_toolkit(files, release, platform).files:
                    found.setdefault((file.name, file.version), {})[name] = OLDEST_PYTHON
    return tuple(
        Locked(name=name, version=version, locks=tuple(sorted(where)), python=min(where.values()))
        for (name, version), where in sorted(found.items())
    )


def compare(asked: Iterable[Locked], pages: Mapping[str, Iterable[DistributionPackage]]) -> tuple[Outdated, ...]:
    """Those of the locked releases for which the index has a newer one that is neither yanked nor a pre-release.

    One that does not support the oldest Python of its locks does not count.
    """
    found = []
    for one in asked:
        newest = max(_usable(pages[one.name], one.python), default=None)
        if newest is not None and newest > Version(one.version):
            found.append(Outdated(locked=one, newest=str(newest)))
    return tuple(found)


def _usable(packages: Iterable[DistributionPackage], python: tuple[int, int]) -> Iterable[Version]:
    for package in packages:
        try:
            version = Version(package.version or "")
            supported = SpecifierSet(package.requires_python or "")
        except (InvalidVersion, InvalidSpecifier):
            continue  # an old file whose name or metadata follow no rule
        if not package.is_yanked and not version.is_prerelease and ".".join(map(str, python)) in supported:
            yield version


# ----------------------------------------------------------------------------------------------------- advisories


def _commit(layout: Layout) -> str | None:
    """The commit of the locked llama.cpp, if its sources were unpacked here."""
    try:
        commit = jsonio.read(layout.vendor / sources.STAMP, sources.Vendored).commit
    except StepResultError:
        return None
    return commit if git.is_commit(commit) else None


def _advisories(asked: tuple[Locked, ...], commit: str | None, osv: str) -> tuple[Advisory, ...]:
    questions: list[dict[str, Any]] = [
        {"package": {"name": one.name, "ecosystem": PYPI}, "version": one.version} for one in asked
    ]
    names = [(one.name, one.version) for one in asked]
    if commit is not None:
        questions.append({"commit": commit})
        names.append((LLAMA_CPP, commit))
    found = []
    for start in range(0, len(questions), PER_QUESTION):
        answers = _ask(questions[start : start + PER_QUESTION], osv)
        for (name, version), identifiers in zip(names[start : start + PER_QUESTION], answers, strict=True):
            if identifiers:
                found.append(Advisory(name=name, version=version, identifiers=identifiers))
    return tuple(found)


def _ask(questions: list[dict[str, Any]], osv: str) -> list[tuple[str, ...]]:
    """The identifiers for each question. Raises ``NetworkError``, for an answer that is not one, too."""
    remedy = "connect to the network and run again"
    try:
        answer = requests.post(osv, json={"queries": questions}, timeout=network.TIMEOUT)
        answer.raise_for_status()
        results = [
            tuple(sorted(str(each["id"]) for each in result.get("vulns", ()))) for result in answer.json()["results"]
        ]
    except requests.RequestException as error:
        raise NetworkError(f"{osv} does not answer: {type(error).__name__}", remedy=remedy) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NetworkError(f"{osv} does not answer as a database of advisories: {error}", remedy=remedy) from error
    if len(results) != len(questions):
        raise NetworkError(f"{osv} gives {len(results)} answers to {len(questions)} questions", remedy=remedy)
    return results


def show(answer: Answer, console: Console) -> None:
    """Print what was found; that advisories were not checked is said in capitals."""
    rows = tuple(
        (one.locked.name, one.locked.version, one.newest, ", ".join(one.locked.locks)) for one in answer.outdated
    )
    if rows:
        console.table("", rows, header=("name", "locked", "newest", "locks"))
    console.note(f"{len(answer.outdated)} of {answer.asked} locked releases have a newer one")
    if answer.advisories is None:
        console.warn(f"advisories were NOT CHECKED: {answer.problem}")
        return
    for each in answer.advisories:
        console.warn(
            f"{each.name} {each.version}: {', '.join(each.identifiers)}; https://osv.dev/{each.identifiers[0]}"
        )
    console.note(f"{len(answer.advisories)} of {answer.asked} locked releases have a known advisory")
