"""The task of the emulated GPU: the choice of a shard, the judgement, the record, the words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from build_config.errors import SettingsError
from build_config.model import CudaArch
from build_config.reports import (
    BuildRecord,
    DeviceCheck,
    EmulatedCheck,
    EmulatedKernel,
    Verdict,
)
from build_config.steps.validation import emulated_wheel, emulation_text
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.tasks import emulate
from build_config.testbed.emulated_device import KernelUse
from tests.support import factories, publishable

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.system.layout import Layout

pytestmark = pytest.mark.unit

CHECK = DeviceCheck(name="8 tokens", unit="NMSE", measured=2e-7, bound=1e-4, passed=True, reason=None)
KERNEL = EmulatedKernel(
    name="_Z12rms_norm_f32ILi256EvPf", source="norm.cu", identical=True, launches=5, executed=3, basic_blocks=4
)
ROW = EmulatedCheck(model="tiny", kind="F32", prompt="8 tokens", check=CHECK, seconds=1.5)
REPORT = factories.emulation_report(ROW, KERNEL)
WRONG = dataclasses.replace(CHECK, passed=False, measured=0.3, reason="0.3 NMSE, allowed: 0.0001")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"checks": (dataclasses.replace(REPORT.checks[0], check=WRONG),)}, "tiny F32, 8 tokens: 0.3 NMSE"),
        ({"kernels": (dataclasses.replace(KERNEL, identical=False),)}, "is not that of the wheel's cubin"),
        ({"refused": ("_Z1k: %envreg1 is not known",)}, "%envreg1"),
        ({"misused": 2}, "2 calls were refused"),
        ({"checks": ()}, "no kernel was executed"),
        ({"kernels": ()}, "no kernel was executed"),
    ],
)
def test_a_report_passes_only_with_right_numbers_of_the_wheels_kernels(
    changes: dict[str, object], problem: str | None
) -> None:
    found = dataclasses.replace(REPORT, **changes).problems()  # type: ignore[arg-type]
    assert bool(found) is (problem is not None)
    assert problem is None or problem in found[0]


def test_the_first_architecture_is_the_default_and_another_can_be_chosen() -> None:
    facts = factories.build_facts("86-real", "120a-real")
    assert emulated_wheel.choose(facts, None)[1] == CudaArch.parse("86")
    assert emulated_wheel.choose(facts, "120")[1] == emulated_wheel.choose(facts, "120a")[1] == CudaArch.parse("120a")
    with pytest.raises(SettingsError, match="no machine code for 89") as caught:
        emulated_wheel.choose(facts, "89")
    assert "86, 120a" in (caught.value.remedy or "")


def test_a_wheel_with_ptx_only_has_no_machine_code_to_compare() -> None:
    with pytest.raises(SettingsError, match="no machine code"):
        emulated_wheel.choose(factories.build_facts("90-virtual"), None)


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    return factories.layout(tmp_path / "work", checkout=tmp_path)


def published(tmp_path: Path, layout: Layout, verdict: Verdict) -> Path:
    wheel, record, inspection, validation = publishable.make(tmp_path / "made")
    validation = dataclasses.replace(validation, verdict=verdict)
    record = dataclasses.replace(record, validation=validation)
    return publication.publish(wheel, record, inspection, validation, layout.wheelhouse)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Verdict.CPU_FALLBACK_VERIFIED, Verdict.EMULATED_DEVICE_VERIFIED),
        (Verdict.SIMULATED_DEVICE_VERIFIED, Verdict.EMULATED_DEVICE_VERIFIED),
        (Verdict.GPU_VERIFIED, Verdict.GPU_VERIFIED),
    ],
)
def test_the_verdict_is_recorded_unless_a_gpu_showed_more(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, before: Verdict, after: Verdict
) -> None:
    monkeypatch.setattr(emulate, "verified", lambda *_: None)
    path = published(tmp_path, layout, before)
    emulate.record(path, REPORT, layout, Console())
    recorded = jsonio.read(publication.record_path(path), BuildRecord).validation
    assert (recorded.verdict, recorded.emulation) == (after, REPORT)
    page = (layout.wheelhouse / publication.PAGE).read_text(encoding="utf-8")
    assert f"<td>{after}</td>" in page
    assert "<code>emulated-device-verified</code>: the wheel's host code and the PTX behind its cubins" in page


def test_a_wheel_outside_the_wheelhouse_is_not_recorded(tmp_path: Path, layout: Layout) -> None:
    wheel, *_ = publishable.make(tmp_path / "made")
    emulate.record(wheel.path, REPORT, layout, Console())
    assert not layout.wheelhouse.exists()


def test_a_record_of_an_earlier_version_has_no_emulation(tmp_path: Path, layout: Layout) -> None:
    path = published(tmp_path, layout, Verdict.CPU_FALLBACK_VERIFIED)
    data = jsonio.to_data(jsonio.read(publication.record_path(path), BuildRecord))
    del data["validation"]["emulation"]
    assert jsonio.from_data(data, BuildRecord).validation.emulation is None


def use(name: str, *executed: int) -> KernelUse:
    lines = tuple(10 * (number + 1) for number in range(len(executed)))
    return KernelUse(name=name, code=89, launches=5, blocks=9, seconds=0.5, executed=executed, lines=lines)


def test_the_coverage_names_what_no_check_reached() -> None:
    text = emulation_text.coverage(
        REPORT, (use(KERNEL.name, 4, 4, 0, 1),), [KERNEL.name, "_Z5otherILi1EvPf", "_Z5otherv"]
    )
    assert f"3/4 norm.cu {KERNEL.name} (5 launches)\n    not executed, from line: 30\n" in text
    assert "never launched: 2 kernels\n    other: 2\n" in text


def test_a_row_for_each_check_and_counts() -> None:
    assert next(emulation_text.rows(REPORT)) == ("tiny", "F32", "8 tokens", "2e-07", "1e-04", "1.5", "passed")
    failed = dataclasses.replace(REPORT, checks=(dataclasses.replace(REPORT.checks[0], check=WRONG),))
    assert next(emulation_text.rows(failed))[-1].startswith("FAILED: 0.3 NMSE")
    assert emulation_text.line(REPORT.checks[0]) == "tiny F32, 8 tokens: 2e-07 NMSE, passed, 2 s"
    counts = dict(emulation_text.counts(REPORT))
    assert counts["kernels executed"] == "1 of 6515 for sm_89, in 5 launches"
    assert counts["basic blocks"] == "3 of 4 of these kernels were executed"
