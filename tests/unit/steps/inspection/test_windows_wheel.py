"""What a wheel for Windows holds besides the libraries, and what is loaded first."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from build_config.model import ArchSelection
from build_config.steps.toolchain.windows import msvc
from build_config.steps.wheel import assemble
from build_config.system.layout import PACKAGE
from build_config.system.platforms.linux import LINUX
from build_config.system.platforms.windows import WINDOWS
from tests.support import factories, windows_machine

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.unit
SOURCE = PACKAGE / "wheel_project" / "python" / "_vendored_dlls.py"
PLAN = assemble.WheelPlan(
    version=Version("0.3.36+cu130.sm89"),
    selection=ArchSelection(shards=(factories.SM89,)),
    cuda="13.0",
    oldest_driver="580",
    requirements=assemble.runtime_requirements("13.0"),
)


@pytest.fixture
def vendored() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_vendored_dlls", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_facts_name_the_dlls() -> None:
    facts = assemble.facts(PLAN, WINDOWS)
    assert [(shard.name, shard.file) for shard in facts.shards] == [("sm89", "ggml-cuda-sm89.dll")]
    assert facts.libraries == ("cublasLt64_13.dll", "cublas64_13.dll")


def test_the_facts_of_linux_are_as_they_were() -> None:
    facts = assemble.facts(PLAN, LINUX)
    assert facts.shards[0].file == "libggml-cuda-sm89.so"
    assert facts.libraries == ("libcudart.so.13", "libcublas.so.13")


@pytest.mark.parametrize(("platform", "windows"), [(LINUX, False), (WINDOWS, True)])
def test_what_is_loaded_before_upstreams_own_imports(tmp_path: Path, platform: Any, *, windows: bool) -> None:
    tree = factories.source_tree(tmp_path / "staged")
    package = tree.bindings / "llama_cpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .llama_cpp import *\n")
    for name in ("LICENSE.md", "README.md"):
        (tree.bindings / name).write_text("text")
    (tree.bindings / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\n[project]\nname = "x"\ndependencies = []\n'
    )
    for _, file in assemble.LICENCES:
        (tree.llama_cpp / file).parent.mkdir(parents=True, exist_ok=True)
        (tree.llama_cpp / file).write_text("licence")
    assemble.write_project(tmp_path / "project", PLAN, tree, factories.layout(tmp_path), platform)
    written = tmp_path / "project" / "llama_cpp"
    lines = (written / "__init__.py").read_text().splitlines()
    assert lines[0].startswith(f"from . import {'_vendored_dlls' if windows else '_conda_libraries'}")
    assert (written / "_conda_libraries.py").is_file() is not windows
    assert (written / "_vendored_dlls.py").is_file() is windows


def test_a_dll_that_needs_another_is_loaded_after_it(tmp_path: Path, vendored: ModuleType) -> None:
    for name in ("a-needs-b.dll", "b.dll", "c.txt"):
        (tmp_path / name).touch()
    loaded: list[str] = []

    def loader(path: str) -> str:
        name = Path(path).name
        if name.startswith("a") and "b.dll" not in loaded:
            raise OSError("the specified module could not be found")
        loaded.append(name)
        return name

    assert vendored.load(tmp_path, loader) == ("b.dll", "a-needs-b.dll")


def test_a_dll_that_cannot_be_loaded_is_told_and_keeps_nobody_from_importing(
    tmp_path: Path, vendored: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "vcomp140-1234.dll").write_bytes(b"no library")
    assert vendored.load(tmp_path, ctypes.CDLL) == ()
    assert "vcomp140-1234.dll" in caplog.text


def test_the_module_is_python_3_8() -> None:
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_runtime_comes_from_the_redistributable_folder_of_the_toolset() -> None:
    class Folders(windows_machine.RecordedMachine):
        def names(self, folder: PureWindowsPath) -> tuple[str, ...]:
            if folder.name == "x64":
                return (
                    "Microsoft.VC143.CRT",
                    "Microsoft.VC143.CXXAMP",
                    "Microsoft.VC143.MFC",
                    "Microsoft.VC143.OpenMP",
                )
            return super().names(folder)

    host = windows_machine.toolchain().host
    redist = rf"{windows_machine.BUILD_TOOLS}\VC\Redist\MSVC\14.44.35112\x64"
    assert [str(folder) for folder in msvc.runtime_folders(host, Folders())] == [
        rf"{redist}\Microsoft.VC143.CRT",
        rf"{redist}\Microsoft.VC143.OpenMP",
    ]
