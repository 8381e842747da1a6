"""Logs of real runs of each family: accepted as they are, and refused when a placement in them is another one."""

from __future__ import annotations

import dataclasses
import re

import pytest

from build_config.steps.validation.judge import LAYERS, Expected, ProbeResult, judge
from build_config.testbed.model_families import BERT, FAMILIES, GEMMA2, LLAMA, MAMBA, ModelFamily
from check_gpu import placement
from tests.support import model_logs

pytestmark = pytest.mark.unit

FAMILIES_AND_RUNS = [(family, run) for family in FAMILIES for run in model_logs.ON_GPU]
each_log = pytest.mark.parametrize(
    ("family", "run"), FAMILIES_AND_RUNS, ids=[f"{family.architecture}-{run}" for family, run in FAMILIES_AND_RUNS]
)
PLACED = re.compile(r"assigned to device|: dev = ")
PACKAGE = "/venv/site-packages/llama_cpp"


def expected(family: ModelFamily, run: str) -> Expected:
    return Expected(cuda=run != "cpu", on_gpu=model_logs.ON_GPU[run], family=family)


def result(family: ModelFamily, run: str, *log: str) -> ProbeResult:
    loaded = {"loaded": True, "shard": "sm89", "devices": [{"name": "NVIDIA L4"}]}
    return ProbeResult(
        log=log or model_logs.read(family.architecture, run),
        tokens=0 if family.embeds else 8,
        values=64 if family.embeds else 0,
        cuda_status={"cpu_variant": "zen4", **({"loaded": False, "reason": "none"} if run == "cpu" else loaded)},
        package=PACKAGE,
        loaded_files=(f"{PACKAGE}/lib/libllama.so",),
    )


def codes(family: ModelFamily, run: str, log: list[str]) -> set[str]:
    return {finding.code for finding in judge(result(family, run, *log), expected(family, run))}


def swapped(line: str) -> str:
    """The line with the other device."""
    return line.replace("CUDA0", "CPU") if "CUDA0" in line else line.replace("CPU", "CUDA0")


@each_log
def test_a_log_as_it_is_has_no_findings(family: ModelFamily, run: str) -> None:
    assert judge(result(family, run), expected(family, run)) == ()


@each_log
def test_each_line_that_places_something_counts(family: ModelFamily, run: str) -> None:
    log = model_logs.read(family.architecture, run)
    numbers = [number for number, line in enumerate(log) if PLACED.search(line)]
    assert len(numbers) == LAYERS + (LAYERS - 1 if family.cache else 0)
    for number in numbers:
        other = [*log[:number], swapped(log[number]), *log[number + 1 :]]
        assert codes(family, run, other) & {"not-on-card", "not-on-cpu"}, log[number]
        assert "placement-missing" in codes(family, run, [*log[:number], *log[number + 1 :]]), log[number]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.architecture)
def test_memory_that_does_not_fit_the_placement_is_found(family: ModelFamily) -> None:
    log = model_logs.read(family.architecture, "gpu")
    buffers = [number for number, line in enumerate(log) if re.search(r"CUDA0 (model|KV|RS) buffer", line)]
    assert len(buffers) == {GEMMA2: 3, BERT: 1}.get(family, 2)
    for number in buffers:
        pinned = log[number].replace("CUDA0", "CUDA_Host")
        found = codes(family, "gpu", [*log[:number], pinned, *log[number + 1 :]])
        assert found & {"weights-not-on-card", "cache-not-on-card"}, log[number]
    more = [re.sub(r"(CPU_Mapped model buffer size = +)0\.\d+", r"\g<1>0.30", line) for line in log]
    assert codes(family, "gpu", more) == {"weights-not-on-card"}
    on_cpu = [line.replace("CPU_Mapped model", "CUDA0 model") for line in model_logs.read(family.architecture, "cpu")]
    assert "memory-on-card" in codes(family, "cpu", on_cpu)


@pytest.mark.parametrize("family", [LLAMA, GEMMA2, MAMBA], ids=lambda family: family.architecture)
def test_a_family_with_a_cache_must_have_one(family: ModelFamily) -> None:
    log = model_logs.read(family.architecture, "gpu")
    without = [line for line in log if not re.search("KV buffer|RS buffer|: dev = ", line)]
    assert codes(family, "gpu", without) == {"placement-missing", "buffers-missing"}


def test_a_recurrent_state_is_not_a_kv_cache() -> None:
    log = model_logs.read("mamba", "gpu")
    assert codes(LLAMA, "gpu", [*log]) == codes(MAMBA, "gpu", [*model_logs.read("llama", "gpu")]) == {"buffers-missing"}


def test_a_cache_of_a_family_without_one_must_be_at_its_place_too() -> None:
    log = [*model_logs.read("bert", "gpu"), "llama_kv_cache: layer   0: dev = CPU"]
    assert codes(BERT, "gpu", log) == {"not-on-card"}


def test_the_second_cache_of_a_sliding_window_is_seen() -> None:
    found = placement.parse(model_logs.read("gemma2", "gpu"))
    assert [layer.kv_cache for layer in found.layers] == ["CUDA0", "CUDA0", None]
    assert found.without_cache == (), "each layer is left out of one cache and is in the other"
    assert (found.caches, found.cache_buffers) == (2, 2)


@pytest.mark.parametrize(("values", "code"), [(0, "embedding-wrong"), (63, "embedding-wrong")])
def test_an_embedding_must_have_every_value(values: int, code: str) -> None:
    short = dataclasses.replace(result(BERT, "gpu"), values=values)
    assert [finding.code for finding in judge(short, expected(BERT, "gpu"))] == [code]


def test_tokens_are_no_embedding() -> None:
    generated = dataclasses.replace(result(BERT, "gpu"), values=0, tokens=8)
    assert [finding.code for finding in judge(generated, expected(BERT, "gpu"))] == ["embedding-wrong"]
    embedded = dataclasses.replace(result(LLAMA, "gpu"), values=64, tokens=0)
    assert [finding.code for finding in judge(embedded, expected(LLAMA, "gpu"))] == ["tokens-missing"]
