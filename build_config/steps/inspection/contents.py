"""The input of the checks: a wheel's members in memory, the facts about its libraries, and its declaration."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from build_config.formats import elf, pe, wheelfile
from build_config.formats.elf import ElfLibrary
from build_config.formats.pe import Dll
from build_config.model import LibraryPolicy, Program, Wheel, WheelDeclaration
from build_config.reports import Finding, Severity
from build_config.system.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LIBRARY_FOLDER = "llama_cpp/lib"
"""The folder of the wheel's own libraries; vendored ones are in a folder ``<distribution>.libs``."""


class NotRunError(Exception):
    """A check could not run; the message says why. That is a finding, never a pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One wheel under inspection.

    ``platform`` is the platform of the wheel. ``contents`` maps member names to bytes, ``libraries`` the names of
    libraries to the facts about them. ``folder`` is an empty folder in which a check may put files for another program.
    """

    wheel: Wheel
    platform: Platform
    declaration: WheelDeclaration
    policy: LibraryPolicy
    contents: Mapping[str, bytes]
    libraries: Mapping[str, ElfLibrary | Dll]
    cuobjdump: Program | None
    objdump: str
    folder: Path

    def own_libraries(self) -> Iterator[tuple[str, ElfLibrary | Dll]]:
        """The libraries that this project built, without the vendored ones."""
        return ((name, library) for name, library in self.libraries.items() if not is_vendored(name))

    def elf_libraries(self) -> Iterator[tuple[str, ElfLibrary]]:
        """All ELF libraries."""
        return ((name, library) for name, library in self.libraries.items() if isinstance(library, ElfLibrary))

    def own_dlls(self) -> Iterator[tuple[str, Dll]]:
        """The DLLs that this project built, without the vendored ones."""
        return ((name, library) for name, library in self.own_libraries() if isinstance(library, Dll))

    def extracted(self, name: str) -> Path:
        """A member as a file of the same base name, written on first use."""
        path = self.folder / name.replace("/", "_") / PurePosixPath(name).name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.contents[name])
        return path


def is_vendored(name: str) -> bool:
    """Whether a member is a library that was added from the build machine."""
    return name.split("/", 1)[0].endswith(".libs")


def error(code: str, message: str) -> Finding:
    """A finding that prevents the publication of the wheel."""
    return Finding(code=code, severity=Severity.ERROR, message=message)


def warning(code: str, message: str) -> Finding:
    """A finding that someone should look at."""
    return Finding(code=code, severity=Severity.WARNING, message=message)


def check_each(names: Iterable[str], check: Callable[[str], Iterable[Finding]]) -> Iterator[Finding]:
    """Run a check of one member for each; those that could not be checked are named at the end by ``NotRunError``."""
    failures = []
    for name in names:
        try:
            yield from check(name)
        except NotRunError as failure:
            failures.append(str(failure))
    if failures:
        raise NotRunError("; ".join(failures))


def read_members(path: Path) -> tuple[dict[str, bytes], list[Finding]]:
    """The safe and readable members of an archive, and findings about all others."""
    contents: dict[str, bytes] = {}
    findings = []
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                problem = _member_problem(info, contents)
                if problem is not None:
                    findings.append(problem)
                elif not info.is_dir():
                    try:
                        contents[wheelfile.member_name(info)] = archive.read(info)
                    except wheelfile.DAMAGE as reason:
                        message = f"{wheelfile.member_name(info)} cannot be read: {reason}"
                        findings.append(error("archive-damaged", message))
    except wheelfile.DAMAGE as reason:
        findings.append(error("archive-damaged", f"{path.name} is not a sound archive: {reason}"))
    return contents, findings


def read_libraries(
    contents: Mapping[str, bytes], platform: Platform
) -> tuple[dict[str, ElfLibrary | Dll], list[Finding]]:
    """The facts about every library, and a finding for each file that cannot be read or is not what its name says.

    DLLs are read on their own platform only: pefile is not installed elsewhere.
    """
    libraries: dict[str, ElfLibrary | Dll] = {}
    findings = []
    for name, data in sorted(contents.items()):
        try:
            if data.startswith(elf.MAGIC):
                libraries[name] = elf.read(data)
            elif ".so" in PurePosixPath(name).suffixes:
                findings.append(error("library-unreadable", f"{name} is not an ELF file"))
            elif platform.uses_dlls and (data.startswith(pe.MAGIC) or name.lower().endswith(".dll")):
                libraries[name] = pe.read(data)
        except elf.UnreadableElfError as reason:
            findings.append(error("library-unreadable", f"{name} cannot be read as an x86-64 library: {reason}"))
        except pe.UnreadableDllError as reason:
            findings.append(error("library-unreadable", f"{name} cannot be read as a DLL for x86-64: {reason}"))
        except ImportError:
            findings.append(error("library-unreadable", f"{name} cannot be read: pefile is not installed"))
    return libraries, findings


def _member_problem(info: zipfile.ZipInfo, seen: Mapping[str, bytes]) -> Finding | None:
    name = wheelfile.member_name(info)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        return error("archive-unsafe-member", f"{name} would be installed outside the environment")
    if stat.S_ISLNK(info.external_attr >> 16):
        return error("archive-unsafe-member", f"{name} is a symbolic link, which installers do not keep")
    if name in seen:
        return error("archive-duplicate-member", f"{name} is in the archive twice")
    return None
