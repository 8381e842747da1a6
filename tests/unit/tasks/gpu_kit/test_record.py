"""The report of a GPU kit: a sound one makes its wheel gpu-verified; any other leaves the wheelhouse as it was."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from build_config.errors import SettingsError, ValidationError, VerificationError
from build_config.formats import build_facts, wheelfile
from build_config.model import GpuDevice
from build_config.reports import BuildRecord, ScenarioResult, Verdict
from build_config.steps.wheelhouse import publication, signature, statement
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.system.layout import Layout
from build_config.tasks.gpu_kit import contents, evidence, record
from build_config.tasks.verify import verified
from tests.support import attested, factories, gpu_reports, wheels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.unit
CONTENTS = wheels.contents
FACTS = factories.build_facts("89")
Report = dict[str, Any]
SIMULATED = ScenarioResult(
    name="simulated 8.9",
    shows="every layer and its cache are on CUDA0",
    simulated=("8.9",),
    shard="sm89",
    cpu_variant="zen4",
    placements=(),
    offloaded=None,
    buffers=(),
    launches=272,
    tokens=8,
    text="",
    said=None,
    findings=(),
    seconds=1.0,
)


@pytest.fixture(name="house")
def _house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> attested.House:
    """A published wheel of this project, tried on a simulated GPU, and signed."""
    own = {build_facts.MEMBER: build_facts.text(FACTS).encode()}
    monkeypatch.setattr(wheels, "contents", lambda libraries: {**CONTENTS(libraries), **own})
    house = attested.publish(tmp_path / "checkout")
    validation = dataclasses.replace(
        house.record.validation, verdict=Verdict.SIMULATED_DEVICE_VERIFIED, scenarios=(SIMULATED,)
    )
    known = dataclasses.replace(house.record, validation=validation)
    wheel = wheelfile.read(house.wheel)
    publication.publish(wheel, known, known.inspection, validation, house.wheel.parent, key=attested.KEY)
    return dataclasses.replace(house, record=known)


@pytest.fixture(name="layout")
def _layout(house: attested.House, tmp_path: Path) -> Layout:
    layout = Layout(checkout=tmp_path / "checkout", work_root=tmp_path / "none")
    assert house.wheel.parent == layout.wheelhouse
    return layout


@pytest.fixture(name="report")
def _report(house: attested.House) -> Report:
    return gpu_reports.good(house.wheel, FACTS)


def content(layout: Layout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in layout.wheelhouse.iterdir()}


def test_a_wheel_that_passed_becomes_gpu_verified(
    tmp_path: Path, house: attested.House, layout: Layout, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    record.record(gpu_reports.write(tmp_path / "report", report), layout, Console(terminal=False))
    recorded = jsonio.read(publication.record_path(house.wheel), BuildRecord)
    validation = recorded.validation
    assert validation.verdict is Verdict.GPU_VERIFIED
    assert dataclasses.replace(recorded, validation=house.record.validation) == house.record
    assert [one.name for one in validation.scenarios] == [
        *(name for ran in report["evidence"]["scenarios"] for name in ran["scenarios"]),
        "simulated 8.9",
    ]
    assert validation.decisive == "as it is"
    assert validation.machine.gpus == (gpu_reports.GPU,)
    assert (validation.machine.cpu, validation.machine.cores) == ("A CPU", 16)
    assert validation.machine.driver is not None
    assert len(validation.device_checks) == 75
    assert all(check.passed and check.name.startswith("CUDA0, ") for check in validation.device_checks)
    (note,) = validation.findings
    assert json.loads((tmp_path / "report" / "report.json").read_text())["sha256"] in note.message
    assert house.verify(key=None).passed
    assert "<td>gpu-verified</td>" in (layout.wheelhouse / publication.PAGE).read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "64.0" in said or "63.0" in said, "the speeds are shown"
    assert "the report is not signed" in said


OTHERS = tuple(
    GpuDevice(index=index, name=name, capability=capability, memory=24 << 30)
    for index, (name, capability) in enumerate(
        [("NVIDIA GeForce RTX 2080", "7.5"), ("NVIDIA GeForce RTX 4090", "8.9"), ("NVIDIA GeForce RTX 4090", "8.9")]
    )
)


def test_a_gpu_that_the_wheel_leaves_out_is_expected_to_be_left_out(
    tmp_path: Path, house: attested.House, layout: Layout
) -> None:
    report = gpu_reports.good(house.wheel, FACTS, OTHERS)
    validation = record.record(gpu_reports.write(tmp_path / "report", report), layout, Console(terminal=False))
    assert validation.verdict is Verdict.GPU_VERIFIED
    assert validation.machine.gpus == OTHERS
    measured = record.bench(evidence.read(tmp_path / "report", contents.scripts()))
    assert measured.card.name == "NVIDIA GeForce RTX 4090"


def not_left_out(report: Report) -> None:
    process(report, "as it is")["result"][0]["cuda_status"]["left_out"] = []


def without_the_command(report: Report) -> None:
    process(report, "as it is")["result"][0]["cuda_status"]["note"] = None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (not_left_out, r"GPUs that are left out: expected \('7.5',\), found \(\)"),
        (without_the_command, "The loader's note: expected 'nox -s build_cuda_wheel"),
    ],
)
def test_a_loader_that_hides_a_left_out_gpu_failed(
    tmp_path: Path, house: attested.House, layout: Layout, change: Callable[[Report], None], why: str
) -> None:
    report = gpu_reports.good(house.wheel, FACTS, OTHERS)
    change(report)
    with pytest.raises(ValidationError, match=why):
        record.record(gpu_reports.write(tmp_path / "report", report), layout, Console(terminal=False))


def test_an_earlier_signature_is_removed_and_a_new_one_made(
    tmp_path: Path, house: attested.House, layout: Layout, report: Report
) -> None:
    assert statement.envelope_path(house.wheel).exists()
    folder = gpu_reports.write(tmp_path / "report", report)
    record.record(folder, layout, Console(terminal=False))
    assert not statement.envelope_path(house.wheel).exists()
    private, public = signature.make_keys(tmp_path / "keys")
    record.record(folder, layout, Console(terminal=False), sign_key=private)
    assert verified(house.wheel, layout, Console(), signature.read_keys((public,))).signed_by


def process(report: Report, name: str) -> Report:
    """The process of the scenario of this name."""
    (found,) = (ran for ran in report["evidence"]["scenarios"] if name in ran["scenarios"])
    assert isinstance(found, dict)
    return found


def stopped(report: Report) -> None:
    report["interrupted"] = True


def without_a_part(report: Report) -> None:
    del report["parts"]["comparison"]


def without_a_scenario(report: Report) -> None:
    report["evidence"]["scenarios"].remove(process(report, "hidden GPUs"))


def without_a_model(report: Report) -> None:
    process(report, "mamba model")["scenarios"].remove("mamba model")


def with_an_additional_result(report: Report) -> None:
    results = process(report, "as it is")["result"]
    results.append(results[0])


def without_the_comparison(report: Report) -> None:
    report["evidence"]["comparison"] = {}


def without_a_round(report: Report) -> None:
    report["evidence"]["bench"].pop()


def without_tests(report: Report) -> None:
    report["evidence"]["tests"] = None


def on_a_simulated_gpu(report: Report) -> None:
    report["evidence"]["check_gpu"]["result"]["driver"]["devices"][0]["name"] = "SIMULATED device 8.9 (not a GPU)"


def simulated_in_one_process(report: Report) -> None:
    devices = report["evidence"]["comparison"]["CUDA0"]["result"]["devices"]
    devices[0]["description"] = "SIMULATED device 8.9 (not a GPU)"


def by_other_scripts(report: Report) -> None:
    report["scripts"]["scripts/probe.py"] = "0" * 64


def about_other_bytes(report: Report) -> None:
    report["wheel"]["sha256"] = "0" * 64


def with_another_field(report: Report) -> None:
    report["verdict"] = "gpu-verified"


def with_a_malformed_result(report: Report) -> None:
    process(report, "as it is")["result"][0]["tokens"] = "many"


def with_a_value_left_out(report: Report) -> None:
    del report["evidence"]["comparison"]["CUDA0"]["result"]["checks"]["memory"]["free"]


def with_a_list_of_tests(report: Report) -> None:
    report["evidence"]["tests"]["result"] = []
    report["evidence"]["check_gpu"]["result"]["diagnosis"] = "card-used"


def with_an_answer_in_no_time(report: Report) -> None:
    report["evidence"]["bench"][0]["result"]["first_token"] = 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (stopped, "the run was stopped"),
        (without_a_part, "comparison did not run"),
        (without_a_scenario, "it lacks hidden GPUs"),
        (without_a_model, "it lacks .*mamba model"),
        (with_an_additional_result, "unreadable result: ValueError"),
        (without_the_comparison, "CUDA0 was not compared"),
        (without_a_round, "the speed of the gpu was not measured 3 times"),
        (without_tests, "there is no result of tests"),
        (on_a_simulated_gpu, "simulated GPU, which never gives gpu-verified"),
        (simulated_in_one_process, "simulated GPU, which never gives gpu-verified"),
        (by_other_scripts, "other scripts belong to it: scripts/probe.py"),
        (about_other_bytes, "about other bytes than llama_cpp_python"),
        (with_another_field, "not the report of a GPU kit"),
        (with_a_malformed_result, "unreadable result"),
        (with_a_value_left_out, "unreadable result: KeyError"),
        (with_a_list_of_tests, "unreadable result: AttributeError"),
        (with_an_answer_in_no_time, "unreadable result: ZeroDivisionError"),
    ],
)
def test_a_report_that_shows_nothing_is_refused(
    tmp_path: Path, layout: Layout, report: Report, change: Callable[[Report], None], why: str
) -> None:
    before = content(layout)
    change(report)
    with pytest.raises(VerificationError, match=why):
        record.record(gpu_reports.write(tmp_path / "report", report), layout, Console(terminal=False))
    assert content(layout) == before


def test_a_changed_report_is_refused(tmp_path: Path, layout: Layout, report: Report) -> None:
    machine = {**report["machine"], "cores": 32}
    with pytest.raises(VerificationError, match="changed after it was written"):
        record.record(gpu_reports.write(tmp_path / "report", report, machine=machine), layout, Console())


def test_a_wheel_that_is_not_in_the_wheelhouse_is_named(
    tmp_path: Path, house: attested.House, layout: Layout, report: Report
) -> None:
    house.wheel.unlink()
    with pytest.raises(SettingsError, match="is not in the wheelhouse"):
        record.record(gpu_reports.write(tmp_path / "report", report), layout, Console())


def a_wheel_outside(report: Report) -> None:
    report["wheel"]["name"] = "../wheelhouse/" + report["wheel"]["name"]


def test_a_name_cannot_lead_out_of_the_wheelhouse(tmp_path: Path, layout: Layout, report: Report) -> None:
    a_wheel_outside(report)
    with pytest.raises(SettingsError, match="is not in the wheelhouse"):
        record.record(gpu_reports.write(tmp_path / "report", report), layout, Console())


def wrong_numbers(report: Report) -> None:
    report["evidence"]["comparison"]["CUDA0"]["result"]["checks"]["logits Q4_K"]["nmse"] = 0.5


def compared_with_itself(report: Report) -> None:
    report["evidence"]["comparison"]["CUDA0"]["result"]["checks"]["batches F16"]["log"] = gpu_reports.log(5, 0)


def crash_while_comparing(report: Report) -> None:
    ran = report["evidence"]["comparison"]["CUDA0"]
    del ran["result"]["checks"]["generation"]
    ran["result"]["running"] = "generation"
    ran["status"] = -11


def a_layer_on_the_cpu(report: Report) -> None:
    (result,) = process(report, "as it is")["result"]
    result["log"] = [
        line.replace("layer   0 assigned to device CUDA0", "layer   0 assigned to device CPU") for line in result["log"]
    ]


def a_crash(report: Report) -> None:
    process(report, "n_gpu_layers=1").update({"status": -11, "result": None, "output": "segfault\n"})


def a_crash_with_one_of_several_models(report: Report) -> None:
    ran = process(report, "qwen2moe model")
    ran.update({"status": -11, "result": ran["result"][:2], "output": "segfault\n"})


def a_state_on_the_cpu(report: Report) -> None:
    result = process(report, "mamba model")["result"][-1]
    result["log"] = [line.replace("layer   1: dev = CUDA0", "layer   1: dev = CPU") for line in result["log"]]


def planted(report: Report) -> None:
    process(report, "planted library")["planted"] = ["libggml-cuda.so"]


def another_diagnosis(report: Report) -> None:
    report["evidence"]["check_gpu"]["result"]["diagnosis"]["code"] = "no-card"


def a_failed_test(report: Report) -> None:
    report["evidence"]["tests"]["result"]["tests"]["test_a_text_repeats"] = "AssertionError"


def a_test_that_did_not_run(report: Report) -> None:
    del report["evidence"]["tests"]["result"]["tests"]["test_a_text_repeats"]


def measured_on_the_cpu(report: Report) -> None:
    report["evidence"]["bench"][1]["result"]["log"] = gpu_reports.log(23, 0)


def a_failed_part(report: Report) -> None:
    report["parts"]["models"]["failed"] = "its process ended with status 1"


def a_gpu_without_code(report: Report) -> None:
    report["evidence"]["check_gpu"]["result"]["driver"]["devices"][0]["capability"] = "7.5"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (wrong_numbers, r"CUDA0, logits Q4_K: 0.5 NMSE, allowed: 0.005"),
        (compared_with_itself, "CUDA0, batches F16: layer 0 was on CPU, not on CUDA0"),
        (crash_while_comparing, r"generation: the process was ended by signal 11 .* during this check"),
        (a_layer_on_the_cpu, "as it is: layer 0 is on CPU, not on a GPU"),
        (a_crash, r"n_gpu_layers=1: .*was ended by signal 11 .*segfault"),
        (a_crash_with_one_of_several_models, r"qwen2moe model: .*was ended by signal 11 .*segfault"),
        (a_crash_with_one_of_several_models, r"mamba model: .*the process ended while it used the model qwen2moe"),
        (a_state_on_the_cpu, "mamba model: the recurrent state of layer 1 is on CPU, not on a GPU"),
        (planted, "planted library: libggml-cuda.so was loaded"),
        (another_diagnosis, "check_gpu found no-card"),
        (a_failed_test, "test_a_text_repeats: AssertionError"),
        (a_test_that_did_not_run, "test_a_text_repeats: did not run"),
        (measured_on_the_cpu, "GPU: layer 0 was on CPU, not on CUDA0"),
        (a_failed_part, "models: its process ended with status 1"),
        (a_gpu_without_code, "must not be"),
    ],
)
def test_a_wheel_that_failed_keeps_its_verdict(
    tmp_path: Path, layout: Layout, report: Report, change: Callable[[Report], None], why: str
) -> None:
    before = content(layout)
    change(report)
    with pytest.raises(ValidationError, match=why):
        record.record(gpu_reports.write(tmp_path / "report", report), layout, Console(terminal=False))
    assert content(layout) == before
