"""Find CUDA toolkits that are installed on this machine, in NVIDIA's layout or in that of a distribution.

NVIDIA's own installers put everything below one folder. Debian and Ubuntu scatter it: nvcc and cicc below
``/usr/lib/nvidia-cuda-toolkit``, ptxas and the rest in ``/usr/bin``, headers in ``/usr/include``, libraries in
``/usr/lib/x86_64-linux-gnu``. nvcc then calls ptxas by name, and runs the first one on PATH: with a second toolkit on
the machine it is often of another release, and nothing compiles. So this module finds every program and asks for its
release.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, ToolkitMissingError
from build_config.model import CudaToolkit, Program
from build_config.system import processes
from build_config.system.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WELL_KNOWN = (
    ("/usr/local/cuda", Path("/usr/local/cuda/bin/nvcc")),
    ("distribution package", Path("/usr/bin/nvcc")),
    ("distribution package", Path("/usr/lib/nvidia-cuda-toolkit/bin/nvcc")),
    ("distribution package", Path("/usr/lib/cuda/bin/nvcc")),
    ("distribution package", Path("/opt/cuda/bin/nvcc")),
)
VERSIONED = "/usr/local/cuda-{release}/bin/nvcc"
"""Where NVIDIA's installers put a release next to others."""
COMPILERS = ("nvcc", "cicc", "ptxas", "cudafe++", "fatbinary")
"""Programs that make device code: without one of them a toolkit is not complete."""
HELPERS = ("nvlink", "bin2c", "cuobjdump")
"""Optional programs that nvcc or the inspection also calls."""
HEADERS = ("cuda.h", "cuda_runtime_api.h", "crt/host_config.h")
"""Headers that identify the header folder of a toolkit."""
CUBLAS_HEADER = "cublas_api.h"
SEPARATE_HEADERS = (CUBLAS_HEADER, "cub/version.cuh", "thrust/version.h")
"""Headers that are packaged separately from the compiler, with their own versions."""
HEADER_FOLDERS = ("include", "targets/x86_64-linux/include")
SYSTEM_HEADERS = Path("/usr/include")

_VERSION = re.compile(r"\bV(?P<version>[0-9]+\.[0-9]+\.[0-9]+)\b")
_RUNTIME_VERSION = re.compile(r"^#define\s+CUDART_VERSION\s+(?P<number>[0-9]+)", re.MULTILINE)
_SETTING = re.compile(r"^#\$ (?P<name>_HERE_|TOP|PATH)=(?P<value>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """Output of ``nvcc --dryrun`` about the installation: its folders and the search path of its programs."""

    here: Path
    top: Path
    search_path: str


def find(environ: Mapping[str, str], release: str | None = None, *, cublas: bool = False) -> CudaToolkit:
    """Find the first complete toolkit, of ``release`` (``12.4``) if it is given, with cuBLAS if ``cublas``.

    The order is CUDA_PATH, CUDA_HOME, ``/usr/local/cuda-<release>``, ``nvcc`` on PATH, the usual places.
    ``nvcc.found_via`` says where it was found and which places were tried before without success. Raises
    ``ToolkitMissingError`` with everything that was tried.
    """
    tried: list[str] = []
    for found in _search(environ, release):
        if isinstance(found, str):
            tried.append(found)
            continue
        place = found.nvcc.found_via.partition(";")[0]
        if release is not None and found.release != release:
            tried.append(f"{place}: that is CUDA {found.version}")
        elif cublas and not has_cublas(found):
            tried.append(f"{place}: CUDA {found.version} without cuBLAS, which is {cublas_package(found)}")
        else:
            return found
    install = f"install CUDA {release} (docs/toolkits.md says how) or " if release else ""
    raise not_found(release, tried, f"{install}set CUDA_PATH to its folder")


def not_found(release: str | None, tried: Iterable[str], remedy: str) -> ToolkitMissingError:
    """The error with everything that was tried. The other remedy is always the locked toolkit."""
    what = f"CUDA {release} was not found" if release else "no CUDA toolkit was found"
    message = "\n".join([f"{what} on this machine. Tried:", *(f"  {line}" for line in tried)])
    return ToolkitMissingError(message, remedy=f"{remedy}, or leave out --cuda: the locked one needs no installation")


def find_all(environ: Mapping[str, str], releases: Iterable[str] = ()) -> tuple[CudaToolkit, ...]:
    """Find every complete toolkit, each once. ``releases`` are searched for in addition to the usual places."""
    found: dict[Path, CudaToolkit] = {}
    for release in (None, *releases):
        for one in _search(environ, release):
            if not isinstance(one, str):
                found.setdefault(one.nvcc.path, one)
    return tuple(found.values())


def nvcc_version(text: str) -> str | None:
    """The ``13.0.88`` in the output of ``nvcc --version``."""
    match = _VERSION.search(text)
    return match["version"] if match else None


def parse_dry_run(text: str) -> DryRun | None:
    """Read the settings that ``nvcc --dryrun`` prints first; ``None`` if they are missing."""
    settings = {match["name"]: match["value"].strip() for match in _SETTING.finditer(text)}
    if "_HERE_" not in settings:
        return None
    here = Path(settings["_HERE_"])
    return DryRun(here=here, top=Path(settings.get("TOP", here.parent)), search_path=settings.get("PATH", str(here)))


def header_folder(top: Path, release: str, system: Path) -> Path | None:
    """The folder with the headers of ``release``: below the toolkit's root, else the system's; ``None`` without one.

    The system's may be those of another toolkit.
    """
    places = (*(top / folder for folder in HEADER_FOLDERS), system)
    return next((place for place in places if _headers_release(place) == release), None)


def has_cublas(toolkit: CudaToolkit) -> bool:
    """Whether cuBLAS can be compiled against: it is a separate package."""
    return (toolkit.include / CUBLAS_HEADER).is_file()


def cublas_package(toolkit: CudaToolkit) -> str:
    """The package that contains cuBLAS."""
    return f"libcublas-dev-{toolkit.release.replace('.', '-')} of NVIDIA's packages"


def _search(environ: Mapping[str, str], release: str | None) -> Iterator[CudaToolkit | str]:
    """Yield toolkits as they are found, and a line with the reason for each place without one."""
    refused: list[str] = []
    seen: set[Path] = set()
    for place, nvcc in _candidates(environ, release):
        try:
            toolkit = _examine(nvcc, "; ".join([place, *(f"not {each}" for each in refused)]), environ)
        except ToolkitMissingError as refusal:
            refused.append(f"{place}: {refusal.message}")
            yield refused[-1]
            continue
        if toolkit.nvcc.path not in seen:
            seen.add(toolkit.nvcc.path)
            yield toolkit


def _candidates(environ: Mapping[str, str], release: str | None) -> Iterator[tuple[str, Path | None]]:
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if environ.get(variable):
            yield f"{variable}={environ[variable]}", Path(environ[variable]) / "bin" / "nvcc"
    if release:
        nvcc = Path(VERSIONED.format(release=release))
        yield str(nvcc.parent.parent), nvcc
    on_path = shutil.which("nvcc", path=environ.get("PATH", ""))
    yield "nvcc on PATH", Path(on_path) if on_path else None
    yield from WELL_KNOWN


def _examine(nvcc: Path | None, found_via: str, environ: Mapping[str, str]) -> CudaToolkit:
    """Read a toolkit through its nvcc, which may be a link or a script. Raises ``ToolkitMissingError``."""
    if nvcc is None or not nvcc.is_file():
        raise ToolkitMissingError(f"there is no {nvcc or 'such program'}")
    output = _run(nvcc, environ, "--dryrun", "-c", "-x", "cu", "/dev/null")
    dry_run = parse_dry_run(output)
    if dry_run is None:
        message = f"{nvcc} --dryrun does not tell where its programs are: {' '.join(output.split())[-300:]}"
        raise ToolkitMissingError(message)
    real = dry_run.here / "nvcc"
    version = nvcc_version(_run(real, environ, "--version"))
    if version is None:
        raise ToolkitMissingError(f"{real} does not tell its version")
    path = f"{dry_run.here}:{nvcc.parent}:{dry_run.search_path}"
    programs = _programs(version, path, real, environ)
    top = dry_run.top.resolve()
    headers = header_folder(top, version.rpartition(".")[0], SYSTEM_HEADERS)
    if headers is None:
        message = f"the toolkit of {real} is not complete: its headers ({', '.join(HEADERS)}) are missing"
        raise ToolkitMissingError(message)
    here = dry_run.here.resolve()
    return CudaToolkit(
        root=top,
        nvcc=Program(path=real.resolve(), version=version, found_via=found_via),
        version=version,
        identity=_identity(programs, headers),
        locked=False,
        headers=headers,
        programs=tuple(
            path for path in programs.values() if path.parent.resolve() not in {here, top / "bin", top / "nvvm" / "bin"}
        ),
    )


def _headers_release(folder: Path) -> str | None:
    """``11.8`` for a folder with all of ``HEADERS``, from the version in the runtime's header."""
    if not all((folder / name).is_file() for name in HEADERS):
        return None
    text = (folder / "cuda_runtime_api.h").read_text(encoding="utf-8", errors="replace")
    defined = _RUNTIME_VERSION.search(text)
    if defined is None:
        return None
    number = int(defined["number"])  # 11080
    return f"{number // 1000}.{number % 1000 // 10}"


def _programs(version: str, search_path: str, nvcc: Path, environ: Mapping[str, str]) -> dict[str, Path]:
    """Map the name of each program to the first one on the path that is of nvcc's release."""
    release = version.rpartition(".")[0]
    programs = {}
    for name in (*COMPILERS, *HELPERS):
        others = []
        for folder in dict.fromkeys(search_path.split(":")):
            path = shutil.which(name, path=folder) if folder else None
            if path is None:
                continue
            told = nvcc_version(_run(Path(path), environ, "--version"))
            if told is None or told.rpartition(".")[0] == release:  # cicc prints no version
                programs[name] = Path(path)
                break
            others.append(f"{path} is of {told}")
        if name in COMPILERS and name not in programs:
            because = f" ({'; '.join(others)})" if others else ""
            raise ToolkitMissingError(f"the toolkit of {nvcc} is not complete: {name} is missing{because}")
    return programs


def _identity(programs: Mapping[str, Path], headers: Path) -> str:
    """A digest over the programs that make device code, and over the headers that distinguish the other parts."""
    digest = hashlib.sha256()
    for name in COMPILERS:
        digest.update(f"{name} {file_sha256(programs[name])}\n".encode())
    for name in (*HEADERS, *SEPARATE_HEADERS):
        if (headers / name).is_file():
            digest.update(f"{name} {file_sha256(headers / name)}\n".encode())
    return digest.hexdigest()


def _run(nvcc: Path, environ: Mapping[str, str], *arguments: str) -> str:
    try:
        return processes.capture(str(nvcc), *arguments, environment=environ).output
    except CommandError as error:
        raise ToolkitMissingError(error.message) from error
