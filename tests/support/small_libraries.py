"""Small real shared libraries, compiled by GCC, with the names and dependencies of the wheel's libraries."""

import subprocess
from pathlib import Path

STRIPPED = ("-Wl,-s", "-Wl,--build-id=none")
ORIGIN = "-Wl,-rpath,$ORIGIN"
ADD = "void {name}(float *a, const float *b) {{ for (int i = 0; i < 4096; i++) a[i] += b[i]; }}\n"
ADD_IN_THREADS = """
void {name}(float *a, const float *b) {{
#pragma omp parallel for
    for (int i = 0; i < 4096; i++) a[i] += b[i];
}}
"""


def compile_library(folder: Path, name: str, source: str, *options: str) -> bytes:
    """Compile and link ``name`` in ``folder``; earlier libraries there can be linked with ``-l:<file>``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / f"{name}.c"
    text.write_text(source, encoding="utf-8")
    fixed = ("-O3", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-Wl,--no-as-needed", f"-L{folder}")
    subprocess.run(["gcc", *fixed, text.name, "-o", name, *options], cwd=folder, check=True)
    return (folder / name).read_bytes()


def compile_core(folder: Path, *, openmp: bool = False) -> dict[str, bytes]:
    """The core's libraries and one CPU variant that uses AVX2. With ``openmp`` the CPU backends need libgomp."""
    needs = {
        "libggml-base.so": (),
        "libggml.so": ("-l:libggml-base.so",),
        "libllama.so": ("-l:libggml.so", "-l:libggml-base.so"),
        "libmtmd.so": ("-l:libllama.so",),
        "libggml-cpu-x64.so": ("-l:libggml-base.so",),
        "libggml-cpu-haswell.so": ("-l:libggml-base.so", "-mavx2"),
    }
    made = {}
    for name, options in needs.items():
        threads = openmp and name.startswith("libggml-cpu")
        source = (ADD_IN_THREADS if threads else ADD).format(name=name[3:-3].replace("-", "_"))
        extra = ("-fopenmp",) if threads else ()
        made[name] = compile_library(folder, name, source, *STRIPPED, ORIGIN, *options, *extra)
    return made


def compile_absent(folder: Path, soname: str) -> str:
    """Make a library for linking that neither a wheel nor a machine contains; returns the linker's option for it."""
    compile_library(folder, soname, ADD.format(name="absent_" + "".join(filter(str.isalnum, soname))))
    return f"-l:{soname}"
