"""Assemble the wheel from upstream's Python package, our loader and the finished units; no compiler runs here.

scikit-build-core makes the wheel from a project that is written again each time: upstream's ``pyproject.toml`` with
another version and three more requirements, upstream's package with one line before and one after its ``__init__.py``.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from packaging.version import Version

from build_config.errors import CommandError, PackagingError
from build_config.formats import build_facts, wheelfile
from build_config.formats.build_facts import BuildFacts, ShardFacts
from build_config.model import (
    DISTRIBUTION,
    ArchSelection,
    BuildUnit,
    CudaToolkit,
    PlatformName,
    SourceTree,
    Toolchain,
    Wheel,
)
from build_config.system import platforms, processes
from check_gpu import coverage
from check_gpu.children import driver

if TYPE_CHECKING:
    from build_config.system.layout import Layout
    from build_config.system.platforms import Platform

LAST_SUFFIXED_MAJOR = 12
"""NVIDIA's wheels have the CUDA major release in their names (``nvidia-cublas-cu12``) up to this one."""
CUBLAS_RELEASES = {"11.8": "11.11"}
"""cuBLAS's own release if it differs from that of the toolkit; since CUDA 12.0 it does not."""
OWN_MODULES: dict[PlatformName, tuple[str, ...]] = {
    "linux-x86_64": ("_first_use.py", "_cuda_loader.py", "_cuda_libraries.py", "_conda_libraries.py"),
    "win-amd64": ("_first_use.py", "_cuda_loader.py", "_cuda_libraries.py", "_vendored_dlls.py"),
}
SHARED_MODULES = {"_cuda_driver.py": Path(driver.__file__), "_gpu_coverage.py": Path(coverage.__file__)}
"""Modules of check_gpu that the loader uses under another name."""
FIRST_LINES = {
    "linux-x86_64": "from . import _conda_libraries  # noqa: F401  (added by the CUDA wheel build)\n",
    "win-amd64": "from . import _vendored_dlls  # noqa: F401  (added by the CUDA wheel build)\n",
}
"""Lines that import what must be loaded before upstream's package loads its libraries."""
LOADER_LINE = "\nfrom ._first_use import CudaStatus, cuda_status  # noqa: E402  (added by the CUDA wheel build)\n"
LICENCES = (
    ("llama.cpp", "LICENSE"),
    ("nlohmann-json", "licenses/LICENSE-jsonhpp"),
    ("sha256", "vendor/hash/sha256/LICENSE"),
    ("rotate-bits", "vendor/hash/rotate-bits/LICENSE.md"),
    ("xxhash", "vendor/hash/xxhash/LICENSE"),
)
"""Licences of compiled-in code: a name for the wheel, and the file below llama.cpp's root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelPlan:
    """The claims of the wheel, decided before anything is packed.

    ``cuda_option`` is the CUDA option in the build command for another GPU; it is empty for the locked toolkit.
    """

    version: Version
    selection: ArchSelection
    cuda: str
    oldest_driver: str
    requirements: tuple[str, ...]
    cuda_option: str = ""


def plan(tree: SourceTree, toolkit: CudaToolkit, selection: ArchSelection, *, oldest_driver: str) -> WheelPlan:
    """The version with CUDA and shards in its local part, and the requirements that replace a CUDA toolkit."""
    return WheelPlan(
        version=wheel_version(tree.version, toolkit.tag, selection),
        selection=selection,
        cuda=toolkit.release,
        oldest_driver=oldest_driver,
        requirements=runtime_requirements(toolkit.release),
        cuda_option="" if toolkit.locked else f"--cuda {toolkit.release} ",
    )


def wheel_version(base: Version, cuda_tag: str, selection: ArchSelection) -> Version:
    """``0.3.36+cu130.sm89``; several shards are joined by dots; ``+cu130`` alone is the portable wheel."""
    parts = [cuda_tag] if selection.portable else [cuda_tag, *(shard.name for shard in selection.shards)]
    return Version(f"{base.public}+{'.'.join(parts)}")


def runtime_requirements(release: str) -> tuple[str, ...]:
    """NVIDIA's libraries as wheels: this minor release or a later one of the same major release.

    Within a major release the sonames and the interfaces stay the same, so other packages in the environment may
    require a later minor release: https://docs.nvidia.com/deploy/cuda-compatibility/
    """
    major = int(release.split(".", maxsplit=1)[0])
    suffix = f"-cu{major}" if major <= LAST_SUFFIXED_MAJOR else ""
    return (
        f"nvidia-cuda-runtime{suffix}>={release},<{major + 1}",
        f"nvidia-cublas{suffix}>={CUBLAS_RELEASES.get(release, release)},<{major + 1}",
        # It has no release for Python 3.8, which upstream still supports; the loader works without it.
        'cuda-pathfinder>=1.3,<2; python_version >= "3.9"',
    )


def assemble(
    wheel_plan: WheelPlan, units: tuple[BuildUnit, ...], tree: SourceTree, toolchain: Toolchain, layout: Layout
) -> Wheel:
    """Write the project and let scikit-build-core make the wheel.

    The result is not repaired yet. Raises ``PackagingError``.
    """
    project = layout.work_root / "assembly"
    shutil.rmtree(project, ignore_errors=True)
    output = project / "dist"
    write_project(project, wheel_plan, tree, layout, platforms.of(toolchain.platform))
    folders = ";".join(unit.folder.as_posix() for unit in units)  # a backslash would begin an escape in CMake
    log = layout.logs / "assemble.log"
    log.unlink(missing_ok=True)
    command = processes.Command(
        argv=(
            *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check"),
            f"--outdir={output}",
            "--config-setting=cmake.define.LCW_UNIT=wheel",
            f"--config-setting=cmake.define.LCW_UNIT_FOLDERS={folders}",
            str(project),
        ),
        cwd=project,
        changes={
            "SOURCE_DATE_EPOCH": wheelfile.SOURCE_DATE_EPOCH,
            "CMAKE_ARGS": None,
            "CMAKE_GENERATOR": "Ninja",
            "CMAKE_EXECUTABLE": str(toolchain.cmake.path),
            "CMAKE_MAKE_PROGRAM": str(toolchain.ninja.path),
        },
        log=log,
    )
    try:
        processes.run(command)
    except CommandError as error:
        raise PackagingError(f"scikit-build-core could not make the wheel: {error.message}", log=log) from error
    wheels = sorted(output.glob("*.whl"))
    if len(wheels) != 1:
        raise PackagingError(f"expected one wheel, found {[path.name for path in wheels]}", log=log)
    return wheelfile.read(wheels[0])


def own_modules(platform: PlatformName, layout: Layout) -> dict[str, Path]:
    """The modules that this project adds to upstream's package, and where each one is."""
    own = {name: layout.wheel_project / "python" / name for name in OWN_MODULES[platform]}
    return own | SHARED_MODULES


def write_project(
    project: Path, wheel_plan: WheelPlan, tree: SourceTree, layout: Layout, platform: Platform = platforms.HERE
) -> None:
    """Write the project that becomes the wheel; ``project`` must not exist."""
    package = project / "llama_cpp"
    shutil.copytree(tree.bindings / "llama_cpp", package, ignore=shutil.ignore_patterns("__pycache__", "lib"))
    init = package / "__init__.py"
    for name, source in own_modules(platform.name, layout).items():
        shutil.copyfile(source, package / name)
    upstream_init = init.read_text(encoding="utf-8").rstrip("\n")
    _write(init, f"{FIRST_LINES[platform.name]}{upstream_init}\n{LOADER_LINE}")
    _write(package / build_facts.FILE, build_facts.text(facts(wheel_plan, platform)))

    licences = project / "licenses"
    licences.mkdir()
    for name, file in LICENCES:
        source = tree.llama_cpp / file
        if not source.is_file():
            raise PackagingError(f"llama.cpp has no {file} any more: its licence would be missing in the wheel")
        shutil.copyfile(source, licences / f"{name}.txt")
    for text in (layout.wheel_project / "licences").iterdir():
        shutil.copyfile(text, licences / text.name)
    for name in ("LICENSE.md", "README.md"):
        shutil.copyfile(tree.bindings / name, project / name)

    shutil.copyfile(layout.wheel_project / "CMakeLists.txt", project / "CMakeLists.txt")
    upstream = tomllib.loads((tree.bindings / "pyproject.toml").read_text(encoding="utf-8"))
    _write(project / "pyproject.toml", tomli_w.dumps(project_metadata(upstream, wheel_plan)))


def _write(path: Path, text: str) -> None:
    """Write a file of the wheel: with the same line ends on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


def project_metadata(upstream: dict[str, Any], wheel_plan: WheelPlan) -> dict[str, Any]:
    """Upstream's metadata with our version and the run-time requirements of the CUDA backend."""
    metadata = {key: value for key, value in upstream["project"].items() if key != "dynamic"}
    metadata["name"] = DISTRIBUTION
    metadata["version"] = str(wheel_plan.version)
    metadata["dependencies"] = [*upstream["project"]["dependencies"], *wheel_plan.requirements]
    return {
        "build-system": upstream["build-system"],
        "project": metadata,
        "tool": {
            "scikit-build": {
                "minimum-version": "build-system.requires",
                "cmake": {"build-type": "Release"},
                "build-dir": "build",
                "wheel": {"packages": ["llama_cpp"], "py-api": "py3", "license-files": ["LICENSE.md", "licenses/*"]},
            }
        },
    }


def facts(wheel_plan: WheelPlan, platform: Platform = platforms.HERE) -> BuildFacts:
    """The facts about the build that the loader inside the wheel needs."""
    return BuildFacts(
        version=str(wheel_plan.version),
        cuda=wheel_plan.cuda,
        oldest_driver=wheel_plan.oldest_driver,
        shards=tuple(
            ShardFacts(name=shard.name, file=platform.library(f"ggml-cuda-{shard.name}"), archs=shard.archs)
            for shard in wheel_plan.selection.shards
        ),
        libraries=platform.cuda_libraries(wheel_plan.cuda),
        build_command=f"nox -s build_cuda_wheel -- {wheel_plan.cuda_option}--arch {{arch}}",
    )
