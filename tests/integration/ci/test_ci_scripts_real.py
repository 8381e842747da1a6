"""The scripts and commands of CI services, called as they call them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from build_config.errors import SettingsError
from build_config.system.layout import PACKAGE
from ci import try_installed_wheel
from tests.integration.conftest import run
from tests.support.command_line import call, call_here

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def test_the_model_for_an_installed_wheel_is_written(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", try_installed_wheel.WRITE, tmp_path / "tiny.gguf", cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tiny.gguf").read_bytes().startswith(b"GGUF")


def test_the_plan_is_printed_for_programs_and_written_for_github(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("before=1\n", encoding="utf-8")
    done = call("matrix", "--arch", "86,89", "--cuda", "", "--cards", "", "--github-output", tmp_path / "output")
    assert done.returncode == 0
    lines = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    outputs = dict(line.split("=", 1) for line in lines)
    assert outputs.pop("before") == "1"
    assert {name: json.loads(value) for name, value in outputs.items()} == json.loads(done.stdout)
    assert [unit["unit"] for unit in json.loads(done.stdout)["units"]] == ["core", "sm86", "sm89"]


def test_an_impossible_plan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    done = call_here("matrix", "--arch", "native", "--github-output", tmp_path / "output")
    assert done.returncode == SettingsError.exit_code
    assert "depends on the machine" in done.stdout
    assert not (tmp_path / "output").exists()


def test_folders_of_the_work_root_are_kept_unchanged(tmp_path: Path) -> None:
    root, kept = tmp_path / "root", tmp_path / "kept"
    (root / "cache" / "a").mkdir(parents=True)
    (root / "cache" / "a" / "object").write_text("1", encoding="utf-8")
    (root / "store").mkdir()
    assert run("ci/keep.sh", "save", kept, root, "cache", "downloads", cwd=PACKAGE.parent).returncode == 0
    assert [path.name for path in kept.iterdir()] == ["cache"]
    (kept / "cache" / "a" / "object").write_text("2", encoding="utf-8")
    (root / "cache" / "old").touch()
    assert run("ci/keep.sh", "restore", kept, root, "cache", "downloads", cwd=PACKAGE.parent).returncode == 0
    assert [path.name for path in (root / "cache").rglob("*")] == ["a", "object"]
    assert (root / "cache" / "a" / "object").read_text(encoding="utf-8") == "2"
    fresh = tmp_path / "fresh"
    assert run("ci/keep.sh", "restore", kept, fresh, "cache", cwd=PACKAGE.parent).returncode == 0
    assert not fresh.stat().st_mode & 0o022, "the work root would be refused"
    assert run("ci/keep.sh", "move", kept, root, cwd=PACKAGE.parent).returncode == 2


@pytest.mark.parametrize("name", ["ci/keep.sh", "ci/upload_release.sh"])
def test_a_script_without_its_arguments_prints_its_usage(name: str) -> None:
    done = run(name, cwd=PACKAGE.parent)
    assert done.returncode != 0
    assert f"usage: {name}" in done.stderr
