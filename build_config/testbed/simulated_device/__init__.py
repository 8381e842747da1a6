"""A simulated GPU: doubles of CUDA's libraries with which a wheel's real CUDA backend loads on a machine without one.

``README.md`` in this folder says what that proves and what not. It is never reported as a real GPU.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from build_config.errors import CommandError, StepResultError, ToolkitMissingError, ValidationError
from build_config.system import jsonio
from build_config.system.processes import Command, run
from build_config.testbed.simulation_options import DEFAULT_MEMORY, FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCES = Path(__file__).parent
MAJORS = (11, 12, 13)
"""Major versions of CUDA whose libraries can be simulated."""
HEADERS = {"cuda": "cuda.h", "cudart": "cuda_runtime_api.h", "cublas": "cublas_v2.h"}
LIBRARIES = tuple(HEADERS)
"""The libraries that can be simulated: the driver's, the runtime, cuBLAS."""

_CAPABILITY = re.compile(r"[1-9][0-9]?\.[0-9]")
WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror")
"""Options with which every double is compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedMachine:
    """The machine that the doubles simulate.

    ``capabilities`` has one entry for each device (``8.9``), each with ``memory`` bytes. ``fault`` is a key of
    ``FAULTS`` or ``None``; ``argument`` is its argument (bytes for ``out-of-memory``).
    """

    capabilities: tuple[str, ...] = ("8.9",)
    memory: int = DEFAULT_MEMORY
    fault: str | None = None
    argument: int | None = None

    def __post_init__(self) -> None:
        """Raise ``ValidationError`` for a capability or a fault that cannot be simulated."""
        wrong = [capability for capability in self.capabilities if not _CAPABILITY.fullmatch(capability)]
        if wrong or not self.capabilities:
            raise ValidationError(
                f"{', '.join(wrong) or 'nothing'} cannot be simulated", remedy="pass a compute capability such as 8.9"
            )
        if self.fault is not None and self.fault not in FAULTS:
            known = ", ".join(FAULTS)
            raise ValidationError(f"{self.fault} is not a simulated fault", remedy=f"pass one of {known}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLibraries:
    """The compiled doubles, in the order in which a process must load them.

    ``preload`` is the name of the variable that lists them, and ``separator`` stands between two of them.
    """

    files: tuple[Path, ...]
    major: int
    preload: str = "LD_PRELOAD"
    separator: str = ":"

    def environment(self, machine: SimulatedMachine, *, report: Path | None = None) -> dict[str, str]:
        """The variables with which a process runs on ``machine``.

        The doubles are loaded first, so their names are taken before the process searches for NVIDIA's libraries. It
        writes ``report`` if it ends by itself.
        """
        fault = machine.fault or ""
        if machine.argument is not None:
            fault += f":{machine.argument}"
        return {
            self.preload: self.separator.join(map(str, self.files)),
            "SIMULATED_DEVICES": ",".join(machine.capabilities),
            "SIMULATED_MEMORY": str(machine.memory),
            "SIMULATED_FAULT": fault,
            **({"SIMULATED_REPORT": str(report)} if report is not None else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDeviceUse:
    """The use of one device, in bytes."""

    capability: str
    peak_bytes: int
    leaked_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedUse:
    """The counters of the doubles in a process that ended by itself.

    ``leaked`` counts objects that existed at exit; ``counts["refused"]`` are calls that a real GPU would refuse, too.
    """

    devices: tuple[SimulatedDeviceUse, ...]
    counts: dict[str, int]
    leaked: dict[str, int]

    @property
    def is_clean(self) -> bool:
        """Whether nothing leaked and no call was refused."""
        return not (
            any(device.leaked_bytes for device in self.devices) or any(self.leaked.values()) or self.counts["refused"]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Double:
    """One library: its short name, its soname, the names that it exports, and aliases that the linker adds.

    ``dll`` is its name on Windows.
    """

    name: str
    sources: tuple[str, ...]
    soname: str
    dll: str
    version: str | None
    exported: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]


def build(
    folder: Path,
    *,
    include: Path,
    major: int,
    cc: str = "gcc",
    log: Path | None = None,
    libraries: tuple[str, ...] = LIBRARIES,
    replaced: Mapping[str, tuple[Path, ...]] | None = None,
) -> SimulatedLibraries:
    """Compile the doubles for a CUDA major version into ``folder``, with the headers of a toolkit of that version.

    ``libraries`` are the wanted ones of ``LIBRARIES``; the others depend on the first. ``replaced`` are the sources
    that take the place of a double's file, by that file's name: with them kernels and cuBLAS compute.

    Raises ``ToolkitMissingError`` if headers are missing, ``ValidationError`` if the doubles do not compile.
    """
    missing = [HEADERS[name] for name in libraries if not (include / HEADERS[name]).is_file()]
    if missing:
        raise ToolkitMissingError(
            f"the simulated GPU needs CUDA's headers, but {', '.join(missing)} is not in {include}",
            remedy="run nox -s build_cuda_wheel, which downloads the locked toolkit",
        )
    if any(character in str(folder) for character in " :"):
        raise ValidationError(f"{folder}: LD_PRELOAD accepts no path with a space or a colon", remedy="set TMPDIR")
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    replaced = replaced or {}
    for double in (double for double in doubles(major) if double.name in libraries):
        target = folder / double.soname
        sources = [part for name in double.sources for part in replaced.get(name, (SOURCES / name,))]
        script = folder / f"{double.soname}.map"
        script.write_text(_version_script(double), encoding="utf-8")
        # A source that takes the place of an alias's function defines the names itself.
        aliases = [f"-Wl,--defsym,{alias}={name}" for alias, name in double.aliases if f"{name}.c" not in replaced]
        argv = (
            *(cc, "-shared", "-fPIC", "-O2", "-pthread", *WARNINGS),
            *("-isystem", str(include), "-I", str(SOURCES), *map(str, sources), "-o", str(target)),
            *(f"-Wl,-soname,{double.soname}", f"-Wl,--version-script,{script}", "-Wl,--no-undefined", *aliases),
            *map(str, files[:1]),  # the driver's double contains the state
        )
        compile_double(argv, log)
        files.append(target)
    return SimulatedLibraries(files=tuple(files), major=major)


def compile_double(argv: tuple[str, ...], log: Path | None) -> None:
    """Run a compiler. Raises ``ValidationError`` with what it says."""
    try:
        run(Command(argv=argv, log=log), timeout=120)
    except CommandError as error:
        raise ValidationError(f"the simulated GPU does not compile: {error.message}", log=log) from error


def uuid(index: int) -> str:
    """The UUID of a simulated device, a name for ``CUDA_VISIBLE_DEVICES``; ``index`` counts from 0."""
    return f"GPU-{index + 1:08x}-51ed-51ed-51ed-51edde71ce00"


def lacking(library: bytes, major: int) -> tuple[str, ...]:
    """The functions of CUDA that a shared library needs and the doubles lack, sorted by name."""
    has = {name for double in doubles(major) for name in (*double.exported, *dict(double.aliases))}
    return tuple(sorted(name for name in _needed_by(library) if name not in has))


def read_report(path: Path) -> SimulatedUse | None:
    """Read the report of a process; ``None`` if it did not end by itself."""
    with contextlib.suppress(StepResultError):
        return jsonio.read(path, SimulatedUse)
    return None


@functools.cache
def doubles(major: int) -> tuple[Double, ...]:
    """The libraries of a major version, in the order of loading. Raises ``ValidationError`` for an unknown version."""
    if major not in MAJORS:
        raise ValidationError(
            f"there is no simulated GPU for CUDA {major}", remedy=f"use CUDA {', '.join(map(str, MAJORS))}"
        )
    table = tomllib.loads((SOURCES / "functions.toml").read_text(encoding="utf-8"))
    found = []
    for name, entry in table.items():
        names = [*entry["functions"]]
        for since in MAJORS:
            if since <= major:
                names += entry.get(f"since.{since}", ())
        renamed = {**entry.get("renamed", {}), **entry.get(f"renamed.{major}", {})}
        soname = entry["soname"][str(major)]
        found.append(
            Double(
                name=name,
                sources=tuple(entry["sources"]),
                soname=soname,
                dll=entry["dll"][str(major)],
                version=soname if entry["versioned"] else None,
                exported=tuple(renamed.get(function, function) for function in names),
                aliases=tuple(entry.get("aliases", {}).items()),
            )
        )
    return tuple(found)


def _version_script(double: Double) -> str:
    names = "\n".join(f"    {name};" for name in (*double.exported, *dict(double.aliases)))
    return f"{double.version or ''} {{\n  global:\n{names}\n  local: *;\n}};\n"


def _needed_by(library: bytes) -> Iterator[str]:
    symbols = ELFFile(io.BytesIO(library)).get_section_by_name(".dynsym")
    if not isinstance(symbols, SymbolTableSection):
        return
    for symbol in symbols.iter_symbols():
        if symbol["st_shndx"] == "SHN_UNDEF" and re.match(r"(__)?cu(da|blas)?[A-Z]|__cuda[A-Z]", symbol.name):
            yield symbol.name
