"""Say what this machine can build and what is missing, with the package to install.

Facts are collected first; pure functions judge them, so a test can judge any machine.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

import psutil
from packaging.tags import sys_tags

from build_config import archs
from build_config.archs import LOCKED_CUDA
from build_config.errors import ArchitectureError, PipelineError, ToolkitMissingError
from build_config.model import OLDEST_PYTHON, CudaToolkit, HostCompiler, PlatformName, Program
from build_config.steps import toolchain
from build_config.steps.toolchain import gcc, installed_cuda, programs
from build_config.steps.toolchain.windows import msvc
from build_config.system import machine, platforms, workroot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from build_config.system.layout import Layout
    from build_config.tasks.recommend import Recommendation

State = Literal["ok", "missing", "warning"]
P = ParamSpec("P")
T = TypeVar("T")
Judged = tuple[State, str, str | None]
"""State, text and remedy of a row."""
COMMAND = "nox -s build_cuda_wheel"


@dataclass(frozen=True, slots=True)
class DoctorRow:
    """One line of the answer. ``missing`` prevents a build; ``warning`` does not."""

    subject: str
    state: State
    text: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledToolkit:
    """A CUDA toolkit of this machine, and a compiler that it supports. ``problem``: anything else that is wrong."""

    toolkit: CudaToolkit
    compiler: HostCompiler | PipelineError
    problem: PipelineError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """The facts about the machine. Sizes are in bytes; an error replaces a fact that could not be found."""

    python: tuple[int, int]
    compiler: HostCompiler | PipelineError
    newest_gcc: int
    git: str | None
    work_root: Path
    work_root_problem: PipelineError | None
    free: int
    memory: int
    cores: int
    glibc: str
    nvidia: machine.NvidiaState
    ccache: Program | None
    sccache: Program | None
    installed: tuple[InstalledToolkit, ...] = ()
    platform: PlatformName = "linux-x86_64"


def examine(layout: Layout) -> tuple[DoctorRow, ...]:
    """Examine this machine; the last row says in one sentence what it can build. Creates and downloads nothing."""
    return judge(collect(layout))


def recommend(layout: Layout, where: str | None) -> Recommendation:
    """Choose the wheel for this machine from an index (a folder, a page, an address; default: the wheelhouse).

    Raises ``SettingsError`` for a missing index, ``NetworkError`` for one that does not answer.
    """
    from build_config.tasks import recommend as choosing  # noqa: PLC0415  # it speaks HTTP and reads signatures

    index, candidates = choosing.read(where or str(layout.wheelhouse))
    version = ".".join(map(str, sys.version_info[:2]))
    tags = frozenset(map(str, sys_tags()))
    python = choosing.Interpreter(version=version, tags=tags, uv=shutil.which("uv") is not None)
    answer = choosing.recommend(machine.describe(), python, candidates, index)
    problem = machine.nvidia().problem
    if problem is None:
        return answer
    warning = f"The NVIDIA driver has a problem ({problem}): what is said about GPUs may be wrong."
    return dataclasses.replace(answer, advice=(warning, *answer.advice))


def overall(rows: tuple[DoctorRow, ...]) -> bool:
    """Whether a build can start: nothing is missing."""
    return all(row.state != "missing" for row in rows)


def collect(layout: Layout) -> MachineFacts:
    """Collect the facts. Raises nothing if one is missing."""
    newest_gcc = _newest_gcc(layout)
    return MachineFacts(
        python=sys.version_info[:2],
        compiler=_or_error(toolchain.host_for_locked, newest_gcc, os.environ),
        newest_gcc=newest_gcc,
        git=shutil.which("git"),
        work_root=layout.work_root,
        work_root_problem=_or_error(workroot.check, layout.work_root),
        free=workroot.free_bytes(layout.work_root),
        memory=psutil.virtual_memory().total,
        cores=machine.usable_cores(),
        glibc=machine.glibc_version(),
        nvidia=machine.nvidia(),
        ccache=programs.find_ccache(os.environ),
        sccache=programs.find_sccache(),
        installed=tuple(_installed()),
        platform=platforms.HERE.name,
    )


def judge(facts: MachineFacts) -> tuple[DoctorRow, ...]:
    """Turn facts into rows."""
    network = "not tested; the first build downloads about 620 MB from the Python package index, later ones nothing"
    rows = (
        DoctorRow("Python", *_python(facts)),
        DoctorRow("C++ compiler", *_cxx(facts)),
        *(DoctorRow(f"CUDA {one.toolkit.release}", *_toolkit(one)) for one in facts.installed),
        DoctorRow("git", *_git(facts)),
        DoctorRow("Disk", *_disk(facts)),
        DoctorRow("Memory", *_memory(facts)),
        *((DoctorRow("C library", *_glibc(facts)),) if platforms.of(facts.platform).has_glibc else ()),
        DoctorRow("Work root", *_work_root(facts)),
        *(DoctorRow("NVIDIA GPU", *found) for found in _gpus(facts)),
        DoctorRow("NVIDIA driver", *_driver(facts)),
        DoctorRow("Compiler cache", *_launcher(facts)),
        DoctorRow("Network", "ok", network),
    )
    return (*rows, DoctorRow("This machine", *_closing(facts, rows)))


# ------------------------------------------------------------------------------------------------------ collecting


def _newest_gcc(layout: Layout) -> int:
    for root in sorted(layout.toolkits.glob(f"cuda-{LOCKED_CUDA}-*")):
        try:
            return gcc.supported_major(root)
        except ToolkitMissingError:
            continue
    return archs.toolkit_series(LOCKED_CUDA).gcc


def _or_error(find: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | PipelineError:
    try:
        return find(*args, **kwargs)
    except PipelineError as error:
        return error


def _installed() -> Iterator[InstalledToolkit]:
    for toolkit in installed_cuda.find_all(os.environ, archs.known_releases()):
        series = _or_error(archs.toolkit_series, toolkit.release)
        problem = series if isinstance(series, PipelineError) else None
        if problem is None and not installed_cuda.has_cublas(toolkit):
            remedy = f"install {installed_cuda.cublas_package(toolkit)}"
            problem = ToolkitMissingError("it has no cuBLAS for the compiler", remedy=remedy)
        compiler = _or_error(gcc.find, toolkit.root, os.environ)
        yield InstalledToolkit(toolkit=toolkit, compiler=compiler, problem=problem)


# --------------------------------------------------------------------------------------------------------- judging


def _python(facts: MachineFacts) -> Judged:
    text = ".".join(map(str, facts.python))
    if facts.python >= OLDEST_PYTHON:
        return "ok", text, None
    oldest = ".".join(map(str, OLDEST_PYTHON))
    remedy = f"install Python {oldest} or later (uv python install {oldest} needs no administrator)"
    return "missing", f"{text} is too old", remedy


def _cxx(facts: MachineFacts) -> Judged:
    if isinstance(facts.compiler, PipelineError):
        return "missing", facts.compiler.message, facts.compiler.remedy
    cxx = facts.compiler.cxx
    platform = platforms.of(facts.platform)
    newest = f"_MSC_VER {msvc.LOCKED_MSC_VER[-1]}" if platform.uses_msvc else f"GCC {facts.newest_gcc}"
    text = f"{cxx.path}, {platform.compiler} {cxx.version}; CUDA {LOCKED_CUDA} supports up to {newest}"
    return "ok", text, None


def _toolkit(one: InstalledToolkit) -> Judged:
    """An installed toolkit. None is required, so a problem with one does not prevent a build."""
    text = f"installed: {one.toolkit.version} at {one.toolkit.root}"
    if one.problem is not None and one.toolkit.release == LOCKED_CUDA:
        return (
            "ok",
            f"{text}; {one.problem.message}: not used, the build brings its own",
            None,
        )
    if one.problem is not None:
        return "warning", f"{text}; {one.problem.message}", one.problem.remedy
    if isinstance(one.compiler, PipelineError):
        return "warning", f"{text}; {one.compiler.message}", one.compiler.remedy
    series = archs.toolkit_series(one.toolkit.release)
    numbers = [number for number in series.architectures if series.builds_for(number)]
    use = "system" if one.toolkit.release == LOCKED_CUDA else one.toolkit.release
    text += f", with {one.compiler.cxx.path.name} {one.compiler.cxx.version}"
    return "ok", f"{text}: --cuda {use} builds for {numbers[0]} to {numbers[-1]}", None


def _git(facts: MachineFacts) -> Judged:
    if facts.git:
        return "ok", facts.git, None
    remedy = platforms.of(facts.platform).git_installation
    return "warning", "not found; needed to download this project, not to build", remedy


def _disk(facts: MachineFacts) -> Judged:
    needed = workroot.COLD_BUILD_BYTES
    text = f"{_gigabytes(facts.free)} free at {facts.work_root}; a first build needs {_gigabytes(needed)}"
    if facts.free >= needed:
        return "ok", text, None
    return "missing", text, f"free {_gigabytes(needed - facts.free)} on that file system"


def _memory(facts: MachineFacts) -> Judged:
    jobs = min(facts.cores, facts.memory // machine.MEMORY_PER_JOB)
    per_job = _gigabytes(machine.MEMORY_PER_JOB)
    text = f"{_gigabytes(facts.memory)} for {facts.cores} cores; a compile job takes up to {per_job}"
    if jobs >= facts.cores:
        return "ok", text, None
    remedy = None if jobs else "add memory or swap, or build on another machine: the largest files may not compile here"
    return "warning", f"{text}, so {max(jobs, 1)} of them run at a time", remedy


def _glibc(facts: MachineFacts) -> Judged:
    if not facts.glibc:
        remedy = "build on a system with glibc (Debian, Ubuntu, Fedora), for example in a container"
        return "missing", "not glibc; NVIDIA's compiler and libraries need it", remedy
    tag = f"manylinux_{facts.glibc.replace('.', '_')}_x86_64"
    return "ok", f"glibc {facts.glibc}: wheels run on systems with this version or later ({tag} or older tags)", None


def _work_root(facts: MachineFacts) -> Judged:
    if facts.work_root_problem is not None:
        return "missing", facts.work_root_problem.message, facts.work_root_problem.remedy
    return "ok", f"{facts.work_root} is safe to use", None


def _gpus(facts: MachineFacts) -> Iterator[Judged]:
    series = archs.toolkit_series(LOCKED_CUDA)
    for gpu in facts.nvidia.gpus:
        memory = f", {_gigabytes(gpu.memory)}" if gpu.memory else ""
        text = f"{gpu.name}, compute capability {gpu.capability}{memory}"
        if series.builds_for(archs.from_capability(gpu.capability).number):
            yield "ok", text, None
            continue
        try:
            archs.resolve(gpu.capability, cuda_release=LOCKED_CUDA, gpus=())
        except ArchitectureError as error:
            yield "warning", f"{text}; CUDA {LOCKED_CUDA} cannot compile for it", error.remedy
    if not facts.nvidia.gpus:
        simulated = " and on a simulated GPU" if platforms.of(facts.platform).has_simulated_device else ""
        yield "warning", f"none found: wheels can be built here, and tested on the CPU{simulated}", None


def _driver(facts: MachineFacts) -> Judged:
    needed = archs.oldest_driver(LOCKED_CUDA)
    need = f"wheels of CUDA {LOCKED_CUDA} need {needed} or later"
    driver, problem = facts.nvidia.driver, facts.nvidia.problem
    if driver is None:
        if problem:
            return "warning", problem, "restart the machine; if that does not help, install the driver again"
        return "warning", f"none; not needed to build, but {need}", None
    text = f"{driver.version}, runs CUDA up to {driver.cuda}; {need}"
    if problem:
        text += f"; {problem}"
    if int(driver.version.split(".")[0]) >= int(needed):
        return "warning" if problem else "ok", text, None
    remedy = f"update the driver to {needed} or later, or install CUDA {driver.cuda} and pass --cuda {driver.cuda}"
    return "warning", text, remedy


def _launcher(facts: MachineFacts) -> Judged:
    if facts.ccache is not None and programs.usable(facts.ccache):
        return "ok", f"ccache {facts.ccache.version} ({facts.ccache.path})", None
    old = f"; the installed ccache {facts.ccache.version} is too old" if facts.ccache is not None else ""
    if facts.sccache is not None:
        return "ok", f"sccache {facts.sccache.version} (locked){old}", None
    remedy = f"nox -s doctor installs the locked sccache; or install ccache {programs.CCACHE_MINIMUM} or later"
    return "warning", f"none: a repeated build compiles everything again{old}", remedy


def _closing(facts: MachineFacts, rows: tuple[DoctorRow, ...]) -> Judged:
    missing = [row.subject for row in rows if row.state == "missing"]
    if missing:
        return "missing", f"cannot build yet: see {', '.join(missing)}", None
    elsewhere = {archs.as_number(gpu.capability) for gpu in archs.known_gpus() if gpu.another_processor}
    supported = [number for number in archs.toolkit_series(LOCKED_CUDA).architectures if number not in elsewhere]
    own = {archs.from_capability(gpu.capability).number for gpu in facts.nvidia.gpus} & set(supported)
    choices = f"--arch with any of {', '.join(map(str, supported))}, or portable for all of them"
    if own:
        listed = "+".join(map(str, sorted(own)))
        text = f"can build for its own GPUs ({COMMAND}, which is --arch {listed} here) and for others: {choices}"
    else:
        text = f"can build for GPUs in other machines: {COMMAND} -- {choices}"
    return "ok", text, None


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
