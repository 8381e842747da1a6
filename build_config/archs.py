"""Resolve ``--arch`` to shards: which CUDA architectures are compiled, and which code runs on which GPU."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from build_config.errors import ArchitectureError
from build_config.model import ArchSelection, CudaArch, Shard
from check_gpu import coverage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from build_config.model import GpuDevice

TABLE = Path(__file__).with_name("data") / "cuda_architectures.toml"
LOCKED_CUDA = coverage.LOCKED_CUDA
"""The release of the locked toolkit, which is downloaded: the default of a build."""

DEFAULT = CudaArch(number=89)
"""The architecture of ``auto`` on a machine without a GPU: the most common GPUs of today (RTX 40)."""
BUILD_COMMAND = "nox -s build_cuda_wheel"

FORMS = (
    "89 or 8.9, several as 86,89 (a shard each) or 86+89 (one shard, for GPUs in one machine), 90-virtual for PTX, "
    "or one of: native, portable, auto"
)

_CAPABILITY = re.compile(r"([1-9][0-9]?)\.([0-9])")
_SHARD_NAME = re.compile(r"(?:sm(?P<real>[0-9afx]+))?(?:ptx(?P<virtual>[0-9afx]*))?")
_FIRST_ARCHITECTURE_SPECIFIC = 90  # sm_90a was the first with the suffix a,
_FIRST_FAMILY_SPECIFIC = 100  # compute_100f the first with the suffix f,
_FAMILY_SPECIFIC_SINCE = (12, 9)  # and this the first toolkit that knows it
_CONSUMER_BLACKWELL = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolkitSeries:
    """The abilities of a series of CUDA toolkits; ``data/cuda_architectures.toml`` explains the fields."""

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
class GpuModels:
    """The GPUs of one compute capability: ``names`` as they are sold, ``generation`` is NVIDIA's name.

    ``another_processor``: they exist only in machines that are not x86-64, for which there are no wheels.
    """

    capability: str
    names: str
    generation: str
    another_processor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    series: tuple[ToolkitSeries, ...]
    gpus: dict[str, GpuModels]


def resolve(requested: str, *, cuda_release: str, gpus: tuple[GpuDevice, ...]) -> ArchSelection:
    """Turn the value of ``--arch`` into shards.

    A list gives one shard for each entry, so each has its own key and its own place in the store. ``86+120`` is one
    entry for several architectures: ggml uses a single shard, so GPUs of one machine need one for all of them.
    ``native`` gives such a shard for the GPUs of this machine. ``cuda_release`` is ``major.minor``.

    Raises ``ArchitectureError`` for an unknown form, an architecture that this toolkit cannot compile for, and
    ``native`` without a GPU.
    """
    series = toolkit_series(cuda_release)
    match requested.strip().lower():
        case "portable":
            shards = tuple(_shard(archs) for archs in series.portable)
            return ArchSelection(shards=shards, portable=True)
        case "native":
            if not gpus:
                message = "--arch native: this machine has no NVIDIA GPU"
                raise ArchitectureError(message, remedy=f"name the architecture of the GPU, {_examples()}")
            return _native(series, cuda_release, gpus)
        case "auto" if gpus:
            return _native(series, cuda_release, gpus)
        case "auto":
            notice = (
                f"No NVIDIA GPU in this machine: building for {DEFAULT.capability} "
                f"({gpu_names(DEFAULT.capability)}). For another GPU: {_examples()}."
            )
            return ArchSelection(shards=(_shard((DEFAULT,)),), notice=notice)
        case listed:
            groups = {_parse_group(group, requested) for group in listed.split(",")}
            for arch in {arch for group in groups for arch in group}:
                _require_supported(arch, series, cuda_release)
            return ArchSelection(shards=tuple(map(_shard, sorted(groups))))


def covers(archs: Iterable[CudaArch], capability: str) -> Literal["cubin", "ptx"] | None:
    """Say how a GPU of ``capability`` (``8.9``) runs code compiled for ``archs``; ``None`` if it cannot."""
    kinds = {arch.kind for arch in archs if coverage.runs_on(str(arch), capability)}
    if "real" in kinds:
        return "cubin"
    return "ptx" if kinds else None


def toolkit_series(cuda_release: str) -> ToolkitSeries:
    """Find the series of a toolkit by its release (``13.0``).

    Raises ``ArchitectureError`` for a release older than all known ones.
    """
    release = _release(cuda_release)
    known = _table().series
    fitting = [series for series in known if _release(series.since) <= release]
    if not fitting:
        message = f"CUDA {cuda_release} is older than {known[0].since}, the oldest supported toolkit"
        raise ArchitectureError(message, remedy="leave out --cuda: the locked toolkit needs no installation")
    return fitting[-1]


def series_for(capabilities: Iterable[str]) -> tuple[ToolkitSeries, ...]:
    """The series of toolkits that compile for all of these compute capabilities: the locked one, then the newest."""
    numbers = {as_number(capability) for capability in capabilities}
    able = [series for series in reversed(_table().series) if all(map(series.builds_for, numbers))]
    return tuple(sorted(able, key=lambda series: series.since != LOCKED_CUDA))


def known_gpus() -> tuple[GpuModels, ...]:
    """The GPUs of each compute capability, oldest first."""
    return tuple(_table().gpus.values())


def known_releases() -> tuple[str, ...]:
    """The first release of each series of toolkits, oldest first."""
    return tuple(series.since for series in _table().series)


def oldest_driver(cuda_release: str) -> str:
    """The oldest driver (``580``) on which machine code of this toolkit runs."""
    return str(toolkit_series(cuda_release).driver_compatible)


def gpu_names(capability: str) -> str:
    """The names of the GPUs of a compute capability: ``8.9`` -> ``RTX 40, L4``; empty for an unknown one."""
    models = _table().gpus.get(capability)
    return models.names if models else ""


def describe(capability: str) -> str:
    """``8.9 (RTX 40, L4)``."""
    names = gpu_names(capability)
    return f"{capability} ({names})" if names else capability


def list_gpus(gpus: Iterable[GpuDevice]) -> str:
    """``NVIDIA L4 (8.9), Tesla T4 (7.5)``."""
    return ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in gpus)


def from_capability(capability: str) -> CudaArch:
    """The cubin to build for a GPU: ``8.9`` -> ``89-real``, ``12.0`` -> ``120a-real``."""
    return _as_compiled(CudaArch(number=as_number(capability)))


def as_capability(text: str) -> str:
    """``8.9`` for ``8.9`` or ``89``. Raises ``ArchitectureError`` for anything else."""
    if _CAPABILITY.fullmatch(text):
        return text
    if re.fullmatch(r"[1-9][0-9]{1,2}", text):
        return f"{text[:-1]}.{text[-1]}"
    raise ArchitectureError(f"{text!r} is not a compute capability", remedy="pass it as 8.9 or 89")


def as_number(capability: str) -> int:
    """``89`` for ``8.9``."""
    major, minor = capability.split(".")
    return 10 * int(major) + int(minor)


# ------------------------------------------------------------------------------------------------------- parsing


def _parse_group(group: str, requested: str) -> tuple[CudaArch, ...]:
    return tuple(sorted({_parse(entry.strip(), requested) for entry in group.split("+")}))


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
    """Apply the change that llama.cpp's CMake makes: ``12X`` becomes ``12Xa``, which its FP4 instructions need."""
    if arch.number // 10 == _CONSUMER_BLACKWELL and not arch.suffix:
        return CudaArch(number=arch.number, suffix="a", kind=arch.kind)
    return arch


def _native(series: ToolkitSeries, release: str, gpus: tuple[GpuDevice, ...]) -> ArchSelection:
    fitting = [gpu for gpu in gpus if series.builds_for(as_number(gpu.capability))]
    if not fitting:
        _require_supported(from_capability(gpus[0].capability), series, release)
    archs = tuple(sorted({from_capability(gpu.capability) for gpu in fitting}))
    notice = None
    if left_out := list_gpus(gpu for gpu in gpus if gpu not in fitting):
        notice = f"CUDA {release} cannot compile for {left_out}. The wheel leaves such GPUs out and uses the others."
    return ArchSelection(shards=(_shard(archs),), notice=notice)


def _shard(archs: tuple[CudaArch, ...]) -> Shard:
    """Name a shard by its contents: ``sm89``, ``sm120a``, ``sm86x89``, ``ptx90``, ``sm90ptx`` for both kinds."""
    real = "x".join(f"{arch.number}{arch.suffix}" for arch in archs if arch.kind == "real")
    virtual = "x".join(f"{arch.number}{arch.suffix}" for arch in archs if arch.kind == "virtual")
    if not virtual:
        name = f"sm{real}"
    elif not real:
        name = f"ptx{virtual}"
    else:
        name = f"sm{real}ptx" if virtual == real else f"sm{real}ptx{virtual}"
    return Shard(name=name, archs=archs)


def parse_shard(name: str) -> Shard | None:
    """Parse the name of a shard; ``None`` for any other text."""
    if not (match := _SHARD_NAME.fullmatch(name)):
        return None
    real, virtual = match["real"] or "", match["virtual"]
    compiled = {"real": real, "virtual": virtual or real if virtual is not None else ""}  # sm90ptx: both for 90
    try:
        archs = tuple(
            CudaArch.parse(f"{number}-{kind}")
            for kind, numbers in compiled.items()
            for number in numbers.split("x")
            if numbers
        )
    except ValueError:
        return None
    return shard if (shard := _shard(archs)).name == name else None


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
        message = f"{arch}: {arch.name} does not exist; the suffix a begins with 90a"
        raise ArchitectureError(message, remedy=f"pass {arch.number}-{arch.kind}")
    if arch.suffix == "f" and (arch.number < _FIRST_FAMILY_SPECIFIC or _release(release) < _FAMILY_SPECIFIC_SINCE):
        message = f"{arch}: CUDA {release} does not know {arch.name}; the suffix f begins with 100f and CUDA 12.9"
        raise ArchitectureError(message, remedy=f"pass {arch.number}-{arch.kind}")


def _other_toolkit(number: int, release: str) -> str:
    able = [series for series in _table().series if series.builds_for(number)]
    if not able:
        return "look up the compute capability of the GPU at https://developer.nvidia.com/cuda-gpus"
    last = able[-1].since
    if _release(release) < _release(able[0].since):
        return f"install CUDA {able[0].since} or later and pass it as --cuda, or leave out --cuda for the locked one"
    return f"install CUDA {last}, the last toolkit that compiles for it, and pass --cuda {last}"


# ----------------------------------------------------------------------------------------------------------- data


@functools.cache
def _table() -> _Table:
    """Read the data file; the oldest series and GPUs come first."""
    data = tomllib.loads(TABLE.read_text(encoding="utf-8"))
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
    gpus = {
        capability: GpuModels(
            capability=capability,
            names=names,
            generation=data["generations"][capability],
            another_processor=capability in data["another_processor"]["capabilities"],
        )
        for capability, names in sorted(data["cards"].items(), key=lambda entry: as_number(entry[0]))
    }
    return _Table(series=tuple(sorted(series, key=lambda entry: _release(entry.since))), gpus=gpus)


def _release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _examples() -> str:
    command = f"{BUILD_COMMAND} -- --arch"
    single = "; ".join(f"{command} {as_number(c)} for {gpu_names(c).split(',')[0]}" for c in ("8.6", "12.0"))
    return f"{single}; {command} portable for every GPU"
