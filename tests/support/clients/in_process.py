"""Use the installed wheel through a library of other people, in this process, and write what came.

    python -I in_process.py CLIENT MODEL PROJECTOR RESULT.json TEMPERATURE

Each function is what a user of that library would write. Its log, with the placement of all layers, goes to stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

PROMPT = "the card runs"
TOKENS = 8
SHARED = {"n_gpu_layers": -1, "n_ctx": 512, "n_threads": 1, "seed": 3, "verbose": True}


def direct(model: str, projector: str, temperature: float) -> dict[str, Any]:
    """Call llama_cpp itself, with the settings of the server: what the others must answer on a CPU."""
    from ask_server import IMAGES, image_messages, text_messages  # noqa: PLC0415  # a script in the same folder
    from llama_cpp import Llama  # noqa: PLC0415
    from llama_cpp.llama_chat_format import Llava15ChatHandler  # noqa: PLC0415

    asked: dict[str, Any] = {"max_tokens": TOKENS, "temperature": temperature, "seed": SHARED["seed"]}
    text = Llama(model, logits_all=True, **SHARED)
    vision = Llama(model, logits_all=True, chat_handler=Llava15ChatHandler(projector), **SHARED)
    embedding = Llama(model, embedding=True, **SHARED)
    return {
        "completion": text.create_completion(PROMPT, **asked)["choices"][0]["text"],
        "chat": text.create_chat_completion(text_messages(PROMPT), **asked)["choices"][0]["message"]["content"],
        "embeddings": [item["embedding"] for item in embedding.create_embedding([PROMPT])["data"]],
        "images": {
            name: vision.create_chat_completion(image_messages(PROMPT, image), **asked)["choices"][0]["message"][
                "content"
            ]
            for name, image in IMAGES.items()
        },
    }


def langchain(model: str, _projector: str, temperature: float) -> dict[str, Any]:
    from langchain_community.llms import LlamaCpp  # noqa: PLC0415

    llm = LlamaCpp(model_path=model, max_tokens=TOKENS, temperature=temperature, **SHARED)
    return {"invoke": llm.invoke(PROMPT), "stream": "".join(llm.stream(PROMPT))}


def guidance(model: str, _projector: str, temperature: float) -> dict[str, Any]:
    from guidance import gen, models, select  # noqa: PLC0415

    llm = models.LlamaCpp(model, echo=False, **SHARED)
    llm += "the card " + select(["runs", "stops"], name="choice")
    llm += " on " + gen("number", regex="[0-9]{3}", max_tokens=TOKENS, temperature=temperature)
    return {"choice": llm["choice"], "number": llm["number"]}


def outlines(model: str, _projector: str, temperature: float) -> dict[str, Any]:
    import outlines  # noqa: PLC0415
    from llama_cpp import Llama  # noqa: PLC0415

    llm = outlines.from_llamacpp(Llama(model, **SHARED))
    asked = {"max_tokens": TOKENS, "temperature": temperature}
    kinds = {"choice": Literal["cat", "dog"], "number": outlines.types.regex("[0-9]{3}")}
    return {
        name: outlines.Generator(llm, kind, backend="llguidance")("the card runs on", **asked)
        for name, kind in kinds.items()
    }


CLIENTS = {client.__name__: client for client in (direct, langchain, guidance, outlines)}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # -I leaves it out
    client, model, projector, result, temperature = sys.argv[1:]
    came = CLIENTS[client](model, projector, float(temperature))
    Path(result).write_text(json.dumps(came), encoding="utf-8")
