"""Checks of a wheel for Windows: its DLLs as Windows' loader sees them, and which there are.

The others of ``CHECKS`` that look at the archive are the same on every platform.
"""

from __future__ import annotations

import collections
import fnmatch
import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from build_config.formats import pe
from build_config.steps.inspection.archive import required_distributions
from build_config.steps.inspection.contents import LIBRARY_FOLDER, error, is_vendored
from build_config.system.platforms.windows import NOT_FOR_MSVC, WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import ExternalLibrary, LibraryPolicy
    from build_config.reports import Finding
    from build_config.steps.inspection.contents import Subject

TAG = "py3-none-win_amd64"
CORE = tuple(WINDOWS.library(name) for name in ("llama", "mtmd", "ggml", "ggml-base", "ggml-cpu-x64"))
"""Without one of these no wheel works on every x86-64 machine."""
CPU_VARIANT = re.compile(r"ggml-cpu-(?P<variant>[a-z0-9_]+)\.dll")
SCORE = "ggml_backend_score"
INIT = "ggml_backend_init"
_MANGLED = re.compile(r"-[0-9a-f]{32,64}(?=\.dll$)")


def check_tag(subject: Subject) -> Iterator[Finding]:
    """The wheel is for Windows on x86-64 and any Python 3."""
    if subject.wheel.tags != (TAG,):
        yield error("tag-not-windows", f"the wheel is for {', '.join(subject.wheel.tags)}, not for {TAG}")


def check_present(subject: Subject) -> Iterator[Finding]:
    """The core is there, every declared shard is there, and nothing else is beside them."""
    shards = {WINDOWS.library(f"ggml-cuda-{shard.name}") for shard in subject.declaration.shards}
    own = {name: PurePosixPath(name) for name in _own(subject)}
    present = {path.name for path in own.values()}
    for name in sorted({*CORE} - present):
        yield error("library-missing", f"{LIBRARY_FOLDER}/{name} is not in the wheel")
    for name in sorted(shards - present):
        yield error("shard-missing", f"{name} is declared and not in the wheel")
    for name, path in own.items():
        variant = CPU_VARIANT.fullmatch(path.name)
        if path.name == "ggml-cuda.dll":
            yield error("shard-bare", f"{name} has no shard name: ggml loads it on every machine, whatever its score")
        elif path.name.startswith("ggml-cuda-") and path.name not in shards:
            yield error("shard-undeclared", f"{name} belongs to no declared shard")
        elif variant is not None and variant["variant"] in NOT_FOR_MSVC:
            yield error("variant-not-windows", f"{name} is a variant that Visual C++ cannot compile")
        elif not (path.name in CORE or path.name in shards or variant):
            yield error("library-unexpected", f"{name} is no library of this wheel")
        elif path.parent.as_posix() != LIBRARY_FOLDER:
            yield error("library-unexpected", f"{name} is not in {LIBRARY_FOLDER}, where the loader looks")


def check_copies(subject: Subject) -> Iterator[Finding]:
    """One copy of each DLL, by name and by content; its export table has the name of the file."""
    by_name = collections.defaultdict(list)
    by_digest = collections.defaultdict(list)
    for name, library in subject.dlls.items():
        base = PurePosixPath(name).name
        by_name[_MANGLED.sub("", base).lower()].append(name)
        by_digest[hashlib.sha256(subject.contents[name]).digest()].append(name)
        if not is_vendored(name) and library.name is not None and library.name.lower() != base.lower():
            yield error("name-mismatch", f"{name} calls itself {library.name}: who needs it would not find it")
    for names in (*by_name.values(), *by_digest.values()):
        if len(names) > 1:
            yield error("library-twice", f"{', '.join(names)} are the same library")


def check_bundled(subject: Subject) -> Iterator[Finding]:
    """NVIDIA's DLLs stay outside, and only DLLs that the policy names come along."""
    for name in subject.dlls:
        base = _MANGLED.sub("", PurePosixPath(name).name)
        outside = external(base, subject.policy)
        if outside is not None:
            yield error("external-bundled", f"{name} must stay outside: {outside.reason}")
        if is_vendored(name) and not _matches(base, subject.policy.vendored):
            yield error("vendored-unexpected", f"{name} came along, and no policy says that it may")


def check_needed(subject: Subject) -> Iterator[Finding]:
    """Every imported DLL is in the wheel, outside by policy, or part of every Windows with a Python."""
    distributions = required_distributions(subject.contents)
    present = {PurePosixPath(name).name.lower() for name in subject.dlls}
    for name, library in subject.dlls.items():
        for needed in library.needed:
            outside = external(needed, subject.policy)
            if outside is not None:
                if outside.providers and not distributions & {*outside.providers}:
                    wanted = " or ".join(outside.providers)
                    yield error(
                        "requirement-missing", f"{name} needs {needed}, and the wheel does not require {wanted}"
                    )
            elif needed not in present and not _matches(needed, subject.policy.system):
                yield error("needed-unknown", f"{name} needs {needed}, which nothing provides")


def check_backends(subject: Subject) -> Iterator[Finding]:
    """Every module can be asked how well it fits, and be started: a DLL exports only what it was told to."""
    for name in _own(subject):
        base = PurePosixPath(name).name
        if base.startswith(("ggml-cpu-", "ggml-cuda-")):
            missing = {INIT, SCORE} - {*subject.dlls[name].exports}
            if missing:
                yield error("backend-exports", f"{name} does not export {', '.join(sorted(missing))}")


def check_reproducible(subject: Subject) -> Iterator[Finding]:
    """Our DLLs hold no time and no path of a PDB."""
    for name in _own(subject):
        library = subject.dlls[name]
        if not library.reproducible:
            yield error("not-reproducible", f"{name} was linked without /Brepro: it holds the time of its build")
        if library.debug_file is not None:
            yield error("debug-file", f"{name} names the debugging file {library.debug_file}")


def external(name: str, policy: LibraryPolicy) -> ExternalLibrary | None:
    """The policy's entry for a DLL that stays outside, if this is one."""
    return next((entry for entry in policy.external if _matches(name, (entry.soname,))), None)


def read_dlls(contents: dict[str, bytes]) -> tuple[dict[str, pe.Library], list[Finding]]:
    """The facts of every DLL, and a finding for each file that cannot be read or is named like one and is none."""
    dlls: dict[str, pe.Library] = {}
    findings = []
    for name, data in sorted(contents.items()):
        if not (data.startswith(pe.MAGIC) or name.lower().endswith(".dll")):
            continue
        try:
            dlls[name] = pe.read(data)
        except pe.UnreadableError as reason:
            findings.append(error("library-unreadable", f"{name} cannot be read as a DLL for x86-64: {reason}"))
        except ImportError:
            findings.append(error("library-unreadable", f"{name} cannot be read: pefile is not installed"))
    return dlls, findings


def _own(subject: Subject) -> tuple[str, ...]:
    return tuple(name for name in subject.dlls if not is_vendored(name))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)
