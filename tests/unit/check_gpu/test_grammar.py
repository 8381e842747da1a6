"""The grammar of the lines: every kind is in some input, is found by its words, and says which versions print it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from check_gpu import gpu_error_lines, grammar, log
from tests.support import model_logs
from tests.support.diagnosis_cases import CASES

if TYPE_CHECKING:
    from check_gpu.lines import Line

pytestmark = pytest.mark.unit

INPUTS = [
    *(line for case in CASES for line in case.log.splitlines()),
    *(line for family in ("llama", "gemma2", "mamba", "bert") for line in model_logs.read(family, "split")),
    *model_logs.read("bert", "gpu"),
    "ggml_metal_init: error: failed to initialize the Metal library",
    "llama_kv_cache: layer   3: does not have KV cache",
    "llama_kv_cache_iswa: layer   4: reuse layer 0, is_swa = 0",
    "llama_model_loader: tensor overrides to CPU are used with mmap enabled - consider using --load-mode none",
    "print_info: arch                  = nomic-bert",
    "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "llama-cpp-python computes on the CPU although this machine has an NVIDIA GPU. The driver is old.",
    "vk::Queue::submit: ErrorDeviceLost",
    "  what():  std::bad_alloc",
    "zsh: killed     python -m llama_cpp.server",
    "error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "hipErrorNoBinaryForGpu: Unable to find code object for all current devices!",
    'level=INFO source=gpu.go:386 msg="no compatible GPUs were discovered"',
    "GGML_ASSERT(ggml_can_mul_mat(a, b)) failed",
    "systemd[1]: llama.service: A process of this unit has been killed by the OOM killer. oom-kill:constraint=NONE",
]


@pytest.mark.parametrize("line", grammar.LINES, ids=[f"{line.kind}, {line.versions}" for line in grammar.LINES])
def test_every_kind_of_line_is_in_an_input_and_has_one_of_its_words(line: Line) -> None:
    found = [text for text in INPUTS if line.pattern.search(text)]
    assert found
    assert all(any(word in text for word in line.words) for text in found), found
    assert re.search(r"\d|[A-Z]", line.versions), "the versions, or the program, that print it"


def test_no_word_is_in_most_lines() -> None:
    """A line with a word costs a hundred times as much as one without."""
    assert min(len(word.strip()) for word in grammar.WORDS) > 2


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("CUDA error: out of memory", "out_of_memory"),
        ("ROCm error: out of memory", "out_of_memory"),
        ("CUDA error 2 at ggml-cuda.cu:1: out of memory", "out_of_memory"),
        ("cuBLAS error 3 at ggml-cuda.cu:1", "out_of_memory"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", "out_of_memory"),
        ("cuBLAS error 2 at ggml-cuda.cu:1", "gpu_error"),  # a number of cuBLAS, not of CUDA
        ("CUDA error 100 at ggml-cuda.cu:1", "no_device"),
        ("CUDA error 222 at ggml-cuda.cu:1", "ptx_too_new"),
        ("CUDA error 804 at ggml-cuda.cu:1", "forward_compatibility"),
        ("CUDA error 719 at ggml-cuda.cu:1: unspecified launch failure", "gpu_error"),
        ("CUDA error: unspecified launch failure", "gpu_error"),
    ],
)
def test_what_an_error_of_the_gpu_means(said: str, meaning: str) -> None:
    found = [match for kind, match in grammar.match(said) if kind == "gpu_error"]
    assert gpu_error_lines.meaning(found[0], said) == meaning


@pytest.mark.parametrize(
    "line",
    [
        "The user asked: was the GPU used, and how many layers?",
        "ggml_cuda_host_malloc: failed to allocate 2048.00 MiB of pinned memory: out of memory",  # the host's
        "ggml-cuda.cu:96: CUDA error",  # the end of an error whose cause is in the line before it
        "slot update_slots: id 0 | task 132 | new prompt, n_ctx_slot = 4096",
        "llama_kv_cache_unified: size = 512.00 MiB (4096 cells, 32 layers, 1/1 seqs), K (f16): 256.00 MiB",
        "resolve_fused_ops: layer 1 is assigned to device CUDA0 but Flash Attention is assigned to device CPU",
        "load: control-looking token: 128247 was not control-type; its type will be overridden",
        "llama_model_loader: - kv 0: general.architecture str = llama",
        "llama_adapter_lora_init_impl: CUDA0 LoRA buffer size = 13.00 MiB",
    ],
)
def test_lines_that_say_nothing(line: str) -> None:
    assert log.read([line]) == log.Signs()
