"""Test the installed wheel on the GPU of this machine; needs neither a toolkit nor a network nor this project.

    python gpu_tests.py MODEL RESULT.json

Standard library and ``llama_cpp`` only. They are about behaviour; ``device_checks`` compares the numbers with the CPU.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT, OTHER = b"the sea is blue", b"the dog runs on a red tree"
TOKENS = 24
MODEL = ""
"""The path of a model; set by ``main``."""


def main(model: str, result_file: str) -> int:
    """Run all tests and write the error of each, ``None`` if it passed. The status is 0 if all passed."""
    globals()["MODEL"] = model
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(OnTheGpu).run(result)
    errors = {case.id().rpartition(".")[2]: text for case, text in (*result.errors, *result.failures)}
    tests = {name: errors.get(name) for name in names()}
    Path(result_file).write_text(json.dumps({"tests": tests}), encoding="utf-8")
    return 1 if errors else 0


def names() -> tuple[str, ...]:
    """The names of all tests."""
    return tuple(unittest.defaultTestLoader.getTestCaseNames(OnTheGpu))


class OnTheGpu(unittest.TestCase):
    """A user's calls, with every layer on the GPU."""

    api: Any

    def setUp(self) -> None:
        """Import the wheel: a failing import fails every test."""
        import llama_cpp  # noqa: PLC0415  # see above

        self.api = llama_cpp

    @contextlib.contextmanager
    def loaded(self, **options: Any) -> Iterator[Any]:
        """A model on the GPU."""
        llm = self.api.Llama(MODEL, n_gpu_layers=-1, n_ctx=256, seed=1, verbose=False, **options)
        with contextlib.closing(llm):
            yield llm

    def test_the_loader_lists_the_gpus_of_the_driver(self) -> None:
        """The loader of the wheel sees what a program sees that asks the driver itself."""
        from llama_cpp import _cuda_driver  # noqa: PLC0415  # a part of this wheel only

        status, driver = self.api.cuda_status(), _cuda_driver.ask_cuda()
        self.assertTrue(status.loaded, status.reason)
        self.assertEqual(
            [(device.name, device.capability) for device in status.devices],
            [(device["name"], device["capability"]) for device in driver["devices"]],
        )
        self.assertEqual(status.driver_cuda, driver["cuda"])

    def test_the_wheel_has_code_for_the_gpus_in_use(self) -> None:
        """Every GPU runs the wheel's code or is left out, and a note then says how to use it."""
        from llama_cpp import _gpu_coverage  # noqa: PLC0415  # a part of this wheel only

        status = self.api.cuda_status()
        used = [device for device in status.devices if device not in status.left_out]
        self.assertTrue(used)
        for device in used:
            self.assertTrue(any(_gpu_coverage.runs_on(arch, device.capability) for arch in status.covered_archs))
        self.assertEqual(bool(status.note), bool(status.left_out))

    def test_a_text_repeats(self) -> None:
        """The most probable tokens are the same each time, in this context and in another one."""
        with self.loaded() as llm, self.loaded() as second:
            texts = [generate(each, PROMPT) for each in (llm, llm, second)]
        self.assertEqual(len(texts[0]), TOKENS)
        self.assertEqual(texts, [texts[0]] * 3)

    def test_two_models_at_once_do_not_disturb_each_other(self) -> None:
        """Tokens that are generated in turn are those that each model generates alone."""
        with self.loaded() as first, self.loaded() as second:
            alone = [generate(first, PROMPT), generate(second, OTHER)]
            first.reset()
            second.reset()
            pairs = list(itertools.islice(zip(start(first, PROMPT), start(second, OTHER)), TOKENS))
        self.assertEqual([list(text) for text in zip(*pairs)], alone)

    def test_a_saved_state_continues_as_before(self) -> None:
        """The KV cache is copied from the GPU and back."""
        with self.loaded() as llm:
            *prompt, last = llm.tokenize(PROMPT)
            llm.eval(prompt)
            state = llm.save_state()
            before = follow(llm, last)
            llm.reset()
            llm.eval(llm.tokenize(OTHER))
            llm.load_state(state)
            self.assertEqual(follow(llm, last), before)

    def test_embeddings_are_finite_and_repeat(self) -> None:
        """The same text has the same embedding, which is not zero."""
        with self.loaded(embedding=True) as llm:
            first, second = (flat(llm.embed(PROMPT.decode())) for _ in range(2))
        self.assertTrue(first and all(map(math.isfinite, first)))
        self.assertTrue(any(first))
        self.assertEqual(first, second)


def start(llm: Any, prompt: bytes) -> Iterator[int]:
    """The most probable tokens, without an end."""
    return (int(token) for token in llm.generate(llm.tokenize(prompt), temp=0.0))


def generate(llm: Any, prompt: bytes) -> list[int]:
    """The first of them."""
    llm.reset()
    return list(itertools.islice(start(llm, prompt), TOKENS))


def follow(llm: Any, token: int) -> list[int]:
    """The most probable tokens after ``token`` in the present state."""
    tokens = [token]
    for _ in range(TOKENS):
        llm.eval(tokens[-1:])
        tokens.append(int(llm.sample(temp=0.0)))
    return tokens


def flat(values: Any) -> list[float]:
    """One list of all numbers: an embedding is one vector, or one for each token."""
    return [number for value in values for number in (flat(value) if isinstance(value, list) else [float(value)])]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
