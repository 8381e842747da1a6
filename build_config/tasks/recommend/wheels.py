"""What a wheel says of itself in its name: version, CUDA, shards, and the systems that it installs on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from build_config import archs
from build_config.errors import ArchitectureError
from build_config.model import CudaArch, Shard

if TYPE_CHECKING:
    from collections.abc import Iterator

DISTRIBUTION = "llama-cpp-python"
_CUDA_TAG = re.compile(r"cu(\d+)(\d)")
_SHARD = re.compile(r"sm(?P<real>[0-9afx]+)(?:(?P<both>ptx)(?P<beside>[0-9afx]*))?|ptx(?P<virtual>[0-9afx]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Where wheels were found: a folder or page for ``--find-links``, or a package index."""

    kind: Literal["find-links", "simple"]
    location: str

    @property
    def option(self) -> str:
        """What pip has to be told."""
        return f'{"--find-links" if self.kind == "find-links" else "--extra-index-url"} "{self.location}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A wheel of an index.

    ``cuda`` is ``major.minor``; ``None`` where the version does not name one, as in builds that are not this project's.
    ``portable`` wheels name no shards, they have those of their CUDA. ``verdict`` is that of the record, where there
    is one.
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


def candidate(
    file_name: str,
    *,
    requires_python: str = "",
    yanked: bool = False,
    verdict: str | None = None,
    shards: tuple[Shard, ...] = (),
) -> Candidate | None:
    """Read a file name; ``shards`` are those of the wheel's record. ``None`` for what is no llama-cpp-python wheel."""
    try:
        name, version, _, tags = parse_wheel_filename(file_name)
    except InvalidWheelFilename:
        return None
    if name != DISTRIBUTION:
        return None
    cuda, *rest = (version.local or "").split(".")
    match = _CUDA_TAG.fullmatch(cuda)
    release = f"{match[1]}.{match[2]}" if match else None
    named = tuple(shard for text in rest if (shard := parse_shard(text)) is not None)
    if len(named) != len(rest):  # a local version of somebody else's
        release, named = None, ()
    portable = release is not None and not rest
    return Candidate(
        file_name=file_name,
        version=version,
        tags=tuple(sorted(map(str, tags))),
        cuda=release,
        shards=shards or named or (_portable_shards(release) if portable and release else ()),
        portable=portable,
        requires_python=requires_python,
        yanked=yanked,
        verdict=verdict,
    )


def parse_shard(name: str) -> Shard | None:
    """The shard of a name as ``archs`` gives them: ``sm89``, ``sm86x89``, ``ptx90``, ``sm90ptx``; else ``None``."""
    match = _SHARD.fullmatch(name)
    if match is None:
        return None
    virtual = match["virtual"] or match["beside"] or (match["real"] if match["both"] else "")
    try:
        found = (*_archs(match["real"] or "", "real"), *_archs(virtual, "virtual"))
    except ValueError:
        return None
    return Shard(name=name, archs=found)


def _archs(numbers: str, kind: str) -> Iterator[CudaArch]:
    for number in numbers.split("x") if numbers else ():
        yield CudaArch.parse(f"{number}-{kind}")


def _portable_shards(release: str) -> tuple[Shard, ...]:
    try:
        return archs.resolve("portable", cuda_release=release, gpus=()).shards
    except ArchitectureError:
        return ()
