"""Check the archive: its metadata, unwanted files, and whether RECORD is correct."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from build_config.errors import PackagingError
from build_config.formats import wheelfile
from build_config.model import DISTRIBUTION
from build_config.steps.inspection.contents import NotRunError, error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packaging.metadata import RawMetadata

    from build_config.reports import Finding
    from build_config.steps.inspection.contents import Subject

UNWANTED = re.compile(
    r"""
      (?P<header> \.(?: h | hpp | hh | cuh ) $ | (?:^|/)include/ )
    | (?P<build_file> \.(?: cmake | pc | la ) $ | (?:^|/)CMakeLists\.txt$ )
    | (?P<static_library> \.(?: a | o | lib ) $ )
    | (?P<source> \.(?: c | cc | cpp | cu ) $ )
    | (?P<bytecode> \.pyc$ )
    """,
    re.VERBOSE,
)


def check_record(subject: Subject) -> Iterator[Finding]:
    """RECORD lists every member with its digest and size, and nothing else."""
    try:
        problems = wheelfile.record_problems(subject.contents)
    except PackagingError as reason:
        raise NotRunError(reason.message) from reason
    for problem in problems:
        yield error("record-mismatch", problem)


def check_metadata(subject: Subject) -> Iterator[Finding]:
    """Name and version are the declared ones, in METADATA and in the names of the file and its ``.dist-info``."""
    metadata = read_metadata(subject.contents)
    name = metadata.get("name", "")
    if canonicalize_name(name) != DISTRIBUTION:
        yield error("metadata-name", f"METADATA names {name or 'nothing'} instead of {DISTRIBUTION}")
    declared = subject.declaration.version
    folder = wheelfile.dist_info(subject.contents)
    stated = {
        "METADATA": metadata.get("version", ""),
        "the file name": str(subject.wheel.version),
        folder: folder.removesuffix(".dist-info").partition("-")[2],
    }
    for place, text in stated.items():
        if parse_version(text) != declared:
            yield error("metadata-version", f"{place} says version {text or 'none'}, but {declared} is declared")


def check_tags(subject: Subject) -> Iterator[Finding]:
    """WHEEL has the tags of the file's name, and says that the wheel contains libraries."""
    headers = parse_headers(_metadata_file(subject.contents, "WHEEL"))
    try:
        inside = {str(tag) for text in headers.get("tag", ()) for tag in parse_tag(text)}
    except ValueError as reason:
        raise NotRunError(f"WHEEL has an unreadable tag: {reason}") from reason
    if inside != {*subject.wheel.tags}:
        stated = ", ".join(sorted(inside)) or "no tag"
        yield error("tag-mismatch", f"WHEEL says {stated}, the file name {', '.join(subject.wheel.tags)}")
    if headers.get("root-is-purelib") != ["false"]:
        yield error("tag-purelib", "WHEEL does not say 'Root-Is-Purelib: false', but the wheel contains libraries")


def check_licences(subject: Subject) -> Iterator[Finding]:
    """The licences that METADATA names exist, and those of all compiled-in code."""
    named = read_metadata(subject.contents).get("license_files", [])
    folder = wheelfile.dist_info(subject.contents)
    for name in sorted({*named, *subject.policy.licences}):
        text = subject.contents.get(f"{folder}/licenses/{name}")
        if text is None and name in named:  # before metadata 2.4 the files were in .dist-info itself
            text = subject.contents.get(f"{folder}/{name}")
        if text is None or not text.strip():
            yield error("licence-missing", f"{folder}/licenses/{name} is missing or empty")


def check_unwanted(subject: Subject) -> Iterator[Finding]:
    """No headers, build files, static libraries, sources or bytecode: nobody compiles against a wheel."""
    for name in sorted(subject.contents):
        match = UNWANTED.search(name)
        if match is not None:
            kind = (match.lastgroup or "file").replace("_", " ")
            yield error("unwanted-file", f"{name} is a {kind}, which does not belong in a wheel")


def check_size(subject: Subject) -> Iterator[Finding]:
    """The file is no larger than declared."""
    limit = subject.declaration.max_size
    size = subject.wheel.size
    if size > limit:
        yield error("too-large", f"{size} bytes, {size - limit} more than the {limit} allowed")


def check_build_paths(subject: Subject) -> Iterator[Finding]:
    """No file contains a path of the machine that built it."""
    pattern = path_pattern(subject.declaration.forbidden_paths)
    if pattern is None:
        raise NotRunError("no path was declared as forbidden")
    for name, data in sorted(subject.contents.items()):
        found = sorted({match.group().decode(errors="replace") for match in pattern.finditer(data)})
        if found:
            yield error("build-path", f"{name} contains {', '.join(found)}")


def path_pattern(paths: tuple[str, ...]) -> re.Pattern[bytes] | None:
    """Find these paths and those below them: ``/src`` in ``-I/src/a.h``, not in ``llama.cpp/src`` or ``/srcs``.

    A path of Windows is found in upper and lower case, and with either slash, also twice as in escaped text.
    """
    wanted = [_written(path.rstrip("/\\")) for path in sorted(paths, key=len, reverse=True) if path.rstrip("/\\")]
    if not wanted:
        return None
    return re.compile(rb"(?:(?<![\w.-])|(?<=-[IL]))(?:" + b"|".join(wanted) + rb")(?![\w-])")


def _written(path: str) -> bytes:
    if not PureWindowsPath(path).drive:
        return re.escape(path.encode())
    names = (re.escape(name.encode()) for name in re.split(r"[\\/]", path))
    return rb"(?i:" + rb"[\\/]{1,2}".join(names) + rb")"


def required_distributions(contents: Mapping[str, bytes]) -> frozenset[str]:
    """The normalised names of the distributions that METADATA always requires, without an extra."""
    names = set()
    for text in read_metadata(contents).get("requires_dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as reason:
            raise NotRunError(f"METADATA has an unreadable requirement: {reason}") from reason
        if requirement.marker is None or "extra" not in str(requirement.marker):
            names.add(canonicalize_name(requirement.name))
    return frozenset(names)


def read_metadata(contents: Mapping[str, bytes]) -> RawMetadata:
    """The fields of METADATA. Raises ``NotRunError`` if it is missing."""
    metadata, _ = parse_email(_metadata_file(contents, "METADATA"))
    return metadata


def parse_headers(text: bytes) -> dict[str, list[str]]:
    """``Name: value`` lines by lower-case name."""
    headers: dict[str, list[str]] = {}
    for line in text.decode("utf-8", errors="replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), []).append(value.strip())
    return headers


def _metadata_file(contents: Mapping[str, bytes], name: str) -> bytes:
    try:
        path = PurePosixPath(wheelfile.dist_info(contents), name).as_posix()
        return contents[path]
    except (PackagingError, KeyError) as reason:
        raise NotRunError(f"the wheel has no {name}: {reason}") from reason


def parse_version(text: str) -> Version | None:
    """The version; ``None`` for a text that is not one."""
    try:
        return Version(text)
    except InvalidVersion:
        return None
