"""A kit of the newest wheel of the wheelhouse on the GPU of this machine: its report makes the wheel gpu-verified."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config import inputs
from build_config.formats import build_facts, wheelfile
from build_config.reports import Verdict
from build_config.steps.locks import download
from build_config.steps.wheelhouse import publication
from build_config.system.console import Console
from build_config.tasks.gpu_kit import contents, evidence, record
from build_config.testbed import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.system.layout import Layout

pytestmark = pytest.mark.gpu


def test_the_report_of_a_kit_verifies_the_wheel(layout: Layout, tmp_path: Path) -> None:
    wheel = wheelfile.read(publication.newest_wheel(layout))
    facts = build_facts.read(wheel.path)
    assert facts is not None
    kit = contents.make(tmp_path / "kit", layout, Console(terminal=False), wheel=wheel.path)
    download.fetch(inputs.runtime_files(wheel.path, layout), layout.downloads, Console(terminal=False))
    requirements = clean_environment.requirements(wheel, layout.locks)
    python = clean_environment.make(tmp_path, requirements, layout.downloads, tmp_path / "log")
    command = [str(python), str(kit / "run.py"), "--out", str(tmp_path / "report"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = evidence.read(tmp_path / "report", contents.scripts())
    judged = record.judge(report, facts)
    assert judged.verdict is Verdict.GPU_VERIFIED, judged.all_findings()
    assert judged.device_checks
