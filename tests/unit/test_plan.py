"""A request is resolved once: everything that it names is looked up, and nothing is created."""

import os
from pathlib import Path
from typing import Any, get_args

import pytest

from build_config import archs, plan
from build_config.commands.app import Launcher
from build_config.errors import CompilerUnsupportedError, LockError, SettingsError, ValidationError
from build_config.model import CudaToolkit, HostCompiler
from build_config.plan import BuildRequest
from build_config.steps import locks
from build_config.steps.toolchain import gcc, installed_cuda, programs
from build_config.system import platforms
from build_config.system.platforms.linux import LINUX
from tests.support import factories
from tests.support.attested import LAYOUT, PLATFORM
from tests.support.factories import MACHINE


@pytest.fixture(name="compilers", autouse=True)
def _compilers(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """For which newest GCC a host compiler was looked for: no process starts in a unit test."""
    asked: list[int | None] = []

    def choose(newest: int | None, _environ: object) -> HostCompiler:
        asked.append(newest)
        return factories.toolchain().host

    monkeypatch.setattr(platforms, "HERE", LINUX)
    monkeypatch.setattr(gcc, "choose", choose)
    return asked


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[Any]:
    calls: list[Any] = []
    whole = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return whole(*arguments, **named)

    monkeypatch.setattr(owner, name, call)
    return calls


def test_each_thing_is_looked_up_once(compilers: list[int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = counted(monkeypatch, Path, "open")
    resolved = counted(monkeypatch, archs, "resolve")
    archs._table.cache_clear()
    made = plan.resolve(BuildRequest(arch="86,89"), MACHINE, LAYOUT)

    assert compilers == [archs.toolkit_series("13.0").gcc]
    assert len(resolved) == 1
    read = [path.name for path, *_ in opened if path.is_relative_to(LAYOUT.data)]
    assert sorted(read) == sorted(set(read)), "a lock or a table was read twice"
    assert {"cuda_architectures.toml", "variants.toml", "library_policy.toml", "requirements.txt"} < set(read)
    assert [shard.name for shard in made.selection.shards] == ["sm86", "sm89"]
    assert made.toolkit.lock == made.locks.toolkit("13.0")
    assert made.locks.digests == locks.lock_digests(LAYOUT)
    assert 1 <= made.jobs <= (os.cpu_count() or 1)


def test_what_is_locked_is_fetched_and_anything_else_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    toolkit = factories.toolchain(cuda="12.4.131").cuda

    def find(_environ: object, release: str | None, *, cublas: bool) -> CudaToolkit:
        assert cublas
        asked.append(release)
        return toolkit

    monkeypatch.setattr(installed_cuda, "find", find)
    monkeypatch.setattr(gcc, "supported_major", lambda _root: 13)
    locked = locks.read(LAYOUT, PLATFORM)
    assert plan.resolve_toolkit("13.0", locked, {}).installed is None
    for cuda in ("12.4", "system"):
        found = plan.resolve_toolkit(cuda, locked, {})
        assert (found.release, found.lock, found.installed) == ("12.4", None, toolkit)
    assert asked == ["12.4", None]
    for wrong in ("latest", "12", "cu124", "12.4.1", ""):
        with pytest.raises(SettingsError, match="not a release") as caught:
            plan.resolve_toolkit(wrong, locked, {})
        assert "13.0 (downloaded)" in str(caught.value.remedy)


def test_what_is_wrong_is_said_before_anything_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = factories.layout(tmp_path / "work")

    def refuse(*_: object) -> HostCompiler:
        raise CompilerUnsupportedError("g++ is GCC 99")

    with monkeypatch.context() as patch:
        patch.setattr(gcc, "choose", refuse)
        with pytest.raises(CompilerUnsupportedError):
            plan.resolve(BuildRequest(), MACHINE, layout)
    with monkeypatch.context() as patch:
        patch.setattr(locks, "read", lambda *_: (_ for _ in ()).throw(LockError("malformed")))
        with pytest.raises(LockError):
            plan.resolve(BuildRequest(), MACHINE, layout)
    with pytest.raises(ValidationError, match="lists no GPU") as required:
        plan.resolve(BuildRequest(require_gpu=True), MACHINE, layout)
    assert "leave it out" in str(required.value.remedy)
    with pytest.raises(SettingsError):
        plan.resolve(BuildRequest(sign_key=tmp_path / "none.pem"), MACHINE, layout)
    for units, keys, said in (
        ("s3://team/units", (), "a trusted key has signed"),
        ("https://example.org/units", (), "a trusted key has signed"),
        (None, (tmp_path / "none.pub",), "whose units are used"),
        (tmp_path, (tmp_path / "none.pub",), "cannot be read"),
    ):
        with pytest.raises(SettingsError, match=said):
            plan.resolve(BuildRequest(units=units, trust_units=keys), MACHINE, layout)
    with pytest.raises(SettingsError, match="no key is given") as listed:
        plan.resolve(BuildRequest(units=tmp_path, revoked=tmp_path / "revoked.txt"), MACHINE, layout)
    assert listed.value.remedy == "pass --trust-units KEY"
    assert not layout.work_root.exists()


def test_the_command_line_offers_the_launchers_that_there_are() -> None:
    assert {choice.value for choice in Launcher} == set(get_args(programs.Launcher))
