"""What the build writes down of itself, and everybody who reads it: this project, the loader, the probe, check_gpu."""

import dataclasses
import json
import zipfile
from pathlib import Path

import pytest

from build_config.errors import PackagingError
from build_config.formats import build_facts
from build_config.steps.validation import probe
from check_gpu import collect
from check_gpu.facts import Installation
from tests.support import factories, wheel_modules, wheels

FACTS = factories.build_facts("89", "90-virtual", "120a-real")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package as it is installed, without its libraries."""
    (tmp_path / build_facts.FILE).write_text(build_facts.text(FACTS), encoding="utf-8")
    return tmp_path


def test_what_is_written_is_read_again() -> None:
    assert build_facts.parse(build_facts.text(FACTS).encode()) == FACTS


def test_the_bytes_are_those_of_every_wheel_before() -> None:
    assert build_facts.text(factories.build_facts("89")) == (
        '{\n  "version": "0.3.36",\n  "cuda": "13.0",\n  "oldest_driver": "580",\n  "shards": [\n    {\n'
        '      "name": "sm89",\n      "file": "libggml-cuda-sm89.so",\n      "archs": [\n        "89-real"\n      ]\n'
        '    }\n  ],\n  "libraries": [\n    "libcudart.so.13",\n    "libcublas.so.13"\n  ],\n'
        '  "build_command": "nox -s build_cuda_wheel -- --arch {arch}"\n}\n'
    )


def test_the_loader_in_the_wheel_reads_the_same(package: Path) -> None:
    seen = wheel_modules.loader(package.parent / "site")._read_build(package / build_facts.FILE)
    names = ("cuda", "oldest_driver", "libraries", "build_command")
    assert [getattr(seen, name) for name in names] == [getattr(FACTS, name) for name in names]
    assert [(one.name, one.file, one.archs) for one in seen.shards] == [
        (one.name, one.file, tuple(map(str, one.archs))) for one in FACTS.shards
    ]


def test_check_gpu_reads_the_same(package: Path) -> None:
    own = collect.read_libraries(Installation(python="python", package=str(package))).own
    assert own is not None
    assert dataclasses.asdict(own).items() <= dataclasses.asdict(FACTS).items()


def test_the_probe_looks_for_the_same_shards(package: Path) -> None:
    first, *others = (shard.file for shard in FACTS.shards)
    (package / "lib").mkdir()
    (package / "lib" / first).touch()
    assert probe._missing_shards(package) == others


def test_the_facts_of_a_wheel_are_looked_up_in_it(tmp_path: Path) -> None:
    wheel = wheels.write(tmp_path, wheels.contents({})).path
    assert build_facts.read(wheel) is None
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(build_facts.MEMBER, build_facts.text(FACTS))
    assert build_facts.read(wheel) == FACTS
    wheel.write_bytes(b"no wheel")
    assert build_facts.read(wheel) is None


def test_what_a_later_version_adds_is_ignored() -> None:
    data = json.loads(build_facts.text(FACTS))
    assert build_facts.parse(json.dumps({**data, "new": 1}).encode()) == FACTS


@pytest.mark.parametrize("lacking", [field.name for field in dataclasses.fields(FACTS)])
def test_without_one_of_them_it_is_damaged(lacking: str) -> None:
    data = json.loads(build_facts.text(FACTS))
    del data[lacking]
    with pytest.raises(PackagingError, match=f"damaged: KeyError: '{lacking}'"):
        build_facts.parse(json.dumps(data).encode())


@pytest.mark.parametrize("change", [{"cuda": "none"}, {"shards": [1]}, {"shards": [{"archs": ["x"]}]}, {"shards": 1}])
def test_other_values_are_damage(change: dict[str, object]) -> None:
    data = {**json.loads(build_facts.text(FACTS)), **change}
    for content in (json.dumps(data).encode(), b"[]", b"{", b"\xff"):
        with pytest.raises(PackagingError, match="damaged"):
            build_facts.parse(content)
