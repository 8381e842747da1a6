"""The pages of an index for installers, as pure functions of the catalogue: PEP 503 as HTML, PEP 691 as JSON.

The library ``simple-repository`` writes both, with PEP 592 (yank), 658 and 714 (metadata) and 700 (sizes and times).
"""

from __future__ import annotations

import html
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from simple_repository import model, serializer
from simple_repository.content_negotiation import Format

from build_config.model import DISTRIBUTION
from build_config.system import jsonio
from build_config.tasks.index import people
from build_config.tasks.index.catalogue import CATALOGUE, FILES, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from build_config.tasks.index.catalogue import Catalogue, Entry

HTML, JSON = "index.html", "index.json"
TYPES = {JSON: Format.JSON_V1, HTML: Format.HTML_V1}
"""The forms of each page for installers, in the order of writing, and what a server calls them."""
API = model.Meta(api_version="1.1")


def render(catalogue: Catalogue) -> dict[str, bytes]:
    """All pages by their paths, in the order in which they are to be written: the same catalogue gives the same bytes.

    The catalogue comes first. Whoever is killed after it leaves pages that are older but whole, and the next run
    writes them again from it.
    """
    pages = {CATALOGUE: jsonio.dumps(catalogue)}
    for folder, entries in catalogue.indexes.items():
        # Before the page that has their labels: uv leaves out a wheel whose label it does not find.
        labels = catalogue.labels if folder == VARIANTS else {}
        pages |= {f"{folder}/{DISTRIBUTION}/{name}": text for name, text in labels.items()}
        pages |= _project(f"{folder}/{DISTRIBUTION}", entries, labels)
        listed = model.ProjectList(meta=API, projects=frozenset({model.ProjectListElement(name=DISTRIBUTION)}))
        pages |= {f"{folder}/{name}": serializer.serialize(listed, form) for name, form in TYPES.items()}
    pages["index.html"] = people.page(catalogue)
    return {name: text.encode() for name, text in pages.items()}


def _project(folder: str, entries: Iterable[Entry], labels: Mapping[str, str]) -> dict[str, str]:
    """The page of the project in one index, in both forms."""
    pages = {}
    # Annotated as a set, which every process would write in another order.
    versions: Any = tuple(dict.fromkeys(entry.version for entry in entries))
    for page, form in TYPES.items():
        # Their digests would contradict a cached copy, which is as good, once another wheel is published.
        others = (model.File(filename=name, url=quote(name), hashes={}, size=len(labels[name])) for name in labels)
        files = (*(_file(entry, escaped=form is Format.HTML_V1) for entry in entries), *others)
        detail = model.ProjectDetail(meta=API, name=DISTRIBUTION, files=files, versions=versions)
        pages[f"{folder}/{page}"] = serializer.serialize(detail, form)
    return pages


def _file(entry: Entry, *, escaped: bool) -> model.File:
    """A link. ``simple-repository`` escapes neither the reason of a yank nor names for HTML."""
    text = html.escape if escaped else str
    return model.File(
        filename=text(entry.file),
        url=f"../../{FILES}/{quote(entry.file)}",
        hashes={"sha256": entry.sha256},
        requires_python=entry.requires_python,
        dist_info_metadata={"sha256": entry.metadata_sha256},
        yanked=text(entry.yanked) if entry.yanked else None,
        size=entry.size,
        upload_time=datetime.fromisoformat(entry.uploaded),
    )
