"""Reads which wheels there are: in a folder, on a page for ``--find-links``, in a package index. None is fetched."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import requests
from pypi_simple import NoSuchProjectError, ProjectPage, PyPISimple, RepositoryPage

from build_config.errors import NetworkError, PackagingError, SettingsError, StepResultError
from build_config.formats import wheelfile
from build_config.reports import BuildRecord
from build_config.steps.locks import download
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio
from build_config.tasks.recommend.wheels import DISTRIBUTION, Candidate, Index, candidate

if TYPE_CHECKING:
    from collections.abc import Iterator


def read(where: str) -> tuple[Index, tuple[Candidate, ...]]:
    """What there is at a path or an address.

    A folder is read with the records in it. Of an address, ``ADDRESS/llama-cpp-python/`` is asked for first, as in a
    package index; where there is no such page, the address itself is one of links. Raises ``SettingsError`` for a path
    that is not there, ``NetworkError`` for an address that does not answer or leads to no page.
    """
    if where.startswith(("http://", "https://")):
        return _address(where)
    path = Path(where).absolute()
    if path.is_dir():
        return Index(kind="find-links", location=str(path)), tuple(_folder(path))
    if path.is_file():
        page = RepositoryPage.from_html(path.read_bytes(), base_url=path.as_uri())
        return Index(kind="find-links", location=str(path)), tuple(_links(page))
    raise SettingsError(
        f"--index {where}: there is no such folder or page", remedy="name a folder, a page or an address"
    )


def _folder(path: Path) -> Iterator[Candidate]:
    for file in sorted(path.glob("*.whl")):
        record = _record(file)
        found = candidate(
            file.name,
            verdict=str(record.validation.verdict) if record else None,
            shards=record.shards if record else (),
        )
        if found is not None:
            yield found


def _record(wheel: Path) -> BuildRecord | None:
    """The record beside a wheel; ``None`` where there is none, or it is about other bytes."""
    try:
        record = jsonio.read(publication.record_path(wheel), BuildRecord)
        return record if record.sha256 == wheelfile.read(wheel).sha256 else None
    except (StepResultError, PackagingError):
        return None


def _links(page: RepositoryPage) -> Iterator[Candidate]:
    """By the addresses: the text of a link on such a page may be anything."""
    for link in page.links:
        found = candidate(
            unquote(PurePosixPath(urlsplit(link.url).path).name),
            requires_python=str(link.attrs.get("data-requires-python", "")),
            yanked="data-yanked" in link.attrs,
        )
        if found is not None:
            yield found


def _packages(page: ProjectPage) -> Iterator[Candidate]:
    for package in page.packages:
        found = candidate(
            package.filename, requires_python=package.requires_python or "", yanked=bool(package.is_yanked)
        )
        if found is not None:
            yield found


def _address(url: str) -> tuple[Index, tuple[Candidate, ...]]:
    with PyPISimple(url) as simple:
        try:
            page = download.project_page(simple, DISTRIBUTION)
        except NetworkError as error:
            if not isinstance(error.__cause__, NoSuchProjectError):
                message = f"--index {url} does not answer: {error.message}"
                raise NetworkError(message, remedy="check the address, and that it can be reached from here") from error
        else:
            return Index(kind="simple", location=url), tuple(_packages(page))
        try:
            answer = simple.s.get(url, timeout=download.TIMEOUT)
            answer.raise_for_status()
            links = tuple(_links(RepositoryPage.from_html(answer.content, base_url=answer.url)))
        except (requests.RequestException, ValueError) as error:
            message = f"--index {url} is neither a package index nor a page of links: {type(error).__name__}"
            raise NetworkError(message, remedy="check the address, and that it can be reached from here") from error
    return Index(kind="find-links", location=url), links
