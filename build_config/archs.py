"""``--arch`` to build units: which CUDA architectures are compiled, and what runs on which card."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from build_config.errors import ArchitectureError
from build_config.model import ArchSelection, CudaArch, Shard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from build_config.model import GpuDevice

TABLE = Path(__file__).with_name("data") / "cuda_architectures.toml"
DEFAULT = CudaArch(number=89)
"""What ``auto`` takes where there is no card: the most common cards of today (RTX 40)."""

FORMS = "89 or 8.9, several as 86,89, 90-virtual for PTX, or one of: native, portable, auto"

_CAPABILITY = re.compile(r"([1-9][0-9]?)\.([0-9])")
_FIRST_ARCHITECTURE_SPECIFIC = 90  # sm_90a was the first with the suffix a,
_FIRST_FAMILY_SPECIFIC = 100  # compute_100f the first with the suffix f,
_FAMILY_SPECIFIC_SINCE = (12, 9)  # and this the first toolkit that knows it
_CONSUMER_BLACKWELL = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolkitSeries:
    """What a series of CUDA toolkits can do; ``data/cuda_architectures.toml`` explains the fields."""

    since: str
    architectures: tuple[int, ...]
    without: dict[int, str]
    portable: tuple[tuple[CudaArch, ...], ...]
    driver: int
    driver_compatible: int
    gcc: int

    def builds_for(self, number: int) -> bool:
        """Whether llama.cpp can be compiled for this architecture."""
        return number in self.architectures and number not in self.without


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    series: tuple[ToolkitSeries, ...]
    cards: dict[str, str]


def resolve(requested: str, *, cuda_release: str, gpus: tuple[GpuDevice, ...]) -> ArchSelection:
    """Turn the value of ``--arch`` into shards.

    A list gives one shard an architecture, so that each is built, keyed and stored by itself. ``native`` gives one
    shard for all cards of this machine: ggml drives them all with the one backend it loads. ``cuda_release`` is
    ``major.minor``.

    Raises ``ArchitectureError`` for a form that is not known, an architecture that this toolkit cannot compile for,
    and ``native`` without a card.
    """
    series = toolkit_series(cuda_release)
    match requested.strip().lower():
        case "portable":
            shards = tuple(_shard(archs) for archs in series.portable)
            return ArchSelection(requested=requested, shards=shards, portable=True)
        case "native":
            if not gpus:
                message = "--arch native: no NVIDIA card was found in this machine"
                raise ArchitectureError(message, remedy=f"name the card's architecture, {_examples()}")
            return _native(requested, series, cuda_release, gpus)
        case "auto" if gpus:
            return _native(requested, series, cuda_release, gpus)
        case "auto":
            notice = (
                f"No NVIDIA card in this machine: building for {DEFAULT.capability} "
                f"({card_names(DEFAULT.capability)}). For another card: {_examples()}."
            )
            return ArchSelection(requested=requested, shards=(_shard((DEFAULT,)),), notice=notice)
        case listed:
            archs = {_parse(entry.strip(), requested) for entry in listed.split(",")}
            for arch in archs:
                _require_supported(arch, series, cuda_release)
            return ArchSelection(requested=requested, shards=tuple(_shard((arch,)) for arch in sorted(archs)))


def covers(archs: Iterable[CudaArch], capability: str) -> Literal["cubin", "ptx"] | None:
    """How a card of ``capability`` (``8.9``) runs code compiled for ``archs``; ``None`` if it does not.

    A cubin runs on its own major version from its own minor version on, PTX on everything from its version on. With
    suffix ``a`` either runs on exactly its own version, with ``f`` within the major version
    (https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility).
    """
    card = _number(capability)
    kinds = {arch.kind for arch in archs if _runs(arch, card)}
    if "real" in kinds:
        return "cubin"
    return "ptx" if kinds else None


def toolkit_series(cuda_release: str) -> ToolkitSeries:
    """What is known of a toolkit by its release (``13.0``).

    Raises ``ArchitectureError`` for one older than all that are known.
    """
    release = _release(cuda_release)
    known = _table().series
    fitting = [series for series in known if _release(series.since) <= release]
    if not fitting:
        message = f"CUDA {cuda_release} is older than {known[0].since}, the oldest toolkit that is supported"
        raise ArchitectureError(message, remedy="leave out --cuda: the locked toolkit needs no installation")
    return fitting[-1]


def known_series() -> tuple[ToolkitSeries, ...]:
    """All series of toolkits, oldest first."""
    return _table().series


def known_cards() -> dict[str, str]:
    """The cards of each compute capability as they are sold, oldest first."""
    return dict(sorted(_table().cards.items(), key=lambda entry: _number(entry[0])))


def known_releases() -> tuple[str, ...]:
    """The releases with which series of toolkits begin, oldest first."""
    return tuple(series.since for series in _table().series)


def oldest_driver(cuda_release: str) -> str:
    """The oldest driver (``580``) on which machine code of this toolkit runs."""
    return str(toolkit_series(cuda_release).driver_compatible)


def card_names(capability: str) -> str:
    """The cards of a compute capability as they are sold: ``8.9`` -> ``RTX 40, L4``; empty for an unknown one."""
    return _table().cards.get(capability, "")


def describe(capability: str) -> str:
    """``8.9 (RTX 40, L4)``."""
    names = card_names(capability)
    return f"{capability} ({names})" if names else capability


def from_capability(capability: str) -> CudaArch:
    """The cubin to build for a card: ``8.9`` -> ``89-real``, ``12.0`` -> ``120a-real``."""
    return _as_compiled(CudaArch(number=_number(capability)))


def as_capability(text: str) -> str:
    """``8.9`` for ``8.9`` or ``89``. Raises ``ArchitectureError`` for anything else."""
    if _CAPABILITY.fullmatch(text):
        return text
    if re.fullmatch(r"[1-9][0-9]{1,2}", text):
        return f"{text[:-1]}.{text[-1]}"
    raise ArchitectureError(f"{text!r} is not a compute capability", remedy="pass it as 8.9 or 89")


# ------------------------------------------------------------------------------------------------------- parsing


def _parse(entry: str, requested: str) -> CudaArch:
    capability = _CAPABILITY.fullmatch(entry)
    try:
        arch = CudaArch.parse("".join(capability.groups()) if capability else entry)
    except ValueError as error:
        what = f"{entry!r} in --arch {requested}" if entry != requested else f"--arch {requested or repr('')}"
        message = f"{what} is not a CUDA architecture"
        raise ArchitectureError(message, remedy=f"pass {FORMS}") from error
    return _as_compiled(arch)


def _as_compiled(arch: CudaArch) -> CudaArch:
    """Say what llama.cpp's CMake makes of it: ``12X`` becomes ``12Xa``, because its FP4 instructions need that."""
    if arch.number // 10 == _CONSUMER_BLACKWELL and not arch.suffix:
        return CudaArch(number=arch.number, suffix="a", kind=arch.kind)
    return arch


def _native(requested: str, series: ToolkitSeries, release: str, gpus: tuple[GpuDevice, ...]) -> ArchSelection:
    fitting = [gpu for gpu in gpus if series.builds_for(_number(gpu.capability))]
    if not fitting:
        _require_supported(from_capability(gpus[0].capability), series, release)
    archs = tuple(sorted({from_capability(gpu.capability) for gpu in fitting}))
    left_out = [f"{gpu.name} ({gpu.capability})" for gpu in gpus if gpu not in fitting]
    notice = None
    if left_out:
        notice = (
            f"CUDA {release} cannot compile for {', '.join(left_out)}. "
            "Hide such cards with CUDA_VISIBLE_DEVICES when you use the wheel."
        )
    return ArchSelection(requested=requested, shards=(_shard(archs),), notice=notice)


def _shard(archs: tuple[CudaArch, ...]) -> Shard:
    """Name a shard by what is in it: ``sm89``, ``sm120a``, ``sm86x89``, ``ptx90``, ``sm90ptx`` for both kinds."""
    real = "x".join(f"{arch.number}{arch.suffix}" for arch in archs if arch.kind == "real")
    virtual = "x".join(f"{arch.number}{arch.suffix}" for arch in archs if arch.kind == "virtual")
    if not virtual:
        name = f"sm{real}"
    elif not real:
        name = f"ptx{virtual}"
    else:
        name = f"sm{real}ptx" if virtual == real else f"sm{real}ptx{virtual}"
    return Shard(name=name, archs=archs)


# ------------------------------------------------------------------------------------------------------- checking


def _require_supported(arch: CudaArch, series: ToolkitSeries, release: str) -> None:
    if arch.number not in series.architectures:
        message = (
            f"CUDA {release} cannot compile for {describe(arch.capability)}; "
            f"it supports {', '.join(map(str, series.architectures))}"
        )
        raise ArchitectureError(message, remedy=_other_toolkit(arch.number, release))
    if arch.number in series.without:
        message = (
            f"CUDA {release} cannot compile llama.cpp for {describe(arch.capability)}: {series.without[arch.number]}"
        )
        raise ArchitectureError(message, remedy=_other_toolkit(arch.number, release))
    if arch.suffix == "a" and arch.number < _FIRST_ARCHITECTURE_SPECIFIC:
        message = f"{arch}: there is no {arch.name}, the suffix a begins with 90a"
        raise ArchitectureError(message, remedy=f"pass {arch.number}-{arch.kind}")
    if arch.suffix == "f" and (arch.number < _FIRST_FAMILY_SPECIFIC or _release(release) < _FAMILY_SPECIFIC_SINCE):
        message = f"{arch}: CUDA {release} has no {arch.name}; the suffix f begins with 100f and CUDA 12.9"
        raise ArchitectureError(message, remedy=f"pass {arch.number}-{arch.kind}")


def _other_toolkit(number: int, release: str) -> str:
    able = [series for series in _table().series if series.builds_for(number)]
    if not able:
        return "look the card's compute capability up at https://developer.nvidia.com/cuda-gpus"
    last = able[-1].since
    if _release(release) < _release(able[0].since):
        return f"install CUDA {able[0].since} or later and name it to --cuda, or leave out --cuda for the locked one"
    return f"install CUDA {last}, the last toolkit that compiles for it, and pass --cuda {last}"


def _runs(arch: CudaArch, card: int) -> bool:
    if arch.suffix == "a":
        return card == arch.number
    same_family = card // 10 == arch.number // 10
    return card >= arch.number and (same_family or (arch.kind == "virtual" and not arch.suffix))


# ----------------------------------------------------------------------------------------------------------- data


@functools.cache
def _table() -> _Table:
    """The data file, oldest series first."""
    data = tomllib.loads(
        Path(__file__).with_name("data").joinpath("cuda_architectures.toml").read_text(encoding="utf-8")
    )
    series = [
        ToolkitSeries(
            since=since,
            architectures=tuple(entry["architectures"]),
            without={int(number): why for number, why in entry.get("without", {}).items()},
            portable=tuple(tuple(CudaArch.parse(arch) for arch in shard) for shard in entry["portable"]),
            driver=entry["driver"],
            driver_compatible=entry["driver_compatible"],
            gcc=entry["gcc"],
        )
        for since, entry in data["series"].items()
    ]
    return _Table(series=tuple(sorted(series, key=lambda entry: _release(entry.since))), cards=data["cards"])


def _release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _number(capability: str) -> int:
    major, minor = capability.split(".")
    return 10 * int(major) + int(minor)


def _examples() -> str:
    command = "nox -s build_cuda_wheel -- --arch"
    cards = "; ".join(f"{command} {_number(c)} for {card_names(c).split(',')[0]}" for c in ("8.6", "12.0"))
    return f"{cards}; {command} portable for every card"
