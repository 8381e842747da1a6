"""An index under load, and what real installers do after a supersession, a yank, and a limit."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli_w

from build_config.system.console import Console
from build_config.tasks.index import rules, update
from build_config.tasks.publish import PublishRequest, publish
from measurements import index_under_load
from tests.integration.conftest import bare_environment, run
from tests.support import client_environment
from tests.support.indexed import SM89, TAG, House
from tests.support.served import server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

NAME = f"llama_cpp_python-{SM89}-{TAG}.whl"
NEWER = "0.3.37+cu130.sm89"


@pytest.mark.parametrize("kind", ["serve", "http.server"])
def test_publishers_and_readers_at_once(tmp_path: Path, kind: str) -> None:
    found = index_under_load.together(tmp_path, kind=kind, seconds=2, publishers=3, readers=6)
    assert not found["problems"]
    assert found["published"] >= 4
    assert found["files read and compared"] > 0


def test_publishers_that_are_killed(tmp_path: Path) -> None:
    found = index_under_load.kills(tmp_path, 4)
    assert found == {"killed": 4, "points": 4, "left over": [], "problems": []}


# -------------------------------------------------------------------------------------------------------- installers


@dataclass(frozen=True)
class Users:
    """Users of a served index with pip and uv."""

    house: House
    url: str
    folder: Path
    python: Path

    def pip(self, *requirement: str) -> subprocess.CompletedProcess[str]:
        options = ("--isolated", "--python", self.python, "install", "--no-cache-dir", "--force-reinstall", "--no-deps")
        return run(sys.executable, "-m", "pip", *options, "--index-url", self.url, *requirement)

    def uv(self, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        changes = {"UV_NO_CACHE": "1", "UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": self.url, "UV_PYTHON": str(self.python)}
        variables = client_environment.clean_variables(changes)
        return run(sys.executable, "-m", "uv", *arguments, env=variables, cwd=cwd or self.folder)

    def uv_install(self, *requirement: str) -> subprocess.CompletedProcess[str]:
        return self.uv("pip", "install", "--python", self.python, "--reinstall", *requirement)

    def project(self) -> Path:
        """A project with a lock of uv."""
        folder = self.folder / "project"
        folder.mkdir()
        data = {"name": "app", "version": "1", "requires-python": ">=3.8", "dependencies": ["llama-cpp-python"]}
        (folder / "pyproject.toml").write_text(tomli_w.dumps({"project": data}), encoding="utf-8")
        completed = self.uv("lock", cwd=folder)
        assert completed.returncode == 0, completed.stderr
        return folder

    def locked(self, digest: str) -> str:
        """A requirements file of pip with a digest."""
        path = self.folder / "requirements.txt"
        path.write_text(f"llama-cpp-python=={SM89} --hash=sha256:{digest}\n", encoding="utf-8")
        return str(path)

    def content(self, python: Path | None = None) -> str:
        code = "import llama_cpp; print(llama_cpp.__version__, llama_cpp.content)"
        return run(python or self.python, "-I", "-c", code).stdout.strip()


@pytest.fixture(name="users")
def _users(tmp_path: Path) -> Iterator[Users]:
    house = House(tmp_path / "house")
    house.build()
    publish(PublishRequest(), house.layout, Console())
    python, _ = bare_environment(tmp_path / "environment")
    with server(house.index, "http.server") as url:
        yield Users(house=house, url=f"{url}cu130-sm89/", folder=tmp_path, python=python)


def test_what_installers_do_after_a_supersession(users: Users) -> None:
    project = users.project()
    page = (users.house.index / "cu130-sm89" / "llama-cpp-python" / "index.html").read_text(encoding="utf-8")
    (digest,) = re.findall(r"#sha256=(\w+)", page)
    users.house.build(content="second")
    publish(PublishRequest(supersede=NAME, reason="wrong results"), users.house.layout, Console())
    for install in (users.pip, users.uv_install):
        for requirement in ("llama-cpp-python", f"llama-cpp-python=={SM89}"):
            assert install(requirement).returncode == 0
            assert users.content() == f"{SM89} second", "the new one, also where only the version is named"
    completed = users.uv("sync", "--locked", cwd=project)
    assert completed.returncode == 0, completed.stderr
    assert users.content(project / ".venv" / "bin" / "python") == f"{SM89} first", "the lock still installs"
    completed = users.pip("--require-hashes", "-r", users.locked(digest))
    assert completed.returncode == 0, completed.stderr
    assert users.content() == f"{SM89} first"
    assert "wrong results" in completed.stderr, "pip shows the reason"


def test_what_installers_do_after_a_yank(users: Users) -> None:
    project = users.project()
    update.change(users.house.index, Console(), lambda known: rules.yank(known, (NAME,), "a fault"))
    for install in (users.pip, users.uv_install):
        assert install("llama-cpp-python").returncode != 0, "nothing else is there"
        assert install(f"llama-cpp-python=={SM89}").returncode == 0, "named by its version"
        assert users.content() == f"{SM89} first"
    assert users.uv("sync", "--locked", cwd=project).returncode == 0


def test_what_installers_do_after_a_limit(users: Users) -> None:
    project = users.project()
    users.house.build(NEWER, "newer")
    publish(PublishRequest(keep=1), users.house.layout, Console())
    for install in (users.pip, users.uv_install):
        assert install("llama-cpp-python").returncode == 0
        assert users.content() == f"{NEWER} newer"
        assert install("llama-cpp-python<0.3.37").returncode != 0
    assert users.uv("sync", "--locked", cwd=project).returncode == 0, "nothing was deleted"

    publish(PublishRequest(keep=1, delete=True), users.house.layout, Console())
    assert users.uv("sync", "--locked", "--reinstall", cwd=project).returncode != 0, "what --delete breaks"
