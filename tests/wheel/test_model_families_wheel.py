"""check_gpu with the newest wheel and a model of each family, on a simulated GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config.testbed import synthetic_model
from build_config.testbed.model_families import FAMILIES
from check_gpu import collect
from check_gpu.diagnosis import diagnose
from check_gpu.result import Code

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.testbed.model_families import ModelFamily
    from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine

pytestmark = pytest.mark.wheel


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.architecture)
def test_check_gpu_uses_a_model_of_every_family(
    family: ModelFamily,
    python: Path,
    doubles: SimulatedLibraries,
    machine: SimulatedMachine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = synthetic_model.write(tmp_path / "model.gguf", family=family)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in doubles.environment(machine).items():
        monkeypatch.setenv(name, value)
    facts = collect.collect(collect.Request(python=str(python), model=model), synthetic_model.write)
    assert facts.load is not None
    assert (facts.load.stage, facts.load.error, facts.load.ended) == ("done", None, None)
    assert (facts.load.tokens > 0, facts.load.embedding) == ((False, 64) if family.embeds else (True, 0))
    assert {layer.kv_cache for layer in facts.load.signs.placements.layers[:-1]} == {"CUDA0" if family.cache else None}
    assert diagnose(facts).code is Code.SIMULATED
