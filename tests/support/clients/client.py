"""Use the installed wheel as a client does, and write what came as JSON.

    python -I client.py CLIENT RESULT.json TEMPERATURE ARGUMENT...

Each function is what a user of that package would write. The arguments of a client in this process are a model and its
vision encoder, and llama.cpp's log goes to stderr; the argument of a client of a server is its address.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import sys
from pathlib import Path
from typing import Any, Literal

PROMPT = "a red dog"
TOKENS = 8
SEED = 3
IN_PROCESS = {"n_gpu_layers": -1, "n_ctx": 512, "n_threads": 1, "seed": SEED, "verbose": True}
PENALTY = {"repeat_penalty": 1.0}
"""Of llama_cpp alone, not of OpenAI's interface. The server and LangChain penalise repetition by default."""
COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "the same red": (220, 20, 20)}
CONNECTIONS = 50
"""How many connections one of two workers may take before the other one gets any."""


def direct(temperature: float, model: str, projector: str) -> dict[str, Any]:
    """Call llama_cpp itself, with the settings of the server."""
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import Llava15ChatHandler

    asked: dict[str, Any] = {"max_tokens": TOKENS, "temperature": temperature, "seed": SEED, **PENALTY}
    text = Llama(model, logits_all=True, **IN_PROCESS)
    vision = Llama(model, logits_all=True, chat_handler=Llava15ChatHandler(projector), **IN_PROCESS)
    embedding = Llama(model, embedding=True, **IN_PROCESS)

    def answer(llm: Any, messages: list[Any]) -> str:
        return str(llm.create_chat_completion(messages, **asked)["choices"][0]["message"]["content"])

    return {
        "completion": text.create_completion(PROMPT, **asked)["choices"][0]["text"],
        "chat": answer(text, text_messages()),
        "embeddings": [item["embedding"] for item in embedding.create_embedding([PROMPT])["data"]],
        "images": {name: answer(vision, image_messages(colour)) for name, colour in COLOURS.items()},
    }


def langchain(temperature: float, model: str, _projector: str) -> dict[str, Any]:
    from langchain_community.llms import LlamaCpp

    llm = LlamaCpp(model_path=model, max_tokens=TOKENS, temperature=temperature, **PENALTY, **IN_PROCESS)
    return {"invoke": llm.invoke(PROMPT), "stream": "".join(llm.stream(PROMPT))}


def guidance(temperature: float, model: str, _projector: str) -> dict[str, Any]:
    from guidance import gen, models, select

    llm = models.LlamaCpp(model, echo=False, **IN_PROCESS)
    llm += "the dog " + select(["runs", "stops"], name="choice")
    llm += " on " + gen("number", regex="[0-9]{3}", max_tokens=TOKENS, temperature=temperature)
    return {"choice": llm["choice"], "number": llm["number"]}


def outlines(temperature: float, model: str, _projector: str) -> dict[str, Any]:
    import outlines
    from llama_cpp import Llama

    llm = outlines.from_llamacpp(Llama(model, **IN_PROCESS))
    kinds = {"choice": Literal["cat", "dog"], "number": outlines.types.regex("[0-9]{3}")}
    # Not outlines' default: for NumPy, that one needs numba, which is larger than all the other packages together.
    generate = functools.partial(outlines.Generator, llm, backend="llguidance")
    asked = {"max_tokens": TOKENS, "temperature": temperature}
    return {name: generate(kind)("the sun runs on a", **asked) for name, kind in kinds.items()}


def openai(temperature: float, url: str) -> dict[str, Any]:
    """Ask for a completion, a chat, the same chat as a stream, embeddings, and chats about images."""
    client = server_at(url)
    asked: dict[str, Any] = {"max_tokens": TOKENS, "temperature": temperature, "seed": SEED, "extra_body": PENALTY}
    complete, chat = client.completions.create, functools.partial(client.chat.completions.create, **asked)

    def answer(name: str, messages: list[Any]) -> str:
        return str(chat(model=name, messages=messages).choices[0].message.content)

    completion = complete(model="text", prompt=PROMPT, **asked)
    # Read at once: the server ends a stream when it gets the next request.
    stream = [
        chunk.choices[0].delta.content or "" for chunk in chat(model="text", messages=text_messages(), stream=True)
    ]
    return {
        "models": [model.id for model in client.models.list()],
        "completion": completion.choices[0].text,
        "tokens": completion.usage.completion_tokens,
        "chat": answer("text", text_messages()),
        "stream": stream,
        "embeddings": [item.embedding for item in client.embeddings.create(model="embedding", input=[PROMPT]).data],
        "images": {name: answer("vision", image_messages(colour)) for name, colour in COLOURS.items()},
    }


def workers(temperature: float, url: str) -> dict[str, Any]:
    """Ask for a completion on new connections until two workers have answered; the answers by worker."""
    answers: dict[str, str] = {}
    asked: dict[str, Any] = {"max_tokens": TOKENS, "temperature": temperature, "seed": SEED, "extra_body": PENALTY}
    for _ in range(CONNECTIONS):
        with server_at(url) as client:
            raw = client.completions.with_raw_response.create(model="text", prompt=PROMPT, **asked)
        answers[raw.headers["x-worker"]] = raw.parse().choices[0].text
        if len(answers) == 2:
            break
    return answers


def server_at(url: str) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


def text_messages() -> list[Any]:
    return [{"role": "user", "content": PROMPT}]


def image_messages(colour: tuple[int, int, int]) -> list[Any]:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": PROMPT}],
        }
    ]


CLIENTS = {client.__name__: client for client in (direct, langchain, guidance, outlines, openai, workers)}

if __name__ == "__main__":
    name, result, temperature, *arguments = sys.argv[1:]
    came = CLIENTS[name](float(temperature), *arguments)
    Path(result).write_text(json.dumps(came), encoding="utf-8")
