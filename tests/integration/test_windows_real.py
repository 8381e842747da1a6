"""What of Windows can be done for real on Linux: DLLs made by mingw-w64, and NVIDIA's own from the locked wheels.

Needs Debian's gcc-mingw-w64-x86-64, g++-mingw-w64-x86-64, lld and llvm; a machine without them says so and skips. The
locked wheels for Windows are half a gigabyte that no build on Linux needs, so a test fetches none: it takes them from
the folder that LCW_WINDOWS_WHEELS names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from build_config import lock
from build_config.layout import PACKAGE, Layout
from build_config.platforms.windows import WINDOWS
from build_config.toolchain import cuda_pypi, import_libraries, msvc, programs
from tests import windows_machine
from tests.workshop import MINIATURE

MINGW = "x86_64-w64-mingw32"
TOOLS = (f"{MINGW}-gcc", f"{MINGW}-g++", "lld-link", "llvm-dlltool", "llvm-readobj")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in TOOLS),
        reason="apt install gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64 lld llvm",
    ),
]
LAYOUT = Layout(checkout=PACKAGE.parent, work_root=Path("/nowhere"))
PROGRAM = r"""
#include <stddef.h>
__declspec(dllimport) int cublasCreate_v2(void **);
__declspec(dllimport) size_t cublasLtGetVersion(void);
int main_of_the_test(void) { void * handle = NULL; return cublasCreate_v2(&handle) + (int) cublasLtGetVersion(); }
int DllMainCRTStartup(void * module, int reason, void * reserved) { return 1; }
"""


RUNTIME = """
int _fltused;
unsigned long long __security_cookie;
void __security_check_cookie(unsigned long long cookie) {}
int __GSHandlerCheck(void) { return 1; }
int atexit(void (*function)(void)) { return 0; }
void free(void * memory) {}
void * realloc(void * memory, unsigned long long size) { return 0; }
"""
"""Of Visual C++'s own runtime, which is not here, what NVIDIA's libraries ask for."""


def compile_object(folder: Path, source: str) -> Path:
    target = folder / "program.obj"
    command = [f"{MINGW}-gcc", "-c", "-O1", "-ffreestanding", "-xc", "-", "-o", str(target)]
    subprocess.run(command, input=source, text=True, check=True)
    return target


def link(folder: Path, made: Path, *libraries: Path) -> str:
    """Link a DLL as MSVC's linker would, and say what it imports."""
    dll = folder / "program.dll"
    options = ["/dll", "/nodefaultlib", "/entry:DllMainCRTStartup", "/export:main_of_the_test", f"/out:{dll}"]
    subprocess.run(["lld-link", *options, str(made), *map(str, libraries)], check=True)
    return subprocess.run(
        ["llvm-readobj", "--coff-imports", str(dll)], text=True, capture_output=True, check=True
    ).stdout


def dlltool(source: Path, library: Path) -> tuple[str, ...]:
    """LLVM's librarian in the place of lib.exe: the same file in, an import library of the same form out."""
    return ("llvm-dlltool", "-m", "i386:x86-64", "-d", str(source), "-l", str(library))


def make_dll(folder: Path, name: str, *functions: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    source = "".join(f"__declspec(dllexport) int {function}(void) {{ return 0; }}\n" for function in functions)
    command = [f"{MINGW}-gcc", "-shared", "-s", "-xc", "-", "-o", str(folder / name)]
    subprocess.run(command, input=source, text=True, check=True)
    return folder / name


def test_an_import_library_made_of_a_dll_links_to_that_dll(tmp_path: Path) -> None:
    make_dll(tmp_path / "bin" / "x86_64", "cublas64_13.dll", "cublasCreate_v2", "cublasDestroy_v2")
    make_dll(tmp_path / "bin" / "x86_64", "cublasLt64_13.dll", "cublasLtGetVersion")
    libraries = import_libraries.make(tmp_path, "13", dlltool)
    assert [str(path.relative_to(tmp_path)) for path in libraries] == ["lib/x64/cublas.lib", "lib/x64/cublasLt.lib"]
    imports = link(tmp_path, compile_object(tmp_path, PROGRAM), *libraries)
    assert "cublas64_13.dll" in imports
    assert "cublasLt64_13.dll" in imports
    assert "cublasDestroy_v2" not in imports


@pytest.fixture(scope="module")
def windows_wheels() -> Path:
    folder = os.environ.get("LCW_WINDOWS_WHEELS")
    if folder is None:
        pytest.skip("LCW_WINDOWS_WHEELS names no folder with the locked wheels for Windows")
    return Path(folder)


@pytest.fixture(scope="module")
def windows_toolkit(windows_wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The locked wheels for Windows, unpacked as the pipeline does it; each is held against its digest first."""
    root = tmp_path_factory.mktemp("toolkit")
    for file in lock.read_toolkit_lock(LAYOUT, "13.0", "win-amd64").files:
        assert programs.file_digest(windows_wheels / file.filename) == file.sha256
        cuda_pypi.unpack(windows_wheels / file.filename, root, major="13")
    return root


def kernel32(folder: Path, *libraries: Path) -> Path:
    """An import library of what these libraries take from Windows itself."""
    done = subprocess.run(
        ["llvm-nm", "--undefined-only", *map(str, libraries)], text=True, capture_output=True, check=False
    )
    names = {line.split()[-1].removeprefix("__imp_") for line in done.stdout.splitlines() if "__imp_" in line}
    source = folder / "kernel32.def"
    source.write_text(import_libraries.definition("KERNEL32.dll", tuple(sorted(names))))
    subprocess.run(dlltool(source, folder / "kernel32.lib"), check=True)
    return folder / "kernel32.lib"


def test_the_locked_wheels_for_windows_become_a_toolkit_that_links(windows_toolkit: Path, tmp_path: Path) -> None:
    """Of CUDA 13's own libraries only cuBLAS's are imported: cudart.lib and cuda.lib look for theirs when they run."""
    libraries = import_libraries.make(windows_toolkit, "13", dlltool)
    for name in ("bin/nvcc.exe", "bin/nvcc.profile", "nvvm/bin/cicc.exe", "lib/x64/cuda.lib", "lib/x64/cudart.lib"):
        assert (windows_toolkit / name).is_file(), name
    cuda = [windows_toolkit / "lib" / "x64" / name for name in ("cudart.lib", "cuda.lib")]
    source = (
        RUNTIME
        + "int cudaGetDeviceCount(int *);\nint cuDeviceGet(int *, int);\n"
        + PROGRAM.replace(
            "void * handle = NULL;", "void * handle = NULL; int n; cudaGetDeviceCount(&n); cuDeviceGet(&n, 0);"
        )
    )
    imports = link(tmp_path, compile_object(tmp_path, source), *libraries, *cuda, kernel32(tmp_path, *cuda))
    assert set(re.findall(r"Name: (\S+\.dll)", imports)) == {*WINDOWS.cuda_libraries("13.0"), "KERNEL32.dll"}


def test_the_record_of_the_header_is_that_of_the_locked_wheel(windows_toolkit: Path) -> None:
    assert msvc.supported(windows_toolkit) == range(1920, 1950)
    header = (windows_toolkit / msvc.HEADER).read_text(encoding="utf-8").splitlines()
    assert set(windows_machine.record("host_config-13.0.txt").splitlines()) <= set(header)


def test_every_driver_function_of_ggml_is_in_the_locked_import_library(windows_toolkit: Path) -> None:
    library = windows_toolkit / "lib" / "x64" / "cuda.lib"
    done = subprocess.run(["llvm-nm", str(library)], text=True, capture_output=True, check=False)
    names = {line.split()[-1] for line in done.stdout.splitlines() if line.strip()}
    assert {*cuda_pypi.DRIVER_SYMBOLS} <= names


def test_cmake_puts_the_dlls_of_a_unit_where_they_are_gathered_from(tmp_path: Path) -> None:
    """Our CMake project for a system of DLLs, with mingw in the place of cl; its names begin with lib, cl's do not."""
    build = tmp_path / "build"
    entries = {
        "CMAKE_SYSTEM_NAME": "Windows",
        "CMAKE_C_COMPILER": f"{MINGW}-gcc",
        "CMAKE_CXX_COMPILER": f"{MINGW}-g++",
        "CMAKE_MAKE_PROGRAM": str(programs.find_ninja().path),
        "CMAKE_RUNTIME_OUTPUT_DIRECTORY": str(build / "bin"),  # llama.cpp's own CMakeLists.txt, line 40
        "GGML_CPU_ALL_VARIANTS": "ON",
        "LCW_UNIT": "core",
        "LCW_CPU_VARIANTS": "x64;haswell",
        "LCW_LLAMA_CPP": str(MINIATURE),
    }
    options = [f"-D{name}={value}" for name, value in entries.items()]
    cmake = str(programs.find_cmake().path)
    project = ["-S", str(PACKAGE / "wheel_project"), "-B", str(build), "-G", "Ninja"]
    subprocess.run([cmake, *project, *options], check=True, capture_output=True)
    subprocess.run([str(programs.find_ninja().path), "-C", str(build), "lcw_unit"], check=True, capture_output=True)
    found = {path.name for folder in WINDOWS.output_folders for path in (build / folder).glob("*.dll")}
    stems = ("ggml-base", "ggml", "llama", "mtmd", "ggml-cpu-x64", "ggml-cpu-haswell")
    assert found >= {f"lib{WINDOWS.library(stem)}" for stem in stems}
    assert (build / "unit" / "libggml-cpu-x64.dll").is_file()
    assert (build / "bin" / "libggml.dll").is_file()
