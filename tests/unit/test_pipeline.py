"""The step of the main job with an emulated GPU: which wheels get its verdict, and which are not published."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from build_config import pipeline
from build_config.errors import ValidationError
from build_config.reports import DeviceCheck, EmulatedCheck, EmulatedKernel, EmulationReport, Verdict
from build_config.steps.validation import emulated_wheel, emulation
from build_config.system.console import Console
from tests.support import factories, publishable

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.reports import ValidationReport

pytestmark = pytest.mark.unit

CHECK = DeviceCheck(name="8 tokens", unit="NMSE", measured=2e-7, bound=1e-4, passed=True, reason=None)
ROW = EmulatedCheck(model="tiny", kind="F32", prompt="8 tokens", check=CHECK, seconds=1.5)
KERNEL = EmulatedKernel(name="_Z1kv", source="norm.cu", identical=True, launches=5, executed=3, basic_blocks=4)
PASSED = factories.emulation_report(ROW, KERNEL)
WRONG = dataclasses.replace(ROW, check=dataclasses.replace(CHECK, passed=False, measured=0.3, reason="0.3 NMSE"))
CRASHED = dataclasses.replace(
    ROW, check=dataclasses.replace(CHECK, passed=False, measured=None, reason="it ended: emulated device: _Z1mv: mma")
)
REFUSED = dataclasses.replace(PASSED, checks=(ROW, CRASHED), refused=("_Z1mv: mma.sp is not known",))


@dataclass
class Emulating:
    """Takes the place of the emulation: gives a report or raises, and remembers what was asked for."""

    result: EmulationReport | ValidationError = PASSED
    asked: list[dict[str, Any]] = field(default_factory=list)

    def compute(self, _wheel: object, cases: object, **how: Any) -> EmulationReport:
        self.asked.append({"cases": cases, **how})
        if isinstance(self.result, ValidationError):
            raise self.result
        return self.result


@pytest.fixture(name="emulating")
def _emulating(monkeypatch: pytest.MonkeyPatch) -> Emulating:
    emulating = Emulating()
    monkeypatch.setattr(emulated_wheel, "compute", emulating.compute)
    return emulating


def emulate(tmp_path: Path, chosen: str = "quick") -> ValidationReport:
    wheel, _, _, validation = publishable.make(tmp_path / "made")
    validation = dataclasses.replace(validation, verdict=Verdict.SIMULATED_DEVICE_VERIFIED)
    layout = factories.layout(tmp_path / "work", checkout=tmp_path)
    plan = SimpleNamespace(request=SimpleNamespace(emulate=chosen), layout=layout, machine=validation.machine)
    chain = SimpleNamespace(cuda=None, host=SimpleNamespace(cc=SimpleNamespace(path="gcc")))
    compiled = SimpleNamespace(toolchain=chain)
    return pipeline._emulate(cast("Any", plan), cast("Any", compiled), wheel, validation, Console())


def test_right_numbers_give_the_verdict_and_are_computed_once(tmp_path: Path, emulating: Emulating) -> None:
    for _ in range(2):
        report = emulate(tmp_path)
        assert (report.verdict, report.emulation) == (Verdict.EMULATED_DEVICE_VERIFIED, PASSED)
    assert [asked["cases"] for asked in emulating.asked] == [emulation.QUICK]
    emulate(tmp_path, "all")
    assert emulating.asked[-1]["cases"] == emulation.ALL


def test_a_wheel_with_wrong_numbers_is_not_published(tmp_path: Path, emulating: Emulating) -> None:
    emulating.result = dataclasses.replace(REFUSED, checks=(*REFUSED.checks, WRONG))
    for asked in (1, 2):  # a report that did not pass is not kept
        with pytest.raises(ValidationError, match=r"computed wrong numbers: tiny F32, 8 tokens: 0\.3 NMSE\n"):
            emulate(tmp_path)
        assert len(emulating.asked) == asked


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (REFUSED, "the verdict stays simulated-device-verified: _Z1mv: mma.sp is not known"),
        (dataclasses.replace(REFUSED, checks=(CRASHED,), kernels=()), "_Z1mv: mma.sp is not known"),
        (ValidationError("compile_commands.json is missing"), "nothing was computed, the verdict stays simulated-"),
    ],
)
def test_a_wheel_that_cannot_be_emulated_keeps_its_verdict_and_is_told_why(
    tmp_path: Path,
    emulating: Emulating,
    capsys: pytest.CaptureFixture[str],
    result: EmulationReport | ValidationError,
    reason: str,
) -> None:
    emulating.result = result
    report = emulate(tmp_path)
    assert (report.verdict, report.emulation) == (Verdict.SIMULATED_DEVICE_VERIFIED, None)
    assert reason in capsys.readouterr().out


def test_a_crash_that_no_refusal_explains_is_wrong(tmp_path: Path, emulating: Emulating) -> None:
    crashed = dataclasses.replace(CRASHED.check, reason="an illegal memory access")
    emulating.result = dataclasses.replace(PASSED, checks=(dataclasses.replace(ROW, check=crashed),), kernels=())
    with pytest.raises(ValidationError, match="no kernel was executed; tiny F32, 8 tokens: an illegal memory access"):
        emulate(tmp_path)
