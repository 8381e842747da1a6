"""The real, locked source distribution."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from build_config.steps import locks, sources
from build_config.system.layout import PACKAGE, Layout
from tests.integration.conftest import locked_wheel

pytestmark = pytest.mark.integration

NEEDED = (
    "llama.cpp/CMakeLists.txt",
    "llama.cpp/LICENSE",
    "llama.cpp/cmake/common.cmake",
    "llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu",
    "llama.cpp/include/llama.h",
    "llama.cpp/src/models/llama.cpp",
    "llama.cpp/tools/mtmd/CMakeLists.txt",
    "llama.cpp/vendor/nlohmann/json.hpp",
    "llama-cpp-python/LICENSE.md",
    "llama-cpp-python/README.md",
    "llama-cpp-python/llama_cpp/__init__.py",
    "llama-cpp-python/pyproject.toml",
)


def test_the_locked_sources_are_vendored_and_staged(tmp_path: Path) -> None:
    layout = Layout(checkout=tmp_path / "checkout", work_root=tmp_path / "work")
    locked = locks.read_source_lock(Layout(checkout=PACKAGE.parent, work_root=tmp_path))
    sources.vendor(locked, locked_wheel(locked.file), layout)
    tree = sources.stage(locked, layout, llama_cpp=None)
    assert [name for name in NEEDED if not (layout.staged / name).is_file()] == []
    assert len(tree.commit) == 40
    assert tree.locked
    times = {path: path.stat().st_mtime_ns for path in layout.staged.rglob("*")}

    start = time.monotonic()
    sources.vendor(locked, Path("/nowhere"), layout)
    assert sources.stage(locked, layout, llama_cpp=None) == tree
    assert time.monotonic() - start < 5
    assert {path: path.stat().st_mtime_ns for path in layout.staged.rglob("*")} == times
