"""Options of the simulated GPU in a module of their own: the help of a command needs them without its imports."""

from __future__ import annotations

DEFAULT_MEMORY = 8 << 30
"""Bytes of memory of each device by default."""
FAULTS = {
    "driver-too-old": "a driver for the CUDA before the build's",
    "no-device": "a driver without a GPU",
    "no-driver": "a driver that does not start",
    "out-of-memory": "no memory after the given number of bytes",
    "launch-failure": "the first kernel fails",
    "no-vmm": "a GPU without virtual memory management",
}
"""The faults of a simulated machine; ``out-of-memory`` takes an argument."""
