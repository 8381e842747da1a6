"""Tests that start Windows programs from Linux: `nox -s tests-wine`, which makes their Wine first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ci import wine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ci.wine.windows import Prefix, Windows


@pytest.fixture(name="windows", scope="session")
def _windows(request: pytest.FixtureRequest) -> Windows:
    """Wine's tree and Windows' Python. `windows.prefix(user=...)` makes a Windows of its own."""
    cache = request.config.getoption("--wine-cache")
    if cache is None:
        pytest.skip("needs Wine: nox -s tests-wine")
    found = wine.find(Path(cache))
    assert found is not None, f"there is no Wine in {cache}"
    return found


@pytest.fixture(name="prefix", scope="module")
def _prefix(windows: Windows) -> Iterator[Prefix]:
    """A Windows that the tests of one file share."""
    with windows.prefix() as made:
        yield made
