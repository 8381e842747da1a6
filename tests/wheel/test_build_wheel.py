"""The main job on finished units: nothing is compiled, and nothing is looked up twice."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from build_config.reports import BuildRecord
from build_config.steps.wheelhouse import publication
from build_config.system import jsonio
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import Wheel

pytestmark = pytest.mark.wheel

COUNTED = """
import collections, json, pathlib, runpy, sys
from build_config import archs
from build_config.steps.toolchain import gcc

out, data, *arguments = sys.argv[1:]
read, called, asked = collections.Counter(), collections.Counter(), collections.Counter()

def hook(event, details):
    if event == "open" and str(details[0]).startswith(data):
        read[pathlib.Path(str(details[0])).name] += 1
    elif event == "subprocess.Popen":
        asked.update(map(str, details[1]))

def counted(module, name):
    whole = getattr(module, name)
    def call(*arguments, **named):
        called[name] += 1
        return whole(*arguments, **named)
    setattr(module, name, call)

counted(archs, "resolve")
counted(gcc, "choose")
sys.addaudithook(hook)
sys.argv = ["build_config", "build", *arguments]
try:
    runpy.run_module("build_config", run_name="__main__")
finally:
    pathlib.Path(out).write_text(json.dumps({"read": read, "called": called, "asked": asked}))
"""


def test_a_build_looks_everything_up_once(wheel: Wheel, tmp_path: Path) -> None:
    record = jsonio.read(publication.record_path(wheel.path), BuildRecord)
    request = dict(record.request)
    if request["work_root"] != "canonical" or not (CANONICAL_WORK_ROOT / "store").is_dir():
        pytest.skip("the units of this wheel are not on this machine")
    arguments = ["--arch", request["arch"], "--cuda", request["cuda"], "--require-units"]
    counts, data = tmp_path / "counts.json", PACKAGE / "data"
    command = [sys.executable, "-c", COUNTED, str(counts), str(data), *arguments]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert record.sha256 in done.stdout, "the same inputs gave another wheel"
    found = json.loads(counts.read_text())
    assert found["called"] == {"resolve": 1, "choose": 1}
    assert found["asked"]["-dumpmachine"] == 1, "the host compiler was examined twice"
    assert "requirements.txt" in found["read"]
    again = {name for name, times in found["read"].items() if times > 1}
    assert again <= {"validation.txt", "validation-cu12.txt", "validation-cu11.txt"}, "only what pip installs from"
