"""Name, requirements and constraints of a wheel's conda package."""

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from build_config import archs
from build_config.errors import PackagingError, SettingsError
from build_config.formats import build_facts, wheelfile
from build_config.model import CudaArch
from build_config.system.layout import PACKAGE
from build_config.tasks import conda
from build_config.tasks.conda import channel, description
from tests.support import conda_wheels, wheels


def package(folder: Path, **changes: object) -> conda.CondaPackage:
    return conda_wheels.describe(conda_wheels.write(folder, conda_wheels.members(**changes)))  # type: ignore[arg-type]  # as members takes them


def test_the_requirements_are_the_wheels_under_their_conda_names_with_cudas_libraries_and_the_systems(
    tmp_path: Path,
) -> None:
    assert set(package(tmp_path).depends) == {
        "python >=3.10",
        "numpy >=1.20.0",
        "typing-extensions >=4.5.0",
        "diskcache >=5.6.1",
        "jinja2 >=2.11.3",
        "cuda-pathfinder >=1.3,<2.0a0",
        "cuda-cudart >=13.0,<14.0a0",
        "libcublas >=13.0,<14.0a0",
        "cuda-version >=13.0,<14.0a0",
        "libgcc >=12",
        "libstdcxx >=12",
        "__glibc >=2.35,<3.0.a0",
    }


def test_a_driver_and_a_gpu_are_not_required_but_must_match_if_they_exist(tmp_path: Path) -> None:
    described = package(tmp_path)
    assert described.constrains == ("__cuda >=13", "__cuda_arch >=8.9,<9.0")
    assert not any(need.startswith("__cuda") for need in described.depends)


def test_the_version_is_upstreams_and_the_build_names_cuda_and_shards(tmp_path: Path) -> None:
    described = package(tmp_path)
    assert (described.name, described.version, described.subdir) == ("llama-cpp-python", "0.3.36", "linux-64")
    assert described.build.startswith("cuda130_sm89_h")
    assert described.build.endswith("_0")


def test_another_wheel_or_another_requirement_is_another_build(tmp_path: Path) -> None:
    """Caches of conda packages identify a package by the name of its file."""
    builds = {
        package(tmp_path / "a").build,
        package(tmp_path / "b", without="diskcache").build,
        package(tmp_path / "c", more=("Requires-External: libsomething",)).build,
    }
    assert len(builds) == 3


def test_the_package_of_a_portable_wheel_is_called_portable(tmp_path: Path) -> None:
    name = wheels.wheel_name(conda_wheels.PLATFORM).replace("+cu130.sm89", "+cu130")
    wheel = conda_wheels.write(tmp_path, name=name)
    described = conda_wheels.describe(wheel, "75-real", "80-real", "90-virtual")
    assert described.build.startswith("cuda130_portable_h")
    assert "__cuda_arch >=7.5" in described.constrains


def test_a_wheel_of_cuda_12_requires_the_packages_of_cuda_12(tmp_path: Path) -> None:
    requirements = ("Requires-Dist: nvidia-cublas-cu12<13,>=12", "Requires-Dist: nvidia-cuda-runtime-cu12<13,>=12.4")
    described = package(tmp_path, cuda="12.4", more=requirements, without="<14")
    assert {"cuda-cudart >=12.4,<13.0a0", "libcublas >=12,<13.0a0", "cuda-version >=12.4,<13.0a0"} < set(
        described.depends
    )
    assert "__cuda >=12" in described.constrains


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cuda": "11.8"}, r"no packages of CUDA 11\.8"),
        ({"more": ("Requires-Dist: something-new",)}, "something-new.*name on conda-forge is unknown"),
        ({"more": ("Requires-Dist: numpy[fast]",)}, r"numpy\[fast\]"),
        ({"more": ('Requires-Dist: numpy; python_version < "3.12"',)}, "for some Pythons only"),
        ({"more": ("Requires-Dist: numpy==2.*",)}, "cannot be translated"),
        ({"more": ("Requires-Python: <3.13",), "without": ">=3.8"}, "not one range up to the newest"),
    ],
)
def test_a_wheel_that_cannot_be_expressed_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(PackagingError, match=said):
        package(tmp_path, **changes)


@pytest.mark.parametrize(
    ("platform", "added", "removed", "said"),
    [
        *((platform, "", "", "no conda package") for platform in ("win_amd64", "manylinux_2_35_aarch64", "any")),
        ("linux_x86_64", "", "", "no conda package"),
        (conda_wheels.PLATFORM, "", build_facts.MEMBER, "not a wheel of this project"),
        (conda_wheels.PLATFORM, "x.data/scripts/run", "", "programs"),
        (conda_wheels.PLATFORM, f"{wheels.DIST_INFO}/entry_points.txt", "", "programs"),
    ],
)
def test_a_wheel_of_another_kind_is_refused(tmp_path: Path, platform: str, added: str, removed: str, said: str) -> None:
    members = {**conda_wheels.members(), added or "llama_cpp/more.py": b"[console_scripts]\n"}
    members.pop(removed, None)
    wheel = conda_wheels.write(tmp_path, members, wheels.wheel_name(platform))
    with pytest.raises(PackagingError, match=said):
        conda_wheels.describe(wheel)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (("89-real",), ">=8.9,<9.0"),
        (("86-real", "89-real"), ">=8.6,<9.0"),
        (("75-real", "89-real"), ">=7.5,<8.0|>=8.9,<9.0"),
        (("120a-real",), ">=12.0,<12.1"),
        (("90-real", "90-virtual"), ">=9.0"),
        (("86-real", "89-real", "120a-real"), ">=8.6,<9.0|>=12.0,<12.1"),
        (("100f-real",), ">=10.0,<11.0"),
        (("75-real", "80-real", "86-real", "89-real", "90-real", "90-virtual", "120a-real"), ">=7.5"),
    ],
)
def test_the_capabilities_are_those_of_the_gpus_that_run_the_code(listed: tuple[str, ...], expected: str) -> None:
    parsed = [CudaArch.parse(text) for text in listed]
    assert description.capabilities(parsed) == expected
    for capability in map(Version, ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1")):
        inside = any(capability in SpecifierSet(part) for part in expected.split("|"))
        assert inside == (archs.covers(parsed, str(capability)) is not None), capability


def test_only_requirements_that_conda_fulfils_are_removed_from_the_metadata() -> None:
    """A line of the description that looks like a requirement stays."""
    gone = b"Requires-Dist: nvidia-cuda-runtime>=13.0,<14\n", b"Requires-Dist: nvidia-cublas>=13.0,<14\n"
    before = conda_wheels.members()[f"{wheels.DIST_INFO}/METADATA"]
    assert all(line in before for line in gone)
    after = description.without_requirements(before + gone[0], ("nvidia-cublas", "nvidia-cuda-runtime"))
    assert after == before.replace(gone[0], b"").replace(gone[1], b"") + gone[0]


def test_every_file_is_the_wheels_except_those_that_describe_the_installation(tmp_path: Path) -> None:
    wheel = conda_wheels.write(tmp_path)
    before = wheelfile.read_contents(wheel.path)
    after = channel.as_installed(conda_wheels.describe(wheel), wheel, tmp_path / "scratch")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{wheels.DIST_INFO}/METADATA", f"{wheels.DIST_INFO}/RECORD"}
    assert set(after) - set(before) == {f"{wheels.DIST_INFO}/INSTALLER"}
    assert wheelfile.record_problems(after) == ()


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "a\\..\\outside"])
def test_no_member_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackagingError, match="leads out"):
        channel.write_files({name: b""}, tmp_path / "inside")
    assert not (tmp_path / "outside").exists()


def test_a_malformed_table_of_names_is_refused(tmp_path: Path) -> None:
    text = (PACKAGE / "data" / "conda.toml").read_text()
    (tmp_path / "conda.toml").write_text(text.replace("pythons", "pythens"))
    with pytest.raises(SettingsError, match=r"conda\.toml"):
        conda.read_names(tmp_path / "conda.toml")
