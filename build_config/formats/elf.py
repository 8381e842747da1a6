"""Read an ELF file: the facts that the dynamic loader uses, and the sections that a strip should have removed."""

from __future__ import annotations

import io
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

MAGIC = b"\x7fELF"


class UnreadableElfError(Exception):
    """Not a shared library for x86-64, or one that is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElfLibrary:
    """A shared library.

    ``search_paths`` are the entries of DT_RPATH and DT_RUNPATH, ``versions`` the symbol versions it needs
    (``GLIBC_2.34``), ``leftovers`` the sections that a strip removes.
    """

    soname: str | None
    needed: tuple[str, ...]
    search_paths: tuple[str, ...]
    versions: tuple[str, ...]
    leftovers: tuple[str, ...]
    has_build_id: bool


def read(data: bytes) -> ElfLibrary:
    """The facts of a shared library. Raises ``UnreadableElfError``."""
    try:
        file = ELFFile(io.BytesIO(data))
        if file["e_machine"] != "EM_X86_64" or file["e_type"] != "ET_DYN":
            raise UnreadableElfError(f"{file['e_type']} for {file['e_machine']}")
        sections = {section.name: section for section in file.iter_sections()}
        dynamic = next((segment for segment in file.iter_segments() if isinstance(segment, DynamicSegment)), None)
        if dynamic is None or not sections:
            raise UnreadableElfError("it has no dynamic segment or no section table")
        paths = [*_strings(dynamic, "rpath"), *_strings(dynamic, "runpath")]
        return ElfLibrary(
            soname=next(iter(_strings(dynamic, "soname")), None),
            needed=_strings(dynamic, "needed"),
            search_paths=tuple(entry for path in paths for entry in path.split(":")),
            versions=_needed_versions(file),
            leftovers=tuple(name for name in sections if name == ".symtab" or name.startswith((".debug_", ".gdb_"))),
            has_build_id=".note.gnu.build-id" in sections,
        )
    except (ELFError, ConstructError, ValueError, LookupError, AttributeError, OverflowError, AssertionError) as error:
        # pyelftools documents ELFError, but raises any of the others too for a truncated or corrupted file.
        raise UnreadableElfError(str(error) or type(error).__name__) from error


def _strings(dynamic: DynamicSegment, kind: str) -> tuple[str, ...]:
    tag_name = f"DT_{kind.upper()}"  # pyelftools puts a tag's text into an attribute named after the tag
    return tuple(str(getattr(tag, kind)) for tag in dynamic.iter_tags() if tag.entry.d_tag == tag_name)


def _needed_versions(file: ELFFile) -> tuple[str, ...]:
    found = {
        version.name
        for section in file.iter_sections()
        if isinstance(section, GNUVerNeedSection)
        for _, versions in section.iter_versions()
        for version in versions
    }
    return tuple(sorted(found))
