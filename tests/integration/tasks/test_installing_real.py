"""Each block of docs/installing.md, run by the real client: it takes our wheel, whatever the other index has."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli_w

from build_config.system.layout import PACKAGE
from build_config.tasks.index import snippets
from tests.support import client_environment
from tests.support.client_environment import Environment
from tests.support.indexed import House
from tests.support.served import CPU_BUILD, other_index, server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

DOCUMENT = (PACKAGE.parent / "docs" / "installing.md").read_text(encoding="utf-8")
ADDRESS = "https://example.org/whl/cu130-sm89/"
CONTENT = "import llama_cpp; print(llama_cpp.content)"
OURS = "first"


@dataclass(frozen=True)
class Setting:
    """An index with our wheel 0.3.36, another one in the place of PyPI, and the programs that install."""

    house: House
    url: str
    other: str
    installers: Environment
    folder: Path

    @property
    def sha256(self) -> str:
        """The digest of our wheel."""
        (digest,) = re.findall(r"#sha256=(\w+)", self.page)
        return str(digest)

    @property
    def page(self) -> str:
        return (self.house.index / "cu130-sm89" / "llama-cpp-python" / "index.html").read_text(encoding="utf-8")

    def block(self, heading: str, number: int = 0) -> str:
        """A block of the document, with the address of this index and this PyPI."""
        section = re.split(r"^## ", DOCUMENT.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
        text = str(re.findall(r"```\w*\n(.*?)\n```", section, re.DOTALL)[number])
        return text.replace(ADDRESS, f"{self.url}cu130-sm89/").replace(
            "https://pypi.org/simple", self.other.rstrip("/")
        )

    def target(self) -> Environment:
        """An empty environment."""
        environment = Environment(self.folder / "target")
        venv.create(environment.folder, with_pip=False, symlinks=True)
        return environment

    def project(self, block: str, **more: object) -> Path:
        """A project whose ``pyproject.toml`` has this block."""
        data = tomllib.loads(block)
        version = "{}.{}".format(*sys.version_info)
        own = {"name": "app", "version": "1", "requires-python": f"=={version}.*"}
        data["project"] = {**own, **data.get("project", {})}
        folder = self.folder / "project"
        folder.mkdir()
        (folder / "pyproject.toml").write_text(tomli_w.dumps({**data, **more}), encoding="utf-8")
        return folder

    def variables(self, environment: Environment) -> dict[str, str]:
        """What makes the other index the default of every client, and no cache or setting of this machine count."""
        own = {f"POETRY_{name}_DIR": str(self.folder / name) for name in ("CACHE", "CONFIG", "DATA")}
        own |= {f"PDM_{name}": str(self.folder / f"pdm-{name}") for name in ("HOME", "CACHE_DIR", "CONFIG_FILE")}
        return {
            **own,
            "HOME": str(self.folder),
            "POETRY_KEYRING_ENABLED": "false",
            "PDM_CHECK_UPDATE": "0",
            "PIP_INDEX_URL": self.other,
            "PIP_NO_CACHE_DIR": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_DEFAULT_INDEX": self.other,
            "UV_CACHE_DIR": str(self.folder / "uv-cache"),
            "UV_PYTHON": str(environment.python),
            "VIRTUAL_ENV": str(environment.folder),
        }

    def run(
        self, line: str, environment: Environment, *, cwd: Path | None = None, pip: Environment | None = None
    ) -> str:
        """Run a line of a shell block."""
        program, *arguments = shlex.split(line)
        command: tuple[object, ...]
        if program == "pip":
            command = ((pip or self.installers).python, "-I", "-m", "pip", "--python", environment.python)
        else:
            command = (self.installers.program(program),)
        variables = self.variables(environment)
        return client_environment.run(*command, *arguments, variables=variables, cwd=cwd or self.folder)


def content(environment: Environment) -> str:
    return client_environment.run(environment.python, "-I", "-c", CONTENT).strip()


@pytest.fixture(name="house", scope="module")
def _house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("published"))
    house.build()
    house.write()
    return house


SAME, NEWER = ("0.3.36",), ("0.3.36", "0.3.40")
COMBINATIONS = [(kind, versions) for versions in (SAME, NEWER) for kind in ("http.server", "serve")]
"""The server of our index, and the releases that the other index has as source distributions."""


@pytest.fixture(name="indexes", scope="module", params=COMBINATIONS)
def _indexes(request: pytest.FixtureRequest, house: House) -> Iterator[tuple[str, str]]:
    """The addresses of our index and of the other one."""
    kind, versions = request.param
    with server(house.index, kind) as url, other_index(*versions) as other:
        yield url, other


@pytest.fixture(name="setting")
def _setting(house: House, indexes: tuple[str, str], installers: Environment, tmp_path: Path) -> Setting:
    url, other = indexes
    return Setting(house=house, url=url, other=other, installers=installers, folder=tmp_path)


@pytest.fixture(name="bundled", scope="module")
def _bundled(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The pip that came with this Python, which is older than the locked one."""
    folder = tmp_path_factory.mktemp("bundled") / "environment"
    venv.create(folder, with_pip=True, symlinks=True)
    return Environment(folder)


@pytest.mark.parametrize("age", ["bundled", "locked"])
def test_pip(setting: Setting, age: str, bundled: Environment) -> None:
    target = setting.target()
    setting.run(setting.block("pip"), target, pip=bundled if age == "bundled" else None)
    assert content(target) == OURS


def test_pip_with_a_requirements_file_and_a_digest(setting: Setting) -> None:
    target = setting.target()
    lines = setting.block("pip", 1).replace(
        "\nllama-cpp-python", f"\nllama-cpp-python==0.3.36+cu130.sm89 --hash=sha256:{setting.sha256}"
    )
    (setting.folder / "requirements.txt").write_text(lines, encoding="utf-8")
    setting.run("pip install -r requirements.txt", target)
    assert content(target) == OURS


def test_uv(setting: Setting) -> None:
    target = setting.target()
    setting.run(setting.block("uv"), target)
    assert content(target) == OURS


def test_uv_in_a_project(setting: Setting) -> None:
    project = setting.project(setting.block("uv", 1))
    setting.run("uv sync", setting.target(), cwd=project)
    assert content(Environment(project / ".venv")) == OURS
    lock = (project / "uv.lock").read_text(encoding="utf-8")
    assert f"sha256:{setting.sha256}" in lock
    assert "tar.gz" not in lock


def test_poetry(setting: Setting) -> None:
    other = {"name": "other", "url": setting.other, "priority": "primary"}
    project = setting.project("", tool={"poetry": {"package-mode": False, "source": [other]}})
    target = setting.target()
    for line in setting.block("Poetry").splitlines():
        setting.run(f"{line} --no-interaction", target, cwd=project)
    assert content(target) == OURS
    lock = (project / "poetry.lock").read_text(encoding="utf-8")
    assert f"sha256:{setting.sha256}" in lock
    assert "tar.gz" not in lock


def test_pdm(setting: Setting) -> None:
    project = setting.project(setting.block("PDM"))
    target = setting.target()
    setting.run("pdm install --no-self", target, cwd=project)
    assert content(target) == OURS
    lock = (project / "pdm.lock").read_text(encoding="utf-8")
    assert f"sha256:{setting.sha256}" in lock
    assert "tar.gz" not in lock


def test_the_line_for_conda_is_that_for_pip(setting: Setting) -> None:
    _, line = setting.block("conda").splitlines()
    assert line == f"conda run --name llama {setting.block('pip')}"


# --------------------------------------------------------------------------------- what goes wrong without these lines


@pytest.fixture(name="newer", scope="module")
def _newer() -> Iterator[str]:
    with other_index("0.3.40") as url:
        yield url


@pytest.mark.parametrize(
    "line",
    [
        "pip install --no-build-isolation --extra-index-url URL llama-cpp-python",
        "uv pip install --no-build-isolation --index URL --index-strategy unsafe-best-match llama-cpp-python",
        "uv pip install --no-build-isolation --find-links URLllama-cpp-python/ llama-cpp-python",
    ],
)
def test_other_lines_take_the_newer_source_distribution(
    house: House, newer: str, installers: Environment, tmp_path: Path, line: str
) -> None:
    with server(house.index, "http.server") as url:
        setting = Setting(house=house, url=url, other=newer, installers=installers, folder=tmp_path)
        target = setting.target()
        setting.run(line.replace("URL", f"{url}cu130-sm89/"), target)
    assert content(target) == CPU_BUILD


def test_every_client_of_the_page_is_in_the_document() -> None:
    headings = set(re.findall(r"^## (\w+)$", DOCUMENT, re.MULTILINE))
    assert {each.client.partition(",")[0] for each in snippets.snippets(ADDRESS)} == headings
