"""The wheels of a folder, a page for ``--find-links`` or a package index, ours or another. No wheel is fetched."""

from __future__ import annotations

import contextlib
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

import requests
from packaging.utils import InvalidWheelFilename
from packaging.version import Version
from pypi_simple import NoSuchProjectError, ProjectPage, PyPISimple

from build_config import archs
from build_config.errors import ArchitectureError, NetworkError, PackagingError, SettingsError, StepResultError
from build_config.formats import build_facts, variants, wheelfile
from build_config.model import DISTRIBUTION, Shard
from build_config.reports import BuildRecord
from build_config.steps.locks import download
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio, network
from build_config.tasks.index.catalogue import CATALOGUE, FILES, Catalogue

_CUDA_TAG = re.compile(r"cu(\d\d)(\d)")
_OWN_TAG = re.compile(r"py3-none-(manylinux.*|win_amd64)")
_FOR_A_GPU = re.compile(r"(?<![a-z])(cu\d+|cuda|rocm|hip|vulkan|sycl)(?![a-z])")
"""In the address of another publisher's wheel: upstream's releases name CUDA there and not in the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A wheel of an index; ``verdict`` is from the record, if there is one.

    ``cuda`` is ``major.minor``; ``None`` for a wheel that is not this project's, whatever its version is called.
    ``needs_driver``: it is another publisher's build for a GPU, which cannot be imported without a driver. ``label`` is
    that of a variant wheel. ``address`` is that of the file, ``index`` that of the index that lists it, if known.
    """

    file_name: str
    version: Version
    tags: tuple[str, ...]
    cuda: str | None
    shards: tuple[Shard, ...]
    portable: bool
    needs_driver: bool = False
    requires_python: str = ""
    yanked: bool = False
    verdict: str | None = None
    label: str | None = None
    address: str = ""
    index: str = ""


def read(where: str) -> tuple[tuple[str, str], tuple[Candidate, ...]]:
    """The option of pip for a path or an address, and the wheels there by name; in a folder, with their records.

    The root of an index of this project has a catalogue of all its wheels, each with the index that lists it. A folder
    without wheels may be the copy of an index: a page of links, or the project's page in a folder of its name.

    Raises ``SettingsError`` for a path that does not exist, ``NetworkError`` for an address without an answer or page.
    """
    if where.startswith(("http://", "https://")):
        return _read_address(where)
    path = Path(where).absolute()
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        message = f"--index {where}: there is no such folder or page"
        raise SettingsError(message, remedy="name a folder, a page or an address")
    return ("--find-links", str(path)), _read_page(path)


def candidate(
    file_name: str, *, address: str = "", requires_python: str = "", yanked: bool = False
) -> Candidate | None:
    """Read a file name; ``None`` for anything but a wheel of llama-cpp-python. ``address`` is that of its link."""
    try:
        name = variants.parse(file_name)
    except InvalidWheelFilename:
        return None
    if name.name != DISTRIBUTION:
        return None
    cuda_tag, *names = (name.version.local or "").split(".")
    names += () if name.label is None else variants.shard_names(name.label)
    match = _CUDA_TAG.fullmatch(cuda_tag)
    shards = tuple(filter(None, map(archs.parse_shard, names)))
    own_tags = all(map(_OWN_TAG.fullmatch, name.tags))
    ours = match is not None and len(shards) == len(names) and own_tags  # else the local version is somebody else's
    cuda = f"{match[1]}.{match[2]}" if match and ours else None
    if cuda and not names:
        with contextlib.suppress(ArchitectureError):  # a CUDA that is not known has no known shards
            shards = archs.resolve("portable", cuda_release=cuda, gpus=()).shards
    return Candidate(
        file_name=file_name,
        version=name.version,
        tags=name.tags,
        cuda=cuda,
        shards=shards if ours else (),
        portable=ours and not names,
        needs_driver=not ours and (_says_gpu(cuda_tag) or _FOR_A_GPU.search(address.lower()) is not None),
        requires_python=requires_python,
        yanked=yanked,
        label=name.label,
        address=address,
    )


def _says_gpu(local: str) -> bool:
    """Whether a local version of another publisher names anything but the CPU or macOS' Metal."""
    return not local.startswith(("cpu", "metal")) and local != ""


def _read_folder(path: Path) -> tuple[tuple[str, str], tuple[Candidate, ...]]:
    links = ("--find-links", str(path))
    if found := tuple(filter(None, map(_with_record, sorted(path.glob("*.whl"))))):
        return links, found
    with contextlib.suppress(OSError):
        if found := _catalogued((path / CATALOGUE).read_bytes(), path.as_uri()):
            return links, found
    if found := tuple(each for page in sorted(path.glob("*.htm*")) for each in _read_page(page)):
        return links, found
    project = path / DISTRIBUTION / "index.html"
    return (("--extra-index-url", path.as_uri()), _read_page(project)) if project.is_file() else (links, ())


def _read_page(path: Path) -> tuple[Candidate, ...]:
    return _listed(ProjectPage.from_html(DISTRIBUTION, path.read_bytes(), base_url=path.as_uri()))


def _with_record(wheel: Path) -> Candidate | None:
    """A wheel of a folder. A record about other bytes counts for nothing.

    A name without shards may be anybody's: such a wheel is ours if it describes its own build.
    """
    found = candidate(wheel.name)
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(wheel) as archive:
        if found and found.portable and build_facts.MEMBER not in archive.namelist():
            found = replace(found, cuda=None, shards=(), portable=False, needs_driver=True)
    with contextlib.suppress(StepResultError, PackagingError):
        record = jsonio.read(publication.record_path(wheel), BuildRecord)
        if found and record.sha256 == wheelfile.read_any(wheel).sha256:
            return replace(found, verdict=str(record.validation.verdict), shards=record.shards)
    return found


def _catalogued(content: bytes, root: str) -> tuple[Candidate, ...]:
    """The wheels of a catalogue, which is at the root of an index of this project; none for any other text."""
    try:
        wheels = jsonio.loads(content, Catalogue).wheels
    except StepResultError:
        return ()
    found = []
    for entry in wheels:
        address = f"{root}/{FILES}/{quote(entry.file)}"
        requires = entry.requires_python or ""
        if read := candidate(entry.file, address=address, requires_python=requires, yanked=entry.yanked is not None):
            found.append(replace(read, verdict=entry.verdict, index=f"{root}/{entry.index}/"))
    return tuple(found)


def _listed(page: ProjectPage) -> tuple[Candidate, ...]:
    """The wheels of a page, by their addresses as pip does it: the text of a link may be anything."""
    found = []
    for each in page.packages:
        name = unquote(PurePosixPath(urlsplit(each.url).path).name)
        requires = each.requires_python or ""
        found.append(candidate(name, address=each.url, requires_python=requires, yanked=bool(each.is_yanked)))
    return tuple(filter(None, found))


def _read_address(url: str) -> tuple[tuple[str, str], tuple[Candidate, ...]]:
    """Ask for our catalogue first, then for the project, as in a package index; else it is a page of links."""
    remedy = "check the address, and that it can be reached from here"
    with PyPISimple(url) as simple:
        try:
            answer = simple.s.get(f"{url.rstrip('/')}/{CATALOGUE}", timeout=network.TIMEOUT)
        except requests.RequestException as error:
            message = f"--index {url} does not answer: {type(error).__name__}"
            raise NetworkError(message, remedy=remedy) from error
        if answer.ok and (found := _catalogued(answer.content, url.rstrip("/"))):
            return ("--find-links", url), found
        try:
            return ("--extra-index-url", url), _listed(download.project_page(simple, DISTRIBUTION))
        except NetworkError as error:
            if not _is_no_project(error.__cause__):
                raise NetworkError(f"--index {url} does not answer: {error.message}", remedy=remedy) from error
        try:
            answer = simple.s.get(url, timeout=network.TIMEOUT)
            answer.raise_for_status()
            page = ProjectPage.from_html(DISTRIBUTION, answer.content, base_url=answer.url)
        except (requests.RequestException, ValueError) as error:
            message = f"--index {url} is neither a package index nor a page of links: {type(error).__name__}"
            raise NetworkError(message, remedy=remedy) from error
    return ("--find-links", url), _listed(page)


def _is_no_project(error: BaseException | None) -> bool:
    """Whether an address has no page for the project: static hosts answer 403 or 405 where others answer 404."""
    answer = error.response if isinstance(error, requests.HTTPError) else None
    return isinstance(error, NoSuchProjectError) or (answer is not None and answer.status_code in {403, 405})
