"""Facts about a machine, an installation and one load of a model: frozen, so that any situation can be a test."""

from __future__ import annotations

from dataclasses import dataclass, field

from check_gpu import coverage, shell
from check_gpu.log import Signs

SIMULATED = "SIMULATED"
"""Part of the name of a device that is not a GPU but a simulated one, for tests on machines without a GPU."""


@dataclass(frozen=True)
class Machine:
    """The machine that runs the check.

    ``system`` is ``sys.platform``, ``distribution`` the ``ID`` of ``/etc/os-release``. ``wsl_driver``: Windows has put
    its driver into WSL's folder, whether or not the loader finds it there. ``container`` names the sign of a container.
    ``card_on_bus``: whether the machine has an NVIDIA GPU at all, with or without a driver; ``None`` if that cannot be
    seen. ``variables``: the environment variables, with values, that decide which GPU or library is found.
    """

    system: str
    distribution: str = ""
    wsl: bool = False
    wsl_driver: bool = False
    container: str | None = None
    card_on_bus: bool | None = None
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """A device that the driver shows to a process. ``capability`` is like ``8.9``, ``memory`` is in bytes."""

    index: int
    name: str
    capability: str
    memory: int

    @property
    def simulated(self) -> bool:
        """Whether it is simulated and not a GPU."""
        return SIMULATED in self.name


@dataclass(frozen=True)
class Driver:
    """The driver's answers.

    ``problem``: why it cannot be loaded. ``failure``: it is installed, but crashed or hung. ``version`` is like
    ``580.65.06``, ``cuda`` the newest CUDA that it supports (``13.0``), ``error`` the result of ``cuInit`` or of
    counting the devices. ``devices`` are those that a CUDA process sees, ``cards`` the names of all GPUs that the
    driver manages, whatever the environment hides; ``None`` if NVML could not be asked.
    """

    problem: str | None = None
    failure: str | None = None
    version: str | None = None
    cuda: str | None = None
    error: int = 0
    devices: tuple[Device, ...] = ()
    cards: tuple[str, ...] | None = None

    @property
    def major(self) -> int:
        """The CUDA major version that it supports; 0 if unknown."""
        return int((self.cuda or "0").split(".")[0])


@dataclass(frozen=True)
class CudaLibrary:
    """A library of the installation that contains CUDA code or needs CUDA's libraries.

    ``code`` is like ``("89-real", "90-virtual")``, ``search`` lists the folders to search for what it ``needs``;
    ``problem`` is why it could not be read.
    """

    file: str
    code: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    problem: str | None = None

    def covers(self, device: Device) -> bool:
        """Whether its code runs on ``device``."""
        return any(coverage.runs_on(arch, device.capability) for arch in self.code)


@dataclass(frozen=True)
class NeededLibrary:
    """A shared library that CUDA code needs. ``error`` is the loader's message, ``None`` if the library was found."""

    soname: str
    path: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class OwnBuild:
    """The description in a wheel of this project, ``_cuda_build.json``.

    ``leaves_out``: a shard uses the GPUs that it has code for; otherwise one without code makes it unfit for all.
    """

    cuda: str
    oldest_driver: str
    libraries: tuple[str, ...]
    build_command: str
    leaves_out: bool = False


@dataclass(frozen=True)
class Installation:
    """An installed llama-cpp-python, examined without importing it.

    ``package`` is the folder of ``llama_cpp``; ``None`` if it is not installed. ``error``: why the interpreter could
    not be examined. ``site`` is the folder into which pip installs, ``installer`` what can do
    that there (a constant of ``shell``). ``libraries`` are the names of all shared libraries
    of llama.cpp, ``cuda`` those with CUDA. ``backend_error`` is the loader's message about the library with the CUDA
    code, after the libraries that it needs were loaded.
    """

    python: str
    python_version: str = ""
    package: str | None = None
    distribution: str | None = None
    version: str | None = None
    site: str = ""
    installer: str = shell.PIP
    own: OwnBuild | None = None
    libraries: tuple[str, ...] = ()
    cuda: tuple[CudaLibrary, ...] = ()
    needed: tuple[NeededLibrary, ...] = ()
    backend_error: str | None = None
    error: str | None = None

    @property
    def code(self) -> tuple[str, ...]:
        """All CUDA code in it, each architecture once."""
        return tuple(sorted({arch for library in self.cuda for arch in library.code}, key=coverage.order))

    @property
    def cuda_version(self) -> str | None:
        """The CUDA version of the build: ``13.0``, or only ``13`` if read from the names of the libraries."""
        if self.own:
            return self.own.cuda
        return coverage.cuda_major(soname for library in self.cuda for soname in library.needs)


@dataclass(frozen=True)
class Load:
    """One model load, in a separate process or as told by a log.

    ``stage`` is how far it came: ``start``, ``import``, ``load``, ``generate``, ``done``; ``log`` if only a log was
    read. ``ended`` says in plain words how the process ended if not with status 0, ``signal`` by which signal.
    ``tokens`` were generated; a model without a cache computed an ``embedding`` of so many values instead.
    ``status_reason`` and ``status_note`` are those of ``llama_cpp.cuda_status()``, which only wheels of this project
    have. ``log`` contains the lines of llama.cpp's log and everything else that the process printed.
    """

    n_gpu_layers: int | None
    model: str
    stage: str = "start"
    error: str | None = None
    ended: str | None = None
    signal: str | None = None
    tokens: int = 0
    embedding: int = 0
    status_reason: str | None = None
    status_note: str | None = None
    log: tuple[str, ...] = ()
    signs: Signs = field(default_factory=Signs)


@dataclass(frozen=True)
class MappedModel:
    """A GGUF file of which a running program maps a part of ``mapped`` bytes.

    ``layers`` are its repeating layers, ``in_memory`` those of which a tensor is mapped, so that the CPU computes them
    or they are still being loaded. ``problem`` is why the file could not be read.
    """

    file: str
    size: int = 0
    mapped: int = 0
    layers: tuple[int, ...] = ()
    in_memory: tuple[int, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class GpuMemory:
    """The memory in bytes that a process holds on a GPU; ``None`` if the driver does not tell."""

    index: int
    name: str
    used: int | None


@dataclass(frozen=True)
class Running:
    """A running program, seen from outside.

    ``seen``: the files that it maps could be listed. ``libraries`` are the mapped ones of llama.cpp and CUDA,
    ``devices`` the driver's files that it has open. ``resident`` are its bytes in the memory of the machine, ``memory``
    those on the GPUs; ``None`` if that cannot be seen. ``variables`` are those with which it was started.
    ``shares_files``: its paths name the same files here. ``unseen`` lists what could not be seen, and why. ``ended``:
    it ended while it was examined.
    """

    pid: int
    program: str = ""
    executable: str = ""
    seen: bool = True
    libraries: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    models: tuple[MappedModel, ...] = ()
    resident: int | None = None
    memory: tuple[GpuMemory, ...] | None = None
    variables: dict[str, str] = field(default_factory=dict)
    shares_files: bool = True
    unseen: tuple[str, ...] = ()
    ended: bool = False


@dataclass(frozen=True)
class Facts:
    """Everything that a diagnosis needs. ``installation`` and ``driver`` are ``None`` if only a log was read.

    ``running`` is the program that was examined instead of a load.
    """

    machine: Machine
    installation: Installation | None = None
    driver: Driver | None = None
    load: Load | None = None
    running: Running | None = None
