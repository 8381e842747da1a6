"""All code that a known toolkit can compile, and all GPUs: for tests that compare two rules for every pair."""

from build_config import archs
from build_config.model import CudaArch

NUMBERS = sorted(
    {number for release in archs.known_releases() for number in archs.toolkit_series(release).architectures}
)
CODE = tuple(
    CudaArch.parse(f"{number}{suffix}-{kind}")
    for number in NUMBERS
    for suffix in ("", "a", "f")
    for kind in ("real", "virtual")
)
GPUS = tuple(range(NUMBERS[0] - 1, NUMBERS[-1] + 20))
"""Ten times major plus minor: from a GPU older than all known ones to future generations."""


def capability(number: int) -> str:
    """``8.9`` for ``89``."""
    return f"{number // 10}.{number % 10}"
