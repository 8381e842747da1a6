from __future__ import annotations

import dataclasses
import tomllib
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from build_config.model import ArchSelection
from build_config.steps.wheel import assemble
from tests.support import factories, wheels

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
ONE = ArchSelection(shards=(factories.SM89,))
TWO = ArchSelection(shards=(factories.SM86, factories.SM89))
PORTABLE = ArchSelection(shards=(factories.SM86, factories.SM89), portable=True)
UPSTREAM = {
    "build-system": {"requires": ["scikit-build-core"], "build-backend": "scikit_build_core.build"},
    "project": {
        "name": "llama_cpp_python",
        "dynamic": ["version"],
        "description": "Python bindings",
        "dependencies": ["numpy>=1.20.0", "jinja2>=2.11.3"],
        "requires-python": ">=3.8",
    },
}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [(ONE, "0.3.36+cu130.sm89"), (TWO, "0.3.36+cu130.sm86.sm89"), (PORTABLE, "0.3.36+cu130")],
)
def test_the_version_names_cuda_and_the_shards(selection: ArchSelection, expected: str) -> None:
    assert str(assemble.wheel_version(Version("0.3.36"), "cu130", selection)) == expected


def test_pip_prefers_our_wheel_to_the_plain_release() -> None:
    assert assemble.wheel_version(Version("0.3.36"), "cu130", ONE) > Version("0.3.36")


def test_nvidias_libraries_are_required_within_the_major_release() -> None:
    by_name = {(r := Requirement(text)).name: r for text in assemble.runtime_requirements("13.0")}
    assert set(by_name) == {"nvidia-cuda-runtime", "nvidia-cublas", "cuda-pathfinder"}
    assert by_name["nvidia-cublas"].specifier.contains("13.0.2.14")
    assert by_name["nvidia-cublas"].specifier.contains("13.5.1")
    assert not by_name["nvidia-cublas"].specifier.contains("12.9.1")
    assert not by_name["nvidia-cublas"].specifier.contains("14.0")
    marker = by_name["cuda-pathfinder"].marker
    assert marker is not None
    assert not marker.evaluate({"python_version": "3.8"}), "no release of it installs there"


def test_before_cuda_13_nvidias_wheels_carry_the_major_release_in_their_names() -> None:
    names = [Requirement(text).name for text in assemble.runtime_requirements("12.4")]
    assert names == ["nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12", "cuda-pathfinder"]


@pytest.mark.parametrize(
    ("release", "fitting", "too_old"),
    [
        ("11.8", {"nvidia-cuda-runtime-cu11": "11.8.89", "nvidia-cublas-cu11": "11.11.3.6"}, "11.10.3.66"),
        ("12.4", {"nvidia-cuda-runtime-cu12": "12.4.127", "nvidia-cublas-cu12": "12.4.5.8"}, "12.3.4.1"),
    ],
)
def test_the_bounds_admit_the_toolkits_own_libraries_and_no_older_ones(
    release: str, fitting: dict[str, str], too_old: str
) -> None:
    """The versions are those that NVIDIA published for the toolkit; the older cuBLAS is of the release before."""
    for text in assemble.runtime_requirements(release):
        requirement = Requirement(text)
        if requirement.name in fitting:
            assert requirement.specifier.contains(fitting[requirement.name])
        if "cublas" in requirement.name:
            assert not requirement.specifier.contains(too_old)


def test_the_command_for_another_card_names_an_installed_toolkit() -> None:
    """Whoever has a wheel of CUDA 11 or 12 needs it: for the card, or for the driver."""
    locked = factories.toolchain().cuda
    installed = dataclasses.replace(factories.toolchain(cuda="11.8.89").cuda, locked=False)
    commands = [
        assemble.facts(assemble.plan(factories.source_tree(), toolkit, ONE, oldest_driver="1")).build_command
        for toolkit in (locked, installed)
    ]
    assert commands == [
        "nox -s build_cuda_wheel -- --arch {arch}",
        "nox -s build_cuda_wheel -- --cuda 11.8 --arch {arch}",
    ]


@pytest.mark.parametrize(
    ("cuda", "sonames"),
    [
        ("11.8", ["libcudart.so.11.0", "libcublas.so.11"]),
        ("12.4", ["libcudart.so.12", "libcublas.so.12"]),
        ("13.0", ["libcudart.so.13", "libcublas.so.13"]),
    ],
)
def test_the_loader_is_told_the_sonames_of_its_cuda(cuda: str, sonames: list[str]) -> None:
    plan = assemble.WheelPlan(version=Version("1"), selection=ONE, cuda=cuda, oldest_driver="1", requirements=())
    assert assemble.facts(plan).libraries == tuple(sonames)


def test_metadata_is_upstreams_but_for_version_and_requirements() -> None:
    plan = assemble.plan(factories.source_tree(), factories.toolchain().cuda, ONE, oldest_driver="580")
    project = assemble.project_metadata(UPSTREAM, plan)["project"]
    assert project["name"] == "llama-cpp-python"
    assert project["version"] == "0.3.36+cu130.sm89"
    assert project["requires-python"] == ">=3.8"
    assert project["dependencies"][:2] == UPSTREAM["project"]["dependencies"]
    assert "dynamic" not in project


def test_the_project_is_upstreams_package_plus_loader_and_licences(tmp_path: Path) -> None:
    tree = factories.source_tree(tmp_path / "src")
    package = tree.bindings / "llama_cpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "0.3.36"\n')
    for name in ("LICENSE.md", "README.md"):
        (tree.bindings / name).write_text(name)
    (tree.bindings / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["scikit-build-core"]\n[project]\nname = "llama_cpp_python"\n'
        'dynamic = ["version"]\ndependencies = []\n'
    )
    for _, file in assemble.LICENCES:
        (tree.llama_cpp / file).parent.mkdir(parents=True, exist_ok=True)
        (tree.llama_cpp / file).write_text(file)
    plan = assemble.plan(tree, factories.toolchain().cuda, ONE, oldest_driver="580")
    project = tmp_path / "project"
    assemble.write_project(project, plan, tree, factories.layout(tmp_path))

    init = (project / "llama_cpp" / "__init__.py").read_text()
    first, upstream, *_ = init.splitlines()
    assert first.startswith("from . import _conda_libraries")
    assert upstream == '__version__ = "0.3.36"'
    assert init.count("from ._cuda_loader import") == 1
    assert all(
        (project / "llama_cpp" / name).is_file()
        for name in assemble.own_modules("linux-x86_64", factories.layout(tmp_path))
    )
    assert tomllib.loads((project / "pyproject.toml").read_text())["project"]["version"] == "0.3.36+cu130.sm89"
    assert (project / "licenses" / "llama.cpp.txt").read_text() == "LICENSE"
    written = {"LICENSE.md", *(f"licenses/{path.name}" for path in (project / "licenses").iterdir())}
    assert written == set(wheels.policy().licences)
    assert (package / "__init__.py").read_text() == '__version__ = "0.3.36"\n', "upstream's own file was changed"
