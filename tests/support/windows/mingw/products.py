"""What the tests of a wheel under Wine need of a compiler, made on Linux by MinGW-w64, once.

The folder has:

    core        llama.cpp's core from the locked sources, with two CPU variants, by our CMake project
    runtime     the DLLs of MinGW-w64 that the core needs
    shard       the small CUDA backend with our own part of a shard
    simulated   the simulated GPU for Windows
    planted     libraries that must not be loaded
    wheels      small requirements of the wheel, for Windows' Python
    src         the sources of llama.cpp and of the bindings
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import inputs
from build_config.steps import locks
from build_config.steps.toolchain import gcc, locked_cuda, programs
from build_config.steps.units import settings, store
from build_config.steps.validation import planted_libraries
from build_config.steps.validation.planted_libraries import PlantedLibraries
from build_config.system import platforms
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.testbed import simulated_device
from build_config.testbed.simulated_device import windows
from ci.wine.enter import DESCRIPTION

if TYPE_CHECKING:
    from ci.wine.tree import Tree

HERE = Path(__file__).parent
BACKEND = HERE.parent / "backend"
TARGET = "x86_64-w64-mingw32ucrt"
PROGRAMS = ("gcc", "g++", "windres", "ar", "ranlib", "nm", "objdump", "strip", "dlltool", "ld")
RUNTIME = ("libgcc_s_seh-1.dll", "libstdc++-6.dll", "libgomp-1.dll", "libwinpthread-1.dll")
CPU_VARIANTS = ("x64", "haswell")
UNIT = ("ggml-base", "ggml", "llama", "mtmd", *(f"ggml-cpu-{variant}" for variant in CPU_VARIANTS))
SHARD = "ggml-cuda-sm89"
ARCH = "89"
CUDA = "13.0"
HEADERS = ("nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-cublas", "nvidia-cuda-cccl")
"""The locked wheels with the headers that a shard needs. They are the same for both systems."""
SMALL_PACKAGES = ("diskcache", "jinja2", "markupsafe")
PYTHON = "3.13"
QUIET = Console(terminal=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """MinGW-w64 of a tree. ``folder`` has a script for each of its programs, by the same name."""

    folder: Path

    @classmethod
    def of(cls, tree: Tree, folder: Path) -> Compiler:
        folder.mkdir(parents=True, exist_ok=True)
        for name in PROGRAMS:
            script = folder / f"{TARGET}-{name}"
            command = tree.command(script.name, folder=Path("@"))
            before, after = (shlex.quote(part) for part in (command.environment or {})[DESCRIPTION].split('"@"'))
            entry = f"""{DESCRIPTION}={before}'"'"$PWD"'"'{after} exec {shlex.join(command.argv)}"""
            script.write_text(f'#!/bin/sh\n{entry} "$@"\n', encoding="utf-8")
            script.chmod(0o755)
        return cls(folder=folder)

    def path(self, name: str) -> str:
        return str(self.folder / f"{TARGET}-{name}")

    def run(self, name: str, *arguments: object) -> str:
        done = subprocess.run([self.path(name), *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": os.pathsep.join([str(self.folder), os.environ["PATH"]])}


def make(cache: Path, mingw: Tree) -> Path:
    """The folder below ``cache``. Its name is a digest of everything that it is made of."""
    source = locks.read(_layout(cache), "linux-x86_64").source
    project = store.folder_digest(PACKAGE / "wheel_project", without=inputs.NOT_IN_EVERY_UNIT)
    names = (path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*.cmake")))
    core = cache / f"core-{_digest(mingw.folder.name, source.file.sha256, project, str(_core_entries()), *names)}"
    files = (*BACKEND.iterdir(), *simulated_device.SOURCES.iterdir(), Path(planted_libraries.__file__), Path(__file__))
    texts = (path.read_text(encoding="utf-8") for path in sorted(files) if path.suffix != ".md" and path.is_file())
    folder = cache / f"products-{_digest(core.name, *texts)}"
    if folder.is_dir():
        return folder
    compiler = Compiler.of(mingw, cache / "programs")
    tree = inputs.provide_sources(source, _layout(cache), QUIET, llama_cpp=None)
    if not core.is_dir():
        _build_core(core, tree.llama_cpp, compiler, mingw, cache / "build")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(core, partial)
    for path in (partial / "runtime").iterdir():
        compiler.run("strip", path)
    (partial / "src").mkdir()
    for path in (tree.llama_cpp, tree.bindings):
        shutil.copytree(path, partial / "src" / path.name)
    toolkit = _toolkit(cache)
    include, libraries = toolkit / "include", toolkit / "lib" / "x64"
    windows.build(
        partial / "simulated",
        include=include,
        import_library=libraries / "cudart.lib",
        major=13,
        cc=compiler.path("gcc"),
    )
    _build_shard(partial, tree.llama_cpp, include, libraries, compiler)
    planted = PlantedLibraries.compile(partial / "planted", cc=compiler.path("gcc"), platform=platforms.of("win-amd64"))
    assert planted is not None
    _small_wheels(partial / "wheels")
    partial.rename(folder)
    return folder


def _layout(cache: Path) -> Layout:
    return Layout(checkout=cache, work_root=cache / "work")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _core_entries() -> dict[str, str]:
    """The entries for CMake that do not depend on this machine."""
    shipped = settings.read(PACKAGE / "data" / "variants.toml")
    own = {"LCW_UNIT": "core", "LCW_CPU_VARIANTS": ";".join(CPU_VARIANTS)}
    of_build = {"LLAMA_BUILD_COMMIT": "unknown", "LLAMA_BUILD_NUMBER": "0"}
    return {**shipped.common.defines, **shipped.core.defines, **own, **of_build}


def _build_core(folder: Path, llama_cpp: Path, compiler: Compiler, mingw: Tree, build: Path) -> None:
    shutil.rmtree(build, ignore_errors=True)
    entries = {
        **_core_entries(),
        "CMAKE_TOOLCHAIN_FILE": str(HERE / "toolchain.cmake"),
        "CMAKE_MAKE_PROGRAM": str(programs.find_ninja().path),
        "LCW_LLAMA_CPP": str(llama_cpp),
    }
    options = [f"-D{name}={value}" for name, value in entries.items()]
    environment = {**compiler.environment, "LCW_MINGW_TREE": str(mingw.folder)}
    ninja = str(programs.find_ninja().path)
    project = ["-S", str(PACKAGE / "wheel_project"), "-B", str(build), "-G", "Ninja"]
    for command in ([str(programs.find_cmake().path), *project, *options], [ninja, "-C", str(build), "lcw_unit"]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "core").mkdir(parents=True)
    (partial / "runtime").mkdir()
    for stem in UNIT:
        name = f"{stem}.dll"
        (found,) = (path for part in platforms.of("win-amd64").output_folders for path in (build / part).glob(name))
        shutil.copyfile(found, partial / "core" / name)
    for name in RUNTIME:
        found = Path(compiler.run("gcc", f"-print-file-name={name}").strip())
        shutil.copyfile(mingw.folder / found.resolve().relative_to("/"), partial / "runtime" / name)
    partial.rename(folder)
    shutil.rmtree(build)


def _toolkit(cache: Path) -> Path:
    """CUDA's headers and NVIDIA's two import libraries for Windows, from the locked wheels."""
    from tests.integration.conftest import locked_wheel  # noqa: PLC0415  # pytest's

    root = cache / "cuda"
    here, there = (locks.read_toolkit_lock(_layout(cache), CUDA, one) for one in ("linux-x86_64", "win-amd64"))
    wanted = [(file, "/include/") for file in here.files if file.name in HEADERS]
    wanted += [(file, "/lib/x64/") for file in there.files if file.name == "nvidia-cuda-runtime"]
    done = root / _digest(*(file.sha256 for file, _ in wanted))
    if done.is_dir():
        return done
    partial = done.with_name(f"{done.name}.partial")
    for file, part in wanted:
        with zipfile.ZipFile(locked_wheel(file)) as archive:
            for member in archive.namelist():
                if part in member and not member.endswith("/"):
                    target = partial / member.split("/", 2)[2]  # below nvidia/cu13
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(member))
    partial.rename(done)
    return done


def _build_shard(folder: Path, llama_cpp: Path, include: Path, libraries: Path, compiler: Compiler) -> None:
    """The small backend, with the sources of the wheel's own project that every shard has."""
    project, target = PACKAGE / "wheel_project", folder / "shard"
    target.mkdir()
    rows = (project / "shard_archs.h.in").read_text(encoding="utf-8")
    (target / "shard_archs.h").write_text(rows.replace("@LCW_SHARD_ROWS@", f"    {{{ARCH}, false, 0}},\n"))
    code = _device_code(folder.parent)
    section = '__attribute__((section(".nv_fatb"), aligned(8)))'
    (target / "kernel.c").write_text(f"{section} const unsigned char kernel_code[] = {{{','.join(map(str, code))}}};\n")
    headers = (include, llama_cpp / "ggml" / "include", llama_cpp / "ggml" / "src")
    options = [
        *("-O1", "-Wall", "-Wextra", "-DGGML_BACKEND_DL", "-DGGML_BACKEND_BUILD", "-DGGML_BACKEND_SHARED"),
        *(part for header in headers for part in ("-isystem", header)),
        *(f"-I{target}", f"-I{project}", "-c"),
    ]
    first = ("-include", project / "shown_names.h")  # as cmake/cuda.cmake has nvcc do it
    sources: dict[Path, tuple[object, ...]] = {
        BACKEND / "backend.cpp": first,
        project / "shard_score.cpp": (),
        project / "shown_devices.cpp": (),
    }
    objects = []
    for source, more in sources.items():
        objects.append(target / f"{source.stem}.o")
        compiler.run("g++", "-std=c++17", *options, *more, source, "-o", objects[-1])
    for source in (target / "kernel.c", BACKEND / "visual_cpp.c"):
        objects.append(target / f"{source.stem}.o")
        compiler.run("gcc", "-c", source, "-o", objects[-1])
    exported = target / "shard.def"
    exported.write_text("EXPORTS\nggml_backend_init\nggml_backend_score\n", encoding="utf-8")
    (blas,) = (folder / "simulated").glob("cublas64_*.dll")
    nvidia = (libraries / "cudart.lib", libraries / "cuda.lib")
    linked = (*objects, exported, blas, folder / "core" / "ggml-base.dll", *nvidia)
    compiler.run(
        *("g++", "-shared", "-s", "-Wl,--exclude-all-symbols", "-Wl,--no-insert-timestamp"),
        *(*linked, "-o", target / f"{SHARD}.dll"),
    )
    for path in target.iterdir():
        if path.suffix != ".dll":
            path.unlink()


def _device_code(cache: Path) -> bytes:
    """What the locked nvcc makes of the kernel. Device code is the same on both systems."""
    from tests.integration.conftest import WITHOUT_CUBLAS, locked_wheel  # noqa: PLC0415  # as above

    whole = locks.read_toolkit_lock(_layout(cache), CUDA, "linux-x86_64")
    reduced = dataclasses.replace(whole, files=tuple(file for file in whole.files if file.name in WITHOUT_CUBLAS))
    wheels = tuple(locked_wheel(file) for file in reduced.files)
    nvcc = locked_cuda.provide(reduced, wheels, _layout(cache), cc=str(gcc.find(None, os.environ).cc.path)).nvcc.path
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary, "kernel.fatbin")
        code = f"-gencode=arch=compute_{ARCH},code=sm_{ARCH}"
        subprocess.run([nvcc, "-fatbin", code, BACKEND / "kernel.cu", "-o", target], check=True)
        return target.read_bytes()


def _small_wheels(folder: Path) -> None:
    """What the tests' own lock has not of the wheel's requirements, by the digests of the lock for validation."""
    folder.mkdir()
    text = (PACKAGE / "data" / "locks" / "validation.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.partition("==")[0] in SMALL_PACKAGES]
    (folder / "small.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "download", "-q", "-r", str(folder / "small.txt"), "-d", str(folder))
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--platform", "win_amd64")
    subprocess.run([*pip, *options, "--python-version", PYTHON, "--implementation", "cp"], check=True)
