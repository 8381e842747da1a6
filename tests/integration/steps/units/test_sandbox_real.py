"""What a compiler gets to see, by programs that look around in its place."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from build_config.errors import ConfigureError
from build_config.steps.toolchain import gcc
from build_config.steps.units import sandbox
from build_config.system import processes
from tests.support import factories

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
def _isolation() -> sandbox.Isolation:
    found = sandbox.isolation()
    if found == sandbox.NOT_ISOLATED:
        pytest.skip(found.description)
    return found


def test_there_is_no_network_not_even_the_machines_own(isolation: sandbox.Isolation) -> None:
    python = shutil.which("python3") or "python3"
    assert processes.capture(python, "-c", CONNECT).returncode == 0
    inside = processes.capture(*isolation.prefix, python, "-c", CONNECT)
    assert inside.returncode != 0
    assert "unreachable" in inside.output


def test_the_user_and_the_files_stay_the_same(isolation: sandbox.Isolation, tmp_path: Path) -> None:
    assert processes.capture(*isolation.prefix, "id", "-u").output.strip() == str(os.getuid())
    processes.capture(*isolation.prefix, "touch", str(tmp_path / "made"))
    assert (tmp_path / "made").stat().st_uid == os.getuid()


def test_the_path_holds_binutils_and_a_shell_and_neither_git_nor_compilers(tmp_path: Path) -> None:
    layout = factories.layout(tmp_path)
    folder = sandbox.tool_folder(gcc.find(None, os.environ), layout, os.environ)
    assert {entry.name for entry in folder.iterdir()} == {*sandbox.BINUTILS, *sandbox.SHELL}
    environment = sandbox.environment(folder, layout)
    linked = processes.run(processes.Command(argv=("ld", "--version"), environment=environment), check=False)
    assert "GNU ld" in linked.output
    for name in ("git", "ccache", "gcc", "nvcc", "curl", "python3"):
        assert shutil.which(name, path=environment["PATH"]) is None


def test_an_unchanged_folder_stays_and_a_changed_one_is_made_anew(tmp_path: Path) -> None:
    layout = factories.layout(tmp_path)
    host = gcc.find(None, os.environ)
    folder = sandbox.tool_folder(host, layout, os.environ)
    before = folder.stat().st_ino
    assert sandbox.tool_folder(host, layout, os.environ).stat().st_ino == before
    (folder / "git").symlink_to("/usr/bin/git")
    assert not (sandbox.tool_folder(host, layout, os.environ) / "git").is_symlink()


def test_what_is_missing_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "BINUTILS", ("no-such-binutil",))
    with pytest.raises(ConfigureError, match="no-such-binutil") as caught:
        sandbox.tool_folder(gcc.find(None, os.environ), factories.layout(tmp_path), os.environ)
    assert "binutils" in (caught.value.remedy or "")
