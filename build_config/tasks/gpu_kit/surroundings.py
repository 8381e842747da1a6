"""Describe the machine and this Python, without the machine's name.

    python surroundings.py RESULT.json

Standard library and numpy only, Python 3.9 or later.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path


def main(result_file: str) -> None:
    """Write the description. Without numpy there is none: an ``ImportError`` ends the process."""
    import numpy as np  # noqa: PLC0415  # importing this module must not need it

    library, version = platform.libc_ver()
    described = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpuinfo": Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0],
        "cores": os.cpu_count() or 1,
        "threads": threads(),
        "glibc": version if library == "glibc" else "",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    Path(result_file).write_text(json.dumps(described), encoding="utf-8")


def threads() -> int:
    """The number of physical cores that this process may use: a second thread on a core makes generation slower."""
    usable = os.sched_getaffinity(0)
    cores = set()
    for cpu in usable:
        file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(file.read_text(encoding="utf-8").strip() if file.is_file() else str(cpu))
    return max(1, len(cores))


if __name__ == "__main__":
    main(*sys.argv[1:])
