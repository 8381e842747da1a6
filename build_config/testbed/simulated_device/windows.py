"""The simulated GPU for Windows: the same sources, compiled by MinGW-w64.

Windows has no ``LD_PRELOAD``. A library that a process has loaded is found by its name, so an environment gets a line
that has Python load the doubles before it does anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.errors import ToolkitMissingError
from build_config.testbed import simulated_device
from build_config.testbed.simulated_device import function_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.testbed.simulated_device import Double, SimulatedLibraries

PRELOAD = "SIMULATED_PRELOAD"
PRELOADING = (
    f"import ctypes, os; [ctypes.CDLL(path) for path in os.environ.get({PRELOAD!r}, '').split(os.pathsep) if path]\n"
)
"""A line that Python executes when it starts, in a file with the extension ``.pth`` in its site-packages."""
FROM_THE_DRIVER_SINCE = 13
"""The first CUDA whose import libraries take everything from the driver."""

UNCALLED = "cublasLt64_{}.dll"
"""Part of cuBLAS, and loaded before it; a shard calls nothing of it."""

_NUMBERS = """// Made from cudart.lib.
{declarations}
static const struct {{
    int number;
    void (*function)(void);
}} FUNCTIONS[] = {{
{rows}
}};
"""


def build(
    folder: Path, *, include: Path, import_library: Path, major: int, cc: str, log: Path | None = None
) -> SimulatedLibraries:
    """Compile the doubles for a CUDA major version into ``folder``.

    ``include`` is the folder of CUDA's headers, ``import_library`` the ``cudart.lib`` of a toolkit for Windows, and
    ``cc`` is MinGW-w64's GCC. Raises ``ToolkitMissingError`` if a file of the toolkit is missing, and
    ``ValidationError`` if the doubles do not compile.
    """
    headers = (include / name for name in simulated_device.HEADERS.values())
    missing = [path.name for path in (*headers, import_library) if not path.is_file()]
    if missing:
        raise ToolkitMissingError(
            f"the simulated GPU needs files of CUDA for Windows, but {', '.join(missing)} is not there",
            remedy="run nox -s build_cuda_wheel on Windows, or unpack NVIDIA's wheels for Windows",
        )
    folder.mkdir(parents=True, exist_ok=True)
    options = ("-shared", "-O1", "-static", *simulated_device.WARNINGS, "-isystem", str(include), f"-I{folder}")
    files: list[Path] = []
    for double in simulated_device.doubles(major):
        sources = [simulated_device.SOURCES / name for name in double.sources]
        names = [*double.exported, *(f"{alias}={name}" for alias, name in double.aliases)]
        if major >= FROM_THE_DRIVER_SINCE and double.name == "cuda":
            sources.append(simulated_device.SOURCES / "windows_driver.c")
            names += ("cuGetExportTable", "cuGetProcAddress=cuGetProcAddress_v1", "cuGetProcAddress_v2")
        if major >= FROM_THE_DRIVER_SINCE and double.name == "cudart":
            sources.append(simulated_device.SOURCES / "windows_runtime.c")
            names.append("__cudaGetProcAddress")
            _write_numbers(folder / "function_numbers.h", double, import_library)
        definition = folder / f"{double.name}.def"
        definition.write_text("".join(f"{line}\n" for line in ("EXPORTS", *names)), encoding="utf-8")
        target = folder / double.dll
        inputs = map(str, (*sources, definition, *files[:1]))  # the driver's double contains the state
        simulated_device.compile_double((cc, *options, *inputs, "-o", str(target)), log)
        files.append(target)
    nothing = folder / "nothing.c"
    nothing.write_text("int simulated_nothing;\n", encoding="utf-8")
    simulated_device.compile_double((cc, "-shared", str(nothing), "-o", str(folder / UNCALLED.format(major))), log)
    return libraries(folder, major)


def libraries(folder: Path, major: int) -> SimulatedLibraries:
    """The doubles that ``build`` made in ``folder``, perhaps on another machine."""
    names = (*(double.dll for double in simulated_device.doubles(major)), UNCALLED.format(major))
    files = tuple(folder / name for name in names)
    return simulated_device.SimulatedLibraries(files=files, major=major, preload=PRELOAD, separator=";")


def let_preload(site_packages: Path) -> None:
    """Have the Python of these ``site_packages`` load the doubles that ``environment()`` names."""
    (site_packages / "simulated_device.pth").write_text(PRELOADING, encoding="utf-8")


def _write_numbers(header: Path, double: Double, import_library: Path) -> None:
    numbers = function_numbers.read(import_library.read_bytes())
    known = sorted(name for name in double.exported if name in numbers)
    declarations = "\n".join(f"void {name}(void);" for name in known)
    rows = "\n".join(f"    {{{numbers[name]}, {name}}}," for name in known)
    header.write_text(_NUMBERS.format(declarations=declarations, rows=rows), encoding="utf-8")
