"""A Visual Studio of test doubles for a Windows under Wine; README.md says what is played, and what is real."""

from __future__ import annotations

import json
import shutil
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pefile  # type: ignore[import-untyped,unused-ignore]

from build_config.model import LockedFile
from build_config.steps.locks import download
from build_config.steps.toolchain.windows import import_libraries, msvc
from build_config.system import jsonio, processes
from build_config.system.console import Console
from ci.wine.packages import WINE_DLLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ci.wine.windows import Prefix

HERE = Path(__file__).parent
ROOT = PurePosixPath("BuildTools")
"""Below ``C:``. Not where the real one is by default: nvcc calls cl through cmd, and Wine's cmd runs no program in
``C:\\Program Files (x86)`` by such a call."""
TOOLSET = "14.44.35207"
REDISTRIBUTABLE = "14.44.35112"
GCC = "x86_64-w64-mingw32ucrt-gcc"
TARGET = "x86_64-pc-windows-msvc"
PLAYED = ("cl", "link", "lib", "rc", "mt")
PARTS = ("c1.dll", "c1xx.dll", "c2.dll")
"""Parts of the compiler of which only the digests are asked for."""
HEADERS = (
    *("assert.h", "corecrt.h", "crtdefs.h", "ctype.h", "limits.h", "math.h", "stdarg.h", "stddef.h", "stdint.h"),
    *("stdio.h", "stdlib.h", "string.h", "time.h", "algorithm", "cassert", "climits", "cmath", "cstdarg", "cstddef"),
    *("cstdint", "cstdio", "cstdlib", "cstring", "functional", "new", "utility", "vector"),
)
OPENMP = "vcomp140.dll"
LIBRARIES = {"vcruntime": "vcruntime140.dll", "msvcprt": "msvcp140.dll", "vcomp": OPENMP}
"""Import libraries by the names that the compiler asks for, and Microsoft's DLLs."""
KERNEL = "kernel32.dll"
C_LIBRARY = {
    "heap": ("free", "malloc", "realloc"),
    "runtime": ("_execute_onexit_table", "_initialize_onexit_table", "_register_onexit_function", "abort", "exit"),
    "stdio": ("__acrt_iob_func", "__stdio_common_vfprintf"),
    "string": ("strcmp", "strlen", "wcslen"),
}
"""The parts of Windows' C library, and the functions in use: programs name ``api-ms-win-crt-heap-l1-1-0.dll``."""
REST = ("math", "ucrtbase.dll")
"""The part that gets every other function of the whole. CUDA's headers name them all, and the linker drops them."""
RUNTIMES = ("msvcrt", "libcmt")
"""The runtime as the compiler names it with and without ``/MD``; there is no static one here."""
EMPTY = ("oldnames", "user32", "gdi32", "winspool", "shell32", "ole32", "oleaut32", "uuid", "comdlg32", "advapi32")
"""Libraries that CMake and the compiler always name, of which the miniature uses nothing."""


def fetch(downloads: Path) -> tuple[Path, Path]:
    """The wheels with Clang and with Microsoft's runtime."""
    listed = tomllib.loads((HERE / "downloads.toml").read_text(encoding="utf-8"))["files"]
    downloads.mkdir(parents=True, exist_ok=True)
    files = tuple(jsonio.from_data(one, LockedFile) for one in listed)
    clang, runtime = download.fetch(files, downloads, Console(terminal=False))
    return clang, runtime


def install(prefix: Prefix, downloads: Path) -> None:
    """Put the doubles where the pipeline looks for Visual Studio, and ``icacls`` into the folder of Windows."""
    clang, runtime = fetch(downloads)
    studio = prefix.drive_c / ROOT
    tools = studio / "VC" / "Tools" / "MSVC" / TOOLSET
    double = _compile_double(prefix)
    _install_programs(tools / "bin" / "Hostx64" / "x64", double, clang)
    (tools / "include").mkdir(parents=True)
    shutil.copyfile(HERE / "headers.h", tools / "include" / "headers.h")
    for name in HEADERS:
        (tools / "include" / name).write_text("#include <headers.h>\n", encoding="ascii")
    redistributable = studio / "VC" / "Redist" / "MSVC" / REDISTRIBUTABLE / "x64"
    _unpack_runtime(runtime, redistributable)
    _make_libraries(prefix, tools / "lib" / "x64", redistributable)
    script = studio / "VC" / "Auxiliary" / "Build" / "vcvarsall.bat"
    script.parent.mkdir(parents=True)
    script.write_text((HERE / "vcvarsall.bat").read_text(encoding="ascii"), encoding="ascii", newline="\r\n")
    _install_vswhere(prefix, double)
    icacls = prefix.drive_c / "windows" / "system32" / "icacls.exe"
    icacls.unlink(missing_ok=True)
    shutil.copyfile(double, icacls)


def _compile_double(prefix: Prefix) -> Path:
    double = prefix.folder / "double.exe"
    options = ("-municode", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-o", str(double))
    processes.run(prefix.tree.command(GCC, *options, str(HERE / "double.c"), "-ladvapi32"))
    return double


def _install_programs(folder: Path, double: Path, clang: Path) -> None:
    folder.mkdir(parents=True)
    for name in PLAYED:
        shutil.copyfile(double, folder / f"{name}.exe")
    for name in PARTS:
        (folder / name).write_text(f"A test double in the place of Microsoft's {name}.\n", encoding="ascii")
    (folder / "clang").mkdir()
    target = folder / "clang" / "zig.exe"
    with zipfile.ZipFile(clang) as wheel, wheel.open("ziglang/zig.exe") as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)


def _unpack_runtime(runtime: Path, folder: Path) -> None:
    """The DLLs in the folders in which Visual Studio has them."""
    with zipfile.ZipFile(runtime) as wheel:
        for member in wheel.namelist():
            path = PurePosixPath(member)
            if path.suffix == ".dll" and path.parent.name == "Scripts":
                part = "OpenMP" if path.name == OPENMP else "CRT"
                target = folder / f"Microsoft.VC143.{part}" / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(member))


def _make_libraries(prefix: Prefix, folder: Path, redistributable: Path) -> None:
    folder.mkdir(parents=True)

    def library(name: str, *inputs: str) -> None:
        argv = ("llvm-lib", "/nologo", "/machine:x64", f"/out:{folder / name}.lib", *inputs)
        processes.run(prefix.tree.command(*argv, folder=folder))

    objects = []
    for name, options in (("runtime", ()), ("program", ("-DPROGRAM",))):
        made = folder / f"{name}.obj"
        argv = ("clang", f"--target={TARGET}", "-O1", "-w", *options, "-c", str(HERE / "runtime.c"), "-o", str(made))
        processes.run(prefix.tree.command(*argv))
        objects.append(str(made))
    for name in RUNTIMES:
        library(name, *objects)

    def import_library(name: str, dll: str, functions: Iterable[str]) -> str:
        definition = folder / f"{name}.def"
        definition.write_text(import_libraries.definition(dll, tuple(functions)), encoding="ascii")
        library(name, f"/def:{definition}")
        return str(folder / f"{name}.lib")

    for name, dll in LIBRARIES.items():
        import_library(name, dll, sorted(_exports(next(redistributable.glob(f"*/{dll}")))))
    import_library("kernel32", KERNEL, sorted(_exports(prefix.tree.folder / WINE_DLLS / KERNEL)))
    rest, whole = REST
    named = {name for names in C_LIBRARY.values() for name in names}
    named |= _exports(next(redistributable.glob(f"*/{LIBRARIES['vcruntime']}")))
    parts = C_LIBRARY | {rest: tuple(_exports(prefix.tree.folder / WINE_DLLS / whole) - named)}
    library(
        "ucrt",
        *(import_library(name, f"api-ms-win-crt-{name}-l1-1-0.dll", sorted(names)) for name, names in parts.items()),
    )
    for name in EMPTY:
        library(name, "/llvmlibempty")


def _exports(dll: Path) -> set[str]:
    """The names that a DLL exports, those that it forwards to another DLL too."""
    with pefile.PE(str(dll), fast_load=True) as library:
        library.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_EXPORT"]])
        return {symbol.name.decode("ascii") for symbol in library.DIRECTORY_ENTRY_EXPORT.symbols if symbol.name}


def _install_vswhere(prefix: Prefix, double: Path) -> None:
    vswhere = prefix.drive_c / "Program Files (x86)" / msvc.VSWHERE.parent.as_posix() / msvc.VSWHERE.name
    vswhere.parent.mkdir(parents=True)
    shutil.copyfile(double, vswhere)
    found = {
        "instanceId": "doubles",
        "installationPath": prefix.windows_path(prefix.drive_c / ROOT),
        "installationVersion": "17.14.37027.9",
        "isComplete": True,
        "isPrerelease": False,
        "displayName": "Test doubles in the place of Visual Studio Build Tools 2022",
    }
    vswhere.with_suffix(".json").write_text(json.dumps([found]), encoding="utf-8")
