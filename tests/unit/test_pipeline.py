from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config import inputs, pipeline
from build_config.errors import SettingsError
from build_config.steps.toolchain import installed_cuda
from build_config.system import jsonio
from build_config.system.layout import CANONICAL_WORK_ROOT
from tests.support import factories, publishable, windows_machine

if TYPE_CHECKING:
    from build_config.model import CudaToolkit

pytestmark = pytest.mark.unit


def test_a_wheel_of_the_store_is_taken_only_while_its_bytes_are_the_same(tmp_path: Path) -> None:
    assert pipeline.stored_wheel(tmp_path / "none") is None
    wheel, *_ = publishable.make(tmp_path / "kept")
    assert pipeline.stored_wheel(wheel.path.parent) is None, "without its digest it proves nothing"
    jsonio.write(wheel.path.parent / pipeline.WHEEL_DIGEST, wheel.sha256)
    kept = pipeline.stored_wheel(wheel.path.parent)
    assert kept is not None
    assert kept.sha256 == wheel.sha256
    wheel.path.write_bytes(b"wheeL")
    assert pipeline.stored_wheel(wheel.path.parent) is None


def test_the_paths_of_this_machine_are_forbidden_but_no_system_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    layout = factories.layout(Path("/somewhere/work"), checkout=Path("/home/me/checkout"))
    assert pipeline.forbidden_paths(layout) == ("/home/me/checkout", "/somewhere/work", str(CANONICAL_WORK_ROOT))


def test_on_windows_a_path_is_forbidden_with_either_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    monkeypatch.setenv("USERPROFILE", r"C:\Users\jörg")
    layout = windows_machine.layout()
    forbidden = pipeline.forbidden_paths(layout)
    for path in (r"C:\Users\jörg", "C:/Users/jörg", r"C:\llama-cuda-wheels", "C:/llama-cuda-wheels"):
        assert path in forbidden


def test_the_newest_wheel_of_the_wheelhouse_is_validated_by_default(tmp_path: Path) -> None:
    layout = factories.layout(tmp_path / "w", checkout=tmp_path)
    with pytest.raises(SettingsError, match="no wheel"):
        pipeline.newest_wheel(layout)
    old, *_ = publishable.make(layout.wheelhouse, b"old", "0.3.35+cu130.sm89")
    new, *_ = publishable.make(layout.wheelhouse, b"new", "0.3.36+cu130.sm89")
    os.utime(old.path, (1, 1))
    assert pipeline.newest_wheel(layout) == new.path


def test_what_is_locked_is_fetched_and_anything_else_has_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = factories.layout(tmp_path)
    asked: list[str | None] = []
    toolkit = factories.toolchain(cuda="12.4.131").cuda

    def find(_environ: object, release: str | None, *, cublas: bool) -> CudaToolkit:
        assert cublas
        asked.append(release)
        return toolkit

    monkeypatch.setattr(installed_cuda, "find", find)
    assert inputs.is_locked("13.0", layout)
    for cuda in ("12.4", "system"):
        assert not inputs.is_locked(cuda, layout)
        assert inputs.installed_toolkit(cuda, layout) == toolkit
    assert asked == ["12.4", None]
    for wrong in ("latest", "12", "cu124", "12.4.1", ""):
        with pytest.raises(SettingsError, match="not a release") as caught:
            inputs.installed_toolkit(wrong, layout)
        assert "13.0 (fetched)" in str(caught.value.remedy)


def test_there_is_always_one_job_and_never_more_than_cores() -> None:
    assert 1 <= pipeline.default_jobs() <= (os.cpu_count() or 1)
