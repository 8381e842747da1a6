"""The lines of llama.cpp that say where the layers, the cache and the memory of a model are."""

from __future__ import annotations

from check_gpu.lines import ALL, CUDA_2023, line

LINES = (
    line("model", "0.1.65 to 0.1.78", "loading model from", r"llama\.cpp: loading model from (?P<path>.+)"),
    line(
        "model",
        "0.2.11 to 0.3.36",
        "loaded meta data",
        r"(?<!clip_model_load: )(?<!clip_init: )loaded meta data .*?from (?P<path>.+?)(?: \(version .*)?$",
    ),
    line("vocabulary", "0.2.11 to 0.3.36", "vocab only", r"vocab only - skipping tensors"),
    # Before 0.3.16 without is_swa; debug, so llama.cpp's own programs print it only with -v.
    line(
        "weights",
        "0.3.8 to 0.3.36",
        "assigned to device",
        r"\blayer\s+(?P<layer>\d{1,6})\s+assigned to device\s+(?P<device>[^\s,]+)",
    ),
    line("cache", "0.3.9 to 0.3.36", "dev =", r"\blayer\s+(?P<layer>\d{1,6}):\s+dev\s*=\s*(?P<device>[^\s,]+)"),
    line(
        "no_cache",
        "0.3.10 to 0.3.36",
        "does not have KV|sharing with|reuse layer",
        r"\blayer\s+(?P<layer>\d{1,6}):\s+(?:does not have KV cache|sharing with layer|reuse layer)\b",
    ),
    line("filtered", "0.3.10 to 0.3.36", "filtered|skipped", r"\blayer\s+(?P<layer>\d{1,6}):\s+(?:filtered|skipped)\b"),
    line(
        "offloaded",
        ALL,
        "layers to GPU",
        r"\boffloaded\s+(?P<on_gpu>\d{1,6})/(?P<total>\d{1,6})\s+layers to GPU\b",
    ),
    line(
        "repeating", "0.1.64 to 0.3.36", "repeating layers", r"\boffloading (?P<count>\d{1,6}) repeating layers to GPU"
    ),
    # From 0.2.27 on with the name of the memory; "model" was added before 0.3.2, "input" was left out before 0.2.75.
    line(
        "buffer",
        "0.2.56 to 0.3.36",
        "buffer size",
        r"(?<!\S)(?P<name>\S+)\s+(?P<purpose>model|KV|compute|output|RS) buffer size"
        r"\s*=\s*(?P<size>\d{1,12}(?:\.\d+)?) MiB",
    ),
    line(
        "buffer",
        "0.2.56 to 0.2.90",
        "buffer size",
        r":\s+(?P<name>\S+)\s+buffer size\s*=\s*(?P<size>\d{1,12}(?:\.\d+)?) MiB",
    ),
    line(
        "state",
        "0.3.36, of DeepSeek V4",
        "state buffer size",
        r"(?<!\S)(?P<name>\S+)\s+DSV4 \w+ state buffer size\s*=\s*(?P<size>\d{1,12}(?:\.\d+)?) MiB",
    ),
    # Of the process's own memory: everything that is not in VRAM.
    line("host_memory", CUDA_2023, "mem required", r"mem required\s*=\s*(?P<size>\d{1,12}(?:\.\d+)?) Mi?B"),
    line("gpu_memory", "0.2.11 to 0.2.24", "VRAM used", r": VRAM used: (?P<size>\d{1,12}(?:\.\d+)?) Mi?B"),
    line("gpu_memory", "0.1.50 to 0.1.78", "VRAM used", r"\btotal VRAM used: (?P<size>\d{1,12}) MB"),
    line("gpu_cache", "0.2.11 to 0.2.24", "VRAM kv self", r"VRAM kv self = (?P<size>\d{1,12}(?:\.\d+)?) Mi?B"),
    line("cache_2023", "0.1.64 to 0.2.11", "cache to GPU", r"\boffloading (?P<half>[kv]) cache to GPU"),
    line("host_cache_2023", "0.1.64 to 0.1.78", "cache to GPU", r"cannot offload (?P<half>[kv]) cache to GPU"),
    # The first builds with cuBLAS printed no total number of layers, and their cache was always on the CPU.
    line(
        "first_layers",
        "0.1.50 to 0.1.62",  # with [cublas] until 0.1.57
        "layers to GPU",
        r"(?:\[cublas\]|:) offloading (?P<count>\d{1,6}) layers to GPU",
    ),
    line("first_output", "0.1.50 to 0.1.62", "output layer to GPU", r"offloading output layer to GPU"),
    line(
        "overridden",
        "0.3.9 to 0.3.36",  # overriden, without the size, in 0.3.9 only
        "buffer type over",
        r"tensor (?P<tensor>\S+) (?:\((?P<size>\d{1,12}) MiB \S+\) )?buffer type overr?id+en to (?P<name>\S+)",
    ),
    line("overrides", "0.3.36", "tensor overrides to CPU", r"tensor overrides to CPU are used"),
    line(
        "moved",
        "0.3.2 to 0.3.36",
        "preferred buffer type",
        r"\(and (?P<others>\d{1,6}) others\) cannot be used with preferred buffer type (?P<wanted>\S+), "
        r"using (?P<name>\S+) instead",
    ),
    # An encoder has no cache. The first is printed when it computes, the others when it is loaded.
    line(
        "encoder",
        "0.3.16 to 0.3.36",
        "calling encode() instead",
        r"cannot decode batches with this context \(calling encode\(\) instead",
    ),
    line(
        "encoder",
        "0.3.16 to 0.3.36",
        "arch",
        r"(?:\barch|general\.architecture str)\s*=\s*(?:(?:\w+-)*bert(?:-\w+)*|t5encoder)\s*$",
    ),
    # The part of a model for images and sound; it is no layer, and its file no model of its own.
    line("image_encoder", "0.2.56 to 0.3.36", "CLIP using", r"\bCLIP using (?P<device>\w+) backend"),
)
