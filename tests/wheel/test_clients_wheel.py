"""Packages of other people use the newest wheel of the wheelhouse, on the CPU and on a simulated GPU.

On the CPU, each client must get what ``llama_cpp`` itself computes from the same model. A simulated GPU computes
nothing: an answer of the right form must come, and llama.cpp's log must place every layer there. At temperature 0, all
its tokens would be the same one, so clients use another temperature there.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from build_config.testbed import simulated_device, synthetic_model, synthetic_projector
from tests.support import client_environment
from tests.support.client_environment import SCRIPTS, WITHOUT_GPU, clean_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from build_config.model import Wheel
    from build_config.system.layout import Layout
    from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine

pytestmark = pytest.mark.wheel

CLIENT = SCRIPTS / "client.py"
LISTENS = re.compile(r"(?:running on|Listening at:) (http://[\d.:]+)")
READY = "Application startup complete"
SECONDS_TO_START = 60.0
SECONDS_TO_STOP = 20.0


@dataclass(frozen=True)
class Device:
    """Where a client computes, by llama.cpp's name, with the variables that make it compute there."""

    name: str
    temperature: float
    variables: dict[str, str]

    @property
    def simulated(self) -> bool:
        return self is not CPU


CPU = Device("CPU", 0.0, WITHOUT_GPU)


@dataclass(frozen=True)
class Models:
    """A text model and the vision encoder that belongs to it."""

    text: Path
    projector: Path


@dataclass(frozen=True)
class Server:
    """A running server, and the file that it writes its log to."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@pytest.fixture(name="models", scope="module")
def _models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    projector = synthetic_projector.write(folder / "projector.gguf")
    return Models(text=synthetic_model.write(folder / "tiny.gguf"), projector=projector)


@pytest.fixture(name="python", scope="module")
def _python(wheel: Wheel, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with all clients and the wheel."""
    environment = client_environment.make(tmp_path_factory.mktemp("clients"), layout.locks / "clients.txt", layout)
    client_environment.install(wheel, environment)
    return environment.python


@pytest.fixture(name="device", scope="module", params=["cpu", "simulated"])
def _device(request: pytest.FixtureRequest) -> Device:
    if request.param == "cpu":
        return CPU
    doubles: SimulatedLibraries = request.getfixturevalue("doubles")
    machine: SimulatedMachine = request.getfixturevalue("machine")
    return Device("CUDA0", 1.0, {"GGML_NO_BACKTRACE": "1", **doubles.environment(machine)})


@pytest.fixture(name="expected", scope="module")
def _expected(python: Path, models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What llama_cpp itself computes on the CPU."""
    return use("direct", CPU, python, models, tmp_path_factory.mktemp("expected"))


def use(client: str, device: Device, python: Path, models: Models, folder: Path) -> dict[str, Any]:
    """Use the wheel through a library, in one process; its log must place every layer on the device."""
    result, report, log = folder / "result.json", folder / "use.json", folder / "log"
    variables = {**device.variables, "SIMULATED_REPORT": str(report)}
    command = (python, "-I", CLIENT, client, result, device.temperature, models.text, models.projector)
    client_environment.run(*command, variables=variables, log=log)
    assert placement(log) == {device.name}
    used = simulated_device.read_report(report)
    assert (used is not None) is device.simulated
    assert used is None or (used.counts["launches"] > 0 and not used.counts["refused"])
    return dict(json.loads(result.read_text(encoding="utf-8")))


def placement(log: Path) -> set[str]:
    """The devices of all layers and vision encoders in a log of llama.cpp."""
    return set(
        re.findall(r"(?:assigned to device|CLIP using) (\w+)", log.read_text(encoding="utf-8", errors="replace"))
    )


@contextlib.contextmanager
def serve(
    *command: object, variables: Mapping[str, str], folder: Path, workers: int, stop: signal.Signals
) -> Iterator[Server]:
    """Run a server on a free port of this machine during the block; it has started all its workers before."""
    log = folder / "server.log"
    with log.open("wb") as output:
        argv = list(map(str, command))
        process = subprocess.Popen(argv, env=clean_variables(variables), stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Server(_wait(process, log, workers), process, log)
        process.send_signal(stop)
        assert process.wait(SECONDS_TO_STOP) == 0, log.read_text(errors="replace")[-6000:]
    finally:
        if process.poll() is None:
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, workers: int) -> str:
    """The address of the server, once all workers are ready."""
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        text = log.read_text(encoding="utf-8", errors="replace")
        listens = LISTENS.search(text)
        if listens and text.count(READY) >= workers:
            return listens[1]
        assert process.poll() is None, text[-6000:]
        assert time.monotonic() < deadline, text[-6000:]
        time.sleep(0.05)


def ask(client: str, server: Server, device: Device, python: Path, folder: Path) -> dict[str, Any]:
    """Ask a server with the ``openai`` client."""
    result = folder / "answers.json"
    client_environment.run(python, "-I", CLIENT, client, result, device.temperature, server.url)
    return dict(json.loads(result.read_text(encoding="utf-8")))


def settings(models: Models, folder: Path, *names: str) -> Path:
    """The configuration of a server with several models, of which it loads the one that a request names."""
    common = {"model": str(models.text), "n_gpu_layers": -1, "n_ctx": 512, "n_threads": 1, "verbose": True}
    own: dict[str, dict[str, Any]] = {
        "text": {},
        "embedding": {"embedding": True},
        "vision": {"chat_format": "llava-1-5", "clip_model_path": str(models.projector)},
    }
    configured = [{**common, "model_alias": name, **own[name]} for name in names]
    file = folder / "settings.json"
    file.write_text(json.dumps({"host": "127.0.0.1", "port": 0, "models": configured}), encoding="utf-8")
    return file


def test_the_server_answers_the_openai_client(
    device: Device, python: Path, models: Models, expected: dict[str, Any], tmp_path: Path
) -> None:
    config = settings(models, tmp_path, "text", "embedding", "vision")
    command = (python, "-I", "-m", "llama_cpp.server", "--config_file", config)
    with serve(*command, variables=device.variables, folder=tmp_path, workers=1, stop=signal.SIGINT) as server:
        answers = ask("openai", server, device, python, tmp_path)
    assert answers["models"] == ["text", "embedding", "vision"]
    assert answers["tokens"] > 0
    assert len(answers["stream"]) > 2
    assert placement(server.log) == {device.name}
    ((token, *_),) = answers["embeddings"]
    assert len(token) == synthetic_model.TINY.width
    if not device.simulated:
        assert {name: answers[name] for name in expected} == expected
        assert "".join(answers["stream"]) == expected["chat"]


def test_libmtmd_sees_an_image(
    device: Device, python: Path, models: Models, expected: dict[str, Any], tmp_path: Path
) -> None:
    images = (use("direct", device, python, models, tmp_path) if device.simulated else expected)["images"]
    assert set(images) == {"red", "green", "the same red"}
    if not device.simulated:
        assert images["red"] == images["the same red"]
        assert images["red"] != images["green"]


def test_langchain_gets_the_same_text(
    device: Device, python: Path, models: Models, expected: dict[str, Any], tmp_path: Path
) -> None:
    came = use("langchain", device, python, models, tmp_path)
    if device.simulated:
        assert came["invoke"]
        assert came["stream"]
    else:
        assert came == {"invoke": expected["completion"], "stream": expected["completion"]}


@pytest.mark.parametrize(("client", "choices"), [("guidance", {"runs", "stops"}), ("outlines", {"cat", "dog"})])
def test_constrained_text_obeys(
    client: str, choices: set[str], device: Device, python: Path, models: Models, tmp_path: Path
) -> None:
    came = use(client, device, python, models, tmp_path)
    assert came["choice"] in choices
    assert re.fullmatch("[0-9]{3}", came["number"])


def test_workers_that_gunicorn_forks_answer(
    device: Device, python: Path, models: Models, expected: dict[str, Any], tmp_path: Path
) -> None:
    gunicorn = (python, "-I", "-m", "gunicorn", "--preload", "--workers", 2, "--bind", "127.0.0.1:0")
    worker = ("--worker-class", "uvicorn_worker.UvicornWorker", "--pythonpath", SCRIPTS)
    variables = {**device.variables, "CONFIG_FILE": str(settings(models, tmp_path, "text"))}
    command = (*gunicorn, *worker, "preloaded_app:application")
    with serve(*command, variables=variables, folder=tmp_path, workers=2, stop=signal.SIGTERM) as server:
        answers = ask("workers", server, device, python, tmp_path)
        shards = {pid: _shards(pid) for pid in (server.process.pid, *map(int, answers))}
    assert placement(server.log) == {device.name}
    assert len(answers) == 2, "each worker has answered"
    if not device.simulated:
        assert set(answers.values()) == {expected["completion"]}
    assert not shards.pop(server.process.pid), "the parent has loaded CUDA: its children cannot use the GPU"
    assert {bool(files) for files in shards.values()} == {device.simulated}


def _shards(pid: int) -> list[str]:
    """The CUDA modules of the wheel that a process has loaded."""
    return [mapped.path for mapped in psutil.Process(pid).memory_maps() if "libggml-cuda-" in mapped.path]
