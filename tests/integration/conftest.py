"""The locked toolkit, without cuBLAS, made once for all integration tests."""

from __future__ import annotations

import dataclasses
import os
import shutil
from typing import TYPE_CHECKING

import filelock
import platformdirs
import pytest

from build_config.steps import locks
from build_config.steps.locks import download
from build_config.steps.toolchain import gcc, locked_cuda
from build_config.system.console import Console
from build_config.system.files import file_sha256
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.model import CudaToolkit, LockedFile, ToolkitLock

# Everything but cuBLAS, which is five sixths of the whole.
WITHOUT_CUBLAS = {
    "nvidia-cuda-nvcc",
    "nvidia-cuda-crt",
    "nvidia-nvvm",
    "nvidia-cuda-cccl",
    "nvidia-cuda-runtime",
    "nvidia-cuda-cuobjdump",
}


def locked_wheel(file: LockedFile) -> Path:
    """The wheel from the real work root where that has it, else fetched once for all runs of the tests."""
    at_hand = CANONICAL_WORK_ROOT / "downloads" / file.filename
    if at_hand.is_file() and file_sha256(at_hand) == file.sha256:
        return at_hand
    shared = platformdirs.user_cache_path("llama-cuda-wheels") / "test-downloads"
    shared.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(shared / "lock"):  # tests run in several processes
        (wheel,) = download.fetch((file,), shared, Console(terminal=False))
    return wheel


@pytest.fixture(name="reduced_lock", scope="session")
def _reduced_lock() -> ToolkitLock:
    whole = locks.read_toolkit_lock(
        Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT), "13.0", "linux-x86_64"
    )
    return dataclasses.replace(whole, files=tuple(file for file in whole.files if file.name in WITHOUT_CUBLAS))


@pytest.fixture(name="toolkit_wheels", scope="session")
def _toolkit_wheels(reduced_lock: ToolkitLock) -> tuple[Path, ...]:
    return tuple(locked_wheel(file) for file in reduced_lock.files)


@pytest.fixture(name="toolkit", scope="session")
def _toolkit(
    reduced_lock: ToolkitLock, toolkit_wheels: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CudaToolkit]:
    layout = Layout(checkout=PACKAGE.parent, work_root=tmp_path_factory.mktemp("toolkit"))
    yield locked_cuda.provide(reduced_lock, toolkit_wheels, layout, cc=str(gcc.find(None, os.environ).cc.path))
    shutil.rmtree(layout.toolkits, ignore_errors=True)  # hundreds of megabytes, which pytest would keep
