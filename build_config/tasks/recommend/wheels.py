"""The wheels of a folder, a page for ``--find-links`` or a package index, read by their names. None is fetched."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version
from pypi_simple import NoSuchProjectError, ProjectPage, PyPISimple

from build_config import archs
from build_config.errors import ArchitectureError, NetworkError, PackagingError, SettingsError, StepResultError
from build_config.formats import wheelfile
from build_config.model import DISTRIBUTION, Shard
from build_config.reports import BuildRecord
from build_config.steps.locks import download
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio

_CUDA_TAG = re.compile(r"cu(\d+)(\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A wheel of an index; ``verdict`` is from the record, if there is one.

    ``cuda`` is ``major.minor``; ``None`` if the version does not name one, as in builds that are not this project's.
    """

    file_name: str
    version: Version
    tags: tuple[str, ...]
    cuda: str | None
    shards: tuple[Shard, ...]
    portable: bool
    requires_python: str = ""
    yanked: bool = False
    verdict: str | None = None


def read(where: str) -> tuple[str, tuple[Candidate, ...]]:
    """The option of pip for a path or an address, and the wheels there by name; in a folder, with their records.

    Raises ``SettingsError`` for a path that does not exist, ``NetworkError`` for an address without an answer or page.
    """
    if where.startswith(("http://", "https://")):
        return _read_address(where)
    path = Path(where).absolute()
    if path.is_dir():
        return f'--find-links "{path}"', tuple(filter(None, map(_with_record, sorted(path.glob("*.whl")))))
    if not path.is_file():
        message = f"--index {where}: there is no such folder or page"
        raise SettingsError(message, remedy="name a folder, a page or an address")
    page = ProjectPage.from_html(DISTRIBUTION, path.read_bytes(), base_url=path.as_uri())
    return f'--find-links "{path}"', _listed(page)


def candidate(file_name: str, *, requires_python: str = "", yanked: bool = False) -> Candidate | None:
    """Read a file name; ``None`` for anything but a wheel of llama-cpp-python."""
    try:
        name, version, _, tags = parse_wheel_filename(file_name)
    except InvalidWheelFilename:
        return None
    if name != DISTRIBUTION:
        return None
    cuda_tag, *names = (version.local or "").split(".")
    match = _CUDA_TAG.fullmatch(cuda_tag)
    shards = tuple(filter(None, map(archs.parse_shard, names)))
    ours = match is not None and len(shards) == len(names)  # else the local version is somebody else's
    cuda = f"{match[1]}.{match[2]}" if match and ours else None
    if cuda and not names:
        with contextlib.suppress(ArchitectureError):  # a CUDA that is not known has no known shards
            shards = archs.resolve("portable", cuda_release=cuda, gpus=()).shards
    return Candidate(
        file_name=file_name,
        version=version,
        tags=tuple(sorted(map(str, tags))),
        cuda=cuda,
        shards=shards if ours else (),
        portable=ours and not names,
        requires_python=requires_python,
        yanked=yanked,
    )


def _with_record(wheel: Path) -> Candidate | None:
    """A wheel of a folder. A record about other bytes counts for nothing."""
    found = candidate(wheel.name)
    with contextlib.suppress(StepResultError, PackagingError):
        record = jsonio.read(publication.record_path(wheel), BuildRecord)
        if found and record.sha256 == wheelfile.read(wheel).sha256:
            return replace(found, verdict=str(record.validation.verdict), shards=record.shards)
    return found


def _listed(page: ProjectPage) -> tuple[Candidate, ...]:
    """The wheels of a page, by their addresses as pip does it: the text of a link may be anything."""
    found = []
    for each in page.packages:
        name = unquote(PurePosixPath(urlsplit(each.url).path).name)
        found.append(candidate(name, requires_python=each.requires_python or "", yanked=bool(each.is_yanked)))
    return tuple(filter(None, found))


def _read_address(url: str) -> tuple[str, tuple[Candidate, ...]]:
    """Ask for the project first, as in a package index; without such a page, the address is a page of links."""
    remedy = "check the address, and that it can be reached from here"
    with PyPISimple(url) as simple:
        try:
            return f'--extra-index-url "{url}"', _listed(download.project_page(simple, DISTRIBUTION))
        except NetworkError as error:
            if not isinstance(error.__cause__, NoSuchProjectError):
                raise NetworkError(f"--index {url} does not answer: {error.message}", remedy=remedy) from error
        try:
            answer = simple.s.get(url, timeout=download.TIMEOUT)
            answer.raise_for_status()
            page = ProjectPage.from_html(DISTRIBUTION, answer.content, base_url=answer.url)
        except (requests.RequestException, ValueError) as error:
            message = f"--index {url} is neither a package index nor a page of links: {type(error).__name__}"
            raise NetworkError(message, remedy=remedy) from error
    return f'--find-links "{url}"', _listed(page)
