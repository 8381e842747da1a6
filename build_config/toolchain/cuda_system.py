"""A CUDA toolkit that is installed on this machine."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import runner
from build_config.errors import CommandError, ToolkitMissingError
from build_config.model import CudaToolkit, Program
from build_config.toolchain.programs import file_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WELL_KNOWN = (
    ("/usr/local/cuda", Path("/usr/local/cuda/bin/nvcc")),
    ("distribution package", Path("/usr/lib/nvidia-cuda-toolkit/bin/nvcc")),
    ("distribution package", Path("/usr/lib/cuda/bin/nvcc")),
    ("distribution package", Path("/opt/cuda/bin/nvcc")),
)
COMPILERS = ("nvcc", "cicc", "ptxas", "cudafe++", "fatbinary")

_VERSION = re.compile(r"\bV(?P<version>[0-9]+\.[0-9]+\.[0-9]+)\b")
_SETTING = re.compile(r"^#\$ (?P<name>_HERE_|TOP|PATH)=(?P<value>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What ``nvcc --dryrun`` tells of the installation: its folders and where it looks for its programs."""

    here: Path
    top: Path
    search_path: str


def find(environ: Mapping[str, str]) -> CudaToolkit:
    """The first complete toolkit of: CUDA_PATH, CUDA_HOME, ``nvcc`` on PATH, the usual places.

    ``nvcc.found_via`` says where it was found and which places before it were looked at in vain. Raises
    ``ToolkitMissingError`` with everything that was tried.
    """
    tried: list[str] = []
    for place, nvcc in _candidates(environ):
        try:
            return _examine(nvcc, "; ".join([place, *(f"not {refused}" for refused in tried)]), environ)
        except ToolkitMissingError as refusal:
            tried.append(f"{place}: {refusal.message}")
    message = "no CUDA toolkit was found on this machine. Tried:\n" + "\n".join(f"  {line}" for line in tried)
    raise ToolkitMissingError(
        message, remedy="set CUDA_PATH to its folder, or leave out --cuda: the locked one needs no installation"
    )


def nvcc_version(text: str) -> str | None:
    """The ``13.0.88`` in what ``nvcc --version`` prints."""
    match = _VERSION.search(text)
    return match["version"] if match else None


def parse_dry_run(text: str) -> DryRun | None:
    """Read the settings that ``nvcc --dryrun`` prints first; ``None`` when they are not there."""
    settings = {match["name"]: match["value"].strip() for match in _SETTING.finditer(text)}
    if "_HERE_" not in settings:
        return None
    here = Path(settings["_HERE_"])
    return DryRun(here=here, top=Path(settings.get("TOP", here.parent)), search_path=settings.get("PATH", str(here)))


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path | None]]:
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if environ.get(variable):
            yield f"{variable}={environ[variable]}", Path(environ[variable]) / "bin" / "nvcc"
    on_path = shutil.which("nvcc", path=environ.get("PATH", ""))
    yield "nvcc on PATH", Path(on_path) if on_path else None
    yield from WELL_KNOWN


def _examine(nvcc: Path | None, found_via: str, environ: Mapping[str, str]) -> CudaToolkit:
    """Read a toolkit through its nvcc, which may be a link or a script. Raises ``ToolkitMissingError``."""
    if nvcc is None or not nvcc.is_file():
        message = f"there is no {nvcc or 'such program'}"
        raise ToolkitMissingError(message)
    output = _run(nvcc, environ, "--dryrun", "-c", "-x", "cu", "/dev/null")
    dry_run = parse_dry_run(output)
    if dry_run is None:
        message = f"{nvcc} --dryrun does not tell where its programs are: {' '.join(output.split())[-300:]}"
        raise ToolkitMissingError(message)
    real = dry_run.here / "nvcc"
    version = nvcc_version(_run(real, environ, "--version"))
    if version is None:
        message = f"{real} does not tell its version"
        raise ToolkitMissingError(message)
    return CudaToolkit(
        root=dry_run.top.resolve(),
        nvcc=Program(path=real.resolve(), version=version, found_via=found_via),
        version=version,
        identity=_identity(dry_run),
        locked=False,
    )


def _identity(dry_run: DryRun) -> str:
    """A digest over the bytes of the programs that make the device code."""
    digest = hashlib.sha256()
    for name in COMPILERS:
        path = shutil.which(name, path=f"{dry_run.here}:{dry_run.search_path}")
        if path is None:
            message = f"the toolkit of {dry_run.here / 'nvcc'} is not complete: {name} is missing"
            raise ToolkitMissingError(message)
        digest.update(f"{name} {file_digest(Path(path))}\n".encode())
    return digest.hexdigest()


def _run(nvcc: Path, environ: Mapping[str, str], *arguments: str) -> str:
    command = runner.Command(argv=(str(nvcc), *arguments), environment=environ)
    try:
        return runner.run(command, check=False, timeout=60.0).output
    except CommandError as error:
        raise ToolkitMissingError(error.message) from error
