"""pip, uv and poetry install the newest wheel from the wheelhouse, and it runs on the oldest and the newest Python.

Each environment then generates with the tiny model, on the CPU and on a simulated GPU, which computes nothing.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from build_config.model import Wheel
from build_config.steps import locks
from build_config.steps.locks import OLDEST_PYTHON_OF_WHEELS, download
from build_config.steps.validation import probe
from build_config.testbed import clean_environment, synthetic_model
from tests.support import client_environment
from tests.support.client_environment import WITHOUT_GPU

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from build_config.system.layout import Layout
    from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine
    from tests.support.client_environment import Environment

pytestmark = pytest.mark.wheel


@dataclass(frozen=True)
class Trial:
    """Generates with an installed wheel, on the CPU and on a simulated GPU."""

    wheel: Wheel
    model: Path
    simulated: dict[str, str]

    def run(self, python: Path, folder: Path) -> dict[str, Any]:
        """Assert that both work; returns what happened on the simulated GPU."""
        version = client_environment.run(python, "-I", "-c", VERSION)
        assert version.strip() == str(self.wheel.version)
        self._probe(python, folder / "cpu.json", device="CPU", gpu_layers=0, variables=WITHOUT_GPU)
        return self._probe(python, folder / "gpu.json", device="CUDA0", gpu_layers=-1, variables=self.simulated)

    def _probe(
        self, python: Path, file: Path, *, device: str, gpu_layers: int, variables: Mapping[str, str]
    ) -> dict[str, Any]:
        options = json.dumps({"n_gpu_layers": gpu_layers})
        command = (python, "-I", probe.__file__, file, options, "generate", self.model)
        client_environment.run(*command, variables=variables)
        (result,) = json.loads(file.read_text(encoding="utf-8"))
        assert result["tokens"] == probe.TOKENS
        assert set(re.findall(r"assigned to device (\w+)", "\n".join(result["log"]))) == {device}
        assert result["cuda_status"]["loaded"] is (device != "CPU")
        assert Path(result["package"]).is_relative_to(python.parent.parent)
        return dict(result)


VERSION = "from importlib.metadata import version; print(version('llama-cpp-python'))"


@pytest.fixture(name="trial", scope="module")
def _trial(
    wheel: Wheel, doubles: SimulatedLibraries, machine: SimulatedMachine, tmp_path_factory: pytest.TempPathFactory
) -> Trial:
    model = synthetic_model.write(tmp_path_factory.mktemp("model") / "tiny.gguf")
    return Trial(wheel, model, doubles.environment(machine))


@pytest.fixture(name="page", scope="module")
def _page(layout: Layout, wheel: Wheel) -> Iterator[str]:
    """The wheelhouse on a server, as users publish it; the address of its page."""
    assert wheel.path.parent == layout.wheelhouse
    handler = functools.partial(QuietHandler, directory=layout.wheelhouse)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(name="installers", scope="module")
def _installers(wheel: Wheel, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    assert wheel.path.is_file(), "nothing is downloaded for a missing wheel"
    return client_environment.make(tmp_path_factory.mktemp("installers"), layout.locks / "installers.txt", layout)


@pytest.fixture(name="target")
def _target(wheel: Wheel, layout: Layout, tmp_path: Path) -> Environment:
    """An environment with the requirements of the wheel, into which it is to be installed."""
    return client_environment.make(tmp_path, clean_environment.requirements(wheel, layout.locks), layout)


@pytest.mark.parametrize("from_page", [False, True], ids=["folder", "page"])
def test_pip_installs_it(
    installers: Environment,
    target: Environment,
    trial: Trial,
    layout: Layout,
    page: str,
    tmp_path: Path,
    *,
    from_page: bool,
) -> None:
    wheels = page if from_page else layout.wheelhouse
    pip = (installers.python, "-I", "-m", "pip", "--isolated", "--python", target.python, "install")
    client_environment.run(*pip, "--no-index", "--find-links", wheels, "llama-cpp-python")
    trial.run(target.python, tmp_path)


def test_uv_installs_it(installers: Environment, target: Environment, trial: Trial, page: str, tmp_path: Path) -> None:
    uv = (installers.program("uv"), "--no-config", "--no-cache", "pip", "install", "--python", target.python)
    client_environment.run(*uv, "--no-index", "--find-links", page, "llama-cpp-python")
    trial.run(target.python, tmp_path)


def test_poetry_installs_it(
    installers: Environment, target: Environment, trial: Trial, layout: Layout, page: str, tmp_path: Path
) -> None:
    lock = clean_environment.requirements(trial.wheel, layout.locks)
    pins = [
        pin
        for pin in locks.read_pins(locks.contents(lock.parent), lock.name)
        if pin.requirement.marker is None or pin.requirement.marker.evaluate()
    ]
    sources = {"wheelhouse": (page, "explicit"), "index": (download.index_url(), "primary")}
    project = {
        "package-mode": False,
        "dependencies": {
            "python": "=={}.{}.*".format(*sys.version_info),
            "llama-cpp-python": {"version": "*", "source": "wheelhouse"},
            **{pin.name: pin.version for pin in pins},  # they are installed, so only their names are looked up
        },
        "source": [{"name": name, "url": url, "priority": rank} for name, (url, rank) in sources.items()],
    }
    (tmp_path / "pyproject.toml").write_text(tomli_w.dumps({"tool": {"poetry": project}}), encoding="utf-8")
    own = {f"POETRY_{name}_DIR": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA")}
    variables = {**own, "POETRY_KEYRING_ENABLED": "false", "VIRTUAL_ENV": str(target.folder)}
    poetry = (installers.program("poetry"), "--no-interaction", "--no-ansi", "install")
    said = client_environment.run(*poetry, cwd=tmp_path, variables=variables)
    assert "Package operations: 1 install, 0 updates, 0 removals" in said
    assert trial.wheel.sha256 in (tmp_path / "poetry.lock").read_text(encoding="utf-8")
    trial.run(target.python, tmp_path)


@dataclass(frozen=True, order=True)
class InstalledPython:
    """An interpreter of this machine."""

    version: tuple[int, int, int]
    path: Path


@pytest.fixture(name="pythons", scope="module")
def _pythons() -> list[InstalledPython]:
    """The interpreters that uv finds here and in pyenv's folders, oldest first, if the wheel supports them."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = (folder for folder in os.environ["PATH"].split(":") if Path(folder) != pyenv / "shims")
    folders = [*pyenv.glob("versions/*/bin"), *on_path]
    listed = client_environment.uv(
        *("python", "list", "--only-installed", "--no-python-downloads", "--output-format", "json"),
        variables={"PATH": ":".join(map(str, folders))},
    )
    found = [
        InstalledPython(tuple(each["version_parts"].values()), Path(each["path"]))
        for each in json.loads(listed)
        if each["implementation"] == "cpython" and each["variant"] == "default"
    ]
    return sorted(each for each in found if each.version >= OLDEST_PYTHON_OF_WHEELS)


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_it_runs_on_the_oldest_and_the_newest_python(
    which: str, pythons: list[InstalledPython], layout: Layout, trial: Trial, tmp_path: Path
) -> None:
    found = pythons[0 if which == "oldest" else -1]
    if found.version[:2] == sys.version_info[:2]:
        pytest.skip(f"this machine has no {which.replace('est', 'er')} Python than the one of the tests")
    environment = client_environment.make(tmp_path, layout.locks / "pythons.txt", layout, python=found.path)
    client_environment.install(trial.wheel, environment)
    used = trial.run(environment.python, tmp_path)
    assert used["versions"]["python"] == ".".join(map(str, found.version))
