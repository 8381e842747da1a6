"""The evaluation of fixed results: medians, proofs of placement, ratios, labels, the page."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from build_config.errors import SettingsError
from build_config.system import jsonio
from build_config.tasks import bench
from build_config.tasks.bench import chart, report, task
from build_config.tasks.bench.results import (
    Build,
    ChildResult,
    Device,
    DeviceReport,
    MeasuredGpu,
    Sample,
    compare,
    first_visible,
    median,
    problem,
    sample,
)
from build_config.testbed.synthetic_model import TINY
from tests.support import wheels
from tests.support.device_reports import FAST, MACHINE, NONE, REAL, SIMULATED, SLOW, made, measured
from tests.support.logs import placed

ON_CPU = ChildResult(
    version="0.3.36",
    load=0.5,
    first_token=2.0,
    last_token=6.0,
    generated=9,
    busy=9.0,
    peak_memory=1 << 30,
    log=(*placed("CPU", "CPU", "CPU"), "load_tensors:   CPU_Mapped model buffer size =   637.00 MiB"),
)
ON_GPU = dataclasses.replace(
    ON_CPU,
    log=(
        *placed("CUDA0", "CUDA0", "CUDA0"),
        "load_tensors: offloaded 3/3 layers to GPU",
        "load_tensors:        CUDA0 model buffer size =   600.00 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =    10.00 MiB",
        "sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB",
    ),
)


def on_both(gpu: MeasuredGpu = REAL) -> DeviceReport:
    cpu = [dataclasses.replace(SLOW, total_ms=total) for total in (4000, 9000, 5000)]
    return made(gpu, measured(Device.CPU, *cpu), measured(Device.GPU, FAST, FAST, FAST))


def cells(report_: DeviceReport, title: str) -> tuple[str, ...]:
    (row,) = [row for row in report.rows(report_) if row[0].startswith(title)]
    return row[1:]


# --------------------------------------------------------------------------------------------------------- figures


def test_figures_of_a_process() -> None:
    """The answer has 8 tokens in the 4 seconds after the first; the machine's pinned memory is not on the GPU."""
    assert sample(ON_GPU, prompt_tokens=256, device_peak_bytes=7) == Sample(
        load_ms=500,
        first_token_ms=2000,
        total_ms=6000,
        prompt_speed=128,
        speed=2,
        cores_busy=1.5,
        process_bytes=1 << 30,
        device_bytes=610 << 20,
        device_peak_bytes=7,
    )


def test_one_bad_round_does_not_change_the_median() -> None:
    assert median([4000.0, 9000.0, 5000.0]) == 5000
    assert median([]) is None
    assert cells(on_both(), "whole response")[0] == "5,000 (4,000-9,000)"


# ----------------------------------------------------------------------------------------------------------- proof


def test_layers_placed_as_required_are_accepted() -> None:
    assert problem(ON_CPU, Device.CPU, tokens=9) is None
    assert problem(ON_GPU, Device.GPU, tokens=9) is None


def altered(old: str, new: str) -> ChildResult:
    return dataclasses.replace(ON_GPU, log=tuple(line.replace(old, new) for line in ON_GPU.log))


@pytest.mark.parametrize("said", ["does not have KV cache", "filtered", "sharing with layer 0. k = 0x1, v = 0x2"])
def test_a_layer_of_which_the_log_says_that_it_has_no_cache_needs_none(said: str) -> None:
    assert problem(altered("1: dev = CUDA0", f"1: {said}"), Device.GPU, tokens=9) is None
    elsewhere = (*altered("1: dev = CUDA0", f"1: {said}").log, "llama_memory_recurrent, layer   1: dev = CPU")
    found = problem(dataclasses.replace(ON_GPU, log=elsewhere), Device.GPU, tokens=9)
    assert found is not None
    assert "of layer 1 was on CPU" in found


@pytest.mark.parametrize(
    ("result", "device", "said"),
    [
        (ON_CPU, Device.GPU, "layer 0 was on CPU, not on CUDA0"),
        (ON_GPU, Device.CPU, "layer 0 was on CUDA0, not on CPU"),
        (altered("1 assigned to device CUDA0", "1 assigned to device CPU"), Device.GPU, "layer 1 was on CPU"),
        (altered("1: dev = CUDA0", "1: dev = CPU"), Device.GPU, "the KV cache of layer 1 was on CPU"),
        (altered("0: dev = CUDA0", "0: nothing"), Device.GPU, "the KV cache of layer 0 was on an unknown device"),
        (altered("3/3", "2/3"), Device.GPU, "not all 3"),
        (
            dataclasses.replace(ON_CPU, log=(*ON_CPU.log, "CUDA0 compute buffer size = 1.00 MiB")),
            Device.CPU,
            "memory on a GPU",
        ),
        (dataclasses.replace(ON_GPU, log=("all is well",)), Device.GPU, "does not say"),
        (dataclasses.replace(ON_GPU, generated=8), Device.GPU, "8 tokens were generated"),
        (dataclasses.replace(ON_GPU, error="OSError: libllama.so"), Device.GPU, "OSError: libllama.so"),
        (dataclasses.replace(ON_CPU, cuda_status={"reason": "No code."}), Device.GPU, "not on CUDA0: No code."),
    ],
)
def test_a_result_from_another_device_is_refused(result: ChildResult, device: Device, said: str) -> None:
    assert said in (problem(result, device, tokens=9) or "")


def test_a_process_sees_one_gpu() -> None:
    expected = {None: "0", " ": "0", "2": "2", "3, 1": "3", "GPU-ab12,0": "GPU-ab12"}
    assert {value: first_visible(value) for value in expected} == expected


# ---------------------------------------------------------------------------------------------------------- labels


def test_a_real_gpu_is_compared_with_the_cpu() -> None:
    both = on_both()

    assert report.header(both) == ("", "CPU", REAL.name, "GPU : CPU")
    assert cells(both, "time to first token")[-1] == "40.0 x"
    assert cells(both, "generation") == ("31.5 (31.5-31.5)", "180.0 (180.0-180.0)", "5.7 x")
    assert cells(both, "buffers on the GPU") == ("-", "800 (800-800)", "")
    assert both.notice is None
    assert not any("SIMULATED" in remark or "no GPU" in remark for remark in report.remarks(both))


def test_a_simulated_gpu_is_called_simulated_everywhere() -> None:
    both = on_both(SIMULATED)
    document = json.loads(jsonio.dumps(both))

    assert report.header(both) == ("", "CPU", "SIMULATED: device of compute capability 8.9"), "no comparison"
    assert "nothing about speed" in report.remarks(both)[0]
    assert "SIMULATED" in report.markdown(both).splitlines()[0]
    assert document["card"]["kind"] == "SIMULATED"
    assert "nothing about speed" in document["notice"]
    assert "SIMULATED" in chart.title(both)


def test_without_a_gpu_the_report_says_so() -> None:
    alone = made(NONE, measured(Device.CPU, SLOW))

    assert report.header(alone) == ("", "CPU")
    assert report.remarks(alone)[0] == "no GPU: there is no NVIDIA driver; only the CPU was measured"
    assert "no GPU" in chart.title(alone)
    assert ("GPU", "none") in report.conditions(alone)
    assert not [row for row in report.rows(alone) if "GPU" in row[0]]


def test_a_failed_measurement_has_no_figure() -> None:
    failed = made(REAL, measured(Device.CPU, SLOW), measured(Device.GPU, failure="layer 0 was on CPU, not on CUDA0"))

    assert report.header(failed)[-1] == REAL.name, "nothing is compared with a failure"
    assert cells(failed, "generation") == ("31.5", "FAILED")
    assert any("FAILED: layer 0 was on CPU" in remark for remark in report.remarks(failed))
    assert f"| {REAL.name} |" in report.markdown(failed)


def test_on_a_busy_machine_the_cores_of_the_threads_are_named() -> None:
    quiet = made(NONE, measured(Device.CPU, SLOW))
    busy = made(NONE, measured(Device.CPU, dataclasses.replace(SLOW, cores_busy=1.2)))

    assert not [remark for remark in report.remarks(quiet) if "other programs" in remark]
    (said,) = [remark for remark in report.remarks(busy) if "other programs" in remark]
    assert "2 threads got only 1.20 cores" in said


def test_figures_of_users_are_marked_as_not_measured_here() -> None:
    (said,) = [remark for remark in report.remarks(on_both()) if "4,000 ms" in remark]

    assert "not measured here" in said


def test_the_document_can_be_read_back() -> None:
    assert jsonio.from_data(jsonio.to_data(on_both()), DeviceReport) == on_both()


# ---------------------------------------------------------------------------------------------------------- ratios


def against(gpu: MeasuredGpu, *, cpu: float, on_gpu: float) -> DeviceReport:
    """Our build with 100 tokens per second in each case."""
    speeds = {Device.CPU: (100.0, cpu), Device.GPU: (100.0, on_gpu)}
    measurements = [
        measured(device, *(dataclasses.replace(SLOW, speed=speed + shift) for shift in (-9, 0, 0.1)), build=build)
        for device, pair in speeds.items()
        for build, speed in zip(Build, pair, strict=True)
    ]
    return made(gpu, *measurements, against="llama-cpp-python 0.3.36 installed elsewhere")


@pytest.mark.parametrize(
    ("cpu", "on_gpu", "passed"),
    [
        (100, 100, [True, True]),
        (100 / 0.951, 100 / 0.981, [True, True]),
        (100 / 0.949, 100 / 0.981, [False, True]),
        (100 / 0.951, 100 / 0.979, [True, False]),
        (50, 50, [True, True]),
    ],
)
def test_our_build_is_compared_with_the_baseline_by_medians(cpu: float, on_gpu: float, passed: list[bool]) -> None:
    compared = against(REAL, cpu=cpu, on_gpu=on_gpu)

    assert [ratio.passed for ratio in compared.ratios] == passed
    assert [ratio.limit for ratio in compared.ratios] == [0.95, 0.98]
    assert compared.ratios[0].value == pytest.approx(100 / cpu)
    lines = [remark for remark in report.remarks(compared) if "tokens per second" in remark]
    assert ["FAILED" not in line for line in lines] == passed
    columns = [f"{device}, {build}" for device in ("CPU", REAL.name) for build in ("ours", "baseline")]
    assert report.header(compared)[1:5] == tuple(columns)


def test_a_simulated_gpu_is_not_judged() -> None:
    on_cpu, on_gpu = against(SIMULATED, cpu=100, on_gpu=1000).ratios

    assert on_cpu.passed
    assert on_gpu.passed is None
    assert "not judged" in report.ratio_line(on_gpu)


def test_a_failure_is_not_compared() -> None:
    failed = measured(Device.CPU, SLOW, build=Build.BASELINE, failure="libcuda.so.1 is missing")
    assert compare((measured(Device.CPU, SLOW), failed), NONE, 2) == ()


@pytest.mark.parametrize("disturbed", [Build.OURS, Build.BASELINE])
def test_a_busy_machine_gives_no_judgement(disturbed: Build) -> None:
    busy = dataclasses.replace(SLOW, cores_busy=1.7)
    measurements = [measured(Device.CPU, busy if build is disturbed else SLOW, build=build) for build in Build]
    (ratio,) = compare(measurements, NONE, 2)

    assert ratio.passed is None
    assert "not judged: other programs" in report.ratio_line(ratio)
    assert compare(measurements, NONE, 1)[0].passed, "one thread has its core"


# -------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"model": Path("no.gguf")}, "no model no.gguf"),
        ({"shape": TINY}, "a block of Q4_K has 256"),
        ({"kind": "Q9"}, "'Q9' is not a type"),
        ({"prompt_tokens": 2000, "tokens": 49}, "more than the 2048"),
        ({"against": Path("no-python")}, "there is no no-python"),
    ],
)
def test_an_impossible_plan_is_refused(tmp_path: Path, changes: dict[str, Any], said: str | None) -> None:
    ours = wheels.write(tmp_path, {}, wheels.wheel_name("linux_x86_64"))
    with pytest.raises(SettingsError, match=said) if said else contextlib.nullcontext():
        bench.check(bench.DevicePlan(**{"ours": ours, "machine": MACHINE, **changes}))


def test_the_baseline_is_a_wheel_or_an_interpreter(tmp_path: Path) -> None:
    stock = wheels.write(tmp_path, {}, wheels.wheel_name("linux_x86_64"))

    assert task.bench_subject(None) is None
    assert task.bench_subject(stock.path) == stock
    assert task.bench_subject(tmp_path / "bin" / "python") == tmp_path / "bin" / "python"
