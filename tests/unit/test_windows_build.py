"""The whole of what is called on Windows to build a unit: every argument, every variable."""

import dataclasses
import socket

import pytest

from build_config.model import SourceTree, Toolchain
from build_config.steps.units import cmake, object_cache, sandbox, settings
from build_config.steps.units.spec import UnitSpec, core_spec, shard_spec
from build_config.system.layout import PACKAGE
from build_config.system.platforms.windows import WINDOWS
from tests.support import factories, windows_machine
from tests.support.windows_machine import BUILD_TOOLS, USER_ENVIRONMENT

CONFIG = settings.read(PACKAGE / "data" / "variants.toml")
LAYOUT = windows_machine.layout()
CL = (BUILD_TOOLS / "VC/Tools/MSVC/14.44.35207/bin/Hostx64/x64/cl.exe").as_posix()
CMAKE = r"C:\Users\jörg\wheels\.nox\build_cuda_wheel\Lib\site-packages\cmake\data\bin\cmake.exe"
NINJA = r"C:\Users\jörg\wheels\.nox\build_cuda_wheel\Lib\site-packages\ninja\data\bin\ninja.exe"
TOOLKIT = "C:/llama-cuda-wheels/toolkit/cuda-13.0-0123456789ab"


def tree() -> SourceTree:
    return dataclasses.replace(
        factories.source_tree(), llama_cpp=LAYOUT.staged / "llama.cpp", bindings=LAYOUT.staged / "llama-cpp-python"
    )


COMMON = (
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_BUILD_TYPE=Release",
    f"-DCMAKE_CXX_COMPILER={CL}",
    "-DCMAKE_CXX_FLAGS=/DWIN32 /D_WINDOWS /EHsc /Brepro /experimental:deterministic /pathmap:C:\\llama-cuda-wheels=.",
    f"-DCMAKE_C_COMPILER={CL}",
    "-DCMAKE_C_FLAGS=/DWIN32 /D_WINDOWS /Brepro /experimental:deterministic /pathmap:C:\\llama-cuda-wheels=.",
    "-DCMAKE_DISABLE_FIND_PACKAGE_Git=ON",
    "-DCMAKE_MODULE_LINKER_FLAGS=/machine:x64 /INCREMENTAL:NO /Brepro",
    "-DCMAKE_MSVC_DEBUG_INFORMATION_FORMAT=",
    "-DCMAKE_MSVC_RUNTIME_LIBRARY=MultiThreadedDLL",
    "-DCMAKE_POLICY_DEFAULT_CMP0141=NEW",
    "-DCMAKE_SHARED_LINKER_FLAGS=/machine:x64 /INCREMENTAL:NO /Brepro",
    "-DFETCHCONTENT_FULLY_DISCONNECTED=ON",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CCACHE=OFF",
    "-DGGML_NATIVE=OFF",
    "-DGGML_OPENMP=ON",
    "-DGIT_EXE=",
    "-DGIT_EXECUTABLE=",
    "-DLCW_LLAMA_CPP=C:/llama-cuda-wheels/src/llama.cpp",
    "-DLLAMA_BUILD_COMMIT=012345678",
    "-DLLAMA_BUILD_COMMON=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_NUMBER=0",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
)


def expected(unit: str, *entries: str) -> tuple[str, ...]:
    return (
        *(CMAKE, "--fresh", "-S", r"C:\llama-cuda-wheels\src\wheel_project"),
        *("-B", rf"C:\llama-cuda-wheels\build\{unit}", "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={NINJA.replace(chr(92), '/')}",
        *sorted((*COMMON, *entries), key=lambda entry: entry.partition("=")[0]),
    )


def configured(spec: UnitSpec, chain: Toolchain, *, cuda: bool) -> tuple[str, ...]:
    project, build = LAYOUT.staged / "wheel_project", LAYOUT.build / spec.name
    entries = spec.entries | cmake.launcher_entries(chain, cuda=cuda)
    return cmake.configure_arguments(chain, project, build, entries, fresh=True)


def test_the_core_is_configured_with_exactly_this() -> None:
    chain = windows_machine.toolchain(sccache="0.16.0")
    argv = configured(core_spec(CONFIG, tree(), LAYOUT, chain, "p"), chain, cuda=False)
    sccache = "C:/llama-cuda-wheels/tools/sccache.exe-0.16.0/sccache.exe"
    assert argv == expected(
        "core",
        f"-DCMAKE_CXX_COMPILER_LAUNCHER={sccache}",
        f"-DCMAKE_C_COMPILER_LAUNCHER={sccache}",
        "-DGGML_CPU_ALL_VARIANTS=ON",
        "-DGGML_CUDA=OFF",
        "-DLCW_CPU_VARIANTS=x64;sse42;haswell;alderlake;cascadelake",
        "-DLCW_UNIT=core",
    )


@pytest.mark.parametrize(
    ("sccache", "before_nvcc"),
    [(None, ""), ("0.16.0", ""), ("0.18.0", "C:/llama-cuda-wheels/tools/sccache.exe-0.18.0/sccache.exe")],
)
def test_a_shard_is_configured_with_exactly_this(sccache: str | None, before_nvcc: str) -> None:
    chain = windows_machine.toolchain(sccache=sccache)
    argv = configured(shard_spec(CONFIG, tree(), LAYOUT, chain, "p", factories.SM89), chain, cuda=True)
    launcher = f"C:/llama-cuda-wheels/tools/sccache.exe-{sccache}/sccache.exe" if sccache else ""
    assert argv == expected(
        "sm89",
        "-DCMAKE_CUDA_ARCHITECTURES=89-real",
        f"-DCMAKE_CUDA_COMPILER={TOOLKIT}/bin/nvcc.exe",
        f"-DCMAKE_CUDA_COMPILER_LAUNCHER={before_nvcc}",
        "-DCMAKE_CUDA_FLAGS=-D_WINDOWS -Xcompiler=/EHsc -Xcompiler=/Brepro"
        " -Xcompiler=/experimental:deterministic -Xcompiler=/pathmap:C:\\llama-cuda-wheels=. -DCCCL_DISABLE_NVTX",
        f"-DCMAKE_CUDA_HOST_COMPILER={CL}",
        "-DCMAKE_CUDA_RUNTIME_LIBRARY=Shared",
        f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}",
        f"-DCMAKE_C_COMPILER_LAUNCHER={launcher}",
        f"-DCUDAToolkit_ROOT={TOOLKIT}",
        "-DGGML_CPU=OFF",
        "-DGGML_CUDA=ON",
        "-DGGML_CUDA_FA=ON",
        "-DGGML_CUDA_GRAPHS=ON",
        "-DGGML_CUDA_NCCL=OFF",
        "-DLCW_RANDOM_SEED=ON",
        "-DLCW_SHARD=sm89",
        "-DLCW_UNIT=cuda",
    )


def test_ninja_is_called_with_exactly_this() -> None:
    chain = windows_machine.toolchain()
    argv = cmake.build_arguments(chain, LAYOUT.build / "sm89", jobs=8)
    assert argv == (NINJA, "-C", r"C:\llama-cuda-wheels\build\sm89", "-j", "8", "lcw_unit")


def test_the_units_are_dlls_with_the_names_that_ggml_and_the_bindings_look_for() -> None:
    chain = windows_machine.toolchain()
    core = core_spec(CONFIG, tree(), LAYOUT, chain, "p")
    shard = shard_spec(CONFIG, tree(), LAYOUT, chain, "p", factories.SM89)
    variants = [f"ggml-cpu-{name}.dll" for name in ("alderlake", "cascadelake", "haswell", "sse42", "x64")]
    assert core.expected == ("ggml-base.dll", *variants, "ggml.dll", "llama.dll", "mtmd.dll")
    assert shard.expected == ("ggml-cuda-sm89.dll",)


def test_a_key_holds_the_windows_sdk_and_the_linker_and_nothing_of_linux() -> None:
    inputs = dict(core_spec(CONFIG, tree(), LAYOUT, windows_machine.toolchain(), "p").key.inputs)
    assert inputs["windows sdk"] == inputs["ucrt"] == "10.0.26100.0"
    assert inputs["host compiler version"] == "19.44.35219"
    assert inputs["binutils"] == "Microsoft Incremental Linker 14.44.35219.0"
    assert "glibc" not in inputs


def test_the_whole_environment_of_the_compilers() -> None:
    chain = windows_machine.toolchain()
    toolkit = WINDOWS.toolkit_variables(chain.cuda.root)
    environment = sandbox.windows_environment(
        chain.host, toolkit, LAYOUT, {**USER_ENVIRONMENT, "NUMBER_OF_PROCESSORS": "16"}
    )
    own = {name: value for name, value in environment.items() if name not in dict(chain.host.environment)}
    assert own == {
        "CUDA_PATH": r"C:\llama-cuda-wheels\toolkit\cuda-13.0-0123456789ab",
        "NUMBER_OF_PROCESSORS": "16",
        "PATHEXT": ".COM;.EXE;.BAT;.CMD",
        "PROCESSOR_ARCHITECTURE": "AMD64",
        "ProgramData": r"C:\ProgramData",
        "SystemDrive": "C:",
        "SystemRoot": r"C:\Windows",
        "TEMP": r"C:\llama-cuda-wheels\tmp",
        "TMP": r"C:\llama-cuda-wheels\tmp",
        "USERPROFILE": r"C:\llama-cuda-wheels\home",
        "VSLANG": "1033",
    }
    version = rf"{BUILD_TOOLS}\VC\Tools\MSVC\14.44.35207"
    kits = r"C:\Program Files (x86)\Windows Kits\10"
    assert environment["LIB"] == (
        rf"{version}\lib\x64;{kits}\lib\10.0.26100.0\ucrt\x64;{kits}\\lib\10.0.26100.0\\um\x64"
    )
    folders = environment["Path"].split(";")
    assert folders[0] == rf"{version}\bin\HostX64\x64"
    assert all(folder.startswith((str(BUILD_TOOLS), kits, r"C:\Windows")) for folder in folders)
    assert len({name.upper() for name in environment}) == len(environment), "one variable by two names"


def test_the_object_caches_server_listens_on_a_port_of_its_own() -> None:
    (port,) = object_cache._server(LAYOUT, "win-amd64").values()
    with socket.create_server(("127.0.0.1", int(port))):
        ((name, other),) = object_cache._server(LAYOUT, "win-amd64").items()
    assert name == "SCCACHE_SERVER_PORT"
    assert other != port, "a server that listens already is another build's"


def test_no_path_below_the_canonical_root_comes_near_the_260_characters_of_windows() -> None:
    """The longest that CMake makes of llama.cpp's sources, with what nvcc puts behind it for its own files."""
    longest = "llama.cpp/ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/template-instances"
    file = "fattn-mma-f16-instance-ncols1_16-ncols2_16.cu.obj.d.compute_120a.cudafe1.stub.c"
    path = LAYOUT.build / "sm120a" / longest / file
    assert len(str(path)) < 230
