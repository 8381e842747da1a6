"""A stand-in for nvidia-smi, which uv asks for the driver, its CUDA, and the compute capability of each GPU."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CUDA = {"580.65.06": "13.0", "570.86.10": "12.8"}
"""Drivers, and the newest CUDA that each runs."""
PROGRAM = """#!{python}
import sys
query = " ".join(sys.argv[1:])
if "driver_version" in query:
    print("\\n".join([{driver!r}] * len({capabilities!r})))
elif "compute_cap" in query:
    print("\\n".join({capabilities!r}))
elif query == "-q":
    print("    CUDA Version                          : " + {cuda!r})
else:
    sys.exit(6)
"""


def write(folder: Path, capabilities: Sequence[str], driver: str = "580.65.06") -> None:
    """Put the program into a folder for ``PATH``, for a machine with these GPUs; without any there is no program."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.unlink(missing_ok=True)
    if capabilities:
        text = PROGRAM.format(python=sys.executable, driver=driver, capabilities=list(capabilities), cuda=CUDA[driver])
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
