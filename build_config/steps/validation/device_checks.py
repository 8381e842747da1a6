"""Compute the same on two devices inside the clean environment, and write how far apart the results are.

    python -I device_checks.py PLAN.json RESULT.json

Standard library, numpy and ``llama_cpp`` only, nothing of the pipeline. The plan names a ggml device (``CUDA0``) and
the checks. The result contains measured values without a judgement. It is written again before and after each check:
a failing kernel ends the process, and the result then names the check that was running.

There are five checks. The plan gives tokens, seeds and repetitions.

- ``logits``: all logits of a prompt, ``model`` on the device compared with ``reference`` on the CPU.
- ``embedding``: the same for the embedding of a text.
- ``batches``: all logits of a prompt in one batch compared with the same prompt in small ones, both on the device.
- ``generation``: the same text twice with one seed, and once with another.
- ``memory``: the free memory of the device before a model is loaded, while it is loaded, and after it was closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CPU = "CPU"
CONTROL_TOKENS = 3
"""The first tokens of the vocabulary are control tokens, not text."""
DEVICE_TYPES = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator", 4: "meta"}
"""``enum ggml_backend_dev_type``."""
CACHE_TYPES = {"F16": 1, "Q8_0": 8}
"""``enum ggml_type``."""
SPLIT_MODES = {"layer": 1, "tensor": 3}
"""``enum llama_split_mode``."""


def main(plan_file: str, result_file: str) -> int:
    """Write the result, whatever happened. The status is 0 if every check could run."""
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    checks: dict[str, dict[str, Any]] = {}
    result: dict[str, Any] = {"versions": {"python": platform.python_version()}, "checks": checks}
    target = Path(result_file)
    try:
        session = Session(plan["device"], result)
        for check in plan["checks"]:
            _write(target, {**result, "running": check["name"]})
            start = time.monotonic()
            try:
                values = getattr(session, check["check"])(check)
                checks[check["name"]] = {**values, "seconds": time.monotonic() - start}
            except Exception:  # noqa: BLE001  # the other checks are still worth running
                checks[check["name"]] = {"error": traceback.format_exc()}
            _write(target, result)
    except Exception:  # noqa: BLE001  # the error is the result
        result["error"] = traceback.format_exc()
    _write(target, result)
    return 1 if any("error" in one for one in (result, *checks.values())) else 0


def _write(path: Path, result: dict[str, Any]) -> None:
    """Write atomically: the process may end at any time."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
    partial.replace(path)


class Session:
    """The imported ``llama_cpp`` with one of its devices."""

    def __init__(self, device: str, result: dict[str, Any]) -> None:
        import llama_cpp  # noqa: PLC0415  # a failing import is a result, too
        from llama_cpp import _ctypes_extensions  # noqa: PLC0415

        self.llama_cpp: Any = llama_cpp
        package = Path(llama_cpp.__file__).resolve().parent
        result["package"] = str(package)
        result["versions"]["llama_cpp"] = llama_cpp.__version__
        self.messages: list[str] = []

        # Upstream's callback drops lines: its table of log levels is that of an older ggml. This one keeps everything.
        @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
        def collect(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
            self.messages.append(text.decode(errors="replace"))

        self.collect = collect  # the library keeps only its address
        llama_cpp.llama_log_set(collect, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()

        # The bindings have no functions for devices.
        registry, base = (
            _ctypes_extensions.load_shared_library(name, package / "lib") for name in ("ggml", "ggml-base")
        )
        count, get = registry.ggml_backend_dev_count, registry.ggml_backend_dev_get
        count.restype, get.restype, get.argtypes = ctypes.c_size_t, ctypes.c_void_p, (ctypes.c_size_t,)
        self.base: Any = base
        handles: dict[str, int] = {}
        result["devices"] = []
        for handle in map(get, range(count())):
            name = self._of_device("name", handle, ctypes.c_char_p).decode()
            handles[name] = handle
            result["devices"].append(
                {
                    "name": name,
                    "type": DEVICE_TYPES.get(self._of_device("type", handle, ctypes.c_int), "unknown"),
                    "description": self._of_device("description", handle, ctypes.c_char_p).decode(errors="replace"),
                }
            )
        if device not in handles:
            message = f"ggml has no device {device}, it has {', '.join(handles)}"
            raise LookupError(message)
        self.device = device
        self.handle = handles[device]
        self.handles = handles
        gpus = [one["name"] for one in result["devices"] if one["type"] == "gpu"]
        self.main_gpu = gpus.index(device) if device in gpus else -1

    def _of_device(self, name: str, handle: int, result: Any, *arguments: Any) -> Any:
        """Call a function of ``ggml-base`` about a device."""
        function = getattr(self.base, f"ggml_backend_dev_{name}")
        function.restype = result
        return function(ctypes.c_void_p(handle), *arguments)

    # ---------------------------------------------------------------------------------------------------- the checks

    def logits(self, check: dict[str, Any]) -> dict[str, Any]:
        """Give ``nmse`` of all logits, ``scale`` (the reference's root mean square), and the logs of both loads."""
        reference, reference_log = self._compute(
            CPU, check["reference"], check, batch=check["tokens"], flash=False, repacked=False
        )
        computed, log = self._compute(self.device, check["model"], check, batch=check["tokens"], flash=check["flash"])
        error = nmse(computed, reference)
        return {"nmse": error, "scale": scale(reference), "reference_log": reference_log, "log": log}

    def embedding(self, check: dict[str, Any]) -> dict[str, Any]:
        """Give what ``logits`` gives, for the embedding of the prompt: the encoder pools it from all tokens."""
        return self.logits(check)

    def batches(self, check: dict[str, Any]) -> dict[str, Any]:
        """Give ``nmse`` of all logits of small batches compared with those of one batch, and the log of a load."""
        model = check["model"]
        whole, log = self._compute(self.device, model, check, batch=check["tokens"], flash=check["flash"])
        pieces, _ = self._compute(self.device, model, check, batch=check["small"], flash=check["flash"])
        return {"nmse": nmse(pieces, whole), "scale": scale(whole), "log": log}

    def generation(self, check: dict[str, Any]) -> dict[str, Any]:
        """Give ``first`` and ``second``, tokens with one seed; ``other``, with the next; text and log of the first."""
        texts = []
        for seed in (check["seed"], check["seed"], check["seed"] + 1):
            with self._logged() as log, self._model(check["model"], seed=seed) as llm:
                tokens = self._generate(llm, check["tokens"])
                texts.append((tokens, llm.detokenize(tokens).decode(errors="replace"), log))
        (first, text, log), (second, _, _), (other, _, _) = texts
        return {"first": first, "second": second, "other": other, "text": text, "log": log}

    def memory(self, check: dict[str, Any]) -> dict[str, Any]:
        """Give the bytes ``free`` at the start and after each cycle; ``loaded`` is the minimum with a loaded model.

        Equal cycles run before the start, so memory that the driver takes once (its context, kernels on their first
        use, workspaces that are kept) is not counted.
        """
        free = [self._free()]
        loaded: list[int] = []
        for _ in range(check["before"] + check["cycles"]):
            with self._model(check["model"], seed=check["seed"]) as llm:
                self._generate(llm, check["tokens"])
                loaded.append(self._free())
            free.append(self._free())
        before = check["before"]
        return {"free": free[before:], "loaded": min(loaded[before:]), "model": Path(check["model"]).stat().st_size}

    # ------------------------------------------------------------------------------------------------------- helpers

    def _compute(
        self, device: str, model_file: str, check: dict[str, Any], *, batch: int, flash: bool, repacked: bool = True
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Compute all logits of the check's prompt on its devices only; also return the log's lines about layers.

        The mean of a token's logits is subtracted: only differences between tokens matter. A check of an embedding gets
        that in one row. ``repacked`` lets the CPU arrange weights for its fastest kernels.
        """
        api = self.llama_cpp
        # An empty list keeps the model and all its operations on the CPU, whatever GPUs there are.
        used = [] if device == CPU else [self.handle, *(self.handles[other] for other in check.get("others", ()))]
        handles = (ctypes.c_void_p * (len(used) + 1))(*used, None)
        model_params = api.llama_model_default_params()
        model_params.devices = ctypes.cast(handles, ctypes.c_void_p)
        model_params.n_gpu_layers = 0 if device == CPU else -1
        model_params.use_extra_bufts = repacked
        model_params.split_mode = SPLIT_MODES["layer" if device == CPU else check.get("split", "layer")]
        context_params = api.llama_context_default_params()
        context_params.n_ctx = check["tokens"]
        context_params.n_batch = context_params.n_ubatch = batch
        context_params.n_threads = context_params.n_threads_batch = _cores()
        context_params.embeddings = embeds = check["check"] == "embedding"
        context_params.offload_kqv = context_params.op_offload = device != CPU
        cache = CACHE_TYPES["F16" if device == CPU else check.get("cache", "F16")]
        context_params.type_k = context_params.type_v = cache
        context_params.flash_attn_type = (
            api.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        with self._logged() as log, contextlib.ExitStack() as stack:
            model = api.llama_model_load_from_file(os.fsencode(model_file), model_params)
            if not model:
                raise self._failure(f"{Path(model_file).name} was not loaded")
            stack.callback(api.llama_model_free, model)
            context = api.llama_init_from_model(model, context_params)
            if not context:
                raise self._failure(f"no context for {Path(model_file).name}")
            stack.callback(api.llama_free, context)
            vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
            tokens = _prompt(check["tokens"], vocabulary, check["seed"])
            parts: list[NDArray[np.float32]] = []
            for start in range(0, len(tokens), batch):
                part = tokens[start : start + batch]
                self._decode(context, part, start)
                if embeds:
                    rows, width = [api.llama_get_embeddings_seq(context, 0)], api.llama_model_n_embd(model)
                else:
                    rows, width = [api.llama_get_logits_ith(context, at) for at in range(len(part))], vocabulary
                parts += [np.ctypeslib.as_array(row, shape=(width,)).copy() for row in rows]
        values = np.stack(parts)
        return values if embeds else values - values.mean(axis=1, keepdims=True), log

    def _decode(self, context: Any, tokens: list[int], start: int) -> None:
        """Compute ``tokens``, whose positions begin at ``start``."""
        api = self.llama_cpp
        batch = api.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for index, token in enumerate(tokens):
                batch.token[index] = token
                batch.pos[index] = start + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = 1
            status = api.llama_decode(context, batch)
        finally:
            api.llama_batch_free(batch)
        if status != 0:
            raise self._failure(f"llama_decode ended with {status}")

    @contextlib.contextmanager
    def _model(self, file: str, *, seed: int) -> Iterator[Any]:
        """Load a model as users do, but on this device only; close it afterwards."""
        llm = self.llama_cpp.Llama(
            file,
            n_gpu_layers=0 if self.device == CPU else -1,
            split_mode=self.llama_cpp.LLAMA_SPLIT_MODE_NONE,
            main_gpu=self.main_gpu,
            n_ctx=0,  # the model's own
            seed=seed,  # 0 would be upstream's default
            n_threads=_cores(),
            verbose=True,
        )
        with contextlib.closing(llm):
            yield llm

    def _generate(self, llm: Any, count: int) -> list[int]:
        """Sample tokens; an end-of-text token does not stop this."""
        sampled = llm.generate(llm.tokenize(b"the card runs"), top_k=0, top_p=1.0, min_p=0.0, temp=1.0)
        return [int(token) for token in itertools.islice(sampled, count)]

    def _failure(self, what: str) -> RuntimeError:
        """An error with the last lines of the log."""
        return RuntimeError(f"{what}: {' | '.join(''.join(self.messages).splitlines()[-3:])}")

    def _free(self) -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._of_device("memory", self.handle, None, ctypes.byref(free), ctypes.byref(total))
        return free.value

    @contextlib.contextmanager
    def _logged(self) -> Iterator[list[str]]:
        """Give a list that contains, after the block, its logged lines about layers, or that there is no cache.

        llama.cpp logs them in pieces.
        """
        lines: list[str] = []
        start = len(self.messages)
        yield lines
        said = "".join(self.messages[start:]).splitlines()
        lines += (line for line in said if "layer" in line or "encode()" in line)
        del self.messages[start:]


def nmse(computed: NDArray[np.float32], reference: NDArray[np.float32]) -> float | None:
    """The normalised mean square error: 0 for equal values, 1 for all zeros. ``None`` if it is not finite."""
    with np.errstate(all="ignore"):
        difference = computed.astype(np.float64) - reference
        error = float(np.sum(np.square(difference)) / np.sum(np.square(reference, dtype=np.float64)))
    return error if np.isfinite(error) else None


def scale(values: NDArray[np.float32]) -> float | None:
    """The root mean square. ``None`` if it is not finite."""
    with np.errstate(all="ignore"):
        size = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    return size if np.isfinite(size) else None


def _prompt(length: int, vocabulary: int, seed: int) -> list[int]:
    """Random tokens, the same for the same arguments."""
    random = np.random.default_rng(seed)
    return [int(token) for token in random.integers(CONTROL_TOKENS, vocabulary, length)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
