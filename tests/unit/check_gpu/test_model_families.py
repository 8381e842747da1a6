"""The diagnosis of logs of real runs of each family of models."""

from __future__ import annotations

import pytest

from build_config.testbed.model_families import FAMILIES
from check_gpu import log
from check_gpu.diagnosis import diagnose
from check_gpu.facts import Facts, Load, Machine
from check_gpu.result import Code, Diagnosis
from tests.support import model_logs

pytestmark = pytest.mark.unit

GPU = "NVIDIA L4"
each_architecture = pytest.mark.parametrize("architecture", [family.architecture for family in FAMILIES])


def diagnosis(architecture: str, run: str, *changes: tuple[str, str]) -> Diagnosis:
    """The diagnosis of a log as if the simulated GPU had been a real one."""
    lines = []
    for line in model_logs.read(architecture, run):
        for old, new in (("SIMULATED device 8.9 (not a GPU)", GPU), *changes):
            line = line.replace(old, new)  # noqa: PLW2901  # one change after the other
        lines.append(line)
    load = Load(n_gpu_layers=None, model="a.log", stage="log", signs=log.read(lines))
    return diagnose(Facts(machine=Machine(system="linux"), load=load))


@each_architecture
def test_a_model_that_is_on_the_gpu_is_said_to_be_there(architecture: str) -> None:
    found = diagnosis(architecture, "gpu")
    kept = {"bert": "all layers", "mamba": "all layers and their recurrent state"}
    whole = kept.get(architecture, "all layers and their KV cache")
    assert found.code is Code.CARD_USED
    assert found.sentence == f"The GPU was used: {whole} were on CUDA0 ({GPU})."


@each_architecture
def test_a_simulated_gpu_is_none(architecture: str) -> None:
    assert diagnosis(architecture, "gpu", (GPU, "SIMULATED device 8.9")).code is Code.SIMULATED


@each_architecture
def test_layers_on_the_cpu_are_counted(architecture: str) -> None:
    found = diagnosis(architecture, "output")
    assert found.code is Code.LAYERS_LEFT_ON_CPU
    assert "2 of 3 layers are on the CPU (0-1)" in found.sentence


@pytest.mark.parametrize(
    ("architecture", "line", "where"),
    [
        ("llama", "layer   1: dev", "the KV cache of 1 layers (1) is on the CPU"),
        ("gemma2", "layer   0: dev", "the KV cache of 1 layers (0) is on the CPU"),
        ("gemma2", ": dev", "the KV cache of 2 layers (0-1) is on the CPU"),
        ("mamba", ": dev", "the recurrent state of 2 layers (0-1) is on the CPU"),
    ],
)
def test_what_a_layer_keeps_on_the_cpu_is_named(architecture: str, line: str, where: str) -> None:
    found = diagnosis(architecture, "gpu", (f"{line} = CUDA0", f"{line} = CPU"))
    assert found.code is Code.KV_CACHE_ON_CPU
    assert where in found.sentence


@each_architecture
def test_a_log_without_a_gpu_is_no_failure_of_anything_else(architecture: str) -> None:
    assert diagnosis(architecture, "cpu").code is Code.UNKNOWN, "it does not say why, and nothing in it is an error"
