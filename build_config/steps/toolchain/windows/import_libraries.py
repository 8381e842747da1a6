"""Make import libraries for DLLs that have none: NVIDIA's wheels for Windows contain cuBLAS as DLLs only.

A DLL's export table contains everything that an import library needs; ``lib.exe`` makes one from a list of the names.
https://learn.microsoft.com/cpp/build/reference/building-an-import-library-and-export-file
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, LockError
from build_config.system import processes

if TYPE_CHECKING:
    from collections.abc import Callable

DLL_FOLDER = "bin/x86_64"
LIBRARY_FOLDER = "lib/x64"
MISSING = {"cublas.lib": "cublas64_{major}.dll", "cublasLt.lib": "cublasLt64_{major}.dll"}
"""The import libraries that the linker needs, each with its DLL."""
SECONDS_ALLOWED = 120.0


def exports(dll: Path) -> tuple[str, ...]:
    """The exported names, sorted. Raises ``LockError`` if it is not a DLL, or exports by number or elsewhere."""
    import pefile  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415  # not installed on every platform

    try:
        with pefile.PE(str(dll), fast_load=True) as library:
            library.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_EXPORT"]])
            symbols = library.DIRECTORY_ENTRY_EXPORT.symbols
            names = sorted(symbol.name.decode("ascii") for symbol in symbols if symbol.name and not symbol.forwarder)
    except (pefile.PEFormatError, AttributeError, UnicodeDecodeError, OSError) as error:
        raise LockError(f"the exports of {dll.name} cannot be read: {error}") from error
    if not names or len(names) != len(symbols):
        raise LockError(f"{dll.name} exports {len(symbols)} functions, of which {len(names)} have a name")
    return tuple(names)


def definition(dll: str, names: tuple[str, ...]) -> str:
    """The module-definition file: the name of the DLL and its exports."""
    return "".join([f"LIBRARY {dll}\n", "EXPORTS\n", *(f"    {name}\n" for name in names)])


def arguments(librarian: Path, source: Path, library: Path) -> tuple[str, ...]:
    """The call of ``lib.exe`` that makes an import library from a module-definition file."""
    return (str(librarian), "/nologo", f"/def:{source}", "/machine:x64", f"/out:{library}")


def make(root: Path, major: str, call: Callable[[Path, Path], tuple[str, ...]]) -> tuple[Path, ...]:
    """Make the import libraries that a toolkit root of NVIDIA's wheels lacks; return their paths.

    ``call`` returns the call of a librarian for a module-definition file and the library to make from it. Raises
    ``LockError`` if a DLL is missing or has an unknown form, or the librarian fails.
    """
    made = []
    for name, pattern in MISSING.items():
        dll = root / DLL_FOLDER / pattern.format(major=major)
        if not dll.is_file():
            raise LockError(f"the wheels of the toolkit contain no {DLL_FOLDER}/{dll.name}")
        library = root / LIBRARY_FOLDER / name
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / f"{dll.stem}.def"
            source.write_text(definition(dll.name, exports(dll)), encoding="ascii")
            command = processes.Command(argv=call(source, library), cwd=source.parent)
            try:
                processes.run(command, timeout=SECONDS_ALLOWED)
            except CommandError as error:
                raise LockError(f"no import library can be made for {dll.name}: {error.message}") from error
        library.with_suffix(".exp").unlink(missing_ok=True)  # for linking the DLL itself
        made.append(library)
    return tuple(made)
