"""Which of upstream's tests are left out, and what a report says; a real pytest is in test_upstream_tests_real.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_config.errors import ValidationError
from build_config.steps.locks import download
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.tasks import upstream_tests
from build_config.tasks.upstream_tests import downloads, results, task
from build_config.tasks.upstream_tests.results import NOT_RUN, Noted, UpstreamTestReport
from tests.support import factories, wheels

pytestmark = pytest.mark.unit


def reason(source: str, test: str = "test_it", **others: str) -> str | None:
    """Why the test is left out, from the text of its file and of files beside it."""
    sources = {"tests/test_a.py": source} | {f"tests/{name}.py": text for name, text in others.items()}
    return downloads.left_out([f"tests/test_a.py::{test}"], sources).get(f"tests/test_a.py::{test}")


FIXTURE = """
import pytest
from huggingface_hub import hf_hub_download

@pytest.fixture
def model():
    return hf_hub_download("a", "b")
"""


@pytest.mark.parametrize(
    ("source", "chain"),
    [
        ("def test_it(model): ...", "model -> hf_hub_download"),
        ("@pytest.fixture\ndef loaded(model): ...\ndef test_it(loaded): ...", "loaded -> model -> hf_hub_download"),
        ("@pytest.mark.usefixtures('model')\ndef test_it(): ...", "model -> hf_hub_download"),
        ("pytestmark = pytest.mark.usefixtures('model')\ndef test_it(): ...", "model -> hf_hub_download"),
        ("def test_it(request): request.getfixturevalue('model')", "model -> hf_hub_download"),
        ("def test_it(): hf_hub_download('a', 'b')", "hf_hub_download"),
        ("def test_it(): huggingface_hub.snapshot_download('a')", "snapshot_download"),
        ("def test_it(): llama_cpp.Llama.from_pretrained('a')", "from_pretrained"),
        ("def get(): hf_hub_download('a', 'b')\ndef test_it(): get()", "get -> hf_hub_download"),
        ("fetch = hf_hub_download\ndef test_it(): fetch('a', 'b')", "fetch -> hf_hub_download"),
        ("from huggingface_hub import hf_hub_download as fetch\ndef test_it(): fetch()", "hf_hub_download"),
        (
            "@pytest.fixture(autouse=True)\ndef always(model): ...\ndef test_it(): ...",
            "always -> model -> hf_hub_download",
        ),
        (
            "@pytest.fixture(name='other')\ndef _other(model): ...\ndef test_it(other): ...",
            "other -> model -> hf_hub_download",
        ),
        ("NAMES = ['model']\ndef test_it(request):\n  for n in NAMES: request.getfixturevalue(n)", None),
        ("def test_it(request):\n  for n in ['model']: request.getfixturevalue(n)", "model -> hf_hub_download"),
        ("async def test_it(model): ...", "model -> hf_hub_download"),
        ("def test_it(): ...", None),
        ("def test_it(tmp_path): print('model')", None),
        ("@pytest.mark.parametrize('model', [1])\ndef test_it(model): ...", None),
        ("def get(): hf_hub_download('a', 'b')\ndef test_it(): other.get()", None),
        ("def model_path(): ...\ndef test_it(model_path): ...", None),
    ],
)
def test_what_leads_to_a_download_is_left_out_with_the_way_there(source: str, chain: str | None) -> None:
    assert reason(FIXTURE + source) == chain


def test_of_a_parametrized_test_only_the_cases_that_download_are_left_out() -> None:
    source = FIXTURE + (
        "@pytest.fixture\n"
        "def written(tmp_path): ...\n"
        "CASES = (('model', True), ('written', False))\n"
        "@pytest.mark.parametrize(('name', 'flag'), CASES)\n"
        "def test_it(request, name, flag): request.getfixturevalue(name)\n"
    )
    assert reason(source, "test_it[model-True]") == "model -> hf_hub_download"
    assert reason(source, "test_it[written-False]") is None


def test_methods_helpers_and_classes() -> None:
    source = FIXTURE + (
        "class TestIt:\n"
        "    def get(self): return hf_hub_download('a', 'b')\n"
        "    def test_download(self): self.get()\n"
        "    def test_plain(self): ...\n"
        "@pytest.mark.usefixtures('model')\n"
        "class TestMarked:\n"
        "    def test_plain(self): ...\n"
    )
    assert reason(source, "TestIt::test_download") == "TestIt::get -> hf_hub_download"
    assert reason(source, "TestIt::test_plain") is None
    assert reason(source, "TestMarked::test_plain") == "model -> hf_hub_download"


def test_fixtures_and_helpers_of_other_files() -> None:
    helper = "import huggingface_hub\ndef get(): return huggingface_hub.hf_hub_download('a', 'b')\n"
    assert reason("def test_it(model): ...", conftest=FIXTURE) == "model -> hf_hub_download"
    assert reason("def test_it(model): ...", test_b=FIXTURE) is None, "pytest does not see it from there"
    assert reason("from helper import get\ndef test_it(): get()", helper=helper) == "get -> hf_hub_download"
    assert reason("import helper as h\ndef test_it(): h.get()", helper=helper) == "get -> hf_hub_download"
    hidden = "import pytest\n@pytest.fixture\ndef model(): ...\ndef test_it(model): ..."
    assert reason(hidden, conftest=FIXTURE) is None, "the file's own fixture hides it"


def test_two_helpers_that_call_each_other_end() -> None:
    assert reason("def a(): b()\ndef b(): a()\ndef test_it(): a()") is None


JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest">
<properties><property name="llama_cpp" value="/e/site-packages/llama_cpp/__init__.py"/></properties>
<testcase classname="tests.test_a" name="test_good" time="0.1"/>
<testcase classname="tests.test_a.TestC" name="test_good[x-1]" time="0.1"/>
<testcase classname="tests.test_a" name="test_bad"><failure message="assert 1 == 2&#10;more">text</failure></testcase>
<testcase classname="tests.test_a" name="test_setup"><error message="failed on setup">text</error></testcase>
<testcase classname="tests.test_a" name="test_teardown" time="0.1"/>
<testcase classname="tests.test_a" name="test_teardown"><error message="failed on teardown">text</error></testcase>
<testcase classname="tests.test_a" name="test_skip"><skipped message="no reason"/></testcase>
</testsuite></testsuites>
"""


def test_every_selected_test_gets_one_outcome(tmp_path: Path) -> None:
    path = tmp_path / "result.xml"
    path.write_text(JUNIT, encoding="utf-8")
    names = ("good", "bad", "setup", "teardown", "skip", "gone")
    selected = ("tests/test_a.py::TestC::test_good[x-1]", *(f"tests/test_a.py::test_{name}" for name in names))
    outcomes = results.read(path, selected)
    assert outcomes.package == Path("/e/site-packages/llama_cpp/__init__.py")
    assert outcomes.passed == ("tests/test_a.py::TestC::test_good[x-1]", "tests/test_a.py::test_good")
    assert outcomes.failed == (
        Noted(id="tests/test_a.py::test_bad", reason="assert 1 == 2"),
        Noted(id="tests/test_a.py::test_setup", reason="failed on setup"),
        Noted(id="tests/test_a.py::test_teardown", reason="failed on teardown"),
        Noted(id="tests/test_a.py::test_gone", reason=NOT_RUN),
    )
    assert outcomes.skipped == (Noted(id="tests/test_a.py::test_skip", reason="no reason"),)


@pytest.mark.parametrize("text", [None, "", "<testsuites>"])
def test_no_result_is_no_pass(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "result.xml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValidationError, match="pytest left no result"):
        results.read(path, ("tests/test_a.py::test_b",))


def test_ids_are_taken_from_a_listing_and_nothing_else_is() -> None:
    output = "tests/a.py::test_b\ntests/a.py::C::test_d[x y]\n\n2 tests collected in 0.1s\nsee https://a.py::b.org x"
    assert results.collected(output) == ("tests/a.py::test_b", "tests/a.py::C::test_d[x y]")


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


def test_a_report_is_good_when_something_ran_and_nothing_failed() -> None:
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
def test_a_report_that_is_not_good_ends_the_step_and_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    done: UpstreamTestReport,
    message: str,
) -> None:
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
