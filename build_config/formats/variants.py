"""Wheel variants, a preview: all that follows from drafts of standards, and not from this project, is here.

PEP 825 (names, ``variant.json``) and PEP 850 (providers) are drafts. This is the form that uv 0.13.9 reads, with
NVIDIA's provider, which is built into it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from build_config import archs
from build_config.errors import PackagingError
from build_config.model import DISTRIBUTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from build_config.model import CudaArch

MEMBER = "variant.json"
"""Below ``.dist-info``."""
SUFFIX = "-variants.json"
"""Of the file next to the variant wheels of one version: what each label means."""
LONGEST_LABEL = 16
OLDEST_UV = "0.13.6"
UV_OPTIONS = ("--preview-features", "wheel-variants")
_LABEL = re.compile(r"[0-9a-z_.]+")
_FORM: dict[str, Any] = {
    "$schema": "https://variants-schema.wheelnext.dev/peps/850/v0.2.0.json",
    "default-priorities": {"namespace": ["nvidia"]},
    "providers": {
        "nvidia": {
            "requires": ["nvidia-variant-provider>=0.0.1,<1"],
            "plugin-api": "nvidia_variant_provider.plugin:NvidiaVariantPlugin",
        }
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelName:
    """The file name of a wheel, taken apart. ``build`` is its build tag, ``label`` that of a variant wheel."""

    name: str
    version: Version
    build: tuple[int, str] | tuple[()]
    tags: tuple[str, ...]
    label: str | None


def parse(file_name: str) -> WheelName:
    """Take the name of a wheel apart, with a label or without. Raises packaging's ``InvalidWheelFilename``."""
    plain, label = _split(file_name)
    name, version, build, tags = parse_wheel_filename(plain)
    return WheelName(name=name, version=version, build=build, tags=tuple(sorted(map(str, tags))), label=label)


def label(file_name: str) -> str | None:
    """The label in the name of a variant wheel; ``None`` for every other name."""
    return _split(file_name)[1]


def with_build(file_name: str, number: int | None) -> str:
    """The name with this build tag, or with none."""
    plain, label = _split(file_name)
    name, version, *tags = plain.removesuffix(".whl").split("-")
    return _joined(name, version, *(() if number is None else (str(number),)), *tags[-3:], label)


def file_name(source: str) -> str:
    """The name of the variant wheel of the wheel ``source``: ``…+cu130-…-cu130_sm89`` of ``…+cu130.sm89-…``.

    All variants of a release have one version, and their shards are in the label. Raises ``PackagingError``.
    """
    parsed = parse(source)
    cuda, *shards = (parsed.version.local or "").split(".")
    if parsed.label is not None or not shards:
        message = f"{source} is not a wheel for one shard set, so it cannot become a variant"
        raise PackagingError(message, remedy="name one like …+cu130.sm89; a portable wheel is published as it is")
    label = f"{cuda}_{'.'.join((shards[0], *(shard.removeprefix('sm') for shard in shards[1:])))}"
    if len(label) > LONGEST_LABEL:
        message = f"the label {label} of {source} has {len(label)} characters; {LONGEST_LABEL} are allowed"
        raise PackagingError(message, remedy="build a wheel with fewer shards for it, or only a portable one")
    name, _, *tags = source.removesuffix(".whl").split("-")
    return _joined(name, f"{parsed.version.public}+{cuda}", *tags, label)


def shard_names(label: str) -> tuple[str, ...]:
    """The shards that a label stands for: the reverse of the label in ``file_name``."""
    first, *others = label.partition("_")[2].split(".")
    return (first, *(name if name.startswith("ptx") else f"sm{name}" for name in others))


def index_file(version: str) -> str:
    """The name of the file that says what the labels of a version mean."""
    return f"{DISTRIBUTION.replace('-', '_')}-{version}{SUFFIX}"


def document(version: Version, archs_of: Mapping[str, Iterable[CudaArch]]) -> str:
    """``variant.json`` of a wheel, or for all labels of a version the file next to the wheels: both have one form.

    ``archs_of`` is the code behind each label. The same arguments give the same text.
    """
    variants = {label: {"nvidia": _properties(version, code)} for label, code in sorted(archs_of.items())}
    return json.dumps({**_FORM, "variants": variants}, indent=2) + "\n"


def takes(code: Iterable[CudaArch], capability: str) -> bool:
    """Whether the provider gives a GPU a wheel with this code: the same major version, and not a newer minor one.

    It asks for the highest GPU of a machine alone, and knows neither suffixes (``120a``) nor which GPUs run PTX.
    """
    number = archs.as_number(capability)
    return any(each.number // 10 == number // 10 and each.number <= number for each in code if each.kind == "real")


def check(code: tuple[CudaArch, ...]) -> None:
    """Raise ``PackagingError`` if the provider would give this code to nobody, or to GPUs that cannot run it."""
    listed = ", ".join(map(str, code))
    if not any(each.kind == "real" for each in code):
        raise PackagingError(f"the provider for variants does not know which GPUs run {listed}: it has no machine code")
    for models in archs.known_gpus():
        if models.another_processor or not takes(code, models.capability) or archs.covers(code, models.capability):
            continue
        described = archs.describe(models.capability)
        message = f"the provider for variants would give code for {listed} to {described}, which cannot run it"
        raise PackagingError(message, remedy="build it without the suffix a, or publish it as an ordinary wheel only")


def _properties(version: Version, code: Iterable[CudaArch]) -> dict[str, list[str]]:
    # Machine code runs on every driver for the same major version of CUDA.
    major = (version.local or "").removeprefix("cu")[:2]
    numbers = sorted({each.number for each in code if each.kind == "real"})
    return {"cuda_version_lower_bound": [f"{major}.0"], "sm_arch": [f"{number}_real" for number in numbers]}


def _split(file_name: str) -> tuple[str, str | None]:
    """The name without its label, and the label."""
    parts = file_name.removesuffix(".whl").split("-")
    # A build tag begins with a digit; the Python tag, which is in its place otherwise, does not.
    ordinary = 6 if parts[2:] and parts[2][:1].isdigit() else 5
    if file_name.endswith(".whl") and len(parts) == ordinary + 1 and _LABEL.fullmatch(parts[-1]):
        return "-".join(parts[:-1]) + ".whl", parts[-1]
    return file_name, None


def _joined(*parts: str | None) -> str:
    return "-".join(part for part in parts if part is not None) + ".whl"
