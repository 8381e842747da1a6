"""Resolve a request once: into the frozen plan that every later step of a build uses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from build_config import archs
from build_config.errors import SettingsError, ValidationError
from build_config.model import ArchSelection, CudaToolkit, HostCompiler, LibraryPolicy, Machine, ToolkitLock
from build_config.steps import locks, toolchain
from build_config.steps.locks import Locks
from build_config.steps.toolchain.programs import Launcher
from build_config.steps.units import settings
from build_config.steps.units.settings import Settings
from build_config.steps.wheel import repair
from build_config.steps.wheelhouse import signature
from build_config.steps.wheelhouse.signature import Keys
from build_config.system import machine, platforms
from build_config.system.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping


Emulate = Literal["quick", "all", "none"]
SYSTEM = "system"
"""The value of ``--cuda`` for any toolkit that is installed on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """The request of a user. ``jobs`` is ``None`` if the machine decides, ``sign_key`` the file of a private key.

    ``units`` is a folder with units that other machines built, or with ``trust_units``, files of public keys, a store
    that several machines share: its folder or address. ``revoked`` is a list of keys whose units are not used. With
    ``require_units`` nothing is compiled here.
    ``emulate`` says which checks on an emulated GPU follow validation on a machine without a GPU.
    """

    arch: str = "auto"
    cuda: str = archs.LOCKED_CUDA
    llama_cpp: Path | None = None
    launcher: Launcher = "auto"
    jobs: int | None = None
    require_gpu: bool = False
    sign_key: Path | None = None
    units: Path | str | None = None
    trust_units: tuple[Path, ...] = ()
    revoked: Path | None = None
    require_units: bool = False
    emulate: Emulate = "quick"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolkitPlan:
    """The CUDA toolkit that ``--cuda`` names, and the host compiler for it.

    ``lock`` is set for a toolkit that is downloaded, ``installed`` for one that was found on this machine.
    """

    release: str
    lock: ToolkitLock | None
    installed: CudaToolkit | None
    host: HostCompiler


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """A request with all decisions for it on this machine, before anything is created or downloaded.

    ``jobs`` is the number of compilers that run at once, ``trusted`` are the keys whose units are used, if any.
    """

    request: BuildRequest
    layout: Layout
    machine: Machine
    locks: Locks
    settings: Settings
    policy: LibraryPolicy
    toolkit: ToolkitPlan
    selection: ArchSelection
    jobs: int
    sign_key: Ed25519PrivateKey | None
    trusted: Keys | None = None


def resolve(request: BuildRequest, here: Machine, layout: Layout) -> BuildPlan:
    """Look up everything that a request names, once. Nothing is created or downloaded.

    Raises ``ValidationError`` if a GPU is required and there is none, ``SettingsError``, ``ArchitectureError``,
    ``LockError``, ``ToolkitMissingError``, and the errors of a host compiler that is missing or not supported.
    """
    if request.require_gpu and not here.gpus:
        message = "--require-gpu: the driver of this machine lists no GPU"
        raise ValidationError(message, remedy="leave it out, or build on a machine with an NVIDIA GPU and its driver")
    trusted = _trusted(request)
    locked = locks.read(layout, platforms.HERE.name)
    toolkit = resolve_toolkit(request.cuda, locked, os.environ)
    return BuildPlan(
        request=request,
        layout=layout,
        machine=here,
        locks=locked,
        settings=settings.read(layout.data / "variants.toml"),
        policy=repair.load_policy(layout, platforms.HERE.name),
        toolkit=toolkit,
        selection=archs.resolve(request.arch, cuda_release=toolkit.release, gpus=here.gpus),
        jobs=request.jobs or default_jobs(),
        sign_key=None if request.sign_key is None else signature.read_private_key(request.sign_key),
        trusted=trusted,
    )


def _trusted(request: BuildRequest) -> Keys | None:
    """The keys whose units are used. Raises ``SettingsError`` for an address without one."""
    if isinstance(request.units, str) and not request.trust_units:
        message = f"--units {request.units}: units from an address are used only if a trusted key has signed them"
        raise SettingsError(message, remedy="--trust-units KEY, the public key of their builder")
    if request.trust_units and request.units is None:
        raise SettingsError("--trust-units says whose units are used", remedy="--units FOLDER or ADDRESS")
    return signature.read_keys(request.trust_units, revoked=request.revoked, option="--trust-units")


def resolve_toolkit(cuda: str, locked: Locks, environ: Mapping[str, str]) -> ToolkitPlan:
    """The toolkit and the host compiler for ``--cuda``. Raises as ``resolve`` does."""
    if cuda in locked.releases:
        newest = archs.toolkit_series(cuda).gcc
        host = toolchain.host_for_locked(newest, environ)
        return ToolkitPlan(release=cuda, lock=locked.toolkit(cuda), installed=None, host=host)
    if cuda != SYSTEM and not re.fullmatch(r"[1-9][0-9]*\.[0-9]+", cuda):
        raise SettingsError(
            f"--cuda {cuda}: not a release of CUDA",
            remedy=f"pass {', '.join(locked.releases)} (downloaded), a release that is installed here such as 12.4, or"
            " system for any installed one",
        )
    found = toolchain.find_installed_cuda(None if cuda == SYSTEM else cuda, environ)
    host = toolchain.host_for_installed(found, environ)
    return ToolkitPlan(release=found.release, lock=None, installed=found, host=host)


def default_jobs() -> int:
    """The number of compilers to run at once: one for each core, if memory allows."""
    return max(1, min(machine.usable_cores(), psutil.virtual_memory().total // machine.MEMORY_PER_JOB))
