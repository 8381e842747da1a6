"""Logs of the tiny model of each family, captured from real runs (``README.md``)."""

from __future__ import annotations

from pathlib import Path

ON_GPU = {"cpu": 0, "output": 1, "split": 2, "gpu": 3}
"""The runs, with the number of layers on the GPU."""


def read(architecture: str, run: str) -> tuple[str, ...]:
    """The lines of one run."""
    return tuple((Path(__file__).parent / f"{architecture}-{run}.txt").read_text(encoding="utf-8").splitlines())
