"""Read a DLL: the facts that Windows' loader uses, and those of the linker that differ from build to build."""

from __future__ import annotations

from dataclasses import dataclass

MAGIC = b"MZ"
MACHINE_X64 = 0x8664
DEBUG_CODEVIEW = 2
DEBUG_REPRO = 16
DLL = 0x2000


class UnreadableDllError(Exception):
    """Not a DLL for x86-64, or one that is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dll:
    """A DLL.

    ``needed`` are the DLLs it imports from, delayed ones too, in lower case: Windows ignores case.
    ``name`` is the one that its export table gives. ``reproducible`` means that the linker wrote a hash instead of
    the time (``/Brepro``). ``debug_file`` is the path of a PDB.
    """

    name: str | None
    needed: tuple[str, ...]
    exports: tuple[str, ...]
    reproducible: bool
    debug_file: str | None


def read(data: bytes) -> Dll:
    """The facts of a DLL. Raises ``UnreadableDllError``."""
    import pefile  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415  # not installed on every platform

    directories = [
        pefile.DIRECTORY_ENTRY[f"IMAGE_DIRECTORY_ENTRY_{name}"]
        for name in ("EXPORT", "IMPORT", "DELAY_IMPORT", "DEBUG")
    ]
    try:
        with pefile.PE(data=data, fast_load=True) as file:
            if file.FILE_HEADER.Machine != MACHINE_X64 or not file.FILE_HEADER.Characteristics & DLL:
                raise UnreadableDllError("it is not a DLL for x86-64")
            file.parse_data_directories(directories)
            imports = [*getattr(file, "DIRECTORY_ENTRY_IMPORT", ()), *getattr(file, "DIRECTORY_ENTRY_DELAY_IMPORT", ())]
            exports = getattr(file, "DIRECTORY_ENTRY_EXPORT", None)
            debug = getattr(file, "DIRECTORY_ENTRY_DEBUG", ())
            pdb = next((one.entry for one in debug if one.struct.Type == DEBUG_CODEVIEW and one.entry), None)
            return Dll(
                name=exports.name.decode() if exports is not None and exports.name else None,
                needed=tuple(sorted({one.dll.decode().lower() for one in imports})),
                exports=tuple(sorted(one.name.decode() for one in exports.symbols if one.name)) if exports else (),
                reproducible=any(one.struct.Type == DEBUG_REPRO for one in debug),
                debug_file=pdb.PdbFileName.rstrip(b"\0").decode(errors="replace") if pdb is not None else None,
            )
    except (pefile.PEFormatError, UnicodeDecodeError, ValueError, LookupError, AttributeError) as error:
        raise UnreadableDllError(str(error) or type(error).__name__) from error
