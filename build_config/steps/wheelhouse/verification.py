"""Compare a wheel with the provenance next to it: read files, run nothing, and report all findings at once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.errors import PackagingError, StepResultError
from build_config.formats import wheelfile
from build_config.model import LockedFile
from build_config.reports import BuildRecord, Finding, Severity, Verdict
from build_config.steps.wheelhouse import publication, signature, statement
from build_config.steps.wheelhouse.signature import Keys, UnsignedError
from build_config.system import jsonio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OTHER_VERSION = "the record may be from another version of this project: check out the commit that it names"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a wheel and the files next to it are compared with: the locks of this checkout.

    ``unrelated_locks`` are the lock files that do not affect a wheel. ``keys`` is ``None`` if no signature is to be
    checked.
    """

    locks: tuple[tuple[str, str], ...]
    unrelated_locks: frozenset[str]
    locked_files: tuple[LockedFile, ...]
    keys: Keys | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of a verification. ``signed_by`` are the identifiers of the keys whose signatures were checked."""

    wheel: str
    sha256: str
    findings: tuple[Finding, ...]
    signed_by: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


def verify(path: Path, evidence: Evidence, *, about: Path | None = None) -> Verification:
    """Compare a wheel with its record, the record with the locks, and all of it with the statement and its signature.

    The files are those next to ``about``, by default to the wheel. Raises ``PackagingError`` if the wheel cannot be
    read or its name is not that of a wheel.
    """
    wheel = wheelfile.read_any(path)
    findings = list(_wheel_findings(path))
    about = about or path
    record_file, record, unreadable = _read_record(publication.record_path(about))
    findings += unreadable
    if record is not None:
        stated = (record.wheel, record.sha256, record.size, record.version)
        if stated != (path.name, wheel.sha256, wheel.size, str(wheel.version)):
            findings.append(
                _error(
                    "wheel-not-recorded",
                    f"{path.name} has SHA-256 {wheel.sha256} and {wheel.size} bytes; the record is about {record.wheel}"
                    f" with SHA-256 {record.sha256} and {record.size} bytes",
                )
            )
        findings += _report_findings(record)
        findings += _lock_findings(record, evidence)
        findings += _toolkit_findings(record)
    statement_file, missing = _read(statement.statement_path(about), "statement")
    findings += missing
    if statement_file is not None:
        findings += _statement_findings(record, record_file, statement_file, wheel.sha256)
    signed_by, unsigned = _envelope_findings(statement.envelope_path(about), statement_file, evidence.keys)
    findings += unsigned
    return Verification(
        wheel=path.name,
        sha256=wheel.sha256,
        findings=tuple(findings),
        signed_by=signed_by,
    )


def _wheel_findings(path: Path) -> Iterator[Finding]:
    try:
        problems = wheelfile.record_problems(wheelfile.read_contents(path))
    except PackagingError as reason:
        problems = (reason.message,)
    for problem in problems:
        yield _error("wheel-damaged", problem)


def _read_record(path: Path) -> tuple[bytes, BuildRecord | None, list[Finding]]:
    data, missing = _read(path, "record")
    if data is None:
        return b"", None, missing
    try:
        return data, jsonio.read(path, BuildRecord), []
    except StepResultError as reason:
        return data, None, [_error("record-unreadable", reason.message)]


def _report_findings(record: BuildRecord) -> Iterator[Finding]:
    for name, sha256, good in (
        ("inspection", record.inspection.wheel_sha256, record.inspection.passed),
        ("validation", record.validation.wheel_sha256, record.validation.verdict is not Verdict.FAILED),
    ):
        if sha256 != record.sha256:
            yield _error("report-of-another-wheel", f"the record's {name} is about a wheel with SHA-256 {sha256}")
        if not good:
            yield _error("report-failed", f"the record's {name} did not pass")
    built = {shard.name for shard in record.shards}
    if len(record.units) != len(built) + 1:
        yield _error("units-incomplete", f"the record has {len(record.units)} units for {len(built)} shards and a core")


def _lock_findings(record: BuildRecord, evidence: Evidence) -> Iterator[Finding]:
    recorded, here = dict(record.locks), dict(evidence.locks)
    for name in sorted(recorded.keys() | here.keys()):
        if recorded.get(name) == here.get(name):
            continue
        both = f"{here.get(name, '(none)')} here, {recorded.get(name, '(none)')} in the record"
        about = f"the lock {name} has SHA-256 {both}"
        if name in evidence.unrelated_locks:
            yield Finding(code="lock-differs", severity=Severity.NOTE, message=f"{about}; it does not affect a wheel")
        else:
            yield _error("lock-differs", f"{about}; {OTHER_VERSION}")
    locked = {file.sha256 for file in evidence.locked_files}
    for material in record.materials:
        sha256 = dict(material.digests).get("sha256")
        if sha256 is not None and sha256 not in locked:
            yield _error("material-not-locked", f"{material.name} with SHA-256 {sha256} is in no lock; {OTHER_VERSION}")


def _toolkit_findings(record: BuildRecord) -> Iterator[Finding]:
    """Warn about an installed toolkit: no lock describes its files."""
    toolchain = dict(record.toolchain)
    if toolchain.get("cuda.locked") == "no":
        weaker = f"; {toolchain['reproducibility']}" if "reproducibility" in toolchain else ""
        yield Finding(
            code="toolkit-installed",
            severity=Severity.WARNING,
            message=f"CUDA {toolchain.get('cuda')} was an installed toolkit: its files are in no lock{weaker}",
        )


def _statement_findings(
    record: BuildRecord | None, record_file: bytes, statement_file: bytes, wheel_sha256: str
) -> Iterator[Finding]:
    if record is not None:
        if statement_file == statement.statement(record, record_file).encode():
            return
        yield _error("statement-differs", "the statement does not match the record: one of them was changed")
    try:
        data = json.loads(statement_file)
        subject = data["subject"][0]["digest"]["sha256"]
        recorded = data["predicate"]["runDetails"]["byproducts"][0]["digest"]["sha256"]
    except (*jsonio.NOT_JSON, KeyError, IndexError, TypeError) as reason:
        yield _error("statement-unreadable", f"the statement cannot be read: {reason}")
        return
    if subject != wheel_sha256:
        yield _error("statement-of-another-wheel", f"the statement is about a wheel with SHA-256 {subject}")
    digest = hashlib.sha256(record_file).hexdigest()
    if record_file and recorded != digest:
        message = f"the record has SHA-256 {digest}; the statement was made from one with {recorded}"
        yield _error("record-changed", message)


def _envelope_findings(
    path: Path, statement_file: bytes | None, keys: Keys | None
) -> tuple[tuple[str, ...], list[Finding]]:
    """The signers of the statement whose signatures were checked, and what is wrong with the envelope."""
    if not path.exists():
        missing = _error("envelope-missing", f"{path.name} is missing: this wheel is not signed")
        return (), [] if keys is None else [missing]
    data, problems = _read(path, "envelope")
    if data is None:
        return (), problems
    signed_by: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    try:
        if keys is None:
            payload = signature.unverified_payload(data.decode(), statement.PAYLOAD_TYPE)
        else:
            vouched = signature.verified_payload(data.decode(), statement.PAYLOAD_TYPE, keys)
            payload, signed_by, revoked = vouched.payload, vouched.signed_by, vouched.revoked
    except (UnsignedError, UnicodeDecodeError) as reason:
        return (), [_error("envelope-refused", f"{path.name}: {reason}")]
    if payload != statement_file:
        message = f"{path.name} contains another statement than the one next to it"
        return (), [_error("envelope-of-another-statement", message)]
    notes = (f"the signature of the revoked key {one} was not counted" for one in revoked)
    return signed_by, [Finding(code="signer-revoked", severity=Severity.NOTE, message=each) for each in notes]


def _read(path: Path, what: str) -> tuple[bytes | None, list[Finding]]:
    try:
        return path.read_bytes(), []
    except OSError as error:
        return None, [_error(f"{what}-missing", f"{path.name} cannot be read: {error.strerror}")]


def _error(code: str, message: str) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, message=message)
