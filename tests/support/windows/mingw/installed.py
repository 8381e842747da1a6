"""A wheel of llama.cpp's real core for Windows, made by the wheel step from what MinGW-w64 compiled.

These tests run under Windows' Python. LCW_MINGW names the folder that tests/support/windows/mingw/products.py has made
on Linux. The wheel is a product of the tests: no Visual C++ has compiled it, and it is never published.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from build_config import archs
from build_config.model import ArchSelection, BuildUnit, BuiltFile, CompiledUnits, HostCompiler, Shard, UnitKey
from build_config.steps import locks, wheel
from build_config.steps.toolchain import programs
from build_config.steps.units import store
from build_config.steps.wheel import assemble, repair
from build_config.steps.wheel.sbom import ingredients
from build_config.system import platforms
from build_config.system.files import file_sha256
from build_config.system.layout import PACKAGE, Layout
from build_config.system.platforms.windows import WINDOWS
from build_config.testbed.simulated_device import windows
from tests.support import factories

if TYPE_CHECKING:
    from build_config.model import SourceTree, Wheel
    from build_config.testbed.simulated_device import SimulatedMachine

COMPILER = "14.2"
SMALL_PACKAGES = ("diskcache", "jinja2", "markupsafe")
"""Requirements of the wheel that the tests' own lock has not."""


@pytest.fixture(name="products", scope="session")
def _products() -> Path:
    folder = os.environ.get("LCW_MINGW")
    if platforms.HERE is not WINDOWS or folder is None:
        pytest.skip("needs Windows' Python and LCW_MINGW, the folder of tests/support/windows/mingw/products.py")
    return Path(folder)


@pytest.fixture(name="layout", scope="session")
def _layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(checkout=PACKAGE.parent, work_root=tmp_path_factory.mktemp("work"))
    layout.logs.mkdir()
    return layout


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


@pytest.fixture(name="wheel", scope="session")
def _wheel(products: Path, layout: Layout) -> Wheel:
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


# ----------------------------------------------------------------------------------------------- where it is installed


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment with the wheel, and the simulated GPU for it."""

    folder: Path
    products: Path

    @property
    def python(self) -> Path:
        return self.folder / "Scripts" / "python.exe"

    @property
    def site(self) -> Path:
        return self.folder / "Lib" / "site-packages"

    def simulated(self, machine: SimulatedMachine, *, libraries: int | None = None) -> dict[str, str]:
        """The variables for a simulated machine; only the first of the doubles are there if ``libraries`` says so."""
        doubles = windows.libraries(self.products / "simulated", 13)
        return dataclasses.replace(doubles, files=doubles.files[:libraries]).environment(machine)

    def run(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python in this environment, without any variable that names a GPU."""
        environment = {name: value for name, value in os.environ.items() if not re.match("CUDA_|SIMULATED_", name)}
        return subprocess.run(
            [str(self.python), *map(str, arguments)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=self.folder,
            env={**environment, "PYTHONUTF8": "1", **variables},
            check=False,
        )

    def answer(self, code: str, **variables: str) -> Any:
        """What ``code`` prints last, as JSON."""
        done = self.run("-I", "-c", code, **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


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


def small_packages(layout: Layout, target: Path) -> Path:
    """The lines of the lock for these packages: pip takes them from the index, by digest."""
    text = (layout.locks / "validation.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.partition("==")[0] in SMALL_PACKAGES]
    target.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return target


@pytest.fixture(name="environment", scope="session")
def _environment(wheel: Wheel, products: Path, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With pip, from a folder of wheels, as a user installs it. numpy is that of the tests, which Wine can run."""
    root = tmp_path_factory.mktemp("installed")
    made = Environment(folder=root / "environment", products=products)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", made.folder], check=True)
    wheels = root / "wheels"
    wheels.mkdir()
    versions = {file.name: file.version for file in locks.read_toolkit_lock(layout, "13.0", WINDOWS.name).files}
    nvidia_wheel(wheels, "nvidia-cuda-runtime", versions["nvidia-cuda-runtime"])
    nvidia_wheel(wheels, "nvidia-cublas", versions["nvidia-cublas"])
    small = small_packages(layout, root / "small.txt")
    folders = ("--no-index", "--find-links", wheels, "--find-links", wheel.path.parent)
    for arguments in (
        ("--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", small),
        (*folders, f"llama-cpp-python=={wheel.version}"),
    ):
        done = made.run("-m", "pip", "install", "--no-compile", "--disable-pip-version-check", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    windows.let_preload(made.site)
    return made
