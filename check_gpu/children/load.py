"""Imports the package, loads a model, uses it, and keeps every line of llama.cpp's log.

A model with a cache generates a few tokens; any other, such as an encoder, embeds a text.

python load.py RESULT REQUEST

REQUEST is JSON: ``package`` (the name to import), ``model``, ``n_gpu_layers``, ``n_ctx``, ``tokens``.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(result_file: str, request: str) -> None:
    """Write an object for each stage and each piece of the log, immediately: a crash must not lose them."""
    own = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != own]
    with Path(result_file).open("ab", buffering=0) as file:

        def say(**what: Any) -> None:
            file.write((json.dumps(what) + "\n").encode())

        try:
            _run(json.loads(request), say)
        except Exception as error:  # noqa: BLE001  # the error is the result
            say(error=f"{type(error).__name__}: {error}")
        finally:
            file.flush()
            os.fsync(file.fileno())


def _run(request: dict[str, Any], say: Any) -> None:
    say(stage="import")
    llama_cpp = importlib.import_module(request["package"])  # an import that fails is a result too

    if hasattr(llama_cpp, "cuda_status"):
        status = llama_cpp.cuda_status()
        say(status_reason=status.reason, status_note=getattr(status, "note", None))  # earlier wheels have no note

    # Upstream's callback drops lines: its table of log levels is from an older ggml. This one keeps everything.
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
    def collect(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        say(log=text.decode("utf-8", "replace"))

    llama_cpp.llama_log_set(collect, ctypes.c_void_p(0))
    say(stage="load")
    llm = llama_cpp.Llama(
        request["model"], n_gpu_layers=request["n_gpu_layers"], n_ctx=request["n_ctx"], seed=0, verbose=True
    )
    say(log=f"\nsystem_info: {llama_cpp.llama_print_system_info().decode('utf-8', 'replace')}\n")
    say(stage="generate")
    if _keeps_nothing(llama_cpp, llm):
        # Only now is it known, and a second load would log every layer and buffer twice.
        llm.context_params.embeddings = True
        llama_cpp.llama_set_embeddings(llm.ctx, True)
        embedding = llm.embed("the card runs")
        say(embedding=len(embedding[0] if isinstance(embedding[0], list) else embedding))  # of each token, or of all
    else:
        tokens = llm.generate(llm.tokenize(b"the card runs"), temp=0.0)  # does not stop at the end-of-text token
        for count, _token in enumerate(tokens, start=1):
            say(tokens=count)
            if count == request["tokens"]:
                break
    getattr(llm, "close", lambda: None)()  # while the callback still exists; older versions have no close()
    say(stage="done")


def _keeps_nothing(llama_cpp: Any, llm: Any) -> bool:
    """Whether the model has no cache of any kind, so it cannot generate. Older versions do not say."""
    memory = getattr(llama_cpp, "llama_get_memory", None)
    return memory is not None and not memory(llm.ctx)


if __name__ == "__main__":
    main(*sys.argv[1:])
