import pytest

from check_gpu import placement
from check_gpu.placement import Buffer, LayerPlacement

CPU_LOG = """\
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors: layer   0 assigned to device CPU, is_swa = 0
load_tensors: layer   1 assigned to device CPU, is_swa = 0
load_tensors: layer   2 assigned to device CPU, is_swa = 0
create_tensor: loading tensor blk.0.attn_norm.weight
load_tensors:   CPU_Mapped model buffer size =     0.55 MiB
llama_context: n_ctx_seq (256) > n_ctx_train (128) -- possible training context overflow
llama_kv_cache: layer   0: dev = CPU
llama_kv_cache: layer   1: dev = CPU
llama_kv_cache:        CPU KV buffer size =     0.12 MiB
sched_reserve:        CPU compute buffer size =     0.42 MiB
""".splitlines()
"""From llama-cpp-python 0.3.36, shortened."""

CUDA_LOG = [
    *(line.replace("device CPU", "device CUDA0").replace("dev = CPU", "dev = CUDA0") for line in CPU_LOG),
    "load_tensors: offloading output layer to GPU",
    "load_tensors: offloading 1 repeating layers to GPU",
    "load_tensors: offloaded 3/3 layers to GPU",
]


def test_the_log_of_a_cpu_build() -> None:
    assert placement.parse(CPU_LOG) == placement.Placements(
        layers=(
            LayerPlacement(layer=0, weights="CPU", kv_cache="CPU"),
            LayerPlacement(layer=1, weights="CPU", kv_cache="CPU"),
            LayerPlacement(layer=2, weights="CPU", kv_cache=None),
        ),
        offloaded=None,
        buffers=(
            Buffer(name="CPU_Mapped", purpose="model", size=576717),
            Buffer(name="CPU", purpose="KV", size=125829),
            Buffer(name="CPU", purpose="compute", size=440402),
        ),
        caches=1,
        cache_buffers=1,
    )


@pytest.mark.parametrize("prefix", ["llm_load_tensors: ", "load_tensors(): ", "", "0.01.234 D "])
def test_the_log_of_a_cuda_build_whatever_the_name_before_the_colon(prefix: str) -> None:
    lines = [prefix + line.partition(": ")[2] for line in CUDA_LOG]
    found = placement.parse(lines)
    assert found == placement.parse(CUDA_LOG)
    assert [(layer.weights, layer.kv_cache) for layer in found.layers] == [("CUDA0", "CUDA0")] * 2 + [("CUDA0", None)]
    assert found.offloaded == (3, 3)
    less = placement.parse(line for line in lines if "layer   1: dev" not in line)
    assert [layer.kv_cache for layer in less.layers] == ["CUDA0", None, None]


def test_a_log_that_says_nothing_gives_nothing() -> None:
    assert placement.parse([]) == placement.Placements()
    assert placement.parse(["load_tensors: all is well on CUDA0", "repack: layer 7 of 12"]) == placement.Placements()


def test_layers_are_ordered_by_number_and_the_last_line_counts() -> None:
    lines = [
        "load_tensors: layer  10 assigned to device CUDA1, is_swa = 0",
        "load_tensors: layer   9 assigned to device CUDA0, is_swa = 0",
        "load_tensors: layer   9 assigned to device CPU, is_swa = 0",
    ]
    assert [(layer.layer, layer.weights) for layer in placement.parse(lines).layers] == [(9, "CPU"), (10, "CUDA1")]


def test_layers_without_a_cache_of_their_own_are_known() -> None:
    """As in models whose layers share a cache or have a recurrent state; the formats are llama-kv-cache.cpp's."""
    lines = [
        "llama_kv_cache: layer   0: dev = CUDA0",
        "llama_kv_cache: layer   1: does not have KV cache",
        "llama_kv_cache: layer   2: sharing with layer 0. k = 0x1, v = 0x2",
        "llama_kv_cache: layer   3: filtered",
        "llama_memory_recurrent: layer   0: skipped",
        "llama_memory_recurrent, layer   3: dev = CUDA0",
        "llama_kv_cache: - layer   4: reuse layer 0, is_swa = 0",
        "llama_kv_cache: - layer   0: no reuse",
    ]
    found = placement.parse(lines)
    assert [(layer.layer, layer.kv_cache) for layer in found.layers] == [(0, "CUDA0"), (3, "CUDA0")]
    assert found.without_cache == (1, 2, 4)


def test_a_warning_about_an_operation_is_no_placement_of_its_layer() -> None:
    line = (
        "resolve_fused_ops: layer 1 is assigned to device CUDA0 but Flash Attention "
        "is assigned to device CPU (usually due to missing support)"
    )
    assert placement.parse([line]) == placement.Placements()


@pytest.mark.parametrize(
    ("name", "on_card"), [("CUDA0", True), ("CUDA12", True), ("CUDA_Host", False), ("CPU_Mapped", False)]
)
def test_only_memory_of_a_cuda_device_is_on_the_gpu(name: str, on_card: bool) -> None:  # noqa: FBT001  # by name
    (buffer,) = placement.parse([f"load_tensors:  {name} model buffer size =  1.00 MiB"]).buffers
    assert buffer == Buffer(name=name, purpose="model", size=1 << 20)
    assert buffer.on_card is on_card
