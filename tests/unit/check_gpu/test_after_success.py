"""A log that shows a used GPU, and then how it failed, or before it that there is none: no all-clear."""

from __future__ import annotations

import pytest

from check_gpu.result import Code
from tests.support import logs

pytestmark = pytest.mark.unit

PLAN = "load_tensors: offloaded 33/33 layers to GPU"
USED = f"""load_tensors: using device CUDA0 (NVIDIA GeForce RTX 3090) - 23000 MiB free
llama_model_loader: loaded meta data with 33 key-value pairs and 292 tensors from /m/a.gguf (version GGUF V3 (latest))
{PLAN}
load_tensors:        CUDA0 model buffer size =  4403.49 MiB
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB
llama_context:      CUDA0 compute buffer size =   560.00 MiB"""


def judge(text: str) -> Code:
    return logs.judge(text).code


def test_the_log_alone_shows_a_used_gpu() -> None:
    assert judge(USED) is judge(PLAN) is Code.CARD_USED


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("terminate called after throwing an instance of 'vk::DeviceLostError'", "crashed"),
        ("  what():  vk::Queue::submit: ErrorDeviceLost", "crashed"),
        ("Memory access fault by GPU node-1 (Agent handle: 0x55) on address 0x7f. Reason: Unknown.", "crashed"),
        (":0:rocdevice.cpp:2984: Queue 0x7f aborting with error : HSA_STATUS_ERROR_EXCEPTION: code: 0x1016", "crashed"),
        ("kernel: amdgpu 0000:03:00.0: amdgpu: GPU reset begin!", "crashed"),
        ("zsh: killed     python -m llama_cpp.server", "crashed"),
        ("./run.sh: line 3: 12345 Killed                  python server.py", "crashed"),
        ("zsh: abort      ./llama-server", "crashed"),
        ("  what():  std::bad_alloc", "crashed"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=1. Some tasks have been OOM Killed.", "crashed"),
        ("systemd[1]: llama.service: Main process exited, code=dumped, status=11/SEGV", "crashed"),
        ("systemd[1]: llama.service: Main process exited, code=dumped, status=6/ABRT", "crashed"),
        ("systemd[1]: llama.service: Failed with result 'oom-kill'.", "crashed"),
        ("Error: llama runner process has terminated: CUDA error", "crashed"),
        ("/x/ggml-cuda.cu:88: fatal error", "crashed"),
        ("process_ubatch: failed to compute graph, compute status: -1", "crashed"),
        ("error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", "out-of-memory"),
        ("hipErrorNoBinaryForGpu: Unable to find code object for all current devices!", "card-not-covered"),
        ("kernel: NVRM: GPU at PCI:0000:01:00: GPU-123 has fallen off the bus.", "driver-broken"),
        ("Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.", "driver-broken"),
        ("warning: no usable GPU found, --gpu-layers option will be ignored", "unknown"),
    ],
)
def test_a_failure_after_success(line: str, expected: str) -> None:
    assert judge(f"{USED}\n{line}") is Code(expected)


@pytest.mark.parametrize(
    "line",
    [
        "warning: no usable GPU found, --gpu-layers option will be ignored",
        'level=INFO source=gpu.go:386 msg="no compatible GPUs were discovered"',
        'level=INFO msg="inference compute" id=0 library=cpu variant=avx2 compute="" total="31 GiB"',
        "system_info: n_threads = 8 | CPU : SSE3 = 1 | AVX = 1 | LLAMAFILE = 1 |",
        'level=INFO source=device.go:256 msg="kv cache" device=CPU size="56.0 MiB"',
        "llama_init_from_model: failed to initialize Metal backend",
        "ggml_metal_init: error: failed to initialize the Metal library",
        "load_backend: failed to find ggml_backend_init in /app/libggml-cuda.so",
        "ggml_opencl: selecting device: 'pthread-Intel(R) Xeon(R) CPU' (OpenCL 3.0 PoCL HSTR)",
    ],
)
def test_a_plan_is_not_believed_without_a_gpu(line: str) -> None:
    assert judge(f"{line}\n{PLAN}") is not Code.CARD_USED
    assert judge(f"{PLAN}\n{line}") is not Code.CARD_USED
