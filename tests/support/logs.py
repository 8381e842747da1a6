"""What llama.cpp logs about the places of a model's layers."""

from collections.abc import Sequence


def placed(*devices: str, cache: Sequence[str] = (), offloaded: tuple[int, int] | None = None) -> list[str]:
    """The lines of layers on these devices, the output last; their KV cache is there, too, or on those of ``cache``."""
    lines = [f"load_tensors: layer {n:3} assigned to device {device}, is_swa = 0" for n, device in enumerate(devices)]
    lines += [f"llama_kv_cache: layer {n:3}: dev = {device}" for n, device in enumerate(cache or devices[:-1])]
    if offloaded:
        lines.append(f"load_tensors: offloaded {offloaded[0]}/{offloaded[1]} layers to GPU")
    return lines
