"""Small wheels of this project's shape, published in a wheelhouse or an index, and the check that an index is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.version import Version
from pypi_simple import ProjectPage

from build_config import archs
from build_config.formats import cyclonedx, variants, wheelfile
from build_config.model import DISTRIBUTION, UnitKey
from build_config.reports import BuildRecord, Verdict
from build_config.steps.wheelhouse import publication
from build_config.system.console import Console
from build_config.system.jsonio import to_data
from build_config.system.layout import Layout
from build_config.tasks.index import update
from build_config.tasks.variant import make_variants
from tests.support import attested

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from build_config.model import Wheel
    from build_config.steps.wheelhouse.signature import Keys

SM89 = "0.3.36+cu130.sm89"
PORTABLE = "0.3.36+cu130"
TAG = "py3-none-manylinux_2_17_x86_64"


def write(folder: Path, version: str = SM89, content: str = "first", tag: str = TAG, sbom: str | None = None) -> Wheel:
    """Write a wheel that installers accept; its module says its version and ``content``."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"llama_cpp_python-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {version}\nRequires-Python: >=3.8,<4\n"
    files = {
        "llama_cpp/__init__.py": f"__version__ = {version!r}\ncontent = {content!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n",
        f"{info}/{cyclonedx.MEMBER}": sbom or json.dumps({"bomFormat": "CycloneDX", "version": content}),
    }
    rows = (f"{name},{wheelfile.digest_entry(text.encode())},{len(text)}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{''.join(rows)}{info}/RECORD,,\n"
    path = folder / f"llama_cpp_python-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return wheelfile.read(path)


def record(wheel: Wheel, scratch: Path, verdict: Verdict = Verdict.SIMULATED_DEVICE_VERIFIED) -> BuildRecord:
    """The record of such a wheel, with the shards that its version names."""
    known = _any_record(scratch)
    cuda, *names = str(wheel.version.local).split(".")
    release = f"{cuda[2:4]}.{cuda[4]}"
    shards = tuple(filter(None, map(archs.parse_shard, names)))
    if not names:
        shards = archs.resolve("portable", cuda_release=release, gpus=()).shards
    units = tuple(UnitKey(digest=f"{number:064}", inputs=()) for number in range(len(shards) + 1))
    day = f"2026-11-{10 + Version(str(wheel.version)).micro % 19:02}T12:00:00Z"
    return dataclasses.replace(
        known,
        wheel=wheel.path.name,
        version=str(wheel.version),
        sha256=wheel.sha256,
        size=wheel.size,
        shards=shards,
        units=units,
        created=day,
        inspection=dataclasses.replace(known.inspection, wheel_sha256=wheel.sha256),
        validation=dataclasses.replace(known.validation, wheel_sha256=wheel.sha256, verdict=verdict),
    )


_records: list[BuildRecord] = []


def _any_record(scratch: Path) -> BuildRecord:
    """A record with the locks of this checkout, which are read once."""
    if not _records:
        _records.append(attested._record(write(scratch), scratch))
    return _records[0]


@dataclass(frozen=True)
class House:
    """A checkout with a wheelhouse and its index."""

    folder: Path

    @property
    def layout(self) -> Layout:
        return Layout(checkout=self.folder, work_root=self.folder / "none")

    @property
    def index(self) -> Path:
        return self.layout.index

    def variant(self, *wheels: Path, keys: Keys | None = None, sign_key: Path | None = None) -> tuple[Path, ...]:
        """Make variant wheels of wheels in the wheelhouse."""
        return make_variants(wheels, self.layout, Console(), keys=keys, sign_key=sign_key)

    def build(
        self,
        version: str = SM89,
        content: str = "first",
        *,
        tag: str = TAG,
        verdict: Verdict = Verdict.SIMULATED_DEVICE_VERIFIED,
        key: Ed25519PrivateKey | None = None,
        sbom: str | None = None,
    ) -> Path:
        """Put a wheel into the wheelhouse, as the main job does."""
        wheel = write(self.folder / "store", version, content, tag, sbom)
        made = record(wheel, self.folder / "scratch", verdict)
        return publication.publish(wheel, made, made.inspection, made.validation, self.layout.wheelhouse, key=key)

    def write(self, *, base_url: str | None = None) -> Path:
        update.write(self.layout, Console(), base_url=base_url)
        return self.index


def contents(folder: Path) -> dict[str, bytes]:
    """All files of an index that readers may ask for."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def pages(index: Path) -> Iterable[tuple[str, ProjectPage, ProjectPage]]:
    """Each index by its name, its page as HTML and as JSON, as installers read them."""
    for page in sorted(index.glob(f"*/{DISTRIBUTION}/index.html")):
        data = json.loads(page.with_suffix(".json").read_bytes())  # written before the other form
        yield (
            page.parent.parent.name,
            ProjectPage.from_html(DISTRIBUTION, page.read_bytes(), base_url=page.as_uri()),
            ProjectPage.from_json_data(data, base_url=page.as_uri()),
        )


def listed(index: Path) -> set[str]:
    """The file names on the pages for installers, both forms."""
    return {each.filename for _, *forms in pages(index) for form in forms for each in form.packages}


def assert_whole(index: Path) -> None:
    """Every page can be read, and every link leads to a complete file with the digest that the page states."""
    for _, *forms in pages(index):
        for form in forms:
            for each in form.packages:
                path = Path(url2pathname(urlsplit(each.url).path))
                if each.filename.endswith("-variants.json"):  # it changes with each variant, so no page has its digest
                    version = each.filename.removesuffix("-variants.json")
                    of_version = (one.filename for one in form.packages if one.filename.startswith(f"{version}-"))
                    labels = set(map(variants.label, of_version)) - {None}
                    assert labels <= json.loads(path.read_bytes())["variants"].keys()
                    continue
                assert hashlib.sha256(path.read_bytes()).hexdigest() == each.digests["sha256"]
                metadata = path.with_name(f"{path.name}.metadata").read_bytes()
                assert each.metadata_digests == {"sha256": hashlib.sha256(metadata).hexdigest()}
    catalogue = index / "index.json"
    if catalogue.exists():
        for entry in json.loads(catalogue.read_text(encoding="utf-8"))["wheels"]:
            named = (entry[name] for name in ("file", "record", "statement", "envelope", "sbom"))
            assert all((index / "files" / name).is_file() for name in named if name)


def facts(page: ProjectPage) -> list[object]:
    """What installers read on a page, without what only JSON has."""
    return [
        (each.filename, each.url.partition("#")[0], to_data(each.digests), each.requires_python, each.yanked_reason)
        for each in page.packages
    ]
