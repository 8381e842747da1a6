"""Values for tests: complete, plausible, and cheap."""

from pathlib import Path

from packaging.version import Version

from build_config.formats.build_facts import BuildFacts, ShardFacts
from build_config.model import CudaArch, CudaToolkit, HostCompiler, Machine, Program, Shard, SourceTree, Toolchain
from build_config.reports import EmulatedCheck, EmulatedKernel, EmulationReport
from build_config.system.layout import PACKAGE, Layout

SM89 = Shard(name="sm89", archs=(CudaArch.parse("89"),))
SM86 = Shard(name="sm86", archs=(CudaArch.parse("86"),))
MACHINE = Machine(system="Linux x86_64", cpu="a CPU", cores=2, glibc="2.36", driver=None, gpus=())


def program(path: str, version: str = "1.0") -> Program:
    return Program(path=Path(path), version=version, found_via="a test")


def layout(work_root: Path, checkout: Path = PACKAGE.parent) -> Layout:
    return Layout(checkout=checkout, work_root=work_root)


def toolchain(root: Path = Path("/toolkit"), *, launcher: Program | None = None, cuda: str = "13.0.88") -> Toolchain:
    return Toolchain(
        cuda=CudaToolkit(
            root=root, nvcc=program(f"{root}/bin/nvcc", cuda), version=cuda, identity="c" * 64, locked=True
        ),
        host=HostCompiler(
            cc=program("/usr/bin/gcc"), cxx=program("/usr/bin/g++", "12.2.0"), identity="g" * 64, binutils="GNU ld 2.40"
        ),
        cmake=program("/venv/bin/cmake", "4.4.4"),
        ninja=program("/venv/bin/ninja", "1.13.2"),
        launcher=launcher,
        cuobjdump=program(f"{root}/bin/cuobjdump", "13.2.51"),
    )


def source_tree(staged: Path = Path("/staged"), *, digest: str = "a" * 64) -> SourceTree:
    return SourceTree(
        version=Version("0.3.36"),
        llama_cpp=staged / "llama.cpp",
        bindings=staged / "llama-cpp-python",
        llama_cpp_digest=digest,
        bindings_digest="b" * 64,
        locked=True,
        commit="0123456789abcdef",
    )


def build_facts(*archs: str, cuda: str = "13.0") -> BuildFacts:
    """Of a wheel with a shard for each entry: ``89``, or ``86+120`` for several architectures."""
    return BuildFacts(
        version="0.3.36",
        cuda=cuda,
        oldest_driver="580",
        shards=tuple(
            ShardFacts(
                name=f"sm{arch}", file=f"libggml-cuda-sm{arch}.so", archs=tuple(map(CudaArch.parse, arch.split("+")))
            )
            for arch in archs
        ),
        libraries=("libcudart.so.13", "libcublas.so.13"),
        build_command="nox -s build_cuda_wheel -- --arch {arch}",
    )


def emulation_report(row: EmulatedCheck, kernel: EmulatedKernel) -> EmulationReport:
    """A report with one check and one kernel."""
    return EmulationReport(
        wheel_sha256="a" * 64,
        arch="sm_89",
        checks=(row,),
        kernels=(kernel,),
        kernels_in_shard=6515,
        refused=(),
        cublas_calls=2,
        graph_launches=0,
        misused=0,
        seconds=60.0,
        memory=300_000_000,
    )
