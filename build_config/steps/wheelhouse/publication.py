"""Publish into the wheelhouse: finished wheels, their records, and a page that pip reads with ``--find-links``.

Only a wheel that passed is published. At every moment, even after Ctrl-C or a power failure, each wheel in the folder
is complete, is next to its own record, and has its own digest on the page or none.
"""

from __future__ import annotations

import html
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import filelock

from build_config.errors import InspectionError, SettingsError, StepResultError, ValidationError
from build_config.formats import variants
from build_config.reports import VERDICT_MEANINGS, BuildRecord, Verdict
from build_config.steps.wheelhouse import signature, statement
from build_config.system import jsonio
from build_config.system.files import file_sha256, rename

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from build_config.model import Wheel
    from build_config.reports import Finding, InspectionReport, ValidationReport
    from build_config.system.layout import Layout

PAGE = "index.html"
RECORD_SUFFIX = ".record.json"
_PART = ".part"
_LOCK = ".lock"


def publish(
    wheel: Wheel,
    record: BuildRecord,
    inspection: InspectionReport,
    validation: ValidationReport,
    folder: Path,
    *,
    key: Ed25519PrivateKey | None = None,
) -> Path:
    """Put a wheel, its record, the statement about it and a new page into ``folder``; return the new path of the wheel.

    A wheel of the same name is replaced; all others stay listed. With a ``key`` the statement is signed, too. Without
    one no signed statement remains: an older one would be about another record.

    Raises ``InspectionError`` or ``ValidationError`` with all findings if a report is not about these bytes or did not
    pass, and ``StepResultError`` if the record or the wheel file is not the one that the reports describe.
    """
    _check_inspection(wheel, inspection)
    _check_validation(wheel, validation)
    name = wheel.path.name
    described = (record.wheel, record.sha256, record.inspection, record.validation)
    if described != (name, wheel.sha256, inspection, validation):
        about = f"{name} with SHA-256 {wheel.sha256} and its two reports"
        message = f"The record is not about {about}; nothing was published."
        raise StepResultError(message, remedy="run the build again: nox -s build_cuda_wheel")

    folder.mkdir(parents=True, exist_ok=True)
    final = folder / name
    with filelock.FileLock(folder / _LOCK, fallback_to_soft=False):  # two publishers would write each other's page
        _replace(wheel, record, final, key)
    return final


def _replace(wheel: Wheel, record: BuildRecord, final: Path, key: Ed25519PrivateKey | None) -> None:
    """Put a checked wheel and the files about it into the wheelhouse, and write its page."""
    folder, name = final.parent, final.name
    for leftover in folder.glob(f".*{_PART}"):  # of a run that was killed
        leftover.unlink()
    if final.exists() and file_sha256(final) != wheel.sha256:
        # Other bytes will have this name: remove the old ones first, so that neither the page nor the record ever
        # describes another file.
        _write_page(folder, name, without=True)
        final.unlink()
    part = _verified_copy(wheel, folder)
    try:
        jsonio.write(record_path(final), record)
        attest(final, record, key)
        rename(part, final)
    finally:
        part.unlink(missing_ok=True)
    _write_page(folder, name)


def attest(wheel: Path, record: BuildRecord, key: Ed25519PrivateKey | None) -> None:
    """Write the statement of the record next to the wheel, and an envelope around it that ``key`` signs.

    Without a key an envelope of an earlier wheel is removed.
    """
    text = statement.statement(record, record_path(wheel).read_bytes())
    envelope = statement.envelope_path(wheel)
    envelope.unlink(missing_ok=True)
    jsonio.write_text(statement.statement_path(wheel), text)
    if key is not None:
        jsonio.write_text(envelope, signature.seal(text.encode(), statement.PAYLOAD_TYPE, key))


def cosign(wheel: Path, key: Ed25519PrivateKey) -> None:
    """Add the signature of ``key`` to the envelope next to a wheel. Raises ``UnsignedError`` if it is none."""
    path = statement.envelope_path(wheel)
    signed = signature.cosign(path.read_text(encoding="utf-8"), statement.PAYLOAD_TYPE, key)
    jsonio.write_text(path, signed)


def is_signed(wheel: Path) -> bool:
    """Whether an envelope with a signature is next to a published wheel."""
    return statement.envelope_path(wheel).exists()


def record_path(wheel: Path) -> Path:
    """The path of the record of a published wheel."""
    return wheel.with_name(wheel.name + RECORD_SUFFIX)


def newest_wheel(layout: Layout) -> Path:
    """The wheel of the wheelhouse that was written last. Raises ``SettingsError`` if there is none."""
    wheels = sorted(layout.wheelhouse.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        raise SettingsError("the wheelhouse contains no wheel", remedy="nox -s build_cuda_wheel, or name a wheel file")
    return wheels[-1]


# ------------------------------------------------------------------------------------------------------- checks


def _check_inspection(wheel: Wheel, report: InspectionReport) -> None:
    if report.wheel_sha256 != wheel.sha256:
        message = f"The inspection report is about another file than {wheel.path.name} (SHA-256 {wheel.sha256})."
        raise InspectionError(message, remedy="run the build again: nox -s build_cuda_wheel")
    if not report.passed:
        message = f"{wheel.path.name} is not what was declared and was not published:\n{_listed(report.findings)}"
        raise InspectionError(message)


def _check_validation(wheel: Wheel, report: ValidationReport) -> None:
    if report.wheel_sha256 != wheel.sha256:
        message = f"The validation report is about another file than {wheel.path.name} (SHA-256 {wheel.sha256})."
        raise ValidationError(message, remedy="run nox -s validate")
    if report.verdict is Verdict.FAILED:
        message = f"{wheel.path.name} failed validation and was not published:\n{_listed(report.all_findings())}"
        raise ValidationError(message)


def _listed(findings: tuple[Finding, ...]) -> str:
    lines = (f"  {f.severity}: {f.message} [{f.code}]" for f in findings)
    return "\n".join(lines) or "  (the report contains no finding)"


# -------------------------------------------------------------------------------------------------------- files


def _verified_copy(wheel: Wheel, folder: Path) -> Path:
    """Copy the wheel onto the disk under a name that pip ignores, and compare the copied bytes with the digest."""
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{wheel.path.name}.", suffix=_PART)
    part = Path(temporary)
    try:
        with os.fdopen(handle, "wb") as target, wheel.path.open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        part.chmod(0o644)
        digest = file_sha256(part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if digest != wheel.sha256:
        part.unlink()
        message = f"{wheel.path.name} has SHA-256 {digest}, but {wheel.sha256} was inspected and validated."
        raise StepResultError(message, remedy="run the build again: nox -s build_cuda_wheel")
    return part


# --------------------------------------------------------------------------------------------------------- page


def _write_page(folder: Path, name: str, *, without: bool = False) -> None:
    """Write the page for all wheels, or for those without ``name``.

    No installer but uv can read the name of a variant wheel. So they have no page, but a file about their labels.
    """
    wheels = sorted(path for path in folder.glob("*.whl") if not (without and path.name == name))
    if variants.label(name) is None:
        jsonio.write_text(folder / PAGE, _page("\n".join(_row(path) for path in wheels)))
        return
    version = variants.parse(name).version
    parsed = {path: variants.parse(path.name) for path in wheels}
    code = {
        str(each.label): jsonio.read(record_path(path), BuildRecord).archs
        for path, each in parsed.items()
        if each.version == version
    }
    jsonio.write_text(folder / variants.index_file(str(version)), variants.document(version, code))


def _row(wheel: Path) -> str:
    """One line of the table. The digest is computed from the file, never taken from a record."""
    digest = file_sha256(wheel)
    link = f"{quote(wheel.name)}#sha256={digest}"
    return (
        f'<tr><td><a href="{html.escape(link)}">{html.escape(wheel.name)}</a></td>'
        f"<td>{wheel.stat().st_size / 1e6:.1f} MB</td><td><code>{digest}</code></td>"
        f"<td>{html.escape(_verdict(wheel, digest))}</td></tr>"
    )


def _verdict(wheel: Path, digest: str) -> str:
    try:
        record = jsonio.read(record_path(wheel), BuildRecord)
    except StepResultError:
        return "no readable record"
    return record.validation.verdict if record.sha256 == digest else "no record of these bytes"


def _page(rows: str) -> str:
    meanings = "\n".join(
        f"<li><code>{verdict}</code>: {html.escape(meaning, quote=False)}.</li>"
        for verdict, meaning in VERDICT_MEANINGS.items()
        if verdict is not Verdict.FAILED
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>llama-cpp-python with CUDA</title></head>
<body>
<h1>llama-cpp-python with CUDA</h1>
<p>Install with <code>pip install --find-links &lt;this folder&gt; llama-cpp-python</code>.</p>
<table>
<tr><th>Wheel</th><th>Size</th><th>SHA-256</th><th>Verdict</th></tr>
{rows}
</table>
<ul>
{meanings}
</ul>
</body>
</html>
"""
