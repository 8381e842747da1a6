import dataclasses
import tomllib
from pathlib import Path

import pytest
import tomli_w
from packaging.requirements import Requirement
from packaging.version import Version

from build_config.formats import build_facts
from build_config.model import ArchSelection, CudaArch, Shard
from build_config.steps.wheel import assemble
from build_config.system.platforms import Platform
from build_config.system.platforms.linux import LINUX
from build_config.system.platforms.windows import WINDOWS
from tests.support import factories, wheels

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
    ("selection", "expected"), [(ONE, "0.3.36+cu130.sm89"), (TWO, "0.3.36+cu130.sm86.sm89"), (PORTABLE, "0.3.36+cu130")]
)
def test_the_version_names_cuda_and_the_shards_and_pip_prefers_it(selection: ArchSelection, expected: str) -> None:
    version = assemble.wheel_version(Version("0.3.36"), "cu130", selection)
    assert str(version) == expected
    assert version > Version("0.3.36")


@pytest.mark.parametrize(
    ("release", "suffix", "runtime", "cublas", "refused"),
    [
        ("13.0", "", "13.0.96", ("13.0.2.14", "13.5.1"), ("12.9.1", "14.0")),
        ("12.4", "-cu12", "12.4.127", ("12.4.5.8",), ("12.3.4.1", "13.0")),
        ("11.8", "-cu11", "11.8.89", ("11.11.3.6",), ("11.10.3.66", "12.0")),
    ],
)
def test_nvidias_libraries_are_required_from_the_toolkits_own_on_within_the_major_release(
    release: str, suffix: str, runtime: str, cublas: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    """The versions are those that NVIDIA published for the toolkit; the older cuBLAS is of the release before."""
    wanted = {(each := Requirement(text)).name: each for text in assemble.runtime_requirements(release)}
    assert [*wanted] == [f"nvidia-cuda-runtime{suffix}", f"nvidia-cublas{suffix}", "cuda-pathfinder"]
    assert wanted[f"nvidia-cuda-runtime{suffix}"].specifier.contains(runtime)
    assert all(map(wanted[f"nvidia-cublas{suffix}"].specifier.contains, cublas))
    assert not any(map(wanted[f"nvidia-cublas{suffix}"].specifier.contains, refused))
    marker = wanted["cuda-pathfinder"].marker
    assert marker is not None
    assert not marker.evaluate({"python_version": "3.8"}), "no release of it installs there"


@pytest.mark.parametrize(
    ("cuda", "platform", "file", "libraries"),
    [
        ("11.8", LINUX, "libggml-cuda-sm90.so", ["libcudart.so.11.0", "libcublas.so.11"]),
        ("12.4", LINUX, "libggml-cuda-sm90.so", ["libcudart.so.12", "libcublas.so.12"]),
        ("13.0", LINUX, "libggml-cuda-sm90.so", ["libcudart.so.13", "libcublas.so.13"]),
        ("13.0", WINDOWS, "ggml-cuda-sm90.dll", ["cublasLt64_13.dll", "cublas64_13.dll"]),
    ],
)
def test_the_loader_learns_what_was_built_and_the_command_for_another_gpu(
    cuda: str, platform: Platform, file: str, libraries: list[str]
) -> None:
    """Whoever has a wheel of CUDA 11 or 12 needs that CUDA: for the GPU, or for the driver."""
    toolkit = dataclasses.replace(factories.toolchain(cuda=f"{cuda}.1").cuda, locked=cuda == "13.0")
    shard = Shard(name="sm90", archs=(CudaArch.parse("90"), CudaArch.parse("90-virtual")))
    plan = assemble.plan(factories.source_tree(), toolkit, ArchSelection(shards=(shard,)), oldest_driver="580")
    facts = assemble.facts(plan, platform)
    assert facts.shards == (build_facts.ShardFacts(name="sm90", file=file, archs=shard.archs),)
    assert facts.libraries == tuple(libraries)
    assert (facts.cuda, facts.oldest_driver) == (cuda, "580")
    option = "" if cuda == "13.0" else f"--cuda {cuda} "
    assert facts.build_command == f"nox -s build_cuda_wheel -- {option}--arch {{arch}}"


@pytest.mark.parametrize(("platform", "first"), [(LINUX, "_conda_libraries"), (WINDOWS, "_vendored_dlls")])
def test_the_project_is_upstreams_package_plus_loader_version_requirements_and_licences(
    tmp_path: Path, platform: Platform, first: str
) -> None:
    tree = factories.source_tree(tmp_path / "src")
    files = {"llama_cpp/__init__.py": '__version__ = "0.3.36"\n', "pyproject.toml": tomli_w.dumps(UPSTREAM)}
    for path, text in (
        *((tree.bindings / name, text) for name, text in {**files, "LICENSE.md": "", "README.md": ""}.items()),
        *((tree.llama_cpp / name, name) for _, name in assemble.LICENCES),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    plan = assemble.plan(tree, factories.toolchain().cuda, ONE, oldest_driver="580")
    project = tmp_path / "project"
    assemble.write_project(project, plan, tree, factories.layout(tmp_path), platform)

    made_here = ("llama_cpp/__init__.py", "llama_cpp/_cuda_build.json", "pyproject.toml")
    assert not [name for name in made_here if b"\r" in (project / name).read_bytes()], "the line ends of Windows"
    init = (project / "llama_cpp" / "__init__.py").read_text()
    assert init.startswith(f"from . import {first}")
    assert init.splitlines()[1] == '__version__ = "0.3.36"'
    assert init.count("from ._first_use import") == 1
    added = {path.name for path in (project / "llama_cpp").glob("_*.py")} - {"__init__.py"}
    assert added == {*assemble.own_modules(platform.name, factories.layout(tmp_path))}
    assert added & {"_conda_libraries.py", "_vendored_dlls.py"} == {f"{first}.py"}
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert (metadata["name"], metadata["version"]) == ("llama-cpp-python", "0.3.36+cu130.sm89")
    assert metadata["requires-python"] == ">=3.8"
    assert metadata["dependencies"][:2] == ["numpy>=1.20.0", "jinja2>=2.11.3"]
    assert "dynamic" not in metadata
    assert (project / "licenses" / "llama.cpp.txt").read_text() == "LICENSE"
    written = {"LICENSE.md", *(f"licenses/{path.name}" for path in (project / "licenses").iterdir())}
    assert written == set(wheels.policy(platform.name).licences)
    upstream = tree.bindings / "llama_cpp" / "__init__.py"
    assert upstream.read_text() == files["llama_cpp/__init__.py"], "upstream's own file was changed"
