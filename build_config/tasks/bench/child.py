"""Answer one prompt and measure the times, in an environment with llama-cpp-python and nothing of this package.

    python -I child.py REQUEST.json RESULT.json

Standard library and ``llama_cpp`` only. One process is one measurement. The result goes to a file because native code
prints to any stream; a crash leaves no file. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import json
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

TEXT = b"The card runs the layers, the sea is blue, the cat and the dog sleep under a red tree. "
WARM_TOKENS = 4


def main(request_file: str, result_file: str) -> None:
    """Write the result, whatever happened."""
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    result: dict[str, Any] = {}
    messages: list[str] = []
    try:
        _measure(request, result, messages)
    except Exception as error:  # noqa: BLE001  # the error is the result
        traceback.print_exc()  # to the log only: it contains paths of this machine
        result["error"] = "".join(traceback.format_exception_only(type(error), error))
    result["log"] = "".join(messages).splitlines()
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def _measure(request: dict[str, Any], result: dict[str, Any], messages: list[str]) -> None:
    import llama_cpp  # noqa: PLC0415  # a failing import is a result, too

    result["version"] = llama_cpp.__version__
    if hasattr(llama_cpp, "cuda_status"):
        result["cuda_status"] = dataclasses.asdict(llama_cpp.cuda_status())

    # Upstream's callback drops lines: its table of log levels is that of an older ggml. This one keeps everything.
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
    def collect(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        messages.append(text.decode(errors="replace"))

    llama_cpp.llama_log_set(collect, ctypes.c_void_p(0))
    start = time.perf_counter()
    llm = llama_cpp.Llama(
        request["model"],
        n_gpu_layers=request["gpu_layers"],
        n_ctx=request["prompt_tokens"] + request["tokens"] + 1,
        n_threads=request["threads"],
        n_threads_batch=request["threads"],
        seed=0,
        verbose=True,
    )
    result["load"] = time.perf_counter() - start
    with contextlib.closing(llm):  # while the callback still exists
        prompt = _prompt(llm.tokenize(TEXT), request["prompt_tokens"])
        # The first answer of a process also includes loading kernels and libraries on their first use.
        _answer(llm, prompt, min(WARM_TOKENS, request["tokens"]))
        llm.reset()
        busy = time.process_time()
        times = _answer(llm, prompt, request["tokens"])
        result["busy"] = time.process_time() - busy
    result["first_token"], result["last_token"] = times[0], times[-1]
    result["generated"] = len(times)
    result["peak_memory"] = _peak_memory()


def _prompt(text: list[int], length: int) -> list[int]:
    """Repeat the tokens of the text, except the first one, which marks the beginning of a text."""
    begin, rest = text[:1], text[1:]
    return (begin + rest * (length // len(rest) + 1))[:length]


def _answer(llm: Any, prompt: list[int], tokens: int) -> list[float]:
    """The times at which the tokens were generated, in seconds from the start."""
    start = time.perf_counter()
    generated = llm.generate(prompt, temp=0.0)  # does not stop at the end-of-text token
    return [time.perf_counter() - start for _ in itertools.islice(generated, tokens)]


def _peak_memory() -> int | None:
    """The maximum of resident memory, including mapped files; ``None`` if the system does not report it.

    ``ru_maxrss`` cannot be used: it begins with the memory of the parent process.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
