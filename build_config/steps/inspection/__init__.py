"""Inspect the finished wheel by reading it: nothing in the wheel is executed.

Every check runs, whatever the others find. A check that cannot run is an error, never a pass.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.reports import InspectionReport
from build_config.steps.inspection import archive, device_code, instructions, libraries, sbom
from build_config.steps.inspection.contents import NotRunError, Subject, error, read_libraries, read_members
from build_config.system import platforms
from build_config.system.layout import CANONICAL_WORK_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from build_config.model import LibraryPolicy, PlatformName, Program, Wheel, WheelDeclaration
    from build_config.reports import Finding
    from build_config.system.layout import Layout

    Check = Callable[[Subject], Iterable[Finding]]

ON_EVERY_PLATFORM: dict[str, Check] = {
    "record": archive.check_record,
    "metadata": archive.check_metadata,
    "tags": archive.check_tags,
    "licences": archive.check_licences,
    "sbom": sbom.check_sbom,
    "unwanted-files": archive.check_unwanted,
    "size": archive.check_size,
    "build-paths": archive.check_build_paths,
    "libraries-present": libraries.check_present,
    "single-copies": libraries.check_copies,
    "bundled": libraries.check_bundled,
    "needed-libraries": libraries.check_needed,
    "device-code": device_code.check_device_code,
}
CHECKS: dict[PlatformName, dict[str, Check]] = {
    "linux-x86_64": {
        **ON_EVERY_PLATFORM,
        "search-paths": libraries.check_search_paths,
        "symbol-versions": libraries.check_symbol_versions,
        "stripped": libraries.check_stripped,
        "instructions": instructions.check_instructions,
    },
    "win-amd64": {
        **ON_EVERY_PLATFORM,
        "windows-tag": libraries.check_windows_tag,
        "backend-exports": libraries.check_backends,
        "reproducible": libraries.check_reproducible,
    },
}
"""The instructions of a DLL are not checked yet: Windows has no objdump of binutils."""


def inspect(
    wheel: Wheel,
    declaration: WheelDeclaration,
    *,
    policy: LibraryPolicy,
    cuobjdump: Program | None,
    objdump: str = "objdump",
    workdir: Path,
) -> InspectionReport:
    """Compare a wheel with its declaration; return all findings, and the names of the checks that ran.

    ``workdir`` is created if needed and contains extracted libraries while this runs. Nothing in a wheel makes
    ``inspect`` raise.
    """
    contents, findings = read_members(wheel.path)
    platform = platforms.of_tags(wheel.tags)
    found, unreadable = read_libraries(contents, platform)
    findings += unreadable
    ran = ["archive"]
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        subject = Subject(
            wheel=wheel,
            platform=platform,
            declaration=declaration,
            policy=policy,
            contents=contents,
            libraries=found,
            cuobjdump=cuobjdump,
            objdump=objdump,
            folder=Path(folder),
        )
        for name, check in CHECKS[platform.name].items():
            try:
                findings.extend(check(subject))  # keeps what a check found before it gave up
            except NotRunError as reason:
                findings.append(error(f"{name}-not-run", f"the check did not run: {reason}"))
            else:
                ran.append(name)
    return InspectionReport(wheel_sha256=wheel.sha256, checks=tuple(ran), findings=tuple(findings))


def forbidden_paths(layout: Layout) -> tuple[str, ...]:
    """Paths that no file of a wheel may contain.

    A home such as ``/`` or ``/root`` is not included: upstream's own texts contain such short paths.
    """
    homes = (os.environ.get("HOME", ""), os.environ.get("USERPROFILE", ""))
    candidates = (CANONICAL_WORK_ROOT, layout.work_root, layout.checkout, *homes)
    return tuple(sorted({str(path) for path in candidates if len(str(path)) > len("/root")}))
