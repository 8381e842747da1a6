from __future__ import annotations

import re

import pytest

from build_config import archs
from build_config.system import machine
from tests.gpu.conftest import unless_missing

pytestmark = pytest.mark.gpu


@pytest.fixture(name="state")
def _state(request: pytest.FixtureRequest) -> machine.NvidiaState:
    state = machine.nvidia()
    reason = f"this machine has no NVIDIA GPU ({state.problem or 'no driver'})"
    unless_missing(request, None if state.gpus else reason)
    return state


def test_the_driver_reports_its_version_and_the_newest_cuda(state: machine.NvidiaState) -> None:
    assert state.driver is not None
    assert re.fullmatch(r"[0-9]{3,}(\.[0-9]+)+", state.driver.version)
    assert re.fullmatch(r"1[0-9]\.[0-9]", state.driver.cuda)


def test_native_gives_code_that_runs_on_every_gpu(state: machine.NvidiaState) -> None:
    (shard,) = archs.resolve("native", cuda_release="13.0", gpus=state.gpus).shards
    for gpu in state.gpus:
        assert archs.covers(shard.archs, gpu.capability) == "cubin"
        assert gpu.name
