"""Load the tiny model with the installed wheel inside the clean environment, and write what happened.

    python -I probe.py MODEL RESULT.json N_GPU_LAYERS

Standard library and ``llama_cpp`` only, nothing of the pipeline. The result goes to a file because native code prints
to any stream. A crash leaves no file; the caller reports it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import platform
import sys
import traceback
from pathlib import Path
from typing import Any

PROMPT = b"the card runs"
TOKENS = 8


def main(model: str, result_file: str, gpu_layers: str) -> int:
    """Write the result, whatever happened. The status is 0 if the model generated ``TOKENS`` tokens."""
    result: dict[str, Any] = {"versions": {"python": platform.python_version()}}
    messages: list[str] = []
    try:
        _use_wheel(model, int(gpu_layers), result, messages)
    except Exception:  # noqa: BLE001  # the error is the result
        result["error"] = traceback.format_exc()
    result["log"] = "".join(messages).splitlines()
    result["loaded_files"] = _loaded_files()
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")
    return 1 if "error" in result else 0


def _use_wheel(model: str, gpu_layers: int, result: dict[str, Any], messages: list[str]) -> None:
    import llama_cpp  # noqa: PLC0415  # a failing import is a result, too

    result["package"] = str(Path(llama_cpp.__file__).resolve().parent)
    result["versions"]["llama_cpp"] = llama_cpp.__version__
    if hasattr(llama_cpp, "cuda_status"):
        result["cuda_status"] = dataclasses.asdict(llama_cpp.cuda_status())
    result["missing_shards"] = _missing_shards(Path(result["package"]))

    # Upstream's callback drops lines: its table of log levels is that of an older ggml. This one keeps everything.
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
    def collect(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        messages.append(text.decode(errors="replace"))
        sys.stderr.write(messages[-1])  # a message in memory is lost when native code ends the process
        sys.stderr.flush()

    llama_cpp.llama_log_set(collect, ctypes.c_void_p(0))
    llm = llama_cpp.Llama(model, n_gpu_layers=gpu_layers, n_ctx=256, seed=0, verbose=True)
    with contextlib.closing(llm):  # while the callback still exists
        tokens: list[int] = []
        for token in llm.generate(llm.tokenize(PROMPT), temp=0.0):  # does not stop at the end-of-text token
            tokens.append(token)
            if len(tokens) == TOKENS:
                break
        result["tokens"] = len(tokens)
        result["text"] = llm.detokenize(tokens).decode(errors="replace")


def _missing_shards(package: Path) -> list[str]:
    """The files of CUDA shards that the wheel declares but does not contain."""
    facts = package / "_cuda_build.json"
    if not facts.exists():
        return []
    names = [shard["file"] for shard in json.loads(facts.read_text(encoding="utf-8"))["shards"]]
    return [name for name in names if not (package / "lib" / name).is_file()]


def _loaded_files() -> list[str]:
    """The shared libraries of this process, by their real paths; empty if the system does not list them."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    lines = maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return sorted({path[0] for line in lines if (path := line.split(maxsplit=5)[5:]) and ".so" in path[0]})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
