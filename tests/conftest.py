"""Rules for all tests.

Unit tests start no process; a required GPU or wheel that is missing is a failure; one test at a time uses the GPU.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from typing import TYPE_CHECKING, Any, NoReturn

import filelock
import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from build_config.errors import InterruptedRunError
from build_config.system import machine
from build_config.testbed import clean_environment
from tests.support.environments import Environments

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-gpu", action="store_true", help="a gpu test that cannot run is a failure")
    parser.addoption("--require-wheel", action="store_true", help="a wheel test that finds no wheel is a failure")
    parser.addoption("--wine-cache", metavar="FOLDER", help="run the wine tests with the Wine in this folder")


# The time of one example depends on what else the machine does.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_configure() -> None:
    # A shell starts its background jobs with Ctrl-C ignored; the tests of interruption would wait forever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        # Quick files last: while there are some, no worker waits for a long file of another one.
        items.sort(key=lambda item: item.get_closest_marker("unit") is not None)


class OneProcessForEachFolder(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Tests under Wine share what is slow to make: all tests of a folder of ``tests/wine``, or of a file."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "/".join(path.split("/")[:3])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling | None:
    return None if config.getoption("--wine-cache") is None else OneProcessForEachFolder(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    with _interruptible():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    with _interruptible():
        return (yield)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the tests, even where the pipeline has made an error of its own of it."""
    try:
        yield
    except InterruptedRunError as error:
        raise KeyboardInterrupt from error


@pytest.fixture(autouse=True, scope="module")
def _exclusive_gpu(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let one test at a time use the GPU: tests measure its memory, which every process changes."""
    on_gpu = any(request.node.get_closest_marker(name) for name in ("gpu", "wheel"))
    if not on_gpu or not machine.nvidia().gpus:
        yield
        return
    with filelock.FileLock(tmp_path_factory.getbasetemp().parent / "gpu.lock"):
        yield


@pytest.fixture(autouse=True)
def _no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("unit") is None:
        return

    def forbidden(*args: Any, **_: Any) -> NoReturn:
        pytest.fail(f"a unit test started a process: {args[1:]}")

    monkeypatch.setattr(subprocess.Popen, "__init__", forbidden)


@pytest.fixture(name="no_programs")
def _no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide c++filt and diffoscope: every result comes from the bytes."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture(name="environments", scope="session")
def _environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    return Environments(tmp_path_factory.mktemp("environments"))


@pytest.fixture(name="copied_environments")
def _copied_environments(environments: Environments, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that need an environment and do not test how one is made."""
    monkeypatch.setattr(clean_environment, "make", environments.make)
