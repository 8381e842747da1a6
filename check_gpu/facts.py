"""What was seen of a machine, an installation and one load of a model: frozen, so that any situation can be a test."""

from __future__ import annotations

from dataclasses import dataclass, field

from check_gpu import coverage
from check_gpu.log import Signs

SIMULATED = "SIMULATED"
"""In the name of a device that is no card: a double of the driver, for tests on machines without one."""


@dataclass(frozen=True)
class Machine:
    """Where this runs.

    ``system`` is ``sys.platform``, ``distribution`` the ``ID`` of ``/etc/os-release``. ``wsl_driver``: Windows has put
    its driver where WSL keeps it, found by the loader or not. ``container`` names what gave it away. ``card_on_bus``:
    whether the machine has an NVIDIA card at all, driver or not; ``None`` where that cannot
    be seen. ``variables`` are those of the environment that decide which card or library is found, with their values.
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
    """A device as the driver shows it to a process. ``capability`` is like ``8.9``, ``memory`` is in bytes."""

    index: int
    name: str
    capability: str
    memory: int

    @property
    def simulated(self) -> bool:
        """Whether it is a double and no card."""
        return SIMULATED in self.name


@dataclass(frozen=True)
class Driver:
    """What the driver says of itself.

    ``problem``: why it cannot be loaded. ``failure``: it is there, and crashed or hung. ``version`` is like
    ``580.65.06``, ``cuda`` the newest CUDA that it runs (``13.0``), ``error`` what ``cuInit`` or the count of devices
    returned. ``devices`` are those that a process of CUDA sees, ``cards`` the names of all that the driver manages,
    whatever the environment hides; ``None`` where NVML could not be asked.
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
        """The CUDA major version that it runs; 0 when it did not say."""
        return int((self.cuda or "0").split(".")[0])


@dataclass(frozen=True)
class CudaLibrary:
    """A library of the installation with CUDA code in it, or with a need for CUDA's libraries.

    ``code`` is like ``("89-real", "90-virtual")``, ``search`` are the folders that it names for its needs; ``problem``
    is why it could not be read.
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
class Needed:
    """A shared library that CUDA code needs. ``error`` is what the loader said, ``None`` when it is found."""

    soname: str
    path: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Own:
    """What a wheel of this project says of itself in ``_cuda_build.json``."""

    cuda: str
    oldest_driver: str
    libraries: tuple[str, ...]
    build_command: str


@dataclass(frozen=True)
class Installation:
    """An installed llama-cpp-python, seen without importing it.

    ``package`` is the folder of ``llama_cpp``; ``None`` when there is none. ``error``: the interpreter could not be
    asked. ``site`` is where pip installs to. ``libraries`` are all shared libraries of llama.cpp by name, ``cuda``
    those with CUDA. ``backend_error`` is what the loader said to the library with the CUDA code, after its needs were
    loaded.
    """

    python: str
    python_version: str = ""
    package: str | None = None
    distribution: str | None = None
    version: str | None = None
    site: str = ""
    own: Own | None = None
    libraries: tuple[str, ...] = ()
    cuda: tuple[CudaLibrary, ...] = ()
    needed: tuple[Needed, ...] = ()
    backend_error: str | None = None
    error: str | None = None

    @property
    def code(self) -> tuple[str, ...]:
        """All CUDA code that it carries, each architecture once."""
        return tuple(sorted({arch for library in self.cuda for arch in library.code}, key=coverage.order))

    @property
    def cuda_version(self) -> str | None:
        """The CUDA that it was built with: ``13.0``, or only ``13`` as read from the names of the libraries."""
        if self.own:
            return self.own.cuda
        return coverage.cuda_major(soname for library in self.cuda for soname in library.needs)


@dataclass(frozen=True)
class Load:
    """One model load in a process of its own.

    ``stage`` is how far it came: ``start``, ``import``, ``load``, ``generate``, ``done``. ``ended`` says in plain words
    how the process ended when it did not do so by itself, ``signal`` by which signal. ``status_reason`` is what
    ``llama_cpp.cuda_status()`` says, which only wheels of this project have. ``log`` are the lines of llama.cpp's log
    and whatever else the process printed.
    """

    n_gpu_layers: int | None
    model: str
    stage: str = "start"
    error: str | None = None
    ended: str | None = None
    signal: str | None = None
    tokens: int = 0
    status_reason: str | None = None
    log: tuple[str, ...] = ()
    signs: Signs = field(default_factory=Signs)


@dataclass(frozen=True)
class Facts:
    """All that a diagnosis is made from. ``installation`` and ``driver`` are ``None`` where only a log was read."""

    machine: Machine
    installation: Installation | None = None
    driver: Driver | None = None
    load: Load | None = None
