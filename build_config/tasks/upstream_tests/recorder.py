"""Lies beside upstream's tests as ``conftest.py`` and writes into pytest's result which ``llama_cpp`` they tested.

Runs in the clean environment: standard library, pytest and ``llama_cpp`` only, nothing of the pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session", autouse=True)
def _tested_package(record_testsuite_property: Callable[[str, object], None]) -> None:
    import llama_cpp  # noqa: PLC0415  # where it fails to import, upstream's tests are to say so

    record_testsuite_property("llama_cpp", llama_cpp.__file__)
