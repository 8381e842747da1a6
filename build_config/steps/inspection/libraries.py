"""Check which libraries the wheel contains, and how the system's loader sees them."""

from __future__ import annotations

import collections
import hashlib
import posixpath
import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from auditwheel.architecture import Architecture
from auditwheel.libc import Libc
from auditwheel.policy import WheelPolicies
from packaging.tags import parse_tag

from build_config.formats.elf import ElfLibrary
from build_config.steps.inspection.archive import required_distributions
from build_config.steps.inspection.contents import LIBRARY_FOLDER, error, is_vendored, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.formats.pe import Dll
    from build_config.model import ExternalLibrary
    from build_config.reports import Finding
    from build_config.steps.inspection.contents import Subject
    from build_config.system.platforms import Platform

CORE = ("llama", "mtmd", "ggml", "ggml-base", "ggml-cpu-x64")
"""Libraries without which a wheel does not work on every x86-64 machine."""
SCORE = "ggml_backend_score"
INIT = "ggml_backend_init"
_ADDED = re.compile(r"-(?:[0-9a-f]{8}|[0-9a-f]{32,64})(?=\.so|\.dll$)")
"""The digits of a digest that auditwheel and delvewheel add to the name of a vendored library."""
_ENDING = re.compile(r"\.(?:so|dll)\b.*")


def check_present(subject: Subject) -> Iterator[Finding]:
    """The core and every declared shard exist, and nothing else is next to them."""
    platform = subject.platform
    core = {platform.library(name) for name in CORE}
    shards = {platform.library(f"ggml-cuda-{shard.name}") for shard in subject.declaration.shards}
    bare = platform.library("ggml-cuda")
    own = {name: PurePosixPath(name) for name, _ in subject.own_libraries()}
    present = {path.name for path in own.values()}
    for name in sorted(core - present):
        yield error("library-missing", f"{LIBRARY_FOLDER}/{name} is not in the wheel")
    for name in sorted(shards - present):
        yield error("shard-missing", f"{name} is declared, but not in the wheel")
    for name, path in own.items():
        variant = cpu_variant(path.name, platform)
        if path.name == bare:
            yield error("shard-bare", f"{name} has no shard name: ggml loads it on every machine, whatever its score")
        elif path.name.startswith(f"{_stem(bare, platform)}-") and path.name not in shards:
            yield error("shard-undeclared", f"{name} belongs to no declared shard")
        elif variant and not platform.cpu_variants((variant,)):
            yield error("variant-not-windows", f"{name} is a variant that Visual C++ cannot compile")
        elif not (path.name in core or path.name in shards or variant):
            yield error("library-unexpected", f"{name} does not belong in this wheel")
        elif path.parent.as_posix() != LIBRARY_FOLDER:
            yield error("library-unexpected", f"{name} is not in {LIBRARY_FOLDER}, where the loader looks")


def check_copies(subject: Subject) -> Iterator[Finding]:
    """One copy of each library, by name without version and by content; its own name is its file's name."""
    by_stem = collections.defaultdict(list)
    by_digest = collections.defaultdict(list)
    for name, library in subject.libraries.items():
        by_stem[_stem(PurePosixPath(name).name, subject.platform)].append(name)
        by_digest[hashlib.sha256(subject.contents[name]).digest()].append(name)
        yield from _misnamed(name, library)
    for names in (*by_stem.values(), *by_digest.values()):
        if len(names) > 1:
            yield error("library-twice", f"{', '.join(names)} are the same library")


def check_bundled(subject: Subject) -> Iterator[Finding]:
    """NVIDIA's libraries stay outside, and only libraries that the policy lists are vendored."""
    platform = subject.platform
    may_come = tuple(f"{soname}*" for soname in subject.policy.vendored)
    for name, library in subject.libraries.items():
        soname = library.soname if isinstance(library, ElfLibrary) else None
        names = {_ADDED.sub("", part) for part in (PurePosixPath(name).name, soname) if part}
        # Compare names without versions: a bundled library has its full name, libcudart.so.13.0.96.
        stems = {_stem(part, platform) for part in names}
        outside = next((one for one in subject.policy.external if _is_stem_of(one, stems, platform)), None)
        if outside is not None:
            yield error("external-bundled", f"{name} must stay outside: {outside.reason}")
        if is_vendored(name) and not any(_matches(part, may_come, platform) for part in names):
            yield error("vendored-unexpected", f"{name} is vendored, but the policy does not list it")


def check_needed(subject: Subject) -> Iterator[Finding]:
    """Every needed library is in the wheel where the loader looks, outside by policy, or part of every system."""
    platform = subject.platform
    distributions = required_distributions(subject.contents)
    for name, library in subject.libraries.items():
        for needed in library.needed:
            homes = [home for home in subject.libraries if _matches(PurePosixPath(home).name, (needed,), platform)]
            outside = external(needed, subject)
            if homes:
                if isinstance(library, ElfLibrary) and not _reachable(homes, name, library):
                    yield error("needed-unreachable", f"{name} needs {homes[0]}, but no search path leads there")
            elif outside is not None:
                if outside.providers and not distributions & {*outside.providers}:
                    wanted = " or ".join(outside.providers)
                    yield error(
                        "requirement-missing", f"{name} needs {needed}, but the wheel does not require {wanted}"
                    )
            elif not _matches(needed, subject.policy.system, platform):
                yield error("needed-unknown", f"{name} needs {needed}, which nothing provides")


def external(name: str, subject: Subject) -> ExternalLibrary | None:
    """The policy's entry for a library that stays outside; ``None`` for any other library."""
    return next((one for one in subject.policy.external if _matches(name, (one.soname,), subject.platform)), None)


def cpu_variant(name: str, platform: Platform) -> str | None:
    """``haswell`` of ``libggml-cpu-haswell.so``; ``None`` for any other library."""
    pattern = re.escape(platform.library("ggml-cpu-VARIANT")).replace("VARIANT", "([a-z0-9_]+)")
    match = re.fullmatch(pattern, name)
    return match[1] if match else None


# ------------------------------------------------------------------------------------------------------------ Linux


def check_search_paths(subject: Subject) -> Iterator[Finding]:
    """RPATH and RUNPATH begin at the library's own folder and stay inside what the wheel installs."""
    for name, library in subject.elf_libraries():
        for entry in library.search_paths:
            if not search_folders(name, (entry,)):
                yield error("rpath-outside", f"{name} looks for libraries in {entry!r}, which is not inside the wheel")


def check_symbol_versions(subject: Subject) -> Iterator[Finding]:
    """Each of the wheel's manylinux tags promises every symbol version that a library needs."""
    policies = WheelPolicies(libc=Libc.GLIBC, arch=Architecture.x86_64)
    tags = sorted({tag.platform for text in subject.wheel.tags for tag in parse_tag(text)})
    for tag in tags:
        try:
            promised = policies.get_policy_by_name(tag).symbol_versions
        except LookupError:
            promised = {}
        if not promised:
            yield error("tag-not-manylinux", f"{tag} promises nothing about the machines that the wheel runs on")
            continue
        for name, library in subject.elf_libraries():
            late = [version for version in library.versions if not _promises(promised, version)]
            if late:
                yield error("symbol-version", f"{name} needs {', '.join(late)}, which {tag} does not promise")


def check_stripped(subject: Subject) -> Iterator[Finding]:
    """Our libraries contain no symbol table, no debugging information and no build id."""
    for name, library in subject.elf_libraries():
        if is_vendored(name):
            continue
        if library.leftovers:
            yield error("not-stripped", f"{name} still has {', '.join(library.leftovers)}")
        if library.has_build_id:
            yield warning("build-id", f"{name} has a build id")


def search_folders(name: str, entries: tuple[str, ...]) -> tuple[str, ...]:
    """The folders, relative to site-packages, of the search paths of a member; those outside are left out.

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


def _reachable(homes: list[str], name: str, library: ElfLibrary) -> bool:
    return not {posixpath.dirname(home) for home in homes}.isdisjoint(search_folders(name, library.search_paths))


def _promises(promised: dict[str, frozenset[str]], version: str) -> bool:
    family, _, number = version.partition("_")
    return family not in promised or number in promised[family]


# ---------------------------------------------------------------------------------------------------------- Windows


def check_windows_tag(subject: Subject) -> Iterator[Finding]:
    """The wheel is for Windows on x86-64 and any Python 3."""
    tag = f"py3-none-{subject.platform.wheel_platform}"
    if subject.wheel.tags != (tag,):
        yield error("tag-not-windows", f"the wheel is for {', '.join(subject.wheel.tags)}, not for {tag}")


def check_backends(subject: Subject) -> Iterator[Finding]:
    """Every module exports its score and init functions: a DLL exports only what it is told to."""
    for name, library in subject.own_dlls():
        if PurePosixPath(name).name.startswith(("ggml-cpu-", "ggml-cuda-")):
            missing = {INIT, SCORE} - {*library.exports}
            if missing:
                yield error("backend-exports", f"{name} does not export {', '.join(sorted(missing))}")


def check_reproducible(subject: Subject) -> Iterator[Finding]:
    """Our DLLs contain no time and no path of a PDB."""
    for name, library in subject.own_dlls():
        if not library.reproducible:
            yield error("not-reproducible", f"{name} was linked without /Brepro: it contains the time of its build")
        if library.debug_file is not None:
            yield error("debug-file", f"{name} names the debugging file {library.debug_file}")


# ------------------------------------------------------------------------------------------------------------ names


def _misnamed(name: str, library: ElfLibrary | Dll) -> Iterator[Finding]:
    base = PurePosixPath(name).name
    if isinstance(library, ElfLibrary):
        if not is_vendored(name) and not base.endswith(".so"):
            yield error(
                "version-link", f"{name} has a version in its name: a link in the build became a copy in the wheel"
            )
        if library.soname is not None and library.soname != base:
            yield error("soname-mismatch", f"{name} calls itself {library.soname}: its users would not find it")
    elif not is_vendored(name) and library.name is not None and library.name.lower() != base.lower():
        yield error("name-mismatch", f"{name} calls itself {library.name}: its users would not find it")


def _stem(name: str, platform: Platform) -> str:
    """``libgomp`` of ``libgomp-0123abcd.so.1.0.0``."""
    return _ENDING.sub("", _ADDED.sub("", platform.folded(name)))


def _is_stem_of(entry: ExternalLibrary, stems: set[str], platform: Platform) -> bool:
    return any(fnmatchcase(stem, _stem(entry.soname, platform)) for stem in stems)


def _matches(name: str, patterns: tuple[str, ...], platform: Platform) -> bool:
    return any(fnmatchcase(platform.folded(name), platform.folded(pattern)) for pattern in patterns)
