"""Frozen types of what was found out about a wheel, and the record that contains all of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from build_config.model import CudaArch, Machine, Shard, UnitKey
from check_gpu.placement import Buffer, LayerPlacement


class Severity(StrEnum):
    """How bad a finding is. Any ``error`` keeps a wheel from being published."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem or fact that inspection or validation found. ``code`` is stable, like ``rpath-outside``."""

    code: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionReport:
    """All findings about the wheel with this digest. ``checks`` names every check that ran."""

    wheel_sha256: str
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether checks ran and no finding is an error."""
        return bool(self.checks) and all(f.severity is not Severity.ERROR for f in self.findings)


class Verdict(StrEnum):
    """Where the layers were seen to run, the strongest first; ``VERDICT_MEANINGS`` says what each means."""

    GPU_VERIFIED = "gpu-verified"
    EMULATED_DEVICE_VERIFIED = "emulated-device-verified"
    SIMULATED_DEVICE_VERIFIED = "simulated-device-verified"
    CPU_FALLBACK_VERIFIED = "cpu-fallback-verified"
    FAILED = "failed"


VERDICT_MEANINGS = {
    Verdict.GPU_VERIFIED: "a real GPU ran every layer, and its results agreed with the CPU's",
    Verdict.EMULATED_DEVICE_VERIFIED: "the wheel's host code and the PTX behind its cubins computed the right numbers "
    "on a CPU; no GPU took part",
    Verdict.SIMULATED_DEVICE_VERIFIED: "no GPU: the CUDA backend ran on a simulated GPU, where kernels do nothing",
    Verdict.CPU_FALLBACK_VERIFIED: "the CUDA backend was not in use",
    Verdict.FAILED: "a scenario did not end as expected",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """The result of one scenario.

    ``shows`` is what a pass means. ``simulated`` are the compute capabilities of simulated GPUs; it is empty on the
    machine's own GPUs. ``shard`` and ``cpu_variant`` are the backends in use. ``text`` is what the tiny random model
    generated: noise, kept to show that it ran. ``launches`` are kernels counted by a simulated GPU, in the whole
    process. ``said`` is the sentence that a user sees if CUDA is not in use, or the end of the error's output.
    """

    name: str
    shows: str
    simulated: tuple[str, ...]
    shard: str | None
    cpu_variant: str | None
    placements: tuple[LayerPlacement, ...]
    offloaded: tuple[int, int] | None
    buffers: tuple[Buffer, ...]
    launches: int | None
    tokens: int
    text: str
    said: str | None
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the result is as expected."""
        return not self.findings

    @property
    def on_gpu(self) -> bool:
        """Whether every layer was on a GPU, real or simulated."""
        return bool(self.placements) and all((each.weights or "").startswith("CUDA") for each in self.placements)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCheck:
    """One judged comparison of what a GPU computed with the CPU.

    ``measured`` is in ``unit``, or ``None`` if there is no value; ``bound`` may be reached. The unit is ``NMSE``,
    ``tokens`` that differ, or ``bytes``. ``reason`` is set if the check did not pass.
    """

    name: str
    unit: str
    measured: float | None
    bound: float
    passed: bool
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedCheck:
    """One comparison of an emulated GPU with the CPU: the model, its type of weights, the words for the prompt."""

    model: str
    kind: str
    prompt: str
    check: DeviceCheck
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedKernel:
    """A kernel of the wheel that was executed from its PTX.

    ``identical``: ptxas turns that PTX, of the file ``source``, into the cubin that is in the wheel. ``executed`` of
    ``basic_blocks`` were run by some thread.
    """

    name: str
    source: str
    identical: bool
    launches: int
    executed: int
    basic_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulationReport:
    """What a wheel computed on an emulated GPU that runs code for ``arch`` (``sm_89``).

    ``kernels_in_shard`` counts all kernels for that architecture, ``refused`` are reasons why one has no translation.
    ``cublas_calls`` were computed by plain loops. ``misused`` counts calls that a real GPU would refuse, and objects
    that were not freed. ``seconds`` is wall time, ``memory`` the largest process in bytes.
    """

    wheel_sha256: str
    arch: str
    checks: tuple[EmulatedCheck, ...]
    kernels: tuple[EmulatedKernel, ...]
    kernels_in_shard: int
    refused: tuple[str, ...]
    cublas_calls: int
    graph_launches: int
    misused: int
    seconds: float
    memory: int

    def problems(self) -> tuple[str, ...]:
        """Why it did not pass; empty if it did: right numbers, by kernels that are the wheel's."""
        return (*self.wrong(), *self.unknown())

    def wrong(self) -> tuple[str, ...]:
        """What the wheel did wrong. A check that ended because a kernel was refused says nothing about the wheel."""
        names = [reason.partition(":")[0] for reason in self.refused]
        nothing = () if self.checks and (self.kernels or names) else ("no kernel was executed",)
        wrong = (
            f"{one.model} {one.kind}, {one.prompt}: {one.check.reason}"
            for one in self.checks
            if not one.check.passed and not any(name in (one.check.reason or "") for name in names)
        )
        misused = (f"{self.misused} calls were refused or objects not freed",) if self.misused else ()
        return (*nothing, *wrong, *misused)

    def unknown(self) -> tuple[str, ...]:
        """Why it does not say enough about the wheel: kernels that were refused, or that are not the wheel's."""
        others = (f"{one.name}: its PTX is not that of the wheel's cubin" for one in self.kernels if not one.identical)
        return (*others, *self.refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """The results of installing and using the wheel.

    ``decisive`` names the scenario on which the verdict is based. ``device_checks`` come from real GPUs and are empty
    without one. ``findings`` are those that belong to no scenario. ``emulation`` is there if kernels ran on an emulated
    GPU.
    """

    wheel_sha256: str
    verdict: Verdict
    machine: Machine
    scenarios: tuple[ScenarioResult, ...]
    decisive: str | None
    device_checks: tuple[DeviceCheck, ...]
    findings: tuple[Finding, ...]
    seconds: float
    emulation: EmulationReport | None = None

    @property
    def lacks_numbers(self) -> bool:
        """Whether it passed without a comparison of what kernels compute: an emulation shows more."""
        return self.verdict in {Verdict.SIMULATED_DEVICE_VERIFIED, Verdict.CPU_FALLBACK_VERIFIED}

    def with_emulation(self, report: EmulationReport) -> ValidationReport:
        """The same with an emulation that passed, and its verdict unless a real GPU showed more."""
        verdict = Verdict.EMULATED_DEVICE_VERIFIED if self.lacks_numbers else self.verdict
        return dataclasses.replace(self, verdict=verdict, emulation=report)

    def all_findings(self) -> tuple[Finding, ...]:
        """All findings; those of a scenario begin with its name."""
        of_scenarios = (
            Finding(code=finding.code, severity=finding.severity, message=f"{scenario.name}: {finding.message}")
            for scenario in self.scenarios
            for finding in scenario.findings
        )
        return (*self.findings, *of_scenarios)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTiming:
    """Wall seconds of one step."""

    step: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """An input of a wheel: something that it was made of or with.

    ``digests`` are pairs of algorithm and hexadecimal digits: ``sha256`` of a locked file, ``gitCommit`` of a tree.
    ``annotations`` are further properties that identify it, each a name and its values.
    """

    name: str
    uri: str | None
    digests: tuple[tuple[str, str], ...]
    annotations: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWheel:
    """The wheel that a variant wheel was made of, and the digest of its record."""

    wheel: str
    sha256: str
    record_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """Everything that went into a wheel and everything found about it; published next to it.

    ``request`` is what the user asked for, as pairs. ``started`` and ``created`` are times in UTC, RFC 3339. The record
    of a variant wheel is that of its source wheel, which ``variant_of`` names, for other bytes.
    """

    wheel: str
    version: str
    sha256: str
    size: int
    started: str
    created: str
    pipeline: str
    request: tuple[tuple[str, str], ...]
    materials: tuple[Material, ...]
    sources_locked: bool
    llama_cpp_commit: str
    locks: tuple[tuple[str, str], ...]
    toolchain: tuple[tuple[str, str], ...]
    units: tuple[UnitKey, ...]
    shards: tuple[Shard, ...]
    steps: tuple[StepTiming, ...]
    inspection: InspectionReport
    validation: ValidationReport
    variant_of: SourceWheel | None = None

    @property
    def archs(self) -> tuple[CudaArch, ...]:
        """The code of all shards."""
        return tuple(arch for shard in self.shards for arch in shard.archs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One condition that differed between two builds and must not matter."""

    what: str
    first: str
    second: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One file of two builds. ``second`` is ``None`` if the second build has no file of that name."""

    name: str
    first: str
    second: str | None

    @property
    def equal(self) -> bool:
        """Whether both have the same SHA-256."""
        return self.first == self.second


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproductionReport:
    """The result of a second build. ``compared`` are the wheel, or the libraries of the units that were asked for.

    ``host_compiler`` is the identity of the compiler of both builds: with another one the bytes may differ. ``why``
    describes the differences, and is empty without any. ``seconds`` is the wall time of the second build.
    """

    subject: str
    launcher: str
    compared: tuple[Compared, ...]
    varied: tuple[Variation, ...]
    host_compiler: str
    machine: Machine
    why: tuple[str, ...]
    created: str
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether files were compared and all are the same."""
        return bool(self.compared) and all(one.equal for one in self.compared)
