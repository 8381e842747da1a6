"""The one Python rule of which GPU runs which code: check_gpu, the pipeline and the loader in the wheel use it."""

import pytest

from check_gpu import coverage


@pytest.mark.parametrize(
    ("arch", "runs_on", "not_on"),
    [
        ("89-real", ("8.9",), ("8.6", "9.0", "7.5")),
        ("86-real", ("8.6", "8.9"), ("8.0", "9.0")),
        ("90a-real", ("9.0",), ("8.9", "10.0")),
        ("100f-real", ("10.0", "10.3"), ("9.0", "12.0")),
        ("90-virtual", ("9.0", "10.0", "12.0"), ("8.9",)),
        ("90a-virtual", ("9.0",), ("10.0", "12.0")),
        ("120-real", ("12.0", "12.1"), ("10.0", "9.0")),
    ],
)
def test_which_code_runs_on_which_gpu(arch: str, runs_on: tuple[str, ...], not_on: tuple[str, ...]) -> None:
    assert all(coverage.runs_on(arch, capability) for capability in runs_on)
    assert not any(coverage.runs_on(arch, capability) for capability in not_on)
