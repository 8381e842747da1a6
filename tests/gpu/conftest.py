"""The layout of this machine, if it has a GPU and a wheel to run on it."""

from __future__ import annotations

import pytest

from build_config.system import machine
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE, Layout


def unless_missing(request: pytest.FixtureRequest, *missing: str | None) -> None:
    """Skip the test, or with --require-gpu fail it, if something is missing."""
    said = "; ".join(filter(None, missing))
    if said and request.config.getoption("--require-gpu"):
        pytest.fail(said)
    if said:
        pytest.skip(said)


@pytest.fixture(name="layout", scope="session")
def _layout(request: pytest.FixtureRequest) -> Layout:
    layout = Layout(checkout=PACKAGE.parent, work_root=CANONICAL_WORK_ROOT)
    wheel = None if any(layout.wheelhouse.glob("*.whl")) else "no wheel in the wheelhouse: nox -s build_cuda_wheel"
    unless_missing(request, None if machine.nvidia().gpus else "this machine has no NVIDIA GPU", wheel)
    return layout
