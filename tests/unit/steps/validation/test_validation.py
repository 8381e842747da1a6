"""The judgement, tested with mutations of a correct result: each false report must be found."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from build_config.model import GpuDevice
from build_config.reports import ScenarioResult, Severity, Verdict
from build_config.steps.validation import Simulation, judge_all, plan, scenarios
from build_config.steps.validation.judge import LAYERS, MODEL, Expected, ProbeResult, judge
from build_config.steps.validation.scenarios import Scenario
from build_config.system.jsonio import from_data, to_data
from build_config.testbed.model_families import FAMILIES, LLAMA
from build_config.testbed.simulated_device import SimulatedDeviceUse, SimulatedUse
from build_config.testbed.simulation_options import FAULTS
from check_gpu import placement
from tests.support.factories import MACHINE as WITHOUT_GPU
from tests.support.factories import build_facts
from tests.support.logs import placed

PACKAGE = "/venv/site-packages/llama_cpp"
H200 = GpuDevice(index=0, name="NVIDIA H200", capability="9.0", memory=1 << 37)
WITH_GPU = dataclasses.replace(WITHOUT_GPU, gpus=(H200,))
CPU = Expected(cuda=False)
GPU = Expected(cuda=True, on_gpu=LAYERS, shard="sm90")
SIMULATED = dataclasses.replace(GPU, simulated=True)


def _log(device: str, buffer: str) -> tuple[str, ...]:
    return (
        *placed(device, device, device),
        f"load_tensors:   {buffer} model buffer size =     0.48 MiB",
        f"llama_kv_cache:      {device} KV buffer size =     0.12 MiB",
    )


def _files(backend: str) -> tuple[str, ...]:
    return (f"{PACKAGE}/lib/libggml-base.so", f"{PACKAGE}/lib/libllama.so", f"{PACKAGE}/lib/{backend}", "/usr/libc.so")


ON_CPU = ProbeResult(
    log=_log("CPU", "CPU_Mapped"),
    text="noise",
    tokens=8,
    cuda_status={"loaded": False, "reason": "No NVIDIA driver", "cpu_variant": "zen4"},
    package=PACKAGE,
    loaded_files=_files("libggml-cpu-zen4.so"),
)
ON_GPU = dataclasses.replace(
    ON_CPU,
    log=(
        *_log("CUDA0", "CUDA0"),
        "load_tensors:   CPU_Mapped model buffer size =     0.07 MiB",
        "load_tensors: offloaded 3/3 layers to GPU",
    ),
    cuda_status={"loaded": True, "shard": "sm90", "cpu_variant": "zen4", "devices": [{"name": "NVIDIA H200"}]},
    loaded_files=_files("libggml-cuda-sm90.so"),
)
USE = SimulatedUse(
    devices=(SimulatedDeviceUse(capability="9.0", peak_bytes=1000, leaked_bytes=0),),
    counts={"launches": 272, "refused": 0},
    leaked={"streams": 0},
)
ON_SIMULATED = dataclasses.replace(
    ON_GPU,
    cuda_status={**(ON_GPU.cuda_status or {}), "devices": [{"name": "SIMULATED device 9.0 (not a GPU)"}]},
    use=USE,
)


def _log_of(result: ProbeResult, old: str, new: str | None = None) -> dict[str, Any]:
    """The log with another text; without ``new``, the log without the lines that contain it."""
    if new is None:
        return {"log": tuple(line for line in result.log if old not in line)}
    return {"log": tuple(line.replace(old, new) for line in result.log)}


def _status(result: ProbeResult, **changes: Any) -> dict[str, Any]:
    return {"cuda_status": {**(result.cuda_status or {}), **changes}}


def _loaded(file: str) -> dict[str, Any]:
    return {"loaded_files": (*ON_CPU.loaded_files, file)}


def _use(**changes: Any) -> dict[str, Any]:
    return {"use": dataclasses.replace(USE, **changes)}


def test_a_fallback_is_not_accepted_as_a_gpu_nor_a_gpu_as_a_fallback() -> None:
    assert judge(ON_CPU, GPU)
    assert judge(ON_GPU, CPU)


CPU_LIES: list[tuple[dict[str, Any], str]] = [
    ({"error": "signal 4"}, "probe-failed"),
    ({"tokens": 0}, "tokens-missing"),
    ({"tokens": 7}, "tokens-missing"),
    ({"log": ("all is well",)}, "placement-missing"),
    (_log_of(ON_CPU, "layer   2"), "placement-missing"),
    (_log_of(ON_CPU, "layer   1: dev"), "placement-missing"),
    (_log_of(ON_CPU, "model buffer"), "buffers-missing"),
    (_log_of(ON_CPU, "KV buffer"), "buffers-missing"),
    (_log_of(ON_CPU, "CPU_Mapped model", "CUDA0 model"), "memory-on-card"),
    (_log_of(ON_CPU, "1 assigned to device CPU", "1 assigned to device Vulkan0"), "not-on-cpu"),
    ({"cuda_status": None}, "no-cuda-status"),
    (_status(ON_CPU, cpu_variant=None), "cpu-variant-unknown"),
    (_status(ON_CPU, reason=None), "reason-missing"),
    ({"missing_shards": ("libggml-cuda-sm89.so",)}, "shard-missing"),
    (_loaded("/cwd/libggml-cpu-evil.so"), "library-from-outside"),
    ({"planted": ("libggml-cuda-evil.so",)}, "planted-library-loaded"),  # and unloaded again
    (_loaded(f"{PACKAGE}_evil/lib/libllama.so"), "library-from-outside"),
    ({"loaded_files": ()}, "libraries-unseen"),
]
GPU_LIES: list[tuple[dict[str, Any], str]] = [
    (_log_of(ON_GPU, "1 assigned to device CUDA0", "1 assigned to device CPU"), "not-on-card"),
    (_log_of(ON_GPU, "0: dev = CUDA0", "0: dev = CPU"), "not-on-card"),
    (_log_of(ON_GPU, "1 assigned to device CUDA0", "1 assigned to device CUDA_Host"), "not-on-card"),
    (_log_of(ON_GPU, "layer   0: dev"), "placement-missing"),
    # assigned to the GPU, and the memory is elsewhere
    (
        _log_of(ON_GPU, "CPU_Mapped model buffer size =     0.07", "CPU_Mapped model buffer size =     0.30"),
        "weights-not-on-card",
    ),
    (_log_of(ON_GPU, "CUDA0 KV buffer", "CUDA_Host KV buffer"), "cache-not-on-card"),
    (_log_of(ON_GPU, "CUDA0 model", "CUDA_Host model"), "weights-not-on-card"),
    (_log_of(ON_GPU, "3/3", "2/3"), "wrong-offloaded"),
    (_log_of(ON_GPU, "offloaded"), "wrong-offloaded"),
    ({"cuda_status": ON_CPU.cuda_status}, "cuda-not-loaded"),
    (_status(ON_GPU, shard="sm89"), "wrong-shard"),
    ({"cuda_status": ON_SIMULATED.cuda_status}, "wrong-devices"),
    (_status(ON_GPU, devices=[]), "wrong-devices"),
    ({"tokens": 0}, "tokens-missing"),
]
SIMULATED_LIES: list[tuple[dict[str, Any], str]] = [
    ({"cuda_status": ON_GPU.cuda_status}, "wrong-devices"),
    (_status(ON_GPU, devices=[{"name": "SIMULATED"}, {"name": "NVIDIA H200"}]), "wrong-devices"),
    ({"use": None}, "device-silent"),
    (_use(counts={"launches": 0, "refused": 0}), "no-launches"),
    (_use(counts={"launches": 1, "refused": 1}), "calls-refused"),
    (_use(devices=(dataclasses.replace(USE.devices[0], leaked_bytes=1),)), "memory-leaked"),
    (_use(leaked={"streams": 1}), "objects-leaked"),
]


OTHER = SimulatedDeviceUse(capability="7.5", peak_bytes=0, leaked_bytes=0)
NAMES = [{"name": f"SIMULATED device {one} (not a GPU)", "capability": one} for one in ("9.0", "7.5")]
NOTE = "sm90 has no code for ... (compute capability 7.5). To use all GPUs: `nox --arch 75+90`."
ON_TWO_KINDS = dataclasses.replace(
    ON_SIMULATED,
    **_status(ON_SIMULATED, devices=NAMES, left_out=NAMES[1:], note=NOTE),
    **_use(devices=(*USE.devices, OTHER)),
)
TWO_KINDS = dataclasses.replace(SIMULATED, used=(0,), left_out=("7.5",), note="nox --arch 75+90")
TWO_KINDS_LIES: list[tuple[dict[str, Any], str]] = [
    (_status(ON_TWO_KINDS, left_out=[]), "wrong-left-out"),
    (_status(ON_TWO_KINDS, left_out=NAMES), "wrong-left-out"),
    (_status(ON_TWO_KINDS, note=None), "note-wrong"),
    (_status(ON_TWO_KINDS, note=NOTE.replace("75+90", "75,90")), "note-wrong"),
    (_use(devices=(USE.devices[0], dataclasses.replace(OTHER, peak_bytes=1))), "wrong-device-used"),
    (_use(devices=(dataclasses.replace(USE.devices[0], peak_bytes=0), OTHER)), "wrong-device-used"),
]


LIES = (
    (ON_CPU, CPU, CPU_LIES),
    (ON_GPU, GPU, GPU_LIES),
    (ON_SIMULATED, SIMULATED, SIMULATED_LIES),
    (ON_TWO_KINDS, TWO_KINDS, TWO_KINDS_LIES),
)


@pytest.mark.parametrize(("result", "expected"), [sound[:2] for sound in LIES])
def test_what_is_as_expected_has_no_findings(result: ProbeResult, expected: Expected) -> None:
    assert judge(result, expected) == ()


@pytest.mark.parametrize(
    ("sound", "expected", "change", "code"),
    [(sound, expected, *lie) for sound, expected, lies in LIES for lie in lies],
)
def test_a_false_report_is_found(sound: ProbeResult, expected: Expected, change: dict[str, Any], code: str) -> None:
    findings = judge(dataclasses.replace(sound, **change), expected)
    assert code in {finding.code for finding in findings}
    assert all(finding.severity is Severity.ERROR for finding in findings)


@pytest.mark.parametrize(("layers", "lies"), [(0, 3), (1, 2), (3, 0)])
def test_layers_fill_the_gpu_from_the_output(layers: int, lies: int) -> None:
    """Compares the placement of three layers with the requested number of layers."""
    findings = judge(ON_GPU, dataclasses.replace(GPU, on_gpu=layers))
    wrong = [finding for finding in findings if finding.code == "not-on-cpu" and finding.message.startswith("layer")]
    assert len(wrong) == lies


def test_the_loaders_reason_must_be_the_right_one() -> None:
    assert judge(ON_CPU, dataclasses.replace(CPU, reason="No NVIDIA driver")) == ()
    (finding,) = judge(ON_CPU, dataclasses.replace(CPU, reason="hides every GPU"))
    assert finding.code == "reason-wrong"
    assert "No NVIDIA driver" in finding.message


def test_a_fault_must_give_an_error_that_names_it() -> None:
    faulty = Expected(cuda=True, error="out of memory")
    named = dataclasses.replace(ON_GPU, error="ValueError", log=("cudaMalloc failed: out of memory",))
    assert judge(named, faulty) == ()
    assert [f.code for f in judge(ON_GPU, faulty)] == ["fault-unnoticed"]
    assert [f.code for f in judge(dataclasses.replace(ON_GPU, error="signal 11"), faulty)] == ["fault-unclear"]


def test_only_the_token_embedding_may_stay_on_the_cpu() -> None:
    assert pytest.approx(0.07, abs=0.005) == LLAMA.input_bytes(MODEL.sizes) / 2**20


def test_a_probe_result_survives_json() -> None:
    assert from_data(to_data(ON_SIMULATED), ProbeResult) == ON_SIMULATED


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (ON_CPU, "No NVIDIA driver"),
        (ON_GPU, None),
        (dataclasses.replace(ON_GPU, error="Traceback\nValueError: x"), "ValueError: x"),
        (
            dataclasses.replace(ON_GPU, error="ValueError: x", log=("a line", "cudaMalloc failed: out of memory")),
            "cudaMalloc failed: out of memory; ValueError: x",
        ),
    ],
)
def test_the_sentence_for_the_user(result: ProbeResult, said: str | None) -> None:
    assert result.said == said


# ------------------------------------------------------------------------------------------------------ verdicts


def _result(device: str, *, simulated: bool = False, passed: bool = True) -> ScenarioResult:
    return ScenarioResult(
        name="a run",
        shows="something",
        simulated=("9.0",) if simulated else (),
        shard=None,
        cpu_variant="zen4",
        placements=placement.parse(_log(device, device)).layers,
        offloaded=None,
        buffers=(),
        launches=None,
        tokens=8,
        text="noise",
        said=None,
        findings=() if passed else judge(ON_CPU, GPU),
        seconds=1.0,
    )


_ON_GPU = _result("CUDA0")
_ON_CPU = _result("CPU")
_ON_SIMULATED = _result("CUDA0", simulated=True)


@pytest.mark.parametrize(
    ("results", "decisive", "verdict"),
    [
        ((_ON_GPU,), _ON_GPU, Verdict.GPU_VERIFIED),
        ((_ON_CPU, _ON_SIMULATED), _ON_SIMULATED, Verdict.SIMULATED_DEVICE_VERIFIED),
        ((_ON_CPU,), _ON_CPU, Verdict.CPU_FALLBACK_VERIFIED),
        ((_ON_CPU,), _result("CPU", simulated=True), Verdict.CPU_FALLBACK_VERIFIED),
        ((_ON_GPU, _result("CPU", passed=False)), _ON_GPU, Verdict.FAILED),
        ((), None, Verdict.FAILED),
    ],
)
def test_the_decisive_scenario_gives_the_verdict_if_none_failed(
    results: tuple[ScenarioResult, ...], decisive: ScenarioResult | None, verdict: Verdict
) -> None:
    assert judge_all(results, decisive) is verdict


# ------------------------------------------------------------------------------------------------------ scenarios


def simulation(tmp_path: Path, capability: str | None) -> Simulation:
    return Simulation(include=tmp_path, cc="cc", capability=capability)


def by_name(tried: tuple[Scenario, ...]) -> dict[str, Scenario]:
    named = {scenario.name: scenario for scenario in tried}
    assert len(named) == len(tried), "two scenarios have the same name"
    return named


def test_without_a_gpu_the_wheel_must_run_on_the_cpu() -> None:
    tried = plan(WITHOUT_GPU, build_facts("89"), None)
    assert all(not scenario.expected.cuda and scenario.simulated is None for scenario in tried)
    assert any(scenario.planted for scenario in tried)


def test_a_covered_gpu_must_be_used_with_any_number_of_layers() -> None:
    tried = plan(WITH_GPU, build_facts("89", "90"), None)
    assert tried[0].expected == Expected(cuda=True, on_gpu=LAYERS, shard="sm90")
    assert {(s.gpu_layers, s.expected.on_gpu) for s in tried if s.expected.cuda} == {(-1, LAYERS), (0, 0), (1, 1)}


def test_a_gpu_that_the_wheel_does_not_cover_must_not_be_used() -> None:
    """A wheel for other machines can be built and validated on this one."""
    first = plan(WITH_GPU, build_facts("89"), None)[0]
    assert not first.expected.cuda
    assert first.expected.reason == "has code for"


def test_every_shard_gets_a_simulated_gpu(tmp_path: Path) -> None:
    tried = by_name(plan(WITHOUT_GPU, build_facts("86", "89"), simulation(tmp_path, None)))
    for capability, shard in (("8.6", "sm86"), ("8.9", "sm89")):
        scenario = tried[f"simulated {capability}"]
        assert scenario.expected == Expected(cuda=True, on_gpu=LAYERS, simulated=True, shard=shard, used=(0,))
        assert scenario.simulated is not None
        assert scenario.simulated.capabilities == (capability,)


def test_every_fault_is_simulated_on_a_covered_gpu(tmp_path: Path) -> None:
    tried = plan(WITHOUT_GPU, build_facts("89"), simulation(tmp_path, "8.9"))
    faults = {s.simulated.fault for s in tried if s.simulated is not None}
    assert faults == {None, *FAULTS}
    named = by_name(tried)
    assert named["two equal GPUs"].expected.on_gpu == LAYERS
    neither = named["two GPUs without code"]
    assert neither.simulated is not None
    assert neither.simulated.capabilities == ("7.5", "7.5")
    assert not neither.expected.cuda


def test_on_different_gpus_those_with_code_must_be_used_and_the_others_named(tmp_path: Path) -> None:
    named = by_name(plan(WITHOUT_GPU, build_facts("89"), simulation(tmp_path, None)))
    found = {
        name: (one.simulated.capabilities, one.expected.used, one.expected.left_out)
        for name, one in named.items()
        if one.simulated is not None and len({*one.simulated.capabilities}) > 1
    }
    assert found == {
        "two different GPUs": (("8.9", "7.5"), (0,), ("7.5",)),
        "two different GPUs, the other order": (("7.5", "8.9"), (1,), ("7.5",)),
        "three GPUs of two kinds": (("8.9", "7.5", "8.9"), (0, 2), ("7.5",)),
        "main_gpu counts the GPUs in use": (("7.5", "8.9", "8.9"), (2,), ("7.5",)),
        "tensor_split counts the GPUs in use": (("7.5", "8.9", "8.9"), (2,), ("7.5",)),
        "a GPU named by its UUID": (("7.5", "8.9"), (0,), ()),  # the only one that the process sees
    }
    assert {one.expected.note for one in named.values() if one.expected.left_out} == {
        "nox -s build_cuda_wheel -- --arch 75+89"
    }
    assert {one.expected.shard for one in named.values() if one.expected.left_out} == {"sm89"}


@pytest.mark.parametrize(("wheel", "used"), [(("86", "120"), (1,)), (("86+120",), (0, 1))])
def test_gpus_of_every_architecture_of_a_wheel_are_used_as_far_as_one_shard_covers_them(
    tmp_path: Path, wheel: tuple[str, ...], used: tuple[int, ...]
) -> None:
    tried = by_name(plan(WITHOUT_GPU, build_facts(*wheel), simulation(tmp_path, None)))
    scenario = tried["GPUs of every architecture of the wheel"]
    assert scenario.simulated is not None
    assert scenario.simulated.capabilities == ("8.6", "12.0")
    assert scenario.expected.used == used


def test_every_family_of_models_is_loaded_on_the_cpu_and_on_a_simulated_gpu(tmp_path: Path) -> None:
    tried = plan(WITHOUT_GPU, build_facts("86", "89"), simulation(tmp_path, None))
    for simulated in (False, True):
        whole = [one for one in tried if (one.simulated is not None) is simulated and one.gpu_layers == scenarios.ALL]
        assert {one.expected.family for one in whole if one.expected.error is None} == {*FAMILIES}
        others = [one for one in whole if one.expected.family is not LLAMA]
        assert [one.continues for one in others] == [False, True, True, True, True], "one process"
        assert {(one.expected.cuda, one.expected.on_gpu) for one in others} == {(simulated, LAYERS * simulated)}
        assert {one.simulated for one in others} == {whole[0].simulated}
        assert all(tried[tried.index(one) - 1] in others for one in others if one.continues)
    named = by_name(tried)
    assert named["mamba model"].shows.endswith("every layer and its recurrent state are on the CPU")
    assert named["simulated, bert model"].shows.endswith("every layer is on the GPU")


def test_on_a_gpu_the_families_must_use_it() -> None:
    tried = plan(WITH_GPU, build_facts("90"), None)
    others = [one for one in tried if one.expected.family is not LLAMA]
    assert len(others) == len(FAMILIES) - 1
    assert {dataclasses.replace(one.expected, family=LLAMA) for one in others} == {tried[0].expected}


def test_a_simulated_gpu_without_code_must_be_named(tmp_path: Path) -> None:
    *here, last = plan(WITHOUT_GPU, build_facts("89"), simulation(tmp_path, "7.5"))
    assert all(scenario.simulated is None for scenario in here)
    assert not last.expected.cuda
    assert last.expected.reason is not None
    assert last.expected.reason.endswith("7.5")


@pytest.mark.parametrize(
    ("archs", "capabilities", "shard"),
    [
        (("89-real", "80-virtual"), ("8.9",), "sm89-real"),  # machine code before PTX
        (("89-real", "80-virtual"), ("9.0",), "sm80-virtual"),
        (("89-real", "80-virtual"), ("7.5",), None),
        (("80", "86", "89"), ("8.9",), "sm89"),  # the nearest machine code
        (("80", "86", "89"), ("8.7",), "sm86"),
        (("80", "86", "89"), ("8.6", "8.9"), "sm86"),  # the most memory in reach, then the nearest code
        (("86", "90"), ("8.6", "9.0", "8.6"), "sm86"),
        (("86", "90"), ("8.6", "9.0"), "sm90"),  # all else equal: the newest GPU
        (("90", "86"), ("9.0", "8.6"), "sm90"),
    ],
)
def test_the_best_shard_is_expected(archs: tuple[str, ...], capabilities: tuple[str, ...], shard: str | None) -> None:
    found = scenarios.reach(build_facts(*archs), capabilities)
    assert (found.shard if found else None) == shard


def test_memory_decides_first_in_whole_gibibytes() -> None:
    facts, gpus = build_facts("86", "90"), ("8.6", "9.0")
    chosen = [scenarios.reach(facts, gpus, (first << 20, 24 << 30)) for first in (25 << 10, (24 << 10) + 900)]
    assert [one.shard for one in chosen if one] == ["sm86", "sm90"]


def test_for_a_wheel_that_covers_every_gpu_the_scenario_without_code_is_left_out() -> None:
    assert scenarios.uncovered(build_facts("89-real", "80-virtual")) == "7.5"
    assert scenarios.uncovered(build_facts("50-virtual")) is None
    tried = by_name(scenarios.on_simulated_devices(build_facts("50-virtual"), "8.9"))
    assert "driver too old" in tried
    assert "GPU without code" not in tried
