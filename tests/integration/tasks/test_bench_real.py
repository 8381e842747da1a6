"""Real environments and processes; the wheel contains a double of ``llama_cpp`` that sleeps and writes log lines.

These tests say nothing about the speed of a real wheel; the benchmark itself does that.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from build_config.errors import MeasurementError
from build_config.model import GpuDevice
from build_config.system import jsonio, machine
from build_config.system.console import Console
from build_config.tasks.bench import TRIES, DevicePlan, Simulation, chart, measure_devices, results, task
from build_config.tasks.bench.results import Build, Device, DeviceReport, GpuKind, MeasuredGpu
from build_config.testbed.synthetic_model import TINY
from tests.integration.conftest import OwnLocks, bare_environment, double_wheel
from tests.support.device_reports import FAST, MACHINE, NONE, REAL, SIMULATED, SLOW, made, measured

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Wheel

pytestmark = pytest.mark.integration

PROMPT_SECONDS, TOKEN_SECONDS = 0.1, 0.02

DOUBLE = f"""
import ctypes, importlib.util, os, pathlib, time

assert importlib.util.find_spec("build_config") is None, "the checkout can be imported"
__version__ = "0.3.36"
_sink = []
llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

def llama_log_set(callback, data):
    _sink.append(callback)

class Llama:
    def __init__(self, model, n_gpu_layers, n_ctx, n_threads, n_threads_batch, seed, verbose):
        assert pathlib.Path(model).read_bytes()[:4] == b"GGUF" and n_threads == n_threads_batch >= 1
        print("noise on standard output")
        self.room, self.answers = n_ctx, 0
        self.ballast = bytearray(b"x" * 50_000_000)
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == "-1"
        assert hidden == (n_gpu_layers == 0)
        device = "CPU" if hidden else "CUDA0"
        for layer in range(3):
            where = os.environ.get("DOUBLE_OUTPUT", device) if layer == 2 and not hidden else device
            self._say(f"load_tensors: layer {{layer:3}} assigned to device {{where}}, is_swa = 0\\n")
        for layer in range(2):
            self._say(f"llama_kv_cache: layer {{layer:3}}: ")
            self._say(f"dev = {{device}}\\n")
        if not hidden:
            self._say("load_tensors: offloaded 3/3 layers to GPU\\n")
            self._say("load_tensors:        CUDA0 model buffer size =   100.00 MiB\\n")
            if os.environ.get("DOUBLE_CRASH"):
                print("last words", flush=True)
                os.abort()
    def _say(self, text):
        _sink[-1](1, text.encode(), None)
    def tokenize(self, text):
        return [1, *text[:10]]
    def reset(self):
        self.answers += 1
    def generate(self, tokens, temp):
        assert len(tokens) == 16 and tokens[0] == 1 and 1 not in tokens[1:] and temp == 0
        time.sleep({PROMPT_SECONDS} if self.answers else 5 * {PROMPT_SECONDS})
        while True:
            yield 2
            time.sleep({TOKEN_SECONDS})
    def close(self):
        self._say("closed\\n")
"""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The double sleeps, as if other programs used all cores: it would be measured again and again."""
    monkeypatch.setattr(results, "UNDISTURBED", 0.0)


def installed(folder: Path, source: str = DOUBLE) -> Path:
    """An environment without pip and with the double as ``llama_cpp``: made much faster than with a wheel."""
    python, site = bare_environment(folder)
    (site / "llama_cpp.py").write_text(source, encoding="utf-8")
    return python


def measure(layout: OwnLocks, ours: Wheel | Path, **changes: Any) -> DeviceReport:
    plan = DevicePlan(ours=ours, machine=MACHINE, shape=TINY, kind="F32", prompt_tokens=16, tokens=6, rounds=1)
    return measure_devices(
        dataclasses.replace(plan, **changes),
        created=datetime(2026, 11, 25, tzinfo=UTC),
        layout=layout,
        console=Console(terminal=False),
    )


def simulation(**changes: str | None) -> Simulation:
    return Simulation(capability="8.9", changes={"CUDA_VISIBLE_DEVICES": None, **changes})


def test_without_a_gpu_the_cpu_is_measured(tmp_path: Path, layout: OwnLocks, capfd: pytest.CaptureFixture[str]) -> None:
    wheel = double_wheel(tmp_path / "wheels", DOUBLE)
    report = measure(layout, wheel, rounds=2)

    (cpu,) = report.measurements
    assert (cpu.build, cpu.device, cpu.version, cpu.failure) == (Build.OURS, Device.CPU, "0.3.36", None)
    assert len(cpu.samples) == 2
    for sample in cpu.samples:
        assert 1000 * PROMPT_SECONDS <= sample.first_token_ms < 4000 * PROMPT_SECONDS, "the first answer does not count"
        assert sample.first_token_ms + 5000 * TOKEN_SECONDS <= sample.total_ms
        assert 0.3 / TOKEN_SECONDS < sample.speed <= 1 / TOKEN_SECONDS
        assert sample.cores_busy < 0.5, "it sleeps"
        assert sample.process_bytes is not None
        assert 50e6 < sample.process_bytes < 120e6, "without the memory of the parent process"
        assert sample.device_bytes == 0
    assert report.card.kind is GpuKind.NONE
    assert report.notice == "no GPU: there is no NVIDIA driver; only the CPU was measured"
    assert (report.wheel, report.wheel_sha256) == (wheel.path.name, wheel.sha256)
    assert report.created == "2026-11-25 00:00 UTC"
    assert str(tmp_path) not in jsonio.dumps(report)
    assert "noise" not in capfd.readouterr().out
    assert "noise on standard output" in (layout.logs / "bench.log").read_text()


def test_a_simulated_gpu_is_measured_and_called_simulated(tmp_path: Path, layout: OwnLocks) -> None:
    report = measure(layout, installed(tmp_path / "ours"), simulation=simulation())

    assert [one.device for one in report.measurements] == [Device.CPU, Device.GPU]
    assert report.failures == ()
    assert report.measurements[1].samples[0].device_bytes == 100 << 20
    assert report.card == SIMULATED


def test_a_gpu_is_hidden_on_the_cpu_and_visible_on_the_gpu(tmp_path: Path, layout: OwnLocks) -> None:
    gpu = GpuDevice(index=0, name="NVIDIA H200", capability="9.0", memory=1 << 37)
    report = measure(layout, installed(tmp_path / "ours"), machine=dataclasses.replace(MACHINE, gpus=(gpu,)))

    assert report.failures == ()
    assert report.card == MeasuredGpu(kind=GpuKind.REAL, name="NVIDIA H200")


def test_with_a_layer_on_the_cpu_the_gpu_is_not_measured(tmp_path: Path, layout: OwnLocks) -> None:
    report = measure(layout, installed(tmp_path / "ours"), simulation=simulation(DOUBLE_OUTPUT="CPU"), rounds=2)

    (failed,) = report.failures
    assert failed.device is Device.GPU
    assert failed.failure == "layer 2 was on CPU, not on CUDA0"
    assert failed.samples == ()
    assert len(report.measurements[0].samples) == 2, "the CPU was measured nevertheless"


def test_a_crash_is_reported_with_its_last_output(tmp_path: Path, layout: OwnLocks) -> None:
    (failed,) = measure(layout, installed(tmp_path / "ours"), simulation=simulation(DOUBLE_CRASH="1")).failures

    assert re.search(r"was ended by signal 6.*last words", failed.failure or "")


def test_two_builds_take_turns_and_are_compared(tmp_path: Path, layout: OwnLocks) -> None:
    twice_as_slow = DOUBLE.replace(f"time.sleep({TOKEN_SECONDS})", f"time.sleep({2 * TOKEN_SECONDS})")
    baseline = installed(tmp_path / "baseline", twice_as_slow)
    report = measure(layout, installed(tmp_path / "ours"), against=baseline)

    (ratio,) = report.ratios
    assert ratio.device is Device.CPU
    assert 1.5 < ratio.value < 2.5
    assert ratio.passed
    assert report.against == "llama-cpp-python 0.3.36, installed elsewhere"


def test_a_measurement_disturbed_by_other_programs_is_repeated_and_not_judged(
    tmp_path: Path, layout: OwnLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "UNDISTURBED", 0.9)
    ours = installed(tmp_path / "ours")
    report = measure(layout, ours, against=ours, simulation=simulation())

    assert [one.repeated for one in report.measurements] == [TRIES - 1, TRIES - 1, 0, 0]
    assert [len(one.samples) for one in report.measurements] == [1, 1, 1, 1]
    assert [ratio.unjudged for ratio in report.ratios] == [results.BUSY, results.SIMULATED]


def test_a_build_that_needs_a_driver_gets_one_on_the_cpu_too(tmp_path: Path, layout: OwnLocks) -> None:
    needs = "import os\nif not os.environ.get('DOUBLE_DRIVER'): raise OSError('libcuda.so.1: cannot open')\n"
    simulated = dataclasses.replace(simulation(DOUBLE_DRIVER="1"), no_device={"DOUBLE_DRIVER": "1"})
    baseline = installed(tmp_path / "baseline", needs + DOUBLE)
    report = measure(layout, installed(tmp_path / "ours"), against=baseline, simulation=simulated)

    assert report.failures == ()
    assert [ratio.device for ratio in report.ratios] == list(Device)


def test_a_baseline_that_cannot_be_imported_fails_alone(tmp_path: Path, layout: OwnLocks) -> None:
    baseline = installed(tmp_path / "baseline", "raise OSError('libcuda.so.1: cannot open')")
    report = measure(layout, installed(tmp_path / "ours"), against=baseline)

    (failed,) = report.failures
    assert failed.build is Build.BASELINE
    assert failed.failure == "OSError: libcuda.so.1: cannot open"
    assert "Traceback" in (layout.logs / "bench.log").read_text()
    assert report.ratios == ()


@pytest.mark.usefixtures("copied_environments")
def test_a_wheel_that_does_not_install_is_not_measured(tmp_path: Path, layout: OwnLocks) -> None:
    wheel = double_wheel(tmp_path / "wheels", DOUBLE, requires="Requires-Dist: llama-cuda-wheels-no-such-package\n")

    with pytest.raises(MeasurementError, match="no-such-package"):
        measure(layout, wheel)


@pytest.mark.usefixtures("copied_environments")
def test_the_report_is_written_and_a_slow_wheel_fails(
    tmp_path: Path, layout: OwnLocks, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "runtime_files", lambda _wheel, _layout: ())
    monkeypatch.setattr(machine, "describe", lambda: MACHINE)
    slow = double_wheel(tmp_path / "wheels", DOUBLE.replace(f"time.sleep({TOKEN_SECONDS})", "time.sleep(0.06)"))
    against, out = double_wheel(tmp_path / "baseline", DOUBLE).path, tmp_path / "out"
    request = task.DeviceBenchRequest(
        wheel=slow.path, synthetic="tiny", kind="F32", against=against, prompt_tokens=16, tokens=6, rounds=1, out=out
    )
    with pytest.raises(MeasurementError, match=r"CPU: 0\.\d+ of the baseline's .* FAILED, the limit is 0\.95"):
        task.bench_devices(request, layout, Console(terminal=False))

    assert {path.name for path in out.iterdir()} == {"device.json", "device.md", "device.png"}
    report = jsonio.read(out / "device.json", DeviceReport)
    assert report.wheel_sha256 == slow.sha256
    shown = capsys.readouterr().out
    assert "time to first token, ms" in shown
    assert "no GPU:" in shown


# ----------------------------------------------------------------------------------------------------------- chart

GPUS = {"none": NONE, "real": REAL, "simulated": SIMULATED}


def drawn(tmp_path: Path, gpu: str, *, failure: str | None = None, baseline: bool = False, prompt: int = 256) -> bytes:
    measurements = [
        measured(device, *(() if failure else (figures,) * 3), build=build, failure=failure)
        for device, figures in ((Device.CPU, SLOW), (Device.GPU, FAST))[: 1 if gpu == "none" else 2]
        for build in ([*Build] if baseline else [Build.OURS])
    ]
    report = made(GPUS[gpu], *measurements, against="stock.whl" if baseline else None, prompt_tokens=prompt)
    return chart.draw(report, tmp_path / "new" / "chart.png").read_bytes()


@pytest.mark.parametrize("gpu", GPUS)
def test_the_chart_is_the_same_each_time(tmp_path: Path, gpu: str) -> None:
    image = drawn(tmp_path, gpu)
    width, height = struct.unpack(">II", image[16:24])

    assert image.startswith(b"\x89PNG")
    assert width == 1500
    assert height >= 500
    assert drawn(tmp_path, gpu) == image
    assert drawn(tmp_path, gpu, prompt=100) != image
    with_baseline = drawn(tmp_path, gpu, baseline=True)
    assert struct.unpack(">II", with_baseline[16:24])[1] > height, "more bars need more room"


def test_a_chart_of_nothing_but_failures_is_drawn(tmp_path: Path) -> None:
    assert drawn(tmp_path, "none", failure="it crashed") != drawn(tmp_path, "none")
