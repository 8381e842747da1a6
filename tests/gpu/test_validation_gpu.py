"""The newest wheel of the wheelhouse on the GPU of this machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from build_config.reports import Verdict
from build_config.system.console import Console
from build_config.tasks import validate

if TYPE_CHECKING:
    from build_config.system.layout import Layout

pytestmark = pytest.mark.gpu


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
