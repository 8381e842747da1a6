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
from typing import TYPE_CHECKING

import pytest

from build_config.formats import pe, wheelfile
from build_config.steps import inspection, locks
from build_config.steps.toolchain import locked_cuda, programs
from build_config.steps.toolchain.windows import import_libraries, msvc
from build_config.steps.wheel import repair
from build_config.system.files import file_sha256
from build_config.system.layout import PACKAGE, Layout
from build_config.system.platforms.windows import WINDOWS
from tests.integration import conftest
from tests.support import factories, wheels, windows_machine
from tests.support.workshop import MINIATURE

if TYPE_CHECKING:
    from collections.abc import Iterable

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
"""
ENTRY = "int DllMainCRTStartup(void * module, int reason, void * reserved) { return 1; }\n"
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


def link(dll: Path, *arguments: object) -> Path:
    """Link a DLL as MSVC's linker would."""
    options = ["/dll", "/nodefaultlib", "/entry:DllMainCRTStartup", f"/out:{dll}"]
    subprocess.run(["lld-link", *options, *map(str, arguments)], check=True)
    return dll


def imports_of(folder: Path, *objects: Path) -> str:
    """Link the program with these libraries, and say what it imports."""
    dll = link(folder / "program.dll", "/export:main_of_the_test", *objects)
    return subprocess.check_output(["llvm-readobj", "--coff-imports", dll], text=True)


def dlltool(source: Path, library: Path) -> tuple[str, ...]:
    """LLVM's librarian in the place of lib.exe: the same file in, an import library of the same form out."""
    return ("llvm-dlltool", "-m", "i386:x86-64", "-d", str(source), "-l", str(library))


def import_library(library: Path, dll: str, functions: Iterable[str]) -> Path:
    """Make an import library for these functions of a DLL that is not here."""
    source = library.with_suffix(".def")
    source.write_text(import_libraries.definition(dll, tuple(functions)))
    subprocess.run(dlltool(source, library), check=True)
    return library


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
    imports = imports_of(tmp_path, compile_object(tmp_path, PROGRAM + ENTRY), *libraries)
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
    for file in locks.read_toolkit_lock(LAYOUT, "13.0", "win-amd64").files:
        assert file_sha256(windows_wheels / file.filename) == file.sha256
        locked_cuda.unpack(windows_wheels / file.filename, root, major="13")
    return root


def kernel32(folder: Path, *libraries: Path) -> Path:
    """An import library of what these libraries take from Windows itself."""
    done = conftest.run("llvm-nm", "--undefined-only", *libraries)
    names = {line.split()[-1].removeprefix("__imp_") for line in done.stdout.splitlines() if "__imp_" in line}
    return import_library(folder / "kernel32.lib", "KERNEL32.dll", sorted(names))


def test_the_locked_wheels_for_windows_become_a_toolkit_that_links(windows_toolkit: Path, tmp_path: Path) -> None:
    """Of CUDA 13's own libraries only cuBLAS's are imported: cudart.lib and cuda.lib look for theirs when they run."""
    libraries = import_libraries.make(windows_toolkit, "13", dlltool)
    for name in ("bin/nvcc.exe", "bin/nvcc.profile", "nvvm/bin/cicc.exe", "lib/x64/cuda.lib", "lib/x64/cudart.lib"):
        assert (windows_toolkit / name).is_file(), name
    cuda = [windows_toolkit / "lib" / "x64" / name for name in ("cudart.lib", "cuda.lib")]
    more = "int cudaGetDeviceCount(int *);\nint cuDeviceGet(int *, int);\n"
    calls = "void * handle = NULL; int n; cudaGetDeviceCount(&n); cuDeviceGet(&n, 0);"
    source = RUNTIME + more + ENTRY + PROGRAM.replace("void * handle = NULL;", calls)
    imports = imports_of(tmp_path, compile_object(tmp_path, source), *libraries, *cuda, kernel32(tmp_path, *cuda))
    assert set(re.findall(r"Name: (\S+\.dll)", imports)) == {*WINDOWS.cuda_libraries("13.0"), "KERNEL32.dll"}


def test_the_record_of_the_header_is_that_of_the_locked_wheel(windows_toolkit: Path) -> None:
    assert msvc.supported(windows_toolkit) == range(1920, 1950)
    header = (windows_toolkit / msvc.HEADER).read_text(encoding="utf-8").splitlines()
    assert set(windows_machine.record("host_config-13.0.txt").splitlines()) <= set(header)


def test_every_driver_function_of_ggml_is_in_the_locked_import_library(windows_toolkit: Path) -> None:
    library = windows_toolkit / "lib" / "x64" / "cuda.lib"
    done = conftest.run("llvm-nm", library)
    names = {line.split()[-1] for line in done.stdout.splitlines() if line.strip()}
    assert {*locked_cuda.DRIVER_SYMBOLS} <= names


EXPORTING = """#pragma once
#define GGML_BACKEND_DL_SCORE_IMPL(score) \\
    extern "C" __declspec(dllexport) int ggml_backend_score(void) { return score(); }
"""
"""What ggml's header makes of it on Windows."""


CALLER = """
extern "C" __declspec(dllexport) int caller() {
    int              count = 0;
    void *           memory;
    cudaDeviceProp   properties;
    const int        runtime = cudaGetDeviceCount(&count) | cudaSetDevice(1) | cudaGetDeviceProperties(&properties, 0);
    CUdevice         device;
    return runtime | cudaMalloc(&memory, 1) | cuDeviceGet(&device, 0);
}
"""
"""In the place of ggml-cuda's sources."""


def test_the_shards_own_sources_compile_and_link_with_the_locked_toolkit(windows_toolkit: Path, tmp_path: Path) -> None:
    """As a DLL: it exports the score, its calls go through ours, and it imports nothing of CUDA: it loads anywhere."""
    (tmp_path / "ggml-backend-impl.h").write_text(EXPORTING)
    rows = (PACKAGE / "wheel_project" / "shard_archs.h.in").read_text().replace("@LCW_SHARD_ROWS@", "{89, false, 0},\n")
    (tmp_path / "shard_archs.h").write_text(rows)
    compiler = [f"{MINGW}-g++", "-std=c++17", "-O1", "-w", "-c", "-D__NV_NO_HOST_COMPILER_CHECK"]
    folders = [f"-I{tmp_path}", f"-I{windows_toolkit / 'include'}"]
    project = PACKAGE / "wheel_project"
    (tmp_path / "caller.cpp").write_text(CALLER)
    first = ["-include", str(project / "shown_names.h")]  # as cmake/cuda.cmake has nvcc do it
    sources = {project / "shard_score.cpp": [], project / "shown_devices.cpp": [], tmp_path / "caller.cpp": first}
    for source, options in sources.items():
        target = tmp_path / f"{source.stem}.obj"
        subprocess.run([*compiler, *folders, *options, str(source), "-o", str(target)], check=True)
    called = conftest.run(f"{MINGW}-nm", "-u", tmp_path / "caller.obj").stdout.split()
    assert {name for name in called if "cu" in name} == {
        *("shown_cudaGetDeviceCount", "shown_cudaSetDevice", "shown_cudaGetDeviceProperties", "shown_cuDeviceGet"),
        "cudaMalloc",
    }
    objects = [tmp_path / f"{source.stem}.obj" for source in sources]
    libraries = [windows_toolkit / "lib" / "x64" / name for name in ("cudart.lib", "cuda.lib")]
    rest = [compile_object(tmp_path, RUNTIME + ENTRY), *libraries, kernel32(tmp_path, libraries[0])]
    flags = ["/Brepro", "/force:unresolved"]  # the C++ run-time library is mingw's, and not linked
    dll = link(tmp_path / WINDOWS.library("ggml-cuda-sm89"), *flags, *objects, *rest)
    made = pe.read(dll.read_bytes())
    assert made.exports == ("caller", "ggml_backend_score")
    assert made.needed == ("kernel32.dll",)


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


# ------------------------------------------------------------------------------------------------- a miniature wheel

MODULE = """
__declspec(dllexport) int ggml_backend_score(void) { return 1; }
__declspec(dllexport) void * ggml_backend_init(void) { return 0; }
"""
OF_A_DLL = {
    "ggml-base": "int std_terminate(void);\n__declspec(dllexport) int ggml_version(void) { return std_terminate(); }\n",
    "ggml": "int ggml_version(void);\n__declspec(dllexport) int ggml(void) { return ggml_version(); }\n",
    "llama": "int ggml(void);\n__declspec(dllexport) int llama(void) { return ggml(); }\n",
    "mtmd": "int llama(void);\n__declspec(dllexport) int mtmd(void) { return llama(); }\n",
    "ggml-cpu-x64": "int ggml_version(void); int std_terminate(void);\n"
    "__declspec(dllexport) int cpu(void) { return ggml_version() + std_terminate(); }\n" + MODULE,
    "ggml-cuda-sm89": "int ggml_version(void); int cublasCreate_v2(void);\n"
    "__declspec(dllexport) int cuda(void) { return ggml_version() + cublasCreate_v2(); }\n" + MODULE,
}
RUNTIME_DLL = {
    "msvcp140": "int terminate(void);\n__declspec(dllexport) int std_terminate(void) { return terminate(); }\n",
    "vcruntime140": "__declspec(dllexport) int terminate(void) { return 1; }\n",
}
"""The second is next to every python.exe, and in the same folder as the first."""
FROM = {
    "ggml-base": ("ggml_version",),
    "ggml": ("ggml",),
    "llama": ("llama",),
    "msvcp140": ("std_terminate",),
    "vcruntime140": ("terminate",),
    "cublas64_13": ("cublasCreate_v2",),
}


def link_own(folder: Path, name: str, *options: str) -> bytes:
    """A DLL of the wheel, linked with the linker's flags of the pipeline, and without any runtime."""
    made = compile_object(folder, (OF_A_DLL | RUNTIME_DLL)[name] + ENTRY)
    libraries = [import_library(folder / f"{dll}.lib", f"{dll}.dll", FROM[dll]) for dll in FROM if dll != name]
    flags = WINDOWS.flag_entries(WINDOWS.work_root)["CMAKE_SHARED_LINKER_FLAGS"].split()
    dll = folder / WINDOWS.library(name)
    return link(dll, f"/implib:{folder / 'out.lib'}", *(options or flags), made, *libraries).read_bytes()


@pytest.fixture(scope="module")
def dlls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("dlls")
    return {WINDOWS.library(name): link_own(folder, name) for name in OF_A_DLL}


def assembled(folder: Path, libraries: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    members = wheels.contents(libraries, "win_amd64")
    return wheels.write(folder, members, wheels.wheel_name("win_amd64")).path


def redistributable(folder: Path) -> Path:
    """A folder with what stands for Visual C++'s runtime."""
    folder.mkdir(parents=True)
    for name in RUNTIME_DLL:
        link_own(folder, name)
    return folder


def repaired(folder: Path, libraries: dict[str, bytes]) -> Path:
    done = repair.repair_windows(
        wheelfile.read(assembled(folder / "assembled", libraries)),
        folder / "repaired",
        policy=wheels.policy("win-amd64"),
        folders=(redistributable(folder / "Microsoft.VC143.CRT"),),
        log=folder / "repair.log",
    )
    return done.path


def findings(folder: Path, wheel: Path) -> dict[str, str]:
    """What inspection finds besides device code, of which this miniature has none and cuobjdump is not asked."""
    contents = wheelfile.read_contents(wheel)
    contents.pop(f"{wheels.DIST_INFO}/RECORD")
    listed = wheels.write(folder, wheels.listed(contents, factories.SM89), wheel.name)
    report = inspection.inspect(
        listed,
        wheels.declaration(factories.SM89),
        policy=wheels.policy("win-amd64"),
        cuobjdump=None,
        workdir=folder / "inspection",
    )
    return {one.code: one.message for one in report.findings if one.code != "device-code-not-run"}


def test_delvewheel_takes_in_visual_cpps_runtime_by_a_name_of_its_own_and_nothing_of_nvidias(
    tmp_path: Path, dlls: dict[str, bytes]
) -> None:
    wheel = repaired(tmp_path, dlls)
    contents = wheelfile.read_contents(wheel)
    (runtime,) = (name for name in contents if name.startswith("llama_cpp_python.libs/msvcp140"))
    cpu, cuda = (pe.read(contents[f"llama_cpp/lib/{name}.dll"]) for name in ("ggml-cpu-x64", "ggml-cuda-sm89"))
    assert cpu.needed == ("ggml-base.dll", Path(runtime).name.lower())
    assert pe.read(contents["llama_cpp/lib/ggml-base.dll"]).needed == (Path(runtime).name.lower(),), "others need it"
    assert Path(runtime).name != "msvcp140.dll"
    assert cuda.needed == ("cublas64_13.dll", "ggml-base.dll")
    assert cuda.reproducible
    assert not any("cublas" in name for name in contents)


def test_a_repaired_wheel_passes_inspection(tmp_path: Path, dlls: dict[str, bytes]) -> None:
    assert findings(tmp_path, repaired(tmp_path / "made", dlls)) == {}


def test_the_same_wheel_is_repaired_to_the_same_bytes(tmp_path: Path, dlls: dict[str, bytes]) -> None:
    digests = {wheelfile.read(repaired(tmp_path / name, dlls)).sha256 for name in ("first", "second")}
    assert len(digests) == 1


def test_a_wheel_that_was_not_repaired_lacks_the_runtime(tmp_path: Path, dlls: dict[str, bytes]) -> None:
    found = findings(tmp_path, assembled(tmp_path / "assembled", dlls))
    assert found.keys() == {"needed-unknown"}
    assert "ggml-cpu-x64.dll needs msvcp140.dll" in found["needed-unknown"]


def test_a_link_without_brepro_and_with_a_pdb_is_found(tmp_path: Path, dlls: dict[str, bytes]) -> None:
    pdb = f"/pdb:{tmp_path / 'llama.pdb'}"
    spoilt = dlls | {"llama.dll": link_own(tmp_path, "llama", "/machine:x64", "/debug", pdb)}
    found = findings(tmp_path, repaired(tmp_path / "made", spoilt))
    assert found.keys() == {"not-reproducible", "debug-file"}
    assert "llama.pdb" in found["debug-file"]


def test_the_same_sources_are_linked_to_the_same_bytes_in_another_folder(
    tmp_path: Path, dlls: dict[str, bytes]
) -> None:
    assert link_own(tmp_path, "ggml-cuda-sm89") == dlls["ggml-cuda-sm89.dll"]
