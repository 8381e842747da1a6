"""A simulated device: doubles of CUDA's libraries with which a wheel's real CUDA backend comes up without a card.

``README.md`` beside this file says what that proves and what it does not. What comes of it is never called a card.
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
    from collections.abc import Iterator

SOURCES = Path(__file__).parent
MAJORS = (11, 12, 13)
"""Versions of CUDA whose libraries can be doubled."""
HEADERS = {"cuda": "cuda.h", "cudart": "cuda_runtime_api.h", "cublas": "cublas_v2.h"}
LIBRARIES = tuple(HEADERS)
"""What can be doubled: the driver's library, the runtime, cuBLAS."""

_CAPABILITY = re.compile(r"[1-9][0-9]?\.[0-9]")
_WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedMachine:
    """What the doubles pretend: ``capabilities`` one a device (``8.9``), ``memory`` bytes of each, a fault or none.

    ``fault`` is a key of ``FAULTS``; ``argument`` is what it takes (bytes for ``out-of-memory``).
    """

    capabilities: tuple[str, ...] = ("8.9",)
    memory: int = DEFAULT_MEMORY
    fault: str | None = None
    argument: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        wrong = [capability for capability in self.capabilities if not _CAPABILITY.fullmatch(capability)]
        if wrong or not self.capabilities:
            raise ValidationError(
                f"{', '.join(wrong) or 'nothing'} cannot be simulated", remedy="pass a compute capability such as 8.9"
            )
        if self.fault is not None and self.fault not in FAULTS:
            known = ", ".join(FAULTS)
            raise ValidationError(f"there is no simulated fault {self.fault}", remedy=f"pass one of {known}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLibraries:
    """The compiled doubles, in the order in which a process has to load them."""

    files: tuple[Path, ...]
    major: int

    def environment(self, machine: SimulatedMachine, *, report: Path | None = None) -> dict[str, str]:
        """The variables that put a process onto ``machine``.

        The doubles are loaded first, so that their names are taken before anyone looks for NVIDIA's libraries. The
        process leaves ``report`` behind when it ends by itself.
        """
        fault = machine.fault or ""
        if machine.argument is not None:
            fault += f":{machine.argument}"
        return {
            "LD_PRELOAD": ":".join(map(str, self.files)),
            "SIMULATED_DEVICES": ",".join(machine.capabilities),
            "SIMULATED_MEMORY": str(machine.memory),
            "SIMULATED_FAULT": fault,
            **({"SIMULATED_REPORT": str(report)} if report is not None else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDeviceUse:
    """What one device was used for. In bytes."""

    capability: str
    peak_bytes: int
    leaked_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedUse:
    """What the doubles counted in a process that ended by itself.

    ``leaked`` counts objects that were still there; ``counts["refused"]`` are calls that a card would have refused too.
    """

    devices: tuple[SimulatedDeviceUse, ...]
    counts: dict[str, int]
    leaked: dict[str, int]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was left behind and nothing was refused."""
        return not (
            any(device.leaked_bytes for device in self.devices) or any(self.leaked.values()) or self.counts["refused"]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Double:
    """One library: its short name, its soname, the names that it exports, and names that the linker makes of others."""

    name: str
    source: str
    soname: str
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
) -> SimulatedLibraries:
    """Compile the doubles for a CUDA major version into ``folder``, against the headers of a toolkit of that version.

    ``libraries`` are those of ``LIBRARIES`` that are wanted; the first is what the others stand on.

    Raises ``ToolkitMissingError`` where the headers are not there, ``ValidationError`` where they do not compile.
    """
    missing = [HEADERS[name] for name in libraries if not (include / HEADERS[name]).is_file()]
    if missing:
        raise ToolkitMissingError(
            f"a simulated device needs CUDA's headers, and {', '.join(missing)} is not in {include}",
            remedy="nox -s build_cuda_wheel fetches the locked toolkit",
        )
    if any(character in str(folder) for character in " :"):
        raise ValidationError(f"{folder}: LD_PRELOAD takes no path with a blank or a colon", remedy="set TMPDIR")
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for double in (double for double in _doubles(major) if double.name in libraries):
        target = folder / double.soname
        script = folder / f"{double.soname}.map"
        script.write_text(_version_script(double), encoding="utf-8")
        aliases = [f"-Wl,--defsym,{alias}={name}" for alias, name in double.aliases]
        command = Command(
            argv=(
                *(cc, "-shared", "-fPIC", "-O1", "-pthread", *_WARNINGS),
                *("-isystem", str(include), str(SOURCES / double.source), "-o", str(target)),
                *(f"-Wl,-soname,{double.soname}", f"-Wl,--version-script,{script}", "-Wl,--no-undefined", *aliases),
                *map(str, files[:1]),  # the driver's double holds the state
            ),
            log=log,
        )
        try:
            run(command, timeout=120)
        except CommandError as error:
            raise ValidationError(f"the simulated device does not compile: {error.message}", log=log) from error
        files.append(target)
    return SimulatedLibraries(files=tuple(files), major=major)


def lacking(library: bytes, major: int) -> tuple[str, ...]:
    """Functions of CUDA that a shared library asks for and the doubles do not have, in order of name."""
    has = {name for double in _doubles(major) for name in (*double.exported, *dict(double.aliases))}
    return tuple(sorted(name for name in _asked_for(library) if name not in has))


def read_report(path: Path) -> SimulatedUse | None:
    """What a process left behind; ``None`` where it did not end by itself."""
    with contextlib.suppress(StepResultError):
        return jsonio.read(path, SimulatedUse)
    return None


@functools.cache
def _doubles(major: int) -> tuple[_Double, ...]:
    if major not in MAJORS:
        raise ValidationError(
            f"there is no simulated device for CUDA {major}", remedy=f"for CUDA {', '.join(map(str, MAJORS))} there is"
        )
    table = tomllib.loads((SOURCES / "functions.toml").read_text(encoding="utf-8"))
    doubles = []
    for name, entry in table.items():
        names = [*entry["functions"]]
        for since in MAJORS:
            if since <= major:
                names += entry.get(f"since.{since}", ())
        renamed = {**entry.get("renamed", {}), **entry.get(f"renamed.{major}", {})}
        soname = entry["soname"][str(major)]
        doubles.append(
            _Double(
                name=name,
                source=entry["source"],
                soname=soname,
                version=soname if entry["versioned"] else None,
                exported=tuple(renamed.get(function, function) for function in names),
                aliases=tuple(entry.get("aliases", {}).items()),
            )
        )
    return tuple(doubles)


def _version_script(double: _Double) -> str:
    names = "\n".join(f"    {name};" for name in (*double.exported, *dict(double.aliases)))
    return f"{double.version or ''} {{\n  global:\n{names}\n  local: *;\n}};\n"


def _asked_for(library: bytes) -> Iterator[str]:
    symbols = ELFFile(io.BytesIO(library)).get_section_by_name(".dynsym")
    if not isinstance(symbols, SymbolTableSection):
        return
    for symbol in symbols.iter_symbols():
        if symbol["st_shndx"] == "SHN_UNDEF" and re.match(r"(__)?cu(da|blas)?[A-Z]|__cuda[A-Z]", symbol.name):
            yield symbol.name
