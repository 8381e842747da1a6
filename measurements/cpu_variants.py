"""Measure each CPU variant of a llama.cpp build: prompt and generation, tokens per second.

    python -m measurements.cpu_variants LIBRARIES [--threads 2] [--rounds 2]

LIBRARIES is the ``bin`` folder of a llama.cpp build with ``GGML_BACKEND_DL=ON GGML_CPU_ALL_VARIANTS=ON``. The model is
written each time: random weights, 8 layers of 2048, Q4_0, 200 MB. Needs numpy, gguf and llama-cpp-python's sources in
``vendor/`` (``nox -s vendor``). A variant that this processor cannot run is reported as such.
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

from build_config.testbed import synthetic_model
from build_config.testbed.synthetic_model import ModelShape

if TYPE_CHECKING:
    import ctypes

MODEL = ModelShape(
    name="variants", layers=8, width=2048, feed_forward=5632, heads=16, kv_heads=4, context=1024, vocabulary=2048
)
PROMPT, GENERATED = 128, 16
CHECKOUT = Path(__file__).resolve().parents[1]


def measure(model: Path, threads: int) -> tuple[float, float]:
    """Tokens per second for prompt and generation, the best of three; runs in a child process with one variant."""
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
    """Measure one variant in its own process; ``None`` if this processor cannot run it."""
    with tempfile.TemporaryDirectory() as folder:
        package = shutil.copytree(CHECKOUT / "vendor" / "llama-cpp-python" / "llama_cpp", Path(folder) / "llama_cpp")
        lib = package / "lib"
        lib.mkdir()
        for name in ("libllama.so", "libggml.so", "libggml-base.so"):
            for file in libraries.glob(f"{name}*"):
                shutil.copy(file, lib / file.name, follow_symlinks=False)
        shutil.copy(module, lib)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((folder, str(CHECKOUT))), "LD_LIBRARY_PATH": str(lib)}
        call = [sys.executable, __file__, "--child", str(model), "--threads", str(threads)]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # this script
        return None if done.returncode else tuple(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print one line for each variant."""
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
        synthetic_model.write(model, MODEL, kind="Q4_0")
        sys.stdout.write("variant prompt generation (tokens per second)\n")
        for module in sorted(options.libraries.glob("libggml-cpu-*.so")):
            variant = module.stem.removeprefix("libggml-cpu-")
            results = [run_variant(module, options.libraries, model, options.threads) for _ in range(options.rounds)]
            best = [max(figures) for figures in zip(*filter(None, results), strict=True)]
            print(variant, *([f"{figure:.1f}" for figure in best] or ["not on this processor"]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
