"""The page for people at the root of an index: which wheel for which GPU, what is known of each, how to install it."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import jinja2

from build_config import archs
from build_config.formats import variants
from build_config.reports import Verdict
from build_config.system.console import megabytes
from build_config.tasks.index.catalogue import FILES, VARIANTS, Entry
from build_config.tasks.index.snippets import Snippet, of_variants, snippets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from build_config.archs import GpuModels
    from build_config.tasks.index.catalogue import Catalogue

TEMPLATES = Path(__file__).with_name("templates")
ADDRESS = "ADDRESS"
"""Stands for the address of the page if that is not known; the page's script puts the real one there."""
NOTE = (
    "uv takes the wheel for the GPU with the highest compute capability and its driver; if there is none for them, "
    f"the portable one. It needs uv {variants.OLDEST_UV} or later. The form of these wheels is a draft: other clients "
    "ignore them or fail."
)
"""Of the index of the variant wheels."""
VERDICTS: dict[str, str] = {
    Verdict.GPU_VERIFIED: "ran on a real GPU",
    Verdict.EMULATED_DEVICE_VERIFIED: "computed on an emulated GPU",
    Verdict.SIMULATED_DEVICE_VERIFIED: "ran on a simulated GPU",
    Verdict.CPU_FALLBACK_VERIFIED: "ran on the CPU only",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A file that belongs to a wheel."""

    text: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelRow:
    """A wheel as the page shows it."""

    entry: Entry
    size: str
    archs: str
    system: str
    verdict: str
    date: str
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One index. ``gpus`` are those that its newest wheel has code for; ``note`` is what else is to be known."""

    name: str
    title: str
    gpus: str
    url: str
    snippets: tuple[Snippet, ...]
    wheels: tuple[WheelRow, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """The GPUs of one compute capability, and the indexes whose newest wheel has code for them."""

    names: str
    generation: str
    capability: str
    driver: str
    indexes: tuple[str, ...]


def page(catalogue: Catalogue) -> str:
    """The page as HTML; it makes no request to anybody."""
    template = _environment().get_template("index.html")
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    address = (catalogue.base_url or ADDRESS).rstrip("/")
    sections = tuple(_section(name, entries, address) for name, entries in catalogue.indexes.items())
    return template.render(
        sections=sections,
        gpus=tuple(_gpus(catalogue)),
        address=None if catalogue.base_url else ADDRESS,
        style=style,
        script=script,
        style_digest=_digest(style),
        script_digest=_digest(script),
        files=FILES,
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["address"] = quote
    return environment


def _digest(text: str) -> str:
    """For the page's Content-Security-Policy, which allows this text and nothing else."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def newest(entries: Iterable[Entry]) -> Entry | None:
    """The wheel that installers take by themselves: the newest that is not yanked."""
    return next((entry for entry in entries if entry.yanked is None), None)


def _section(name: str, entries: tuple[Entry, ...], address: str) -> Section:
    url = f"{address}/{name}/"
    if name == VARIANTS:
        rows = tuple(_row(entry) for entry in entries if entry.label is not None)
        title = "Wheel variants, a preview: uv chooses"
        return Section(name=name, title=title, gpus="", url=url, snippets=(of_variants(url),), wheels=rows, note=NOTE)
    cuda = f"CUDA {name[2:4]}.{name[4]}"
    shown = newest(entries) or entries[0]
    covered = [models.names for models in _covered(shown)]
    kind = "all GPUs of this CUDA" if "-" not in name else ", ".join(name.split("-")[1:])
    return Section(
        name=name,
        title=f"{cuda}: {kind}",
        gpus=", ".join(covered),
        url=url,
        snippets=snippets(url),
        wheels=tuple(map(_row, entries)),
    )


def _row(entry: Entry) -> WheelRow:
    evidence = (("record", entry.record), ("statement", entry.statement), ("signature", entry.envelope))
    return WheelRow(
        entry=entry,
        size=megabytes(entry.size),
        archs=", ".join(arch.name for arch in entry.code) or "not stated",
        system=_system(entry),
        verdict=VERDICTS.get(entry.verdict, entry.verdict),
        date=entry.uploaded[:10],
        links=tuple(Link(text=text, file=file) for text, file in (*evidence, ("SBOM", entry.sbom)) if file),
    )


def _system(entry: Entry) -> str:
    """``Linux, glibc 2.35 or later``."""
    platform = entry.tags[0].rpartition("-")[2]
    glibc = re.match(r"manylinux_(\d+)_(\d+)_", platform)
    return f"Linux, glibc {glibc[1]}.{glibc[2]} or later" if glibc else platform.replace("win_amd64", "Windows")


def _covered(entry: Entry) -> Iterator[GpuModels]:
    """The GPUs that a wheel has code for, oldest first."""
    for models in archs.known_gpus():
        if not models.another_processor and archs.covers(entry.code, models.capability):
            yield models


def _gpus(catalogue: Catalogue) -> Iterator[GpuRow]:
    """All GPUs that wheels can be built for, the newest first."""
    indexes = {name: entries for name, entries in catalogue.indexes.items() if name != VARIANTS}
    served = {name: entry for name, entries in indexes.items() if (entry := newest(entries))}
    # The newest CUDA first, and of each CUDA the smallest wheel.
    preferred = sorted(served, key=lambda name: (-int(name[2:5]), len(served[name].archs), name))
    capabilities = {name: {each.capability for each in _covered(served[name])} for name in preferred}
    for models in reversed(archs.known_gpus()):
        if models.another_processor:
            continue
        fitting = [name for name, those in capabilities.items() if models.capability in those]
        series = archs.series_for([models.capability])[0]
        yield GpuRow(
            names=models.names,
            generation=models.generation,
            capability=models.capability,
            driver=str(series.driver_compatible),
            indexes=tuple(fitting),
        )
