"""Flags that are the same on every platform."""

from __future__ import annotations

WITHOUT_NVTX = "-DCCCL_DISABLE_NVTX"
"""CUB marks ranges for NVIDIA's profilers if it finds ``nvtx3/nvToolsExt.h``. The locked wheels have none, but an
installed CUDA toolkit puts one into ``/usr/include``: with it, the same inputs would give another library."""
