"""What a compiler gets to see, by programs that look around in its place."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from build_config import hermetic, runner
from build_config.errors import ConfigureError
from build_config.toolchain import gcc
from tests import factories

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

CONNECT = (
    "import socket\n"
    "server = socket.socket()\n"
    "server.bind(('127.0.0.1', 0))\n"
    "server.listen()\n"
    "socket.create_connection(server.getsockname(), timeout=3)\n"
)


@pytest.fixture(name="isolation")
def _isolation() -> hermetic.Isolation:
    found = hermetic.isolation()
    if not found.without_network:
        pytest.skip(found.description)
    return found


def test_there_is_no_network_not_even_the_machines_own(isolation: hermetic.Isolation) -> None:
    python = shutil.which("python3") or "python3"
    assert runner.capture(python, "-c", CONNECT).returncode == 0
    inside = runner.capture(*isolation.prefix, python, "-c", CONNECT)
    assert inside.returncode != 0
    assert "unreachable" in inside.output


def test_the_user_and_the_files_stay_the_same(isolation: hermetic.Isolation, tmp_path: Path) -> None:
    assert runner.capture(*isolation.prefix, "id", "-u").output.strip() == str(os.getuid())
    runner.capture(*isolation.prefix, "touch", str(tmp_path / "made"))
    assert (tmp_path / "made").stat().st_uid == os.getuid()


def test_the_path_holds_binutils_and_a_shell_and_neither_git_nor_compilers(tmp_path: Path) -> None:
    layout = factories.layout(tmp_path)
    folder = hermetic.tool_folder(gcc.find(None, os.environ), layout, os.environ)
    assert {entry.name for entry in folder.iterdir()} == {*hermetic.BINUTILS, *hermetic.SHELL}
    environment = hermetic.environment(folder, layout)
    linked = runner.run(runner.Command(argv=("ld", "--version"), environment=environment), check=False)
    assert "GNU ld" in linked.output
    for name in ("git", "ccache", "gcc", "nvcc", "curl", "python3"):
        assert shutil.which(name, path=environment["PATH"]) is None


def test_an_unchanged_folder_stays_and_a_changed_one_is_made_anew(tmp_path: Path) -> None:
    layout = factories.layout(tmp_path)
    host = gcc.find(None, os.environ)
    folder = hermetic.tool_folder(host, layout, os.environ)
    before = folder.stat().st_ino
    assert hermetic.tool_folder(host, layout, os.environ).stat().st_ino == before
    (folder / "git").symlink_to("/usr/bin/git")
    assert not (hermetic.tool_folder(host, layout, os.environ) / "git").is_symlink()


def test_what_is_missing_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hermetic, "BINUTILS", ("no-such-binutil",))
    with pytest.raises(ConfigureError, match="no-such-binutil") as caught:
        hermetic.tool_folder(gcc.find(None, os.environ), factories.layout(tmp_path), os.environ)
    assert "binutils" in (caught.value.remedy or "")
