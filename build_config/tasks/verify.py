"""Compare a wheel with its record, its statement, its signature and the locks; sign the statement."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from build_config import inputs
from build_config.errors import VerificationError
from build_config.reports import BuildRecord, Severity
from build_config.steps.wheelhouse import publication, signature, verification
from build_config.steps.wheelhouse.publication import newest_wheel
from build_config.system import jsonio

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.steps.wheelhouse.signature import Keys
    from build_config.system.console import Console
    from build_config.system.layout import Layout

UNSIGNED = "NO SIGNATURE was checked: whoever can replace a wheel can replace all files; --public-key KEY"
OTHER_LOCKS = frozenset({"lock-differs", "material-not-locked"})
"""Findings about a wheel that was built from another commit: no reason to keep one of one's own from others."""
REMEDY_CONTRADICTED = "do not install it; get it and the files next to it again"
REMEDY_UNSIGNED = "get its signature from its publisher; your own wheel: nox -s sign -- WHEEL --sign-key KEY"


def verify(path: Path | None, layout: Layout, console: Console, *, keys: Keys | None = None) -> None:
    """Compare a wheel, by default the newest of the wheelhouse, with the files next to it. The wheel is not run.

    Raises ``VerificationError`` with all contradictions.
    """
    result = verified(path or newest_wheel(layout), layout, console, keys)
    if not result.signed_by:
        console.warn(UNSIGNED)
    else:
        console.note(f"signed by {', '.join(f'the key {one}' for one in result.signed_by)}")


def verified(
    wheel: Path,
    layout: Layout,
    console: Console,
    keys: Keys | None,
    *,
    ignored: frozenset[str] = frozenset(),
) -> verification.Verification:
    """Verify a wheel, show the findings, and return the result. ``ignored`` are codes of findings that do not count.

    Raises ``VerificationError`` if it is refused.
    """
    result = verification.verify(wheel, inputs.evidence(layout, keys=keys))
    result = replace(result, findings=tuple(one for one in result.findings if one.code not in ignored))
    if not result.passed:
        errors = [finding for finding in result.findings if finding.severity is Severity.ERROR]
        listed = "\n".join(f"  {finding.message} [{finding.code}]" for finding in errors)
        message = f"{wheel.name} was refused:\n{listed}"
        unsigned = all(finding.code == "envelope-missing" for finding in errors)
        raise VerificationError(message, remedy=REMEDY_UNSIGNED if unsigned else REMEDY_CONTRADICTED)
    console.findings(result.findings)
    console.note(f"{result.wheel}: SHA-256 {result.sha256}")
    together = "wheel, record and statement" if ignored else "wheel, record, statement and the locks of this checkout"
    console.note(f"{together} belong together")
    return result


def sign(path: Path | None, sign_key: Path, layout: Layout, console: Console, *, replace_others: bool = False) -> None:
    """Sign the statement about a published wheel, by default the newest of the wheelhouse.

    The signatures of other keys stay, unless ``replace_others`` says that this one is the only one.

    Raises ``VerificationError`` for a wheel that does not belong to its record: it must not be signed.
    """
    chosen = path or newest_wheel(layout)
    key = signature.read_private_key(sign_key)
    verified(chosen, layout, console, None)
    if publication.is_signed(chosen) and not replace_others:
        publication.cosign(chosen, key)
    else:
        publication.attest(chosen, jsonio.read(publication.record_path(chosen), BuildRecord), key)
    console.note(f"signed by the key {signature.key_id(key.public_key())}")
