"""Make a wheel of llama.cpp's real core by the wheel step, and install it; runs under Windows' Python.

    python -m tests.support.windows.mingw.installed PRODUCTS FOLDER

PRODUCTS is what products.py has made on Linux. FOLDER then has the wheel in ``wheels`` and the environment in
``environment``. The wheel is a product of tests: no Visual C++ has compiled it, and it is never published.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from build_config import archs
from build_config.model import ArchSelection, BuildUnit, BuiltFile, CompiledUnits, HostCompiler, Shard, UnitKey
from build_config.steps import locks, wheel
from build_config.steps.toolchain import programs
from build_config.steps.units import store
from build_config.steps.wheel import assemble, repair
from build_config.steps.wheel.sbom import ingredients
from build_config.system.files import file_sha256
from build_config.system.layout import PACKAGE, Layout
from build_config.system.platforms.windows import WINDOWS
from build_config.testbed.simulated_device import windows
from tests.support import factories

if TYPE_CHECKING:
    from build_config.model import SourceTree, Wheel

COMPILER = "14.2"
CUDA = "13.0"


def unit(folder: Path, shard: Shard | None = None) -> BuildUnit:
    """A folder of DLLs as the pipeline's own unit."""
    files = tuple(
        BuiltFile(name=path.name, sha256=file_sha256(path), size=path.stat().st_size)
        for path in sorted(folder.iterdir())
    )
    key = UnitKey.of({file.name: file.sha256 for file in files})
    name = shard.name if shard is not None else "core"
    return BuildUnit(name=name, key=key, folder=folder, files=files, shard=shard, network="all")


def compiled(products: Path, layout: Layout) -> CompiledUnits:
    """The units as the build step returns them."""
    source = locks.read(layout, WINDOWS.name).source
    chain = dataclasses.replace(
        factories.toolchain(),
        host=HostCompiler(
            cc=factories.program("x86_64-w64-mingw32ucrt-gcc", COMPILER),
            cxx=factories.program("x86_64-w64-mingw32ucrt-g++", COMPILER),
            identity="m" * 64,
            binutils="GNU ld",
        ),
        cmake=programs.find_cmake(),
        ninja=programs.find_ninja(),
        cuobjdump=None,
        platform=WINDOWS.name,
    )
    tree: SourceTree = dataclasses.replace(
        factories.source_tree(products / "src"), version=Version(source.file.version), locked=True
    )
    units = (unit(products / "core"), unit(products / "shard", factories.SM89))
    return CompiledUnits(
        tree=tree,
        toolchain=chain,
        shards=(factories.SM89,),
        units=units,
        project_digest=store.folder_digest(layout.wheel_project),
    )


def make_wheel(products: Path, layout: Layout) -> Wheel:
    """Assembled, repaired and listed by the wheel step itself."""
    made_of = compiled(products, layout)
    locked = locks.read(layout, WINDOWS.name)
    selection = ArchSelection(shards=made_of.shards)
    cuda = made_of.toolchain.cuda
    plan = assemble.plan(made_of.tree, cuda, selection, oldest_driver=archs.oldest_driver(cuda.release))
    known = ingredients.collect(
        ingredients.read_components(layout),
        version=plan.version,
        shards=made_of.shards,
        tree=made_of.tree,
        source=locked.source,
        toolchain=made_of.toolchain,
        toolkit=locks.read_toolkit_lock(layout, cuda.release, WINDOWS.name),
        wheel_project=layout.wheel_project,
    )
    return wheel.make(
        plan,
        made_of,
        known,
        policy=repair.load_policy(layout, WINDOWS.name),
        runtime_folders=(products / "runtime",),
        layout=layout,
    )


def nvidia_wheel(folder: Path, name: str, version: str, *libraries: Path) -> None:
    """A wheel of NVIDIA's with doubles in the place of its DLLs."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tag = "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-win_amd64\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-win_amd64.whl", "w") as archive:
        for library in libraries:
            archive.write(library, f"nvidia/cu13/bin/x86_64/{library.name}")
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(f"{stem}.dist-info/WHEEL", tag)
        archive.writestr(f"{stem}.dist-info/RECORD", "")


def install(made: Wheel, products: Path, layout: Layout, folder: Path) -> None:
    """With pip, from folders of wheels, as a user installs it. numpy is that of the tests, which Wine can run."""
    environment, wheels = folder / "environment", folder / "wheels"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", environment], check=True)
    wheels.mkdir()
    shutil.copyfile(made.path, wheels / made.path.name)
    versions = {file.name: file.version for file in locks.read_toolkit_lock(layout, CUDA, WINDOWS.name).files}
    doubles = windows.libraries(products / "simulated", 13).files
    nvidia_wheel(wheels, "nvidia-cuda-runtime", versions["nvidia-cuda-runtime"])
    nvidia_wheel(wheels, "nvidia-cublas", versions["nvidia-cublas"], *(one for one in doubles if "cublas" in one.name))
    pip = (environment / "Scripts" / "python.exe", "-I", "-m", "pip", "install", "--no-compile", "--no-index")
    found = ("--find-links", wheels, "--find-links", products / "wheels")
    subprocess.run([*pip, *found, f"llama-cpp-python=={made.version}"], check=True)
    windows.let_preload(environment / "Lib" / "site-packages")


def main(products: Path, folder: Path) -> None:
    """Make all of it."""
    layout = Layout(checkout=PACKAGE.parent, work_root=folder / "work")
    layout.logs.mkdir(parents=True)
    install(make_wheel(products, layout), products, layout, folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
