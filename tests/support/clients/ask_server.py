"""Ask a server of llama_cpp with the ``openai`` client, and write what came.

    python -I ask_server.py everything|workers URL RESULT.json TEMPERATURE

``everything`` asks for a completion, a chat, the same chat as a stream, embeddings and images; ``workers`` for the
same completion on new connections, until two workers have answered.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

PROMPT = "the card runs"
TOKENS = 8
SEED = 3
COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "the same red": (220, 20, 20)}
CONNECTIONS = 50
"""How many connections one of two workers may take before the other one gets any."""


def _data_url(colour: tuple[int, int, int]) -> str:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


IMAGES = {name: _data_url(colour) for name, colour in COLOURS.items()}


def text_messages(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def image_messages(text: str, image: str) -> list[Any]:
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def everything(url: str, temperature: float) -> dict[str, Any]:
    client = _client(url)
    asked: dict[str, Any] = {"max_tokens": TOKENS, "temperature": temperature, "seed": SEED}
    completion = client.completions.create(model="text", prompt=PROMPT, **asked)
    chat = client.chat.completions.create(model="text", messages=text_messages(PROMPT), **asked)
    stream = client.chat.completions.create(model="text", messages=text_messages(PROMPT), stream=True, **asked)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    embeddings = client.embeddings.create(model="embedding", input=[PROMPT])
    images = {
        name: client.chat.completions.create(model="vision", messages=image_messages(PROMPT, image), **asked)
        for name, image in IMAGES.items()
    }
    return {
        "models": [model.id for model in client.models.list()],
        "completion": completion.choices[0].text,
        "tokens": completion.usage.completion_tokens,
        "chat": chat.choices[0].message.content,
        "stream": pieces,
        "embeddings": [item.embedding for item in embeddings.data],
        "images": {name: answer.choices[0].message.content for name, answer in images.items()},
    }


def workers(url: str, temperature: float) -> dict[str, Any]:
    answers: dict[str, str] = {}
    for _ in range(CONNECTIONS):
        with _client(url) as client:
            raw = client.completions.with_raw_response.create(
                model="text", prompt=PROMPT, max_tokens=TOKENS, temperature=temperature, seed=SEED
            )
        answers[raw.headers["x-worker"]] = raw.parse().choices[0].text
        if len(answers) == 2:  # noqa: PLR2004
            break
    return answers


def _client(url: str) -> Any:
    from openai import OpenAI  # noqa: PLC0415  # in_process.py needs the messages only

    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


if __name__ == "__main__":
    mode, url, result, temperature = sys.argv[1:]
    came = {"everything": everything, "workers": workers}[mode](url, float(temperature))
    Path(result).write_text(json.dumps(came), encoding="utf-8")
