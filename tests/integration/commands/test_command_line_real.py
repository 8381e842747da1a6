"""The command line as users call it: each bad input has its message and its exit code, and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config import errors
from build_config.steps import locks
from build_config.system.layout import PACKAGE, Layout
from tests.support.command_line import call, call_here

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("--arch", "50"), errors.ArchitectureError, "75"),
        (("--arch", "8.9x"), errors.ArchitectureError, "8.9x"),
        (("--arch", ""), errors.ArchitectureError, "--arch"),
        (("--cuda", "twelve"), errors.SettingsError, "12.4"),
        (("--cuda", "99.9"), errors.ToolkitMissingError, "CUDA_PATH"),
        (("--jobs", "0"), errors.SettingsError, "jobs"),
        (("--no-such-option",), errors.SettingsError, "no-such-option"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_made(
    tmp_path: Path, arguments: tuple[str, ...], error: type[errors.PipelineError], said: str
) -> None:
    root = tmp_path / "work"
    done = call_here("build", "--work-root", root, *arguments)
    assert done.returncode == error.exit_code
    assert said in done.stdout
    assert "To fix it:" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not root.exists()


def test_without_a_compiler_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "work"
    monkeypatch.setenv("PATH", str(tmp_path))
    done = call_here("build", "--work-root", root)
    assert done.returncode == errors.CompilerMissingError.exit_code
    assert "g++" in done.stdout
    assert not root.exists()


def test_a_work_root_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "work"
    root.symlink_to(tmp_path / "elsewhere")
    done = call_here("build", "--work-root", root)
    assert done.returncode == errors.WorkRootError.exit_code
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_locked_file_that_was_changed_is_moved_aside_and_nothing_is_unpacked(tmp_path: Path) -> None:
    root = tmp_path / "work"
    (root / "downloads").mkdir(parents=True)
    name = locks.read_source_lock(Layout(checkout=PACKAGE.parent, work_root=root)).file.filename
    (root / "downloads" / name).write_bytes(b"not the locked file")
    done = call("build", "--work-root", root)
    assert done.returncode == errors.DigestMismatchError.exit_code
    assert (root / "downloads" / "rejected" / name).read_bytes() == b"not the locked file"
    assert not (root / "src").exists()


def test_doctor_answers_for_people_and_for_programs() -> None:
    assert "C++ compiler" in call("doctor").stdout
    assert call_here("doctor", "--json").stdout.lstrip().startswith("[")
