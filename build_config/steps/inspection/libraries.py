"""Checks of the wheel's libraries as the dynamic loader sees them, and of which libraries there are."""

from __future__ import annotations

import collections
import fnmatch
import hashlib
import posixpath
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from auditwheel.architecture import Architecture
from auditwheel.libc import Libc
from auditwheel.policy import WheelPolicies
from packaging.tags import parse_tag

from build_config.steps.inspection.archive import required_distributions
from build_config.steps.inspection.contents import LIBRARY_FOLDER, error, is_vendored, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import ExternalLibrary, LibraryPolicy
    from build_config.reports import Finding
    from build_config.steps.inspection.contents import Subject

CORE_LIBRARIES = ("libllama.so", "libmtmd.so", "libggml.so", "libggml-base.so", "libggml-cpu-x64.so")
"""Without one of these no wheel works on every x86-64 machine."""
CPU_VARIANT = re.compile(r"libggml-cpu-[a-z0-9_]+\.so")
_GRAFTED = re.compile(r"-[0-9a-f]{8}(?=\.so)")


def check_present(subject: Subject) -> Iterator[Finding]:
    """The core is there, every declared shard is there, and nothing else is beside them."""
    shards = {f"libggml-cuda-{shard.name}.so" for shard in subject.declaration.shards}
    present = {PurePosixPath(name).name for name, _ in subject.own_libraries()}
    for name in sorted({*CORE_LIBRARIES} - present):
        yield error("library-missing", f"{LIBRARY_FOLDER}/{name} is not in the wheel")
    for name in sorted(shards - present):
        yield error("shard-missing", f"{name} is declared and not in the wheel")
    for name, _ in subject.own_libraries():
        base = PurePosixPath(name).name
        if base == "libggml-cuda.so":
            yield error("shard-bare", f"{name} has no shard name: ggml loads it on every machine, whatever its score")
        elif base.startswith("libggml-cuda-") and base not in shards:
            yield error("shard-undeclared", f"{name} belongs to no declared shard")
        elif not (base in CORE_LIBRARIES or base in shards or CPU_VARIANT.fullmatch(base)):
            yield error("library-unexpected", f"{name} is no library of this wheel")
        elif PurePosixPath(name).parent.as_posix() != LIBRARY_FOLDER:
            yield error("library-unexpected", f"{name} is not in {LIBRARY_FOLDER}, where the loader looks")


def check_copies(subject: Subject) -> Iterator[Finding]:
    """One copy of each library, by name without version and by content; the SONAME is the file's name."""
    by_stem = collections.defaultdict(list)
    by_digest = collections.defaultdict(list)
    for name, library in subject.libraries.items():
        base = PurePosixPath(name).name
        by_stem[_GRAFTED.sub("", base).partition(".so")[0]].append(name)
        by_digest[hashlib.sha256(subject.contents[name]).digest()].append(name)
        if not is_vendored(name) and not base.endswith(".so"):
            yield error("version-link", f"{name} carries a version: a link in the build became a copy in the wheel")
        if library.soname is not None and library.soname != base:
            yield error("soname-mismatch", f"{name} calls itself {library.soname}: who needs it would not find it")
    for names in (*by_stem.values(), *by_digest.values()):
        if len(names) > 1:
            yield error("library-twice", f"{', '.join(names)} are the same library")


def check_bundled(subject: Subject) -> Iterator[Finding]:
    """NVIDIA's libraries stay outside, and only libraries that the policy names come along."""
    for name, library in subject.libraries.items():
        names = {_GRAFTED.sub("", part) for part in (PurePosixPath(name).name, library.soname or "")}
        # By the name without its version: what was bundled is called by its full one, libcudart.so.13.0.96.
        stems = {part.partition(".so")[0] for part in names}
        outside = next((one for one in subject.policy.external if one.soname.partition(".so")[0] in stems), None)
        if outside is not None:
            yield error("external-bundled", f"{name} must stay outside: {outside.reason}")
        if is_vendored(name) and not any(part.startswith(subject.policy.vendored) for part in names):
            yield error("vendored-unexpected", f"{name} came along, and no policy says that it may")


def check_needed(subject: Subject) -> Iterator[Finding]:
    """Every needed library is found through the search paths, outside by policy, or part of every such system."""
    distributions = required_distributions(subject.contents)
    for name, library in subject.libraries.items():
        reachable = {posixpath.join(folder, "") for folder in search_folders(name, library.search_paths)}
        for needed in library.needed:
            homes = [member for member in subject.libraries if PurePosixPath(member).name == needed]
            outside = external(needed, subject.policy)
            if homes:
                if not any(home.removesuffix(needed) in reachable for home in homes):
                    yield error("needed-unreachable", f"{name} needs {homes[0]}, and no search path of its leads there")
            elif outside is not None:
                if outside.providers and not distributions & {*outside.providers}:
                    wanted = " or ".join(outside.providers)
                    yield error(
                        "requirement-missing", f"{name} needs {needed}, and the wheel does not require {wanted}"
                    )
            elif needed not in subject.policy.system:
                yield error("needed-unknown", f"{name} needs {needed}, which nothing provides")


def check_search_paths(subject: Subject) -> Iterator[Finding]:
    """RPATH and RUNPATH begin at the library's own place and stay inside what the wheel installs."""
    for name, library in subject.libraries.items():
        for entry in library.search_paths:
            if not search_folders(name, (entry,)):
                yield error("rpath-outside", f"{name} looks for libraries in {entry!r}, which is not inside the wheel")


def check_symbol_versions(subject: Subject) -> Iterator[Finding]:
    """Every symbol version that a library needs is one that each of the wheel's manylinux tags promises."""
    policies = WheelPolicies(libc=Libc.GLIBC, arch=Architecture.x86_64)
    platforms = sorted({tag.platform for text in subject.wheel.tags for tag in parse_tag(text)})
    for platform in platforms:
        try:
            promised = policies.get_policy_by_name(platform).symbol_versions
        except LookupError:
            promised = {}
        if not promised:
            yield error("tag-not-manylinux", f"{platform} promises nothing about the machines that the wheel runs on")
            continue
        for name, library in subject.libraries.items():
            late = [version for version in library.versions if not _promises(promised, version)]
            if late:
                yield error("symbol-version", f"{name} needs {', '.join(late)}, which {platform} does not promise")


def check_stripped(subject: Subject) -> Iterator[Finding]:
    """Our libraries hold neither symbol table nor debugging information nor build id."""
    for name, library in subject.own_libraries():
        if library.leftovers:
            yield error("not-stripped", f"{name} still has {', '.join(library.leftovers)}")
        if library.has_build_id:
            yield warning("build-id", f"{name} has a build id")


def external(soname: str, policy: LibraryPolicy) -> ExternalLibrary | None:
    """The policy's entry for a library that stays outside, if this is one."""
    return next((entry for entry in policy.external if fnmatch.fnmatchcase(soname, entry.soname)), None)


def search_folders(name: str, entries: tuple[str, ...]) -> tuple[str, ...]:
    """The folders, relative to site-packages, that search paths of a member name; those outside are left out.

    ``$ORIGIN/../../x.libs`` of ``llama_cpp/lib/libllama.so`` is ``x.libs``. Site-packages itself is outside: it belongs
    to every package.
    """
    folders = []
    for entry in entries:
        head, _, rest = entry.partition("/")
        if head in ("$ORIGIN", "${ORIGIN}"):
            folder = posixpath.normpath(posixpath.join(posixpath.dirname(name), rest))
            if folder.split("/", 1)[0] not in (".", ".."):
                folders.append(folder)
    return tuple(folders)


def _promises(promised: dict[str, frozenset[str]], version: str) -> bool:
    family, _, number = version.partition("_")
    return family not in promised or number in promised[family]
