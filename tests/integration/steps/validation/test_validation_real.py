"""Real environments, pip and probe; the wheel contains a double of ``llama_cpp`` that only writes log lines.

These tests prove nothing about a real wheel; validation itself does that.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import ValidationError
from build_config.model import Machine
from build_config.reports import ValidationReport, Verdict
from build_config.steps.validation import PROBE_TIMEOUT, Bench, probe, run_probe, validate
from build_config.steps.validation.judge import Expected
from build_config.steps.validation.scenarios import Scenario
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.testbed import synthetic_model
from tests.integration.conftest import OwnLocks, bare_environment, double_wheel

if TYPE_CHECKING:
    from collections.abc import Callable

    from build_config.model import Wheel

pytestmark = pytest.mark.integration

MACHINE = Machine(system="Linux", cpu="a CPU", cores=2, glibc="2.36", driver=None, gpus=())
PLAIN = Scenario(name="plain", shows="something", expected=Expected(cuda=False))

DOUBLE = """
import ctypes, importlib.util, pathlib
from dataclasses import dataclass

assert importlib.util.find_spec("build_config") is None, "the checkout can be imported"
__version__ = "0.3.36"
ctypes.CDLL(str(pathlib.Path(__file__).parent / "lib" / "libggml-base.so"))
_sink = []

@dataclass(frozen=True)
class CudaStatus:
    loaded: bool = False
    reason: str = "a double has no CUDA"
    cpu_variant: str = "double"

cuda_status = CudaStatus
llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

def llama_log_set(callback, data):
    _sink.append(callback)

class Llama:
    def __init__(self, model, n_gpu_layers, n_ctx, seed, verbose):
        assert pathlib.Path(model).read_bytes()[:4] == b"GGUF"
        print("noise on standard output")
        for layer in range(3):
            self._say(f"load_tensors: layer {layer:3} assigned to device CPU, is_swa = 0\\n")
        for layer in range(2):
            self._say(f"llama_kv_cache: layer {layer:3}: ")
            self._say("dev = CPU\\n")
        self._say("load_tensors:   CPU_Mapped model buffer size =     0.55 MiB\\n")
        self._say("llama_kv_cache:        CPU KV buffer size =     0.12 MiB\\n")
    def _say(self, text):
        _sink[-1](1, text.encode(), None)
    def tokenize(self, text):
        return [1, 2]
    def generate(self, tokens, temp):
        while True:
            yield 2
    def detokenize(self, tokens):
        return b"\\xff" * len(tokens)
    def close(self):
        self._say("closed\\n")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is needed to build the double")
    path = tmp_path_factory.mktemp("library") / "libggml-base.so"
    subprocess.run(["gcc", "-shared", "-xc", "-", "-o", str(path)], input="int nothing;", text=True, check=True)
    return path.read_bytes()


def validated(wheel: Wheel, layout: Layout) -> ValidationReport:
    return validate(
        wheel,
        wheels_folder=wheel.path.parent,
        downloads=layout.downloads,
        layout=layout,
        machine=MACHINE,
        simulation=None,
        require_gpu=False,
        console=Console(terminal=False),
    )


@pytest.fixture
def make_wheel(tmp_path: Path, library: bytes) -> Callable[..., Wheel]:
    members = {"llama_cpp/lib/libggml-base.so": library}
    return functools.partial(double_wheel, tmp_path / "wheels", DOUBLE, members)


def test_a_correct_wheel_is_installed_run_and_verified_on_the_cpu(
    layout: OwnLocks, make_wheel: Callable[..., Wheel], capfd: pytest.CaptureFixture[str]
) -> None:
    wheel = make_wheel()
    report = validated(wheel, layout)
    assert report.all_findings() == ()
    assert report.verdict is Verdict.CPU_FALLBACK_VERIFIED
    assert {scenario.name for scenario in report.scenarios} == {"as it is", "planted library", "hidden GPUs"}
    assert report.decisive == "as it is"
    first = report.scenarios[0]
    placed = [(layer.weights, layer.kv_cache) for layer in first.placements]
    assert placed == [("CPU", "CPU"), ("CPU", "CPU"), ("CPU", None)]
    assert first.tokens == 8
    assert first.cpu_variant == "double"
    assert first.said == "a double has no CUDA"
    assert report.wheel_sha256 == wheel.sha256
    assert "noise" not in capfd.readouterr().out
    assert "noise on standard output" in (layout.logs / "validation.log").read_text()


@pytest.mark.usefixtures("copied_environments")
@pytest.mark.parametrize("fault", ["a requirement that the lock lacks", "other bytes under the name"])
def test_a_wheel_that_does_not_install_has_failed(
    layout: OwnLocks, make_wheel: Callable[..., Wheel], fault: str
) -> None:
    requires = "Requires-Dist: llama-cuda-wheels-no-such-package\n" if fault.startswith("a requirement") else ""
    wheel = make_wheel(requires=requires)
    if not requires:
        wheel = dataclasses.replace(wheel, sha256="0" * 64)
    report = validated(wheel, layout)
    assert report.verdict is Verdict.FAILED
    assert [finding.code for finding in report.findings] == ["install-failed"]
    assert report.scenarios == ()
    assert ("no-such-package" if requires else "DO NOT MATCH") in report.findings[0].message


def test_a_download_with_another_digest_is_refused(layout: OwnLocks, make_wheel: Callable[..., Wheel]) -> None:
    wheel = make_wheel()
    shutil.copy(wheel.path, layout.downloads)
    lock = f"llama-cpp-python=={wheel.version} --hash=sha256:{'0' * 64}\n"
    (layout.locks / "validation.txt").write_text(lock, encoding="utf-8")
    with pytest.raises(ValidationError, match="could not be made") as caught:
        validated(wheel, layout)
    assert caught.value.log == layout.logs / "validation.log"


def test_an_environment_inside_the_checkout_is_refused(
    tmp_path: Path, make_wheel: Callable[..., Wheel], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValidationError, match="inside the checkout"):
        validated(wheel, OwnLocks(checkout=tmp_path, work_root=tmp_path / "work"))


@dataclass(frozen=True)
class Environment:
    """An environment without pip; the test writes its ``llama_cpp``."""

    folder: Path
    python: Path
    site: Path

    def probe(self, source: str, timeout: float = PROBE_TIMEOUT) -> str:
        """Import ``source`` in the probe; returns the error."""
        (self.site / "llama_cpp.py").write_text(source, encoding="utf-8")
        bench = Bench(python=self.python, folder=self.folder, model=synthetic_model.write(self.folder / "tiny.gguf"))
        return run_probe(bench, PLAIN, timeout=timeout).error or "none"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path, *bare_environment(tmp_path / "venv"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "import os, signal; print('last words', flush=True); os.kill(os.getpid(), signal.SIGILL)",
            ("signal 4 (Illegal instruction)", "last words"),
        ),
        ("import os; os._exit(0)", ("status 0 and gave no result",)),
        (
            "raise OSError('libllama.so: cannot open shared object file')",
            ("libllama.so: cannot open shared object file", "Traceback"),
        ),
    ],
    ids=["crash: signal and last output", "silent exit", "exception: traceback"],
)
def test_a_failed_probe_is_reported_with_its_cause(
    environment: Environment, source: str, said: tuple[str, ...]
) -> None:
    error = environment.probe(source)
    assert [part for part in said if part not in error] == []


def test_a_probe_that_hangs_is_stopped(environment: Environment) -> None:
    assert environment.probe("import time; time.sleep(60)", timeout=1) == "no answer within 1 s"


def test_a_missing_interpreter_is_an_error_and_not_a_verdict(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="could not be started"):
        run_probe(Bench(python=tmp_path / "no" / "python", folder=tmp_path, model=tmp_path / "no.gguf"), PLAIN)


def test_the_probe_runs_isolated_from_the_callers_python_path(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    assert "No module named 'build_config'" in environment.probe("import build_config")
    assert Path(probe.__file__).is_relative_to(PACKAGE)
