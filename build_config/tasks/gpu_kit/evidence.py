"""The report of a kit as frozen types, and the checks that it is whole and unchanged."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from build_config.errors import StepResultError, VerificationError
from build_config.model import Driver, GpuDevice, Machine
from build_config.system import jsonio
from build_config.system.machine import parse_cpu_model
from build_config.system.processes import Command, Completed
from build_config.tasks.gpu_kit import run
from build_config.tasks.gpu_kit.contents import BENCH, SCHEMA, BenchModel
from check_gpu.facts import SIMULATED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "report.json"
AGAIN = "run the kit again: python FOLDER/run.py --out REPORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A process: its status (``None`` if it was stopped after its time), the end of its output, and its result."""

    status: int | None
    seconds: float
    output: str
    result: Any = None

    @property
    def completed(self) -> Completed:
        """The same as for a process of this machine. One that was stopped was killed."""
        status = -9 if self.status is None else self.status
        return Completed(command=Command(argv=()), returncode=status, output=self.output, seconds=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRan(Ran):
    """A process of the probe, whose result is a list with an entry for each of these ``scenarios``.

    ``planted`` are libraries that it loaded from the current directory.
    """

    scenarios: tuple[str, ...]
    planted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRan(Ran):
    """A measuring process on ``cpu`` or ``gpu``."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the run; ``failed`` says why it did not pass."""

    failed: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The machine, as the kit described it. ``threads`` are the physical cores that the run could use."""

    system: str
    cpuinfo: str
    cores: int
    threads: int
    glibc: str
    python: str
    numpy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The results of the processes."""

    check_gpu: Ran | None = None
    scenarios: tuple[ProbeRan, ...] = ()
    comparison: dict[str, Ran] = field(default_factory=dict)
    bench: tuple[BenchRan, ...] = ()
    tests: Ran | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """The report. ``scripts`` are the digests of the scripts that wrote it, ``sha256`` that of everything else."""

    schema: int
    project: str
    wheel: dict[str, str]
    scripts: dict[str, str]
    started: str
    bench_model: BenchModel
    machine: Surroundings
    parts: dict[str, Part]
    evidence: Evidence
    interrupted: bool
    sha256: str

    @property
    def described_machine(self) -> Machine:
        """The machine, with the GPUs that CUDA shows to a process."""
        here = self.machine
        driver = self.driver
        return Machine(
            system=here.system,
            cpu=parse_cpu_model(here.cpuinfo) or here.system,
            cores=here.cores,
            glibc=here.glibc,
            driver=Driver(version=driver.get("version") or "unknown", cuda=driver.get("cuda") or "unknown"),
            gpus=tuple(jsonio.from_data(device, GpuDevice) for device in driver.get("devices", ())),
        )

    @property
    def driver(self) -> dict[str, Any]:
        """The driver's answers; empty if it was not asked."""
        ran = self.evidence.check_gpu
        found = (ran.result or {}).get("driver") if ran is not None else None
        return dict(found or {})

    @property
    def left_out(self) -> frozenset[int]:
        """The indices of the GPUs that the wheel did not use in the first scenario: it has no code for them."""
        results = self.evidence.scenarios[0].result if self.evidence.scenarios else None
        status = (results or [{}])[0].get("cuda_status") or {}
        return frozenset(gpu["index"] for gpu in status.get("left_out", ()))


def read(folder: Path, scripts: dict[str, str]) -> GpuReport:
    """Read the report in ``folder``, which a kit with these ``scripts`` must have written.

    Raises ``VerificationError`` if it was changed, is incomplete, comes from a kit of another version, or is about a
    simulated GPU.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        report = jsonio.from_data(data, GpuReport)
        said = data.pop("sha256")
    except (OSError, *jsonio.NOT_JSON, StepResultError) as error:
        raise VerificationError(f"{path} is not the report of a GPU kit: {error}", remedy=AGAIN) from error
    if said != hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest():
        raise VerificationError(f"{path} was changed after it was written: its digest differs", remedy=AGAIN)
    if SIMULATED in json.dumps([report.driver, data["evidence"]]):
        message = f"{path} is about a simulated GPU, which never gives gpu-verified"
        raise VerificationError(message, remedy="run the kit on a machine with a GPU")
    if (report.schema, report.scripts) != (SCHEMA, scripts):
        changed = sorted(name for name, digest in report.scripts.items() if scripts.get(name) != digest)
        raise VerificationError(
            f"{path} was written by the kit of {report.project}; here other scripts belong to it: {', '.join(changed)}",
            remedy="check out that commit, or make the kit again: nox -s gpu_kit",
        )
    if missing := [*_missing(report)]:
        raise VerificationError(f"{path} is incomplete: {'; '.join(missing)}", remedy=AGAIN)
    return report


def _missing(report: GpuReport) -> Iterator[str]:
    """List the parts that this report lacks; the scenarios and devices are those of the judgement."""
    if report.interrupted:
        yield "the run was stopped"
    if absent := run.PARTS.keys() - report.parts.keys():
        yield f"{', '.join(sorted(absent))} did not run"
    evidence = report.evidence
    for name, ran in (("check_gpu", evidence.check_gpu), ("tests", evidence.tests)):
        if ran is None:
            yield f"there is no result of {name}"
    for device in ("cpu", "gpu"):
        if sum(one.device == device for one in evidence.bench) != BENCH["rounds"]:
            yield f"the speed of the {device} was not measured {BENCH['rounds']} times"
