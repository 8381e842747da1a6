"""The newest wheel of the wheelhouse on the GPU of this machine."""

from __future__ import annotations

import re

import pytest

from build_config.reports import Verdict
from build_config.system import machine
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout
from build_config.tasks import validate

pytestmark = pytest.mark.gpu


@pytest.fixture(name="layout")
def _layout(request: pytest.FixtureRequest) -> Layout:
    layout = Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)
    missing = [
        *([] if machine.nvidia().gpus else ["this machine has no NVIDIA GPU"]),
        *([] if any(layout.wheelhouse.glob("*.whl")) else ["no wheel in the wheelhouse: nox -s build_cuda_wheel"]),
    ]
    if missing and request.config.getoption("--require-gpu"):
        pytest.fail("; ".join(missing))
    if missing:
        pytest.skip("; ".join(missing))
    return layout


def test_every_layer_and_its_cache_are_on_the_gpu(layout: Layout) -> None:
    report = validate.validate(None, layout, Console(terminal=False), require_gpu=True)
    assert report.verdict is Verdict.GPU_VERIFIED
    assert report.decisive == "as it is"
    (decisive,) = [scenario for scenario in report.scenarios if scenario.name == report.decisive]
    assert decisive.said is None
    assert decisive.tokens == 8
    *layers, output = decisive.placements
    assert layers
    for layer in layers:
        assert re.fullmatch(r"CUDA\d+", layer.weights or "")
        assert re.fullmatch(r"CUDA\d+", layer.kv_cache or "")
    assert re.fullmatch(r"CUDA\d+", output.weights or "")
