"""Times each CPU variant of a llama.cpp build: prompt and generation, tokens per second.

    python docs/measurements/cpu_variants.py LIBRARIES [--threads 2] [--rounds 2]

LIBRARIES is the ``bin`` folder of a llama.cpp build with ``GGML_BACKEND_DL=ON GGML_CPU_ALL_VARIANTS=ON``. The model is
written anew: random weights, 8 layers of 2048, Q4_0, 200 MB. Needs numpy, gguf and llama-cpp-python's sources in
``vendor/`` (``nox -s vendor``). A variant that this processor cannot run is said to be so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

LAYERS, WIDTH, FEED_FORWARD, VOCABULARY, HEADS, KV_HEADS = 8, 2048, 5632, 2048, 16, 4
PROMPT, GENERATED = 128, 16
BYTE_TOKENS = 256
SPECIAL = (b"<unk>", b"<s>", b"</s>")


def write_model(path: Path) -> None:
    """Write a random Q4_0 llama model."""
    import gguf  # noqa: PLC0415  # the measured child process needs neither
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    ordinary = VOCABULARY - BYTE_TOKENS - len(SPECIAL)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(
        [*SPECIAL, *(b"<0x%02X>" % i for i in range(BYTE_TOKENS)), *(b"t%d" % i for i in range(ordinary))]
    )
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3] + [6] * BYTE_TOKENS + [1] * ordinary)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    kind = gguf.GGMLQuantizationType.Q4_0

    def matrix(name: str, rows: int, columns: int) -> None:
        values = (rng.standard_normal((rows, columns)) * 0.02).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, np.float32))

    matrix("token_embd.weight", VOCABULARY, WIDTH)
    norm("output_norm.weight")
    matrix("output.weight", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm.weight")
        norm(f"{block}.ffn_norm.weight")
        for name, rows in (("q", WIDTH), ("k", WIDTH * KV_HEADS // HEADS), ("v", WIDTH * KV_HEADS // HEADS)):
            matrix(f"{block}.attn_{name}.weight", rows, WIDTH)
        matrix(f"{block}.attn_output.weight", WIDTH, WIDTH)
        matrix(f"{block}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_up.weight", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_down.weight", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(model: Path, threads: int) -> tuple[float, float]:
    """Tokens per second for the prompt and for generation, the best of three; runs in a child with one variant."""
    import llama_cpp  # noqa: PLC0415
    from llama_cpp import _ggml  # noqa: PLC0415

    library: ctypes.CDLL = _ggml.libggml
    library.ggml_backend_load_all_from_path(str(Path(llama_cpp.__file__).parent / "lib").encode())
    llama = llama_cpp.Llama(
        str(model), n_ctx=512, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    prompt = generation = float("inf")
    for _ in range(3):
        llama.reset()
        start = time.perf_counter()
        llama.eval([1, *range(300, 300 + PROMPT - 1)])
        prompt = min(prompt, time.perf_counter() - start)
        start = time.perf_counter()
        for token in range(400, 400 + GENERATED):
            llama.eval([token])
        generation = min(generation, time.perf_counter() - start)
    return PROMPT / prompt, GENERATED / generation


def run_variant(module: Path, libraries: Path, model: Path, threads: int) -> tuple[float, float] | None:
    """Measure one variant in a process of its own; ``None`` where this processor cannot run it."""
    bindings = Path(__file__).resolve().parents[2] / "vendor" / "llama-cpp-python" / "llama_cpp"
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "llama_cpp"
        shutil.copytree(bindings, package)
        lib = package / "lib"
        lib.mkdir()
        for name in ("libllama.so", "libggml.so", "libggml-base.so"):
            for file in libraries.glob(f"{name}*"):
                shutil.copy(file, lib / file.name, follow_symlinks=False)
        shutil.copy(module, lib)
        environment = os.environ | {"PYTHONPATH": folder, "LD_LIBRARY_PATH": str(lib)}
        call = [sys.executable, __file__, "--child", str(model), "--threads", str(threads)]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # ourselves
        if done.returncode != 0:
            return None
        prompt, generation = json.loads(done.stdout.splitlines()[-1])
        return prompt, generation


def main() -> None:
    """Print one line a variant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("libraries", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    if options.child:
        sys.stdout.write(json.dumps(measure(options.child, options.threads)) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.gguf"
        write_model(model)
        sys.stdout.write("variant prompt generation (tokens per second)\n")
        for module in sorted(options.libraries.glob("libggml-cpu-*.so")):
            variant = module.stem.removeprefix("libggml-cpu-")
            results = [run_variant(module, options.libraries, model, options.threads) for _ in range(options.rounds)]
            ran = [result for result in results if result is not None]
            best = f"{max(r[0] for r in ran):.1f} {max(r[1] for r in ran):.1f}" if ran else "not on this processor"
            sys.stdout.write(f"{variant} {best}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
