"""The report of upstream's tests; a real pytest is in test_upstream_tests_real.py."""

from pathlib import Path

import pytest

from build_config.errors import ValidationError
from build_config.steps.locks import download
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.tasks import upstream_tests
from build_config.tasks.upstream_tests import task
from build_config.tasks.upstream_tests.results import Noted, UpstreamTestReport
from tests.support import factories, systems, wheels


def report(*, passed: tuple[str, ...] = (), failed: tuple[Noted, ...] = ()) -> UpstreamTestReport:
    return UpstreamTestReport(
        wheel_sha256="a" * 64,
        upstream="0.3.36",
        package="lib/llama_cpp/__init__.py",
        passed=passed,
        failed=failed,
        skipped=(Noted(id="s", reason="r"),),
        left_out=(Noted(id="l", reason="r"), Noted(id="m", reason="r")),
        seconds=1.0,
    )


def test_a_report_is_good_if_a_test_passed_and_none_failed() -> None:
    assert report(passed=("p",)).good
    assert not report(passed=("p",), failed=(Noted(id="f", reason="r"),)).good
    assert not report().good, "nothing ran"
    assert report(passed=("p",), failed=(Noted(id="f", reason="r"),)).collected == 5


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (report(passed=("p",), failed=(Noted(id="f", reason="the sum is wrong"),)), "1 failed and 1 passed"),
        (report(), "0 failed and 0 passed"),
    ],
)
def test_a_report_that_is_not_good_is_kept_and_raises_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    done: UpstreamTestReport,
    message: str,
) -> None:
    if systems.ON_WINDOWS:
        systems.answer_as_windows(monkeypatch)
    monkeypatch.setattr(download, "fetch", lambda files, *_: tuple(Path(file.filename) for file in files))
    monkeypatch.setattr(upstream_tests, "run", lambda *_, **__: done)
    wheel = wheels.write(tmp_path, {}, wheels.wheel_name())
    layout = factories.layout(tmp_path / "work")
    with pytest.raises(ValidationError, match=message):
        task.run_upstream_tests(wheel.path, layout, Console(terminal=False))
    assert jsonio.read(layout.state / "upstream-tests" / f"{wheel.sha256}.json", UpstreamTestReport) == done
    output = capsys.readouterr().out
    assert all(f"FAILED: {test.id} ({test.reason})" in output for test in done.failed)
    assert "left out: l (r)" in output
