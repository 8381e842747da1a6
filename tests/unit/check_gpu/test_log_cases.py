"""Logs of every kind of fault: what the answer is, and that no log is taken for that of a used GPU."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from check_gpu.facts import Machine
from check_gpu.result import Code
from tests.support import diagnosis_cases, model_logs
from tests.support.diagnosis_cases import CASES, Case
from tests.support.logs import judge

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {case.name}" for case in CASES])
def test_the_diagnosis_of_a_log(case: Case) -> None:
    found = judge(case.log)
    assert found.code is Code(case.expected), found
    assert all(part in found.sentence for part in case.says), found
    assert case.fix in (found.command or ""), found
    assert (found.command is None) is (case.fix == ""), found


def test_every_kind_has_at_least_five_inputs_of_its_own() -> None:
    own = Counter(case.kind for case in CASES if not case.given)
    assert all(own[kind] >= 5 for kind in diagnosis_cases.KINDS), own


@pytest.mark.parametrize(
    "machine",
    [
        Machine(system="linux", distribution="ubuntu", container="/.dockerenv"),
        Machine(system="linux", wsl=True, wsl_driver=True),
        Machine(system="win32", variables={"CUDA_VISIBLE_DEVICES": ""}),
        Machine(system="darwin", card_on_bus=False),
    ],
    ids=lambda machine: machine.system,
)
def test_the_machine_that_reads_a_log_changes_nothing(machine: Machine) -> None:
    for case in CASES:
        assert judge(case.log, machine) == judge(case.log)


# ---------------------------------------------------------------------------------------------------- false all-clears

# Of B, D and J, those of a right use have lines after which an error does not count, or words of people.
HEALTHY = {case.name: case.log for case in CASES if case.expected == "card-used" and case.kind not in "BDJ"} | {
    f"{family}, all lines": "\n".join(model_logs.read(family, "gpu")).replace("SIMULATED device 8.9", "NVIDIA L4")
    for family in ("llama", "gemma2", "mamba", "bert", "qwen2moe")
}
EVIDENCE = re.compile(
    r"offloaded \d+/\d+|layer +\d+ assigned|layer +\d+: dev|(?:CUDA|Vulkan)\d (?:model |KV |RS )?buffer size"
    r"|: VRAM used|total VRAM used: \d+ MB$|VRAM kv|cache to GPU|calling encode"
)
"""The lines that show weights or a cache on a GPU, or that there is no cache."""
GPU = re.compile(r"\b(?:CUDA|Vulkan|ROCm)\d\b")


def last_load(text: str) -> int:
    """The number of the first line of the last load."""
    starts = [number for number, line in enumerate(text.splitlines()) if "r: loaded meta data" in line]
    usable = [number for number in starts if "vocab" not in "".join(text.splitlines()[number : number + 2])]
    return usable[-1] if usable else 0


def turned(line: str) -> list[str]:
    """A line that says the opposite."""
    ways = [GPU.sub(other, line) for other in ("CPU", "CUDA_Host") if GPU.search(line)]
    if match := re.search(r"offloaded (\d+)/(\d+)", line):
        ways += [line.replace(match[0], f"offloaded {number}/{match[2]}") for number in (0, 1, int(match[2]) - 1)]
    if "cache to GPU" in line:
        ways.append(line.replace("offloading", "cannot offload"))
    if match := re.search(r"offloading (\d+) repeating", line):
        ways += [line.replace(match[0], "offloading 0 repeating")] if int(match[1]) > 1 else []
    ways += [line.replace("BLAS = 1", "BLAS = 0"), re.sub(r"(: VRAM used: |VRAM kv self = )[\d.]+", r"\g<1>0.00", line)]
    ways += [re.sub(r"(total VRAM used: )\d+( MB$)", r"\g<1>0\2", line)]
    ways += [re.sub(r"(\w+\d (?:model |KV |RS |compute )?buffer size *= *)[\d.]+", r"\g<1>0.00", line)]
    return [way for way in dict.fromkeys(ways) if way != line]


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY)
def test_a_log_without_one_line_of_its_evidence_is_no_all_clear(text: str) -> None:
    assert judge(text).code is Code.CARD_USED
    lines = text.splitlines()
    evidence = [number for number in range(last_load(text), len(lines)) if EVIDENCE.search(lines[number])]
    assert evidence
    for number in evidence:
        found = judge("\n".join([*lines[:number], *lines[number + 1 :]]))
        assert found.code is not Code.CARD_USED, f"without {lines[number]!r}: {found}"


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY)
def test_no_log_with_a_line_that_says_otherwise_is_an_all_clear(text: str) -> None:
    lines = text.splitlines()
    tried = 0
    for number in range(last_load(text), len(lines)):
        for line in turned(lines[number]):
            found = judge("\n".join([*lines[:number], line, *lines[number + 1 :]]))
            if not re.search(r"using device|\bDevice \d|_Host", lines[number]):
                tried += 1
                assert found.code is not Code.CARD_USED, f"{line!r}: {found}"
    assert tried


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY)
@pytest.mark.parametrize(
    "quote",
    [
        'My log says "{}", but the GPU is idle.',
        "> {}",
        "User: {}",
        'request: {{"messages":[{{"role":"user","content":"{}"}}]}}',
        "<p>{}</p>",
        "I see {} in my log",
    ],
)
def test_a_line_that_is_only_quoted_is_no_evidence(text: str, quote: str) -> None:
    lines = text.splitlines()
    for number in range(last_load(text), len(lines)):
        if EVIDENCE.search(lines[number]):
            found = judge("\n".join([*lines[:number], quote.format(lines[number]), *lines[number + 1 :]]))
            assert found.code is not Code.CARD_USED, f"{quote.format(lines[number])!r}: {found}"


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY)
@pytest.mark.parametrize(
    "line",
    [
        "CUDA error: unspecified launch failure",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB on device 0: cudaMalloc failed: out of memory",
        "CUDA error 719 at ggml-cuda.cu:7546: unspecified launch failure",
        "Segmentation fault (core dumped)",
        "Illegal instruction (core dumped)",
        "ValueError: Failed to create llama_context",
        "llama-1 exited with code 139",
        "kernel: NVRM: Xid (PCI:0000:01:00): 79, pid=2112, GPU has fallen off the bus.",
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "ggml_cuda_init: failed to initialize CUDA: unknown error",
        "ggml_init_cublas: no CUDA devices found, CUDA will be disabled",
        "llama_kv_cache:        CPU KV buffer size =   512.00 MiB",
        "tensor blk.0.ffn_up_exps.weight (144 MiB q4_K) buffer type overridden to CPU",
        "amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=12, emitted seq=14",
        "PM2 | App [llama:0] exited with code [134] via signal [SIGABRT]",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.",
        "RuntimeError: llama_decode returned -1",
        "llama_decode: failed to decode, ret = -1",
        "clip_ctx: CLIP using CPU backend",
        "llama_kv_cache_dsv4:        CPU DSV4 csa state buffer size =   112.00 MiB",
        "llama-1 exited with code 137",
    ],
)
def test_no_log_that_ends_with_an_error_is_an_all_clear(text: str, line: str) -> None:
    assert judge(f"{text}\n{line}").code is not Code.CARD_USED
