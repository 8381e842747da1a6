"""Load tiny models with the installed wheel inside the clean environment, and write what happened.

    python -I probe.py RESULTS.json OPTIONS (generate|embed) MODEL [(generate|embed) MODEL ...]

OPTIONS are arguments of ``Llama``, as JSON. The models are loaded one after the other. Standard library and
``llama_cpp`` only, nothing of the pipeline. The results go to a file because native code prints to any stream, after
each model because a crash must not lose those before it; the caller reports the missing ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

PROMPT = b"the card runs"
TOKENS = 8


def main(results_file: str, options: str, *tasks_and_models: str) -> int:
    """Write a result for each model, whatever happened. The status is 0 if all answered."""
    results: list[dict[str, Any]] = []
    for at in range(0, len(tasks_and_models), 2):
        task, model = tasks_and_models[at : at + 2]
        start = time.monotonic()
        result: dict[str, Any] = {"versions": {"python": platform.python_version()}}
        messages: list[str] = []
        try:
            _use_wheel(task, model, json.loads(options), result, messages)
        except Exception:  # noqa: BLE001  # the error is the result
            result["error"] = traceback.format_exc()
        result["log"] = "".join(messages).splitlines()
        result["loaded_files"] = _loaded_files()
        result["seconds"] = round(time.monotonic() - start, 3)
        results.append(result)
        Path(results_file).write_text(json.dumps(results), encoding="utf-8")
    return 1 if any("error" in result for result in results) else 0


def _use_wheel(task: str, model: str, options: dict[str, Any], result: dict[str, Any], messages: list[str]) -> None:
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
    embeds = task == "embed"
    llm = llama_cpp.Llama(model, n_ctx=256, seed=0, embedding=embeds, verbose=True, **options)
    with contextlib.closing(llm):  # while the callback still exists
        if embeds:
            result["values"] = len(llm.embed(PROMPT.decode()))
            return
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
    if sys.platform == "win32":
        return sorted(_loaded_dlls())
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    lines = maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return sorted({path[0] for line in lines if (path := line.split(maxsplit=5)[5:]) and ".so" in path[0]})


def _loaded_dlls() -> list[str]:
    """The same on Windows. The number of modules is not known before they are listed."""
    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    this_process, needed, room = ctypes.c_void_p(-1), ctypes.c_ulong(), 256
    while True:
        modules = (ctypes.c_void_p * room)()
        if not kernel32.K32EnumProcessModules(this_process, modules, ctypes.sizeof(modules), ctypes.byref(needed)):
            return []
        count = needed.value // ctypes.sizeof(ctypes.c_void_p)
        if count <= room:
            break
        room = count
    name = ctypes.create_unicode_buffer(32768)
    return [
        name.value
        for module in modules[:count]
        if kernel32.GetModuleFileNameW(ctypes.c_void_p(module), name, len(name))
    ]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
