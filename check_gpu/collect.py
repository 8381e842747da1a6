"""Collects the facts about this machine and an installation. ``diagnosis`` decides what they mean."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from check_gpu import device_code, elf, log, log_file, log_stream, pe, process, running, shell, surroundings
from check_gpu.facts import (
    CudaLibrary,
    Device,
    Driver,
    Facts,
    Installation,
    Load,
    Machine,
    NeededLibrary,
    OwnBuild,
    Running,
)

TINY_MODEL = "the built-in tiny model"
TOKENS = 4
SHORT_TIMEOUT = 60.0
"""Seconds for examining files or the driver; waking a GPU takes a few."""

_OURS = ("libggml", "libllama", "libllava", "libmtmd", "ggml", "llama", "llava", "mtmd")
_VERSION = re.compile(r"(?<=\.so)(\.\d+)+$")
_LIBRARY_ENDINGS = (".so", ".dll", ".dylib")
_CUDA_PREFIXES = ("libcudart", "libcublas", "libcuda.", "libnccl", "libnvrtc", "libcufft", "cudart", "cublas", "nvcuda")


@dataclass(frozen=True)
class Request:
    """An installation, a log or a running program to check.

    With a ``log``, nothing but that file is examined. With a ``pid``, no model is loaded.

    If ``model`` is ``None``, the tiny model is used. ``timeout`` limits the load of the model, in seconds.
    """

    python: str
    model: Path | None = None
    log: Path | None = None
    pid: int | None = None
    n_gpu_layers: int = -1
    n_ctx: int = 512
    timeout: float = 300.0


def collect(request: Request, write_model: Callable[[Path], Path]) -> Facts:
    """Examine everything, then load the model. A missing part, a crash or a hang is one of the facts.

    ``write_model`` writes the tiny model to a path; it is called only if that is needed. Raises ``OSError`` if the
    log cannot be read.
    """
    machine = surroundings.look(os.environ)
    if request.log is not None:
        return Facts(machine=machine, load=read_log(request.log))
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as temporary:
        folder = Path(temporary)
        if request.pid is not None:
            return examine_program(request.pid, machine, folder)
        installation = find_installation(request.python, folder)
        if installation.error is not None:
            return Facts(machine=machine, installation=installation)
        request = replace(request, python=installation.python)
        driver = ask_driver(request.python, folder)
        if installation.package is None:
            return Facts(machine=machine, installation=installation, driver=driver)
        installation = try_libraries(read_libraries(installation), driver.devices, folder)
        model = request.model or write_model(folder / "tiny.gguf")
        load = load_model(request, Path(installation.package or "llama_cpp").name, model, folder)
        return Facts(machine=machine, installation=installation, driver=driver, load=load)


def read_log(file: Path) -> Load:
    """Read a model load from its log. Raises ``OSError``."""
    lines, signs = log_file.read(file)
    name = "standard input" if str(file) == log_stream.STANDARD_INPUT else str(file)
    return Load(n_gpu_layers=None, model=name, stage="log", log=lines, signs=signs)


def examine_program(pid: int, machine: Machine, folder: Path) -> Facts:
    """Examine a running program, the installation that it uses and the driver."""
    program = running.examine(pid, folder)
    installation = _installation_of(program) if program.shares_files else None
    driver = ask_driver(sys.executable, folder)
    return Facts(machine=machine, installation=installation, driver=driver, running=program)


def _installation_of(program: Running) -> Installation | None:
    """Find the package whose libraries are mapped. Its interpreter is not started: it may be another user's."""
    package = next((folder for file in program.libraries for folder in Path(file).parents if _is_package(folder)), None)
    if package is None:
        return None
    site = package.parent
    environment = site.parents[2] if len(site.parents) > 2 else site  # noqa: PLR2004  # lib/python3.12/site-packages
    python = environment / "bin" / "python"
    found = Installation(
        python=str(python if python.exists() else program.executable or "python"),
        package=str(package),
        site=str(site),
        installer=shell.PIP if (site / "pip").is_dir() else shell.UV if shutil.which("uv") else shell.ENSUREPIP,
    )
    return read_libraries(found)


def _is_package(folder: Path) -> bool:
    return folder.name.startswith("llama_cpp") and (folder / "__init__.py").is_file()


# ---------------------------------------------------------------------------------------------------- installation


def find_installation(python: str, folder: Path) -> Installation:
    """Find the package without importing it.

    ``python`` is the path of an interpreter, its name, or the folder of an environment.
    """
    python = _interpreter(python)
    try:
        ended = process.run(python, "find", (), folder, timeout=SHORT_TIMEOUT)
    except OSError as error:
        return Installation(python=python, error=f"{python} cannot be started: {error.strerror}")
    if ended.how is not None or not ended.objects:
        last = ended.output[-1] if ended.output else "it printed nothing"
        return Installation(python=python, error=f"{python} cannot be examined: {ended.how}; {last}")
    found = Installation(python=python, **ended.merged)
    return replace(found, installer=shell.UV) if found.installer != shell.PIP and shutil.which("uv") else found


def _interpreter(named: str) -> str:
    """Return the path of an interpreter without resolving links: that of an environment is a link to another."""
    for inside in ("bin/python", "Scripts/python.exe"):
        if Path(named, inside).is_file():
            return os.path.abspath(Path(named, inside))  # noqa: PTH100  # see above; Path.absolute() keeps the dots
    # A bare name is looked for on PATH; the processes run in other folders.
    return os.path.abspath(named) if os.path.dirname(named) else shutil.which(named) or named  # noqa: PTH100, PTH120


def read_libraries(installation: Installation) -> Installation:
    """Read the package's shared libraries, and which of them contain CUDA code or need CUDA's libraries."""
    package = Path(installation.package or "")
    files = _library_files(package)
    read = (read_library(path) for path in files.values())
    return replace(
        installation,
        own=_own_build(package / "_cuda_build.json"),
        libraries=tuple(sorted(files)),
        cuda=tuple(sorted((library for library in read if library is not None), key=lambda library: library.file)),
    )


def read_library(path: Path) -> CudaLibrary | None:
    """Read the CUDA code and the needs of a library; ``None`` if it has nothing to do with CUDA."""
    named = "cuda" in path.name.lower()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            library = (pe if data[:2] == pe.MAGIC else elf).read(data)
            code = device_code.architectures(data, library)
    except (OSError, ValueError) as error:
        return CudaLibrary(str(path), problem=f"cannot read it: {error}") if named else None
    except elf.UnreadableError as error:
        return CudaLibrary(str(path), problem=str(error)) if named else None
    needs = tuple(name for name in library.needed if name.startswith(_CUDA_PREFIXES))
    origin = str(path.resolve().parent)
    search = tuple(entry.replace("${ORIGIN}", origin).replace(elf.ORIGIN, origin) for entry in library.search)
    return CudaLibrary(str(path), code=code, needs=needs, search=search) if named or code or needs else None


def try_libraries(installation: Installation, devices: tuple[Device, ...], folder: Path) -> Installation:
    """Let the loader load the libraries that the CUDA code needs, then the library with code for ``devices``."""
    if not installation.cuda:
        return installation
    own = installation.own
    needs = dict.fromkeys(need for library in installation.cuda for need in library.needs)
    fitting = (library.file for library in installation.cuda if library.code and all(map(library.covers, devices)))
    backend = next(fitting, installation.cuda[0].file)
    copied = map(str, _copied_folders(Path(installation.package or "")))
    request = {
        "needed": [*needs],
        "folders": [*dict.fromkeys([*(entry for library in installation.cuda for entry in library.search), *copied])],
        "pathfinder": own.libraries if own else (),
        "backend": backend,
    }
    ended = process.run(installation.python, "libraries", (json.dumps(request),), folder, timeout=SHORT_TIMEOUT)
    needed = [NeededLibrary(**found) for found in ended.objects if "soname" in found]
    if ended.how is not None and len(needed) < len(needs):
        needed.append(NeededLibrary([*needs][len(needed)], error=ended.how))
    return replace(installation, needed=tuple(needed), backend_error=ended.merged.get("backend_error"))


def _library_files(package: Path) -> dict[str, Path]:
    """Find the libraries of llama.cpp by name, from the least to the most likely folder: the last of a name is loaded.

    Links become copies in a wheel, so ``libggml.so``, ``libggml.so.0`` and ``libggml.so.0.9.4`` count as one.
    """
    override = os.environ.get("LLAMA_CPP_LIB_PATH")
    inside = [package / "bin", package / "lib64", package, package / "lib"]
    found: dict[str, Path] = {}
    for folder in [
        *_conda_folders(package),
        *_copied_folders(package),
        *inside,
        *([Path(override)] if override else []),
    ]:
        here: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = _VERSION.sub("", path.name)
            if name.endswith(_LIBRARY_ENDINGS) and name.startswith(_OURS) and path.is_file():
                here.setdefault(name, path)
        found.update(here)
    return found


def _copied_folders(package: Path) -> list[Path]:
    """The folders with the libraries that auditwheel or delvewheel has copied into the wheel."""
    return sorted(package.parent.glob("llama_cpp_python*.libs"))


def _conda_folders(package: Path) -> list[Path]:
    """The folder with all libraries of a conda environment: there, llama.cpp is a package of its own."""
    environment = package.parents[min(3, len(package.parents) - 1)]  # lib/python3.12/site-packages/llama_cpp
    return [environment / "lib"] if (environment / "conda-meta").is_dir() else []


def _own_build(file: Path) -> OwnBuild | None:
    """Read the description in a wheel of this project; ``None`` if it is missing or damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        libraries, leaves_out = tuple(data["libraries"]), bool(data.get("leaves_out_gpus"))  # not in earlier wheels
        return OwnBuild(data["cuda"], data["oldest_driver"], libraries, data["build_command"], leaves_out)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


# ------------------------------------------------------------------------------------------------- driver and load


def ask_driver(python: str, folder: Path) -> Driver:
    """Ask the driver in a process under ``python``."""
    ended = process.run(python, "driver", (), folder, timeout=SHORT_TIMEOUT)
    if not ended.objects:
        return Driver(failure=ended.how or "its process ended without an answer")
    found: dict[str, Any] = ended.merged
    found["devices"] = tuple(Device(**device) for device in found.get("devices", ()))
    if "cards" in found:
        found["cards"] = tuple(found["cards"])
    return Driver(**found)


def load_model(request: Request, package: str, model: Path, folder: Path) -> Load:
    """Load the model in a separate process that imports ``package``."""
    options = {
        "package": package,
        "model": str(model.resolve()),
        "n_gpu_layers": request.n_gpu_layers,
        "n_ctx": request.n_ctx,
        "tokens": TOKENS,
    }
    # Otherwise ggml starts a debugger if it aborts, and waits for it.
    quiet = {"GGML_NO_BACKTRACE": "1"}
    ended = process.run(request.python, "load", (json.dumps(options),), folder, timeout=request.timeout, changes=quiet)
    logged = "".join(found["log"] for found in ended.objects if "log" in found).splitlines()
    found = ended.merged
    error = found.get("error")
    return Load(
        n_gpu_layers=request.n_gpu_layers,
        model=str(request.model or TINY_MODEL),
        stage=found.get("stage", "start"),
        error=error,
        ended=ended.how,
        signal=ended.signal,
        tokens=found.get("tokens", 0),
        embedding=found.get("embedding", 0),
        status_reason=found.get("status_reason"),
        status_note=found.get("status_note"),
        log=(*logged, *ended.output),
        signs=log.read([*logged, *ended.output, *([error] if error else [])]),
    )
