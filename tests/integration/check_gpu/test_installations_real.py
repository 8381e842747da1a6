"""The check on installations in the forms of other publishers: wheels in their layout, installed by pip.

The libraries are doubles; the layouts, names, tags and messages of the loader are real.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from build_config.system.layout import PACKAGE
from check_gpu.result import NOTHING_TO_FIX, Code
from tests.integration import conftest
from tests.integration.check_gpu.test_check_gpu_real import (
    CPU_BACKEND,
    CUDA_BACKEND,
    CUDA_CODE,
    LLAMA,
    NEW_DRIVER,
    ORIGIN,
    PACKAGE_CODE,
    Bench,
    Checker,
    skip_where_found,
)
from tests.support.doubles import compile_double

pytestmark = pytest.mark.integration

DOCUMENT = PACKAGE.parent / "docs" / "measurements" / "installations.md"
LINKED = PACKAGE_CODE.replace(' / "lib"', "")
"""The package of releases that have their libraries next to their modules."""


@dataclass(frozen=True)
class Form:
    """A form of installation; ``make`` puts the package into the environment, ``said`` is a part of the answer."""

    name: str
    tag: str
    make: Callable[[Bench], None]
    code: Code
    said: str
    command: str = ""


def fat_stock_build(bench: Bench) -> None:
    """Copies of each library under three names, in two folders, with headers: links become copies in a wheel."""
    bench.install_stock(cuda=True)
    other = bench.lib.parent / "bin"
    other.mkdir()
    for library in sorted(bench.lib.iterdir()):
        for name in (f"{library.name}.0", f"{library.name}.0.9.4"):
            shutil.copyfile(library, library.with_name(name))
        shutil.copyfile(library, other / library.name)
    (bench.lib.parent / "include").mkdir()
    (bench.lib.parent / "include" / "ggml-cuda.h").touch()


def one_library_with_cuda_inside(bench: Bench) -> None:
    bench.install_linked()


def one_library_without_cuda(bench: Bench) -> None:
    bench.install(LINKED, "0.1.77")
    compile_double(bench.lib.parent / "libllama.so", CPU_BACKEND + LLAMA)


def old_names(bench: Bench) -> None:
    """Releases of 2024: ggml has one library, with CUDA inside, and the images have libllava."""
    bench.install(LINKED, "0.2.82")
    folder = bench.lib.parent
    near = (f"-L{folder}", ORIGIN, "-Wl,--no-as-needed")
    compile_double(folder / "libggml_shared.so", CUDA_BACKEND, *bench.cuda_options)
    compile_double(folder / "libllama.so", LLAMA, *near, "-l:libggml_shared.so")
    compile_double(folder / "libllava.so", "int llava;", *near, "-l:libllama.so")


def another_package_name(bench: Bench) -> None:
    """The wheels of text-generation-webui can be installed next to one another."""
    bench.install_linked()
    rename_distribution(bench, "llama_cpp_python_cuda_tensorcores", "0.2.90+cu121")
    bench.lib.parent.rename(bench.site / "llama_cpp_cuda_tensorcores")


def repaired_by_auditwheel(bench: Bench) -> None:
    """CUDA's libraries are in the wheel, under mangled names, in a folder of their own."""
    bench.install_linked()
    own = bench.site / "llama_cpp_python.libs"
    compile_double(own / "libcudart-1a2b3c4d.so.13", "int cudart_double;")
    compile_double(own / "libcublas-5e6f7a8b.so.13", "int cublas_double(void) { return 0; }")
    needs = (f"-L{own}", "-l:libcudart-1a2b3c4d.so.13", "-l:libcublas-5e6f7a8b.so.13", f"-L{bench.root / 'driver'}")
    search = "-Wl,-rpath,$ORIGIN/../llama_cpp_python.libs"
    library = bench.lib.parent / "libllama.so"
    compile_double(library, CUDA_BACKEND + LLAMA, "-Wl,--no-as-needed", *needs, "-l:libcuda.so.1", search)
    shutil.rmtree(bench.root / "cuda")


def rocm(bench: Bench) -> None:
    backend(bench, "hip", "libamdhip64.so.6", "libhipblas.so.2")


def vulkan(bench: Bench) -> None:
    """Its loader is there, but it finds no GPU."""
    compile_double(bench.root / "cuda" / "libvulkan.so.1", "int vulkan;")
    backend(bench, "vulkan", "libvulkan.so.1")


def musl(bench: Bench) -> None:
    bench.install_stock(cuda=False)
    needed(bench.root / "elsewhere", "libc.musl-x86_64.so.1")
    folder = bench.root / "elsewhere"
    options = ("-Wl,--no-as-needed", f"-L{folder}", "-l:libc.musl-x86_64.so.1")
    near = (f"-L{bench.lib}", ORIGIN, "-l:libggml-cpu.so")
    compile_double(bench.lib / "libllama.so", LLAMA, *near, *options)


def cut(bench: Bench, length: int) -> None:
    """A full disk cuts a file. What is left of its header decides whether the loader notices."""
    bench.install_stock(cuda=True)
    library = bench.lib / "libggml-cuda.so"
    library.write_bytes(library.read_bytes()[:length])


def windows(bench: Bench) -> None:
    """A wheel for Windows, unpacked by hand or by --platform."""
    bench.install(PACKAGE_CODE.replace("libllama.so", "llama.dll"), "0.3.16")
    for name in ("llama.dll", "ggml.dll", "ggml-base.dll", "ggml-cpu.dll", "ggml-cuda.dll"):
        (bench.lib / name).write_bytes(b"MZ\x90\0" + bytes(2048))


def static_runtime(bench: Bench) -> None:
    """CUDA's runtime and cuBLAS are linked in: only the driver is needed."""
    bench.install(PACKAGE_CODE, "0.3.9")
    near = (f"-L{bench.lib}", ORIGIN, "-Wl,--no-as-needed")
    inside = CUDA_CODE + CUDA_BACKEND.removeprefix(CUDA_CODE).replace("int cublas_double(void);", "")
    inside = inside.replace("cublas_double(); ", "")
    compile_double(bench.lib / "libggml-cuda.so", inside, f"-L{bench.root / 'driver'}", "-l:libcuda.so.1")
    compile_double(bench.lib / "libllama.so", LLAMA, *near, "-l:libggml-cuda.so")
    shutil.rmtree(bench.root / "cuda")


def conda(bench: Bench) -> None:
    """In conda, llama.cpp is a package of its own: its libraries lie in the folder of all libraries."""
    outside = "pathlib.Path(__file__).parents[3]"
    bench.install(PACKAGE_CODE.replace('pathlib.Path(__file__).parent / "lib"', outside), "0.3.16")
    folder = bench.site.parents[1]
    (folder.parent / "conda-meta").mkdir()
    compile_double(folder / "libggml-cuda.so", CUDA_BACKEND, *bench.cuda_options)
    compile_double(folder / "libllama.so", LLAMA, f"-L{folder}", ORIGIN, "-Wl,--no-as-needed", "-l:libggml-cuda.so")


def listed_and_gone(bench: Bench) -> None:
    """Another package was installed over it and removed: pip still lists this one."""
    bench.install(PACKAGE_CODE, "0.3.16")
    bench.lib.rmdir()
    (bench.lib.parent / "__init__.py").rename(bench.lib.parent / "llama.py")


CPYTHON = f"cp3{sys.version_info.minor}-cp3{sys.version_info.minor}"
FORMS = (
    Form("stock CUDA build, each library in six copies", f"{CPYTHON}-linux_x86_64", fat_stock_build, Code.CARD_USED,
         "are on CUDA0"),
    Form("0.2.90, one library with CUDA inside", f"{CPYTHON}-linux_x86_64", one_library_with_cuda_inside,
         Code.CARD_USED, "are on CUDA0"),
    Form("0.1.77, one library without CUDA", f"{CPYTHON}-linux_x86_64", one_library_without_cuda, Code.CPU_ONLY_BUILD,
         "none of its 1 libraries has CUDA code", "--arch 89"),
    Form("0.2.82, `libggml_shared.so` and `libllava.so`", f"{CPYTHON}-manylinux_2_31_x86_64", old_names,
         Code.CARD_USED, "are on CUDA0"),
    Form("package `llama_cpp_cuda_tensorcores`", f"{CPYTHON}-linux_x86_64", another_package_name, Code.CARD_USED,
         "are on CUDA0"),
    Form("repaired by auditwheel, CUDA's libraries inside", f"{CPYTHON}-manylinux_2_35_x86_64", repaired_by_auditwheel,
         Code.CARD_USED, "are on CUDA0"),
    Form("CUDA's runtime and cuBLAS linked in", "py3-none-manylinux_2_35_x86_64", static_runtime, Code.CARD_USED,
         "are on CUDA0"),
    Form("conda, `llama.cpp` as a package of its own", "py3-none-linux_x86_64", conda, Code.CARD_USED, "are on CUDA0"),
    Form("ROCm build without ROCm", f"{CPYTHON}-linux_x86_64", rocm, Code.IMPORT_FAILED,
         "libamdhip64.so.6: cannot open shared object file", "this build is for AMD's ROCm: .*--arch 89"),
    Form("Vulkan build that finds no GPU", f"{CPYTHON}-linux_x86_64", vulkan, Code.CPU_ONLY_BUILD,
         "has no CUDA, only libggml-vulkan.so, which finds no GPU", "--arch 89"),
    Form("musl build on glibc", "py3-none-musllinux_1_2_x86_64", musl, Code.IMPORT_FAILED,
         "libc.musl-x86_64.so.1: cannot open shared object file", "on Alpine one for musl"),
    Form("`libggml-cuda.so` is empty", f"{CPYTHON}-linux_x86_64", functools.partial(cut, length=0),
         Code.IMPORT_FAILED, "file too short", "CMAKE_ARGS=-DGGML_CUDA=on .*--force-reinstall"),
    Form("`libggml-cuda.so` is cut", f"{CPYTHON}-linux_x86_64", functools.partial(cut, length=4096),
         Code.CRASHED, "while importing llama_cpp: its process was ended by SIGBUS",
         "CMAKE_ARGS=-DGGML_CUDA=on .*--force-reinstall"),
    Form("Windows build on Linux", "py3-none-win_amd64", windows, Code.IMPORT_FAILED, "invalid ELF header",
         "--force-reinstall"),
    Form("listed by pip, but removed", f"{CPYTHON}-linux_x86_64", listed_and_gone, Code.NOT_INSTALLED,
         "has no package llama_cpp, although pip lists llama-cpp-python 0.3.16", "--arch 89"),
)  # fmt: skip


@pytest.fixture(name="template", scope="module")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    conftest.compile_cuda(root)
    return root


@pytest.fixture(name="bench")
def _bench(template: Path, tmp_path: Path) -> Bench:
    shutil.copytree(template, tmp_path / "bench")
    return Bench(tmp_path / "bench", *conftest.bare_environment(tmp_path / "bench" / "venv"))


@pytest.fixture(name="check")
def _check(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Checker:
    return Checker(bench, monkeypatch)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_form_of_another_publisher_is_diagnosed(bench: Bench, check: Checker, form: Form) -> None:
    skip_where_found("libcublas.so.13")
    form.make(bench)
    install_as_wheel(bench, form.tag)
    checked = check("driver", "cuda", **NEW_DRIVER)
    diagnosis = checked.diagnosis
    assert diagnosis.code is form.code, diagnosis
    assert re.search(form.said, diagnosis.sentence), diagnosis
    assert re.search(form.command, str(diagnosis.command or "")), diagnosis
    assert (diagnosis.command is None) is (form.code in NOTHING_TO_FIX)
    names = [Path(library.file).name for library in checked.installation.cuda]
    assert len(names) == len(set(names)), "a copy was examined, too"


def test_the_table_of_the_page_is_that_of_the_tests() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| `([\w.-]+)` \| `([a-z-]+)` \| .+ \|$", page, re.MULTILINE)
    assert rows == [(form.name, form.tag.replace(CPYTHON, "cp311-cp311"), form.code.value) for form in FORMS]


# -------------------------------------------------------------------------------------------------------------- wheels


def backend(bench: Bench, kind: str, *sonames: str) -> None:
    """Install a build with another backend than CUDA, which needs the libraries ``sonames``."""
    bench.install(PACKAGE_CODE, "0.3.16")
    folder = bench.root / "elsewhere"
    for soname in sonames:
        needed(folder, soname)
    options = ("-Wl,--no-as-needed", f"-L{folder}", *(f"-l:{soname}" for soname in sonames))
    compile_double(bench.lib / f"libggml-{kind}.so", CPU_BACKEND, *options)
    near = (f"-L{bench.lib}", ORIGIN, "-Wl,--no-as-needed")
    compile_double(bench.lib / "libllama.so", LLAMA, *near, f"-l:libggml-{kind}.so", f"-Wl,-rpath-link,{folder}")


def needed(folder: Path, soname: str) -> None:
    """Compile a library to link with, where no loader searches."""
    compile_double(folder / soname, "int needed;")


def rename_distribution(bench: Bench, name: str, version: str) -> None:
    (metadata,) = bench.site.glob("*.dist-info/METADATA")
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    metadata.parent.rename(bench.site / f"{name}-{version}.dist-info")


def install_as_wheel(bench: Bench, tag: str) -> None:
    """Pack what lies in the environment as a wheel, remove it, and let pip install the wheel.

    A wheel of another system or C library gets there with pip's options --target and --platform.
    """
    (info,) = bench.site.glob("*.dist-info")
    about = f"Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: false\nTag: {tag}\n"
    (info / "WHEEL").write_text(about, encoding="utf-8")
    files = (path for path in sorted(bench.site.rglob("*")) if path.is_file())
    members = {path.relative_to(bench.site).as_posix(): path.read_bytes() for path in files}
    members[f"{info.name}/RECORD"] = "".join(f"{name},,\n" for name in [*members, f"{info.name}/RECORD"]).encode()
    shutil.rmtree(bench.site)
    bench.site.mkdir()
    wheel = bench.root / f"{info.name.removesuffix('.dist-info')}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    options = ["--no-index", "--no-deps"]
    platform = tag.rpartition("-")[2]
    if platform.startswith(("musllinux", "win")):
        options += ["--target", str(bench.site), "--platform", platform, "--only-binary", ":all:"]
    done = conftest.run(sys.executable, "-m", "pip", "--python", bench.python, "install", *options, wheel)
    assert done.returncode == 0, done.stderr
