"""`nox -s outdated` with a package index and a database of advisories on this machine."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from build_config.errors import NetworkError, SettingsError
from build_config.steps import locks, sources
from build_config.system import jsonio, network
from build_config.system import layout as layout_module
from build_config.system.console import Console
from build_config.system.layout import Layout
from build_config.tasks import outdated as task
from tests.support import local_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.local_index import LocalIndex

pytestmark = pytest.mark.integration
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOOLKIT = """cuda = "13.0"
platform = "linux-x86_64"

[[files]]
name = "nvidia-cublas"
version = "13.0.2"
filename = "nvidia_cublas-13.0.2-py3-none-manylinux_2_27_x86_64.whl"
sha256 = "%064d"
size = 1
"""
SOURCE = """name = "llama-cpp-python"
version = "0.3.36"
filename = "llama_cpp_python-0.3.36.tar.gz"
sha256 = "%064d"
size = 1
"""


@pytest.fixture(name="layout")
def _layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(layout_module, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(network, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    layout = Layout(checkout=tmp_path, work_root=tmp_path / "root")
    layout.locks.mkdir(parents=True)
    for name, text in {
        "requirements.txt": "alpha==1.0 --hash=sha256:00\nbeta==2.0 --hash=sha256:00\n",
        "test.txt": 'alpha==1.0 --hash=sha256:00\ngamma==1.0 ; python_version < "3.12" --hash=sha256:00\n'
        'gamma==1.5 ; python_version >= "3.12" --hash=sha256:00\n',
        "pythons.txt": "elder==1.0 --hash=sha256:00\n",
        "cuda-13.0.in": "nvidia-cublas==13.0.*\n",
        "cuda-13.0-linux-x86_64.toml": TOOLKIT % 0,
        "llama-cpp-python.toml": SOURCE % 0,
    }.items():
        (layout.locks / name).write_text(text, encoding="utf-8")
    return layout


@pytest.fixture(name="index")
def _index(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIndex]:
    with local_index.serve() as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        for name in (
            *("alpha-1.0-py3-none-any.whl", "alpha-1.1-py3-none-any.whl", "alpha-2.0rc1-py3-none-any.whl"),
            *("alpha-3.0-py3-none-any.whl", "beta-2.0-py3-none-any.whl", "alpha-4.0-py3-none-any.whl"),
            *("gamma-1.5-py3-none-any.whl", "elder-1.0-py3-none-any.whl", "elder-2.0-py3-none-any.whl"),
            "nvidia_cublas-13.3.0-py3-none-manylinux_2_27_x86_64.whl",
            "llama_cpp_python-0.3.36.tar.gz",
        ):
            index.files[name] = b""
        index.yanked.add("alpha-3.0-py3-none-any.whl")
        index.requires_python["alpha-4.0-py3-none-any.whl"] = ">=3.13"
        index.requires_python["elder-2.0-py3-none-any.whl"] = ">=3.9"
        yield index


@contextlib.contextmanager
def advisories(answer: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A database that answers a question in this way; yields its address and the questions."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps(answer(asked[-1])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def nothing(question: dict[str, Any]) -> Any:
    return {"results": [{} for _ in question["queries"]]}


def newer(answer: task.Answer) -> dict[tuple[str, str], str]:
    return {(one.locked.name, one.locked.version): one.newest for one in answer.outdated}


def test_newer_releases_are_named_that_the_locks_could_have(layout: Layout, index: LocalIndex) -> None:
    """Neither a yanked one, nor a pre-release, nor one for a later Python than that of the lock."""
    assert index.files
    with advisories(nothing) as (address, _):
        answer = task.examine(layout, Console(terminal=False), osv=address)
    assert newer(answer) == {
        ("alpha", "1.0"): "1.1",
        ("gamma", "1.0"): "1.5",
        ("nvidia-cublas", "13.0.2"): "13.3.0",
    }
    assert answer.outdated[0].locked.locks == ("requirements.txt", "test.txt")
    assert answer.asked == 7
    assert answer.advisories == ()


def test_advisories_are_asked_for_with_version_and_commit(layout: Layout, index: LocalIndex) -> None:
    assert index.files
    stamp = sources.Vendored(sha256="0" * 64, commit=COMMIT, llama_cpp_digest="", bindings_digest="")
    jsonio.write(layout.vendor / sources.STAMP, stamp)

    def answer(question: dict[str, Any]) -> Any:
        known = {"beta": ["PYSEC-2", "GHSA-1"], COMMIT: ["CVE-3"]}
        found = (known.get(one.get("commit") or one["package"]["name"], []) for one in question["queries"])
        return {"results": [{"vulns": [{"id": name} for name in names]} if names else {} for names in found]}

    with advisories(answer) as (address, asked):
        found = task.examine(layout, Console(terminal=False), osv=address)
    assert found.advisories == (
        task.Advisory(name="beta", version="2.0", identifiers=("GHSA-1", "PYSEC-2")),
        task.Advisory(name="llama.cpp", version=COMMIT, identifiers=("CVE-3",)),
    )
    assert {"package": {"name": "gamma", "ecosystem": "PyPI"}, "version": "1.5"} in asked[0]["queries"]


@pytest.mark.parametrize(
    "answer", [[], {}, {"results": [{}]}, {"results": "no"}, {"results": [{"vulns": [{}]}] * 7}, "<html>"]
)
def test_what_is_no_answer_is_not_taken_for_no_advisory(
    layout: Layout, index: LocalIndex, capsys: pytest.CaptureFixture[str], answer: object
) -> None:
    assert index.files
    with advisories(lambda _: answer) as (address, _):
        found = task.examine(layout, Console(terminal=False), osv=address)
    assert found.advisories is None
    task.show(found, Console(terminal=False))
    assert "advisories were NOT CHECKED" in "".join(capsys.readouterr())


def test_without_the_database_the_releases_are_still_compared(layout: Layout, index: LocalIndex) -> None:
    assert index.files
    found = task.examine(layout, Console(terminal=False), osv="http://127.0.0.1:9/")
    assert found.advisories is None
    assert found.problem is not None
    assert "does not answer" in found.problem
    assert newer(found)


def test_without_the_index_it_says_so(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    with pytest.raises(NetworkError, match="package index"):
        task.examine(layout, Console(terminal=False), only=("alpha",))


def test_some_packages_can_be_named_and_others_not(layout: Layout, index: LocalIndex) -> None:
    assert index.files
    with advisories(nothing) as (address, asked):
        answer = task.examine(layout, Console(terminal=False), only=("gamma",), osv=address)
    assert newer(answer) == {("gamma", "1.0"): "1.5"}
    assert len(asked[0]["queries"]) == 2
    with pytest.raises(SettingsError, match="no lock contains delta"):
        task.examine(layout, Console(terminal=False), only=("delta",))


def test_every_lock_of_this_checkout_is_asked_about() -> None:
    files = locks.contents(Layout(checkout=layout_module.PACKAGE.parent, work_root=layout_module.PACKAGE).locks)
    known = task.locked(files)
    named = {lock for one in known for lock in one.locks}
    assert named == {name for name in files if not name.endswith(".in")}
