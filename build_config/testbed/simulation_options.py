"""Options of a simulated device, apart from it: the help of a command names them, and must be there at once."""

from __future__ import annotations

DEFAULT_MEMORY = 8 << 30
"""Bytes of each device if nothing else is said."""
FAULTS = {
    "driver-too-old": "a driver of the CUDA before the build's",
    "no-device": "a driver and no card",
    "no-driver": "a driver that does not start",
    "out-of-memory": "no memory after the given number of bytes",
    "launch-failure": "the first kernel fails",
    "no-vmm": "a card without virtual memory management",
}
"""What can be wrong with a device; ``out-of-memory`` takes an argument."""
