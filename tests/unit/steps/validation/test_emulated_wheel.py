"""The report of a wheel on an emulated GPU: what it counts, what is written, what the next run keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from build_config.errors import ValidationError
from build_config.formats import build_facts
from build_config.model import CudaArch
from build_config.reports import DeviceCheck, EmulatedCheck, EmulationReport
from build_config.steps.validation import emulated_wheel, emulation
from build_config.steps.validation.emulation import QUICK, Emulated, KeptRows
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.testbed import clean_environment, emulated_device
from build_config.testbed.emulated_device import KernelUse, shard_code
from build_config.testbed.emulated_device.kernels import KernelFacts, Kernels
from build_config.testbed.emulated_device.shard_code import ShardCode
from tests.support import factories, publishable, systems

if TYPE_CHECKING:
    from build_config.system.layout import Layout
    from build_config.testbed.emulated_device.ptx_files import PtxFiles

pytestmark = pytest.mark.unit

CHECK = DeviceCheck(name="8 tokens", unit="NMSE", measured=2e-7, bound=1e-4, passed=True, reason=None)
ROW = EmulatedCheck(model="tiny", kind="F32", prompt="8 tokens", check=CHECK, seconds=1.5)
USE = KernelUse(name="norm", code=89, launches=5, blocks=9, seconds=0.5, executed=(4, 0), lines=(10, 20))
SEEN = Emulated(checks=(ROW,), uses=(USE,), devices=(), memory=300, kept=1)
FILES = cast("PtxFiles", SimpleNamespace(digest="the sources"))
FACTS = {
    "norm": KernelFacts(name="norm", source="norm.cu", identical=True),
    "mma": KernelFacts(name="mma", source="mma.cu", refused="mma.sp is not known"),
}


@pytest.fixture(name="keys")
def _keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the kept rows of each run; everything that starts a process does nothing."""
    keys: list[str] = []

    def run(_place: object, cases: object, _show: object, kept: KeptRows) -> Emulated:
        assert cases == QUICK
        keys.append(kept.key)
        return SEEN

    code = ShardCode(arch=CudaArch.parse("89"), cubins=("c",), kernels={"norm": 0, "mma": 0, "other": 0})
    kernels = Kernels(code=code, files=FILES, folder=Path("/none"), cc="gcc", facts=FACTS)
    monkeypatch.setattr(build_facts, "read", lambda _: factories.build_facts("89-real"))
    monkeypatch.setattr(emulated_wheel, "kernels_of", lambda *_: kernels)
    monkeypatch.setattr(emulated_device, "build", lambda *_, **__: None)
    for name, result in (("requirements", None), ("make", None), ("install", ())):
        monkeypatch.setattr(clean_environment, name, lambda *_, value=result: value)
    monkeypatch.setattr(emulation, "run", run)
    return keys


def compute(tmp_path: Path, tried_by: str = "this code") -> tuple[EmulationReport, Layout]:
    wheel, *_ = publishable.make(tmp_path / "made")
    layout = factories.layout(tmp_path / "work", checkout=tmp_path / "checkout")
    toolkit: Any = SimpleNamespace(include=None, release="13.0.88")
    how: dict[str, Any] = {"toolkit": toolkit, "cc": "gcc", "layout": layout, "console": Console()}
    return emulated_wheel.compute(wheel, QUICK, arch=None, tried_by=tried_by, **how), layout


@systems.linux_only("there is no emulated GPU for Windows")
def test_the_report_counts_kernels_and_names_the_refused(
    tmp_path: Path, keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report, layout = compute(tmp_path)
    (kernel,) = report.kernels
    assert (kernel.source, kernel.identical, kernel.launches) == ("norm.cu", True, 5)
    assert (kernel.executed, kernel.basic_blocks) == (1, 2)
    assert (report.arch, report.kernels_in_shard, report.memory) == ("sm_89", 3, 300)
    assert report.refused == ("mma: mma.sp is not known",)
    folder = layout.state / "emulation"
    assert jsonio.read(folder / "sm_89.json", EmulationReport) == report
    assert "never launched: 2 kernels" in (folder / "coverage-sm_89.txt").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "1 of 7 checks were computed by an earlier run" in said
    assert "warning: mma: mma.sp is not known" in said
    assert len(keys) == 1


@systems.linux_only("there is no emulated GPU for Windows")
def test_rows_are_kept_for_the_same_wheel_sources_and_code_only(
    tmp_path: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        compute(tmp_path)
    compute(tmp_path, tried_by="another version")
    monkeypatch.setattr(FILES, "digest", "other sources")
    compute(tmp_path)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_shard_without_its_build_tree_is_named_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_code, "read", lambda *_: pytest.fail("unpacked"))
    shard, arch = emulated_wheel.choose(factories.build_facts("89-real"), None)
    layout = factories.layout(tmp_path / "work", checkout=tmp_path)
    toolkit: Any = None
    with pytest.raises(ValidationError, match=r"compile_commands\.json is missing"):
        emulated_wheel.kernels_of(tmp_path / "a.whl", shard, arch, toolkit, "gcc", tmp_path, layout, tmp_path / "log")
