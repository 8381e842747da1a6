"""The answer: a stable code, one sentence, and the command that fixes it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Code(enum.Enum):
    """All diagnoses. The values are stable, because programs may rely on them."""

    CARD_USED = "card-used"
    SIMULATED = "simulated-device"
    NO_CARD = "no-card"
    NOT_INSTALLED = "not-installed"
    PYTHON_FAILED = "python-failed"
    CPU_ONLY_BUILD = "cpu-only-build"
    CONTAINER_WITHOUT_DRIVER = "container-without-driver"
    DRIVER_MISSING = "driver-missing"
    DRIVER_BROKEN = "driver-broken"
    DRIVER_TOO_OLD = "driver-too-old"
    CARD_HIDDEN = "card-hidden"
    CUDA_LIBRARY_MISSING = "cuda-library-missing"
    CARD_NOT_COVERED = "card-not-covered"
    IMPORT_FAILED = "import-failed"
    CRASHED = "crashed"
    TIMED_OUT = "timed-out"
    OUT_OF_MEMORY = "out-of-memory"
    MODEL_NOT_LOADED = "model-not-loaded"
    BACKEND_NOT_LOADED = "backend-not-loaded"
    NO_LAYERS_REQUESTED = "no-layers-requested"
    LAYERS_LEFT_ON_CPU = "layers-left-on-cpu"
    KV_CACHE_ON_CPU = "kv-cache-on-cpu"
    SOFTWARE_DEVICE = "software-device"
    LOG_SAYS_NOTHING = "log-says-nothing"
    UNKNOWN = "unknown"


NOTHING_TO_FIX = frozenset({Code.CARD_USED, Code.SIMULATED, Code.NO_CARD})


@dataclass(frozen=True)
class Diagnosis:
    """A cause in one ``sentence``, and the ``command`` that fixes it; ``None`` if there is nothing to fix."""

    code: Code
    sentence: str
    command: str | None = None

    @property
    def well(self) -> bool:
        """Whether there is nothing to fix."""
        return self.code in NOTHING_TO_FIX
