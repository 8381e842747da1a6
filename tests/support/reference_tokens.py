"""Tokens that the wheel for Linux generates with small models, to compare those of a wheel for Windows with.

``reference_tokens.toml`` is written by this, with a Python that has the wheel::

    python -m tests.support.reference_tokens PYTHON
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from build_config.system import jsonio
from build_config.system.files import file_sha256
from build_config.testbed import synthetic_model
from build_config.testbed.model_families import FAMILIES

FILE = Path(__file__).with_suffix(".toml")
TOKENS = 16
GENERATE = """
import dataclasses, json, sys
import llama_cpp
llm = llama_cpp.Llama({model!r}, n_ctx=256, seed=0, n_gpu_layers=0, verbose=False)
tokens = []
for token in llm.generate(llm.tokenize(b"the card runs"), temp=0.0):
    tokens.append(int(token))
    if len(tokens) == {tokens}:
        break
answer = dict(tokens=tokens, status=dataclasses.asdict(llama_cpp.cuda_status()))
"""
"""Code that leaves in ``answer`` the tokens, always the most likely one, and the status of CUDA."""
MODELS = (
    *((synthetic_model.TINY.name, family.architecture, "F32") for family in FAMILIES if not family.embeds),
    *((synthetic_model.SMALL.name, "llama", kind) for kind in ("F16", "Q4_K_M", "Q8_0")),
)
"""Shape, family and type of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A model, its SHA-256 and what follows the prompt."""

    shape: str
    family: str
    kind: str
    sha256: str
    tokens: tuple[int, ...]

    def write(self, path: Path) -> Path:
        """Write the model; fails if it is not the same on every system."""
        found = write(path, self.shape, self.family, self.kind)
        assert file_sha256(found) == self.sha256
        return found


def write(path: Path, shape: str, family: str, kind: str) -> Path:
    (chosen,) = (one for one in FAMILIES if one.architecture == family)
    return synthetic_model.write(path, synthetic_model.SHAPES[shape], family=chosen, kind=kind)


def read() -> tuple[Reference, ...]:
    return jsonio.from_data(tomllib.loads(FILE.read_text(encoding="utf-8"))["models"], tuple[Reference, ...])


def main() -> None:
    found = []
    for shape, family, kind in MODELS:
        with tempfile.TemporaryDirectory() as temporary:
            model = write(Path(temporary, "model.gguf"), shape, family, kind)
            code = GENERATE.format(model=str(model), tokens=TOKENS)
            done = subprocess.run(
                [sys.argv[1], "-I", "-c", f"{code}print(json.dumps(answer))"],
                capture_output=True,
                text=True,
                check=True,
            )
            tokens = json.loads(done.stdout.splitlines()[-1])["tokens"]
            entry = {"shape": shape, "family": family, "kind": kind, "sha256": file_sha256(model), "tokens": tokens}
            found.append(entry)
    FILE.write_text("# Written by reference_tokens.py.\n" + tomli_w.dumps({"models": found}), encoding="utf-8")


if __name__ == "__main__":
    main()
