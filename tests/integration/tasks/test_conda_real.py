"""Pack with the real rattler-build, and solve with the real rattler and a channel that replaces conda-forge."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from rattler.exceptions import SolverError
from rattler.package_streaming import extract

from build_config.errors import VerificationError
from build_config.formats import wheelfile
from build_config.steps.wheelhouse import signature
from build_config.system.console import Console
from build_config.system.layout import Layout
from build_config.tasks import conda
from build_config.tasks.conda import channel as conda_channel
from build_config.tasks.conda import task
from tests.support import attested, conda_forge, conda_wheels, wheels

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Wheel

pytestmark = pytest.mark.integration


@pytest.fixture(name="wheel", scope="module")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return conda_wheels.write(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(name="package", scope="module")
def _package(wheel: Wheel) -> conda.CondaPackage:
    return conda_wheels.describe(wheel)


@pytest.fixture(name="ours", scope="module")
def _ours(package: conda.CondaPackage, wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    channel = tmp_path_factory.mktemp("ours")
    conda.publish(package, wheel, channel)
    return channel


@pytest.fixture(name="forge", scope="module")
def _forge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conda_forge.make(tmp_path_factory.mktemp("forge"))


# ------------------------------------------------------------------------------------------------------- the package


def test_the_same_wheel_gives_the_same_bytes(
    package: conda.CondaPackage, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = conda.pack(package, wheel, tmp_path / "first")
    time.sleep(1.1)  # a second later, in another folder, with another umask and time zone
    elsewhere = tmp_path / "a longer path" / wheel.path.name
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(wheel.path.read_bytes())
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("TMPDIR", str(elsewhere.parent))
    before = os.umask(0o077)
    try:
        second = conda.pack(package, wheelfile.read(elsewhere), tmp_path / "second")
    finally:
        os.umask(before)
    assert hashlib.sha256(second.read_bytes()).hexdigest() == hashlib.sha256(first.read_bytes()).hexdigest()


def test_another_wheel_gives_other_bytes_and_another_name(
    package: conda.CondaPackage, wheel: Wheel, tmp_path: Path
) -> None:
    contents = {**conda_wheels.members(), "llama_cpp/lib/libllama.so": b"another"}
    other = conda_wheels.write(tmp_path, contents)
    described = conda_wheels.describe(other)
    assert described.file_name != package.file_name
    made = conda.pack(described, other, tmp_path), conda.pack(package, wheel, tmp_path)
    assert made[0].read_bytes() != made[1].read_bytes()


def test_a_package_contains_the_wheels_files_for_any_python_with_digests_and_licences(
    ours: Path, package: conda.CondaPackage, wheel: Wheel, tmp_path: Path
) -> None:
    extract(ours / "linux-64" / package.file_name, tmp_path / "x")
    (tmp_path / "scratch").mkdir()
    expected = conda_channel.as_installed(package, wheel, tmp_path / "scratch")
    site = tmp_path / "x" / "site-packages"
    found = {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert found == expected
    info = tmp_path / "x" / "info"
    paths = json.loads((info / "paths.json").read_text())["paths"]
    assert {entry["_path"]: entry["sha256"] for entry in paths} == {
        f"site-packages/{name}": hashlib.sha256(data).hexdigest() for name, data in expected.items()
    }
    licences = {path.name for path in (info / "licenses").rglob("*") if path.is_file()}
    assert {"LICENSE.md", "NOTICE.txt", "cub.txt", "llama.cpp.txt", "xxhash.txt"} < licences
    index = json.loads((info / "index.json").read_text())
    assert (index["subdir"], index["noarch"]) == ("linux-64", "python")
    assert index["timestamp"] == conda_channel.TIMESTAMP.timestamp() * 1000
    assert json.loads((info / "recipe" / "wheel.json").read_text())["sha256"] == wheel.sha256


def publish_another(folder: Path, channel: Path, shard: str, code: bytes) -> str:
    contents = {**conda_wheels.members(), "llama_cpp/lib/libllama.so": code}
    name = wheels.wheel_name(conda_wheels.PLATFORM).replace("sm89", shard)
    other = conda_wheels.write(folder, contents, name)
    return conda.publish(conda_wheels.describe(other), other, channel).name


def listed(channel: Path) -> dict[str, Any]:
    """The packages of the channel by the names of their files."""
    return dict(json.loads((channel / "linux-64" / "repodata.json").read_text())["packages.conda"])


def test_a_channel_lists_every_package_with_its_digest_and_contains_nothing_else(
    package: conda.CondaPackage, wheel: Wheel, tmp_path: Path
) -> None:
    channel = tmp_path / "channel"
    conda.publish(package, wheel, channel)
    others = {publish_another(tmp_path / shard, channel, shard, b"code") for shard in ("sm75", "sm75.sm89")}
    conda.publish(package, wheel, channel)
    entries = listed(channel)
    assert set(entries) == {package.file_name, *others}
    files = {path.relative_to(channel).as_posix(): path for path in channel.rglob("*.*")}
    assert set(files) == {"linux-64/repodata.json", "noarch/repodata.json", *(f"linux-64/{name}" for name in entries)}
    for name, entry in entries.items():
        assert entry["sha256"] == hashlib.sha256(files[f"linux-64/{name}"].read_bytes()).hexdigest()
    assert entries[package.file_name]["depends"] == list(package.depends)


def test_a_later_wheel_of_the_same_kind_replaces_the_earlier_one(
    package: conda.CondaPackage, wheel: Wheel, tmp_path: Path
) -> None:
    channel = tmp_path / "channel"
    conda.publish(package, wheel, channel)
    later = publish_another(tmp_path / "later", channel, "sm89", b"another")
    assert later != package.file_name
    assert set(listed(channel)) == {later} == {path.name for path in (channel / "linux-64").glob("*.conda")}


@pytest.mark.parametrize(
    ("corrupted", "said"),
    [("wheel", "was refused"), ("record", "was refused"), ("statement", "was refused"), ("key", "envelope")],
)
def test_no_package_is_made_of_a_wheel_that_is_refused(tmp_path: Path, corrupted: str, said: str) -> None:
    house = attested.publish(tmp_path)
    keys = None
    if corrupted == "key":
        _, public = signature.make_keys(tmp_path / "another")
        keys = signature.read_keys((public,))
    else:
        path = house.files()[corrupted]
        path.write_bytes(path.read_bytes().replace(b"c", b"d", 1))
    layout = Layout(checkout=tmp_path, work_root=tmp_path / "none")
    with pytest.raises(VerificationError, match=said):
        task.make_conda_package(house.wheel, layout, Console(terminal=False), keys=keys)
    assert not layout.conda_channel.exists()


# ------------------------------------------------------------------------------------------------------- the solver


def solved(ours: Path, forge: Path, *specs: str, **virtual: str) -> dict[str, str]:
    records = conda_forge.solved([ours, forge], *specs, on=conda_forge.machine(**virtual))
    return {name: str(record.version) for name, record in records.items()}


@pytest.mark.parametrize(
    "virtual", [{"cuda": "13.0"}, {}, {"cuda": "13.2", "cuda_arch": "8.9"}], ids=["gpu", "no-gpu", "arch"]
)
def test_it_is_installed_with_cuda_13_if_the_driver_supports_it_or_there_is_none(
    ours: Path, forge: Path, virtual: dict[str, str]
) -> None:
    found = solved(ours, forge, "llama-cpp-python", **virtual)
    assert found["llama-cpp-python"] == "0.3.36"
    assert {"numpy", "jinja2", "diskcache", "typing-extensions", "cuda-pathfinder", "libstdcxx"} < set(found)
    assert {found[name].split(".")[0] for name in ("cuda-cudart", "libcublas", "cuda-version")} == {"13"}


@pytest.mark.parametrize(
    ("specs", "virtual", "said"),
    [
        ((), {"cuda": "12.4"}, "__cuda >=13"),
        ((), {"glibc": "2.31"}, "__glibc >=2.35"),
        ((), {"cuda": "13.0", "cuda_arch": "7.5"}, "__cuda_arch >=8.9,<9.0"),
        ((), {"cuda": "13.0", "cuda_arch": "12.0"}, "__cuda_arch >=8.9,<9.0"),
        (("cuda-version=12.9",), {"cuda": "13.0"}, "cuda-version"),
        (("python=3.8",), {"cuda": "13.0"}, "python"),
    ],
    ids=["old-driver", "old-glibc", "older-gpu", "newer-gpu", "environment-of-cuda-12", "dropped-python"],
)
def test_it_is_refused_with_the_reason_if_it_could_not_run_or_not_use_the_gpu(
    ours: Path, forge: Path, specs: tuple[str, ...], virtual: dict[str, str], said: str
) -> None:
    with pytest.raises(SolverError, match=said):
        solved(ours, forge, "llama-cpp-python", *specs, **virtual)


def test_another_package_may_fix_the_minor_release_of_cuda(ours: Path, forge: Path) -> None:
    found = solved(ours, forge, "llama-cpp-python", "cuda-version=13.0", cuda="13.0")
    assert (found["cuda-cudart"], found["libcublas"]) == ("13.0.96", "13.1.0.3")


def test_of_several_packages_the_solver_chooses_the_one_for_the_gpu(forge: Path, tmp_path: Path) -> None:
    wheel = conda_wheels.write(tmp_path)
    for number, arch in enumerate(("75-real", "89-real", "120a-real")):
        name = wheel.path.name.replace("sm89", f"sm{arch.split('-')[0]}")
        other = conda_wheels.write(tmp_path / str(number), name=name)
        conda.publish(conda_wheels.describe(other, arch), other, tmp_path / "channel")
    for capability, shard in (("7.5", "sm75"), ("8.9", "sm89"), ("12.0", "sm120a")):
        on = conda_forge.machine(cuda="13.0", cuda_arch=capability)
        records = conda_forge.solved([tmp_path / "channel", forge], "llama-cpp-python", on=on)
        assert f"_{shard}_" in str(records["llama-cpp-python"].build)
