"""Find CUDA toolkits of NVIDIA's installer on Windows: each is below one folder, and a variable names it.

The installer sets ``CUDA_PATH`` to the newest and ``CUDA_PATH_V12_4`` to each.
https://docs.nvidia.com/cuda/cuda-installation-guide-microsoft-windows/
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.model import CudaToolkit, Program
from build_config.steps.toolchain.installed_cuda import not_found, nvcc_version
from build_config.system import processes
from build_config.system.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT = Path(r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA")
"""The default folder into which the installer puts ``v12.4``."""
PARTS = (
    "bin/nvcc.exe",
    "nvvm/bin/cicc.exe",
    "bin/ptxas.exe",
    "bin/cudafe++.exe",
    "bin/fatbinary.exe",
    "include/crt/host_config.h",
    "include/cuda_runtime_api.h",
    "include/cublas_api.h",
    "lib/x64/cudart.lib",
    "lib/x64/cublas.lib",
)
"""Files without which a toolkit is not complete: the installer lets users omit parts."""
_VARIABLE = re.compile(r"CUDA_PATH_V(?P<major>\d+)_(?P<minor>\d+)", re.IGNORECASE)


def find(environ: Mapping[str, str], release: str | None = None) -> CudaToolkit:
    """Find the first complete toolkit, of ``release`` if it is given: by ``CUDA_PATH``, then by the other variables.

    Raises ``ToolkitMissingError`` with everything that was tried.
    """
    tried: list[str] = []
    for place, root in _candidates(environ, release):
        missing = [part for part in PARTS if not (root / part).is_file()]
        if missing:
            tried.append(f"{place}: {root} has no {missing[0]}")
            continue
        version = _version(root / PARTS[0], environ)
        if version is None:
            tried.append(f"{place}: {root / PARTS[0]} does not tell its version")
        elif release is not None and version.rpartition(".")[0] != release:
            tried.append(f"{place}: that is CUDA {version}")
        else:
            return _toolkit(root, version, "; ".join([place, *(f"not {refused}" for refused in tried)]))
    remedy = "install it (winget install Nvidia.CUDA, with its version), set CUDA_PATH to its folder"
    raise not_found(release, tried or ["CUDA_PATH is not set"], remedy)


def _candidates(environ: Mapping[str, str], release: str | None) -> Iterator[tuple[str, Path]]:
    named = {name.upper(): value for name, value in environ.items() if value}
    if "CUDA_PATH" in named:
        yield f"CUDA_PATH={named['CUDA_PATH']}", Path(named["CUDA_PATH"])
    for name in sorted(named, reverse=True):
        match = _VARIABLE.fullmatch(name)
        if match and release in (None, f"{match['major']}.{match['minor']}"):
            yield f"{name}={named[name]}", Path(named[name])
    if release:
        yield "the installer's usual place", DEFAULT / f"v{release}"


def _version(nvcc: Path, environ: Mapping[str, str]) -> str | None:
    try:
        return nvcc_version(processes.capture(str(nvcc), "--version", environment=environ).output)
    except CommandError:
        return None


def _toolkit(root: Path, version: str, found_via: str) -> CudaToolkit:
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(f"{part} {file_sha256(root / part)}\n".encode())
    return CudaToolkit(
        root=root,
        nvcc=Program(path=root / PARTS[0], version=version, found_via=found_via),
        version=version,
        identity=digest.hexdigest(),
        locked=False,
    )
