"""Upstream's tests in miniature, with a real pytest in its own environment."""

from __future__ import annotations

import io
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import LockError, SettingsError, ValidationError
from build_config.model import LockedFile, SourceLock
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks import upstream_tests
from tests.integration.conftest import bare_environment
from tests.support import wheels

if TYPE_CHECKING:
    from build_config.tasks.upstream_tests.results import Recorded

pytestmark = pytest.mark.integration

HUB = """
class OfflineModeIsEnabled(ConnectionError): ...
class EntryNotFoundError(Exception): ...
class LocalEntryNotFoundError(FileNotFoundError, EntryNotFoundError): ...
class IncompleteSnapshotError(LocalEntryNotFoundError): ...

def request(path):
    raise OfflineModeIsEnabled(f"Cannot reach https://huggingface.co/{path}: offline mode is enabled. Please unset it.")

def hf_hub_download(repo, file, error=LocalEntryNotFoundError):
    try:
        request(f"{repo}/resolve/main/{file}")
    except OfflineModeIsEnabled as caught:
        refused = caught
    raise error("An error happened: see above") from refused
"""
"""The error classes of huggingface_hub 2.4.0, raised as there; no lock of the tests contains the real one."""

SUITE = """
import os
import unittest
from pathlib import Path

import huggingface_hub as hub
import llama_cpp
import pytest

MODEL = "./vendor/llama.cpp/models/ggml-vocab-llama-spm.gguf"

class OfflineModeIsEnabled(Exception): ...

def from_pretrained(): hub.request("api/models/a/b")

@pytest.fixture
def model_path(): return hub.hf_hub_download("a/b", "c.gguf")

@pytest.fixture(scope="module")
def shared_model(): return hub.hf_hub_download("a/b", "shared.gguf")

@pytest.fixture
def written(tmp_path): return tmp_path

@pytest.fixture
def broken(): raise KeyError("no such fixture value")

@pytest.fixture
def removed():
    yield
    raise RuntimeError("not removed")

@pytest.fixture
def uploaded():
    yield
    hub.request("upload")

class Test_passed:
    def test_vocabulary(self): assert Path(MODEL).read_bytes() == b"GGUF"
    def test_other_fixture_by_name(self, request): request.getfixturevalue("written")
    def test_version(self): assert llama_cpp.__version__ == "0.3.36"
    def test_offline(self):
        assert os.environ["HF_HUB_OFFLINE"] == "1" and "PYTEST_ADDOPTS" not in os.environ
        assert not Path(os.environ["HF_HOME"]).exists()
    def test_expected(self):
        with pytest.raises(hub.LocalEntryNotFoundError):
            hub.hf_hub_download("a/b", "c.gguf")

class Test_left_out:
    def test_fixture_by_name(self, request): request.getfixturevalue("model_path")
    def test_fixture(self, model_path): ...
    def test_shared(self, shared_model): ...
    def test_shared_again(self, shared_model): ...
    def test_request(self): from_pretrained()
    def test_subclass(self): raise hub.IncompleteSnapshotError("3 of 5 files are missing")
    def test_wrapped(self): hub.hf_hub_download("a/b", "c.gguf", error=ValueError)
    def test_cached_only(self): raise hub.LocalEntryNotFoundError("Cannot find the requested files in the disk cache")

class Test_left_out_of_unittest(unittest.TestCase):
    def test_download(self): hub.hf_hub_download("a/b", "c.gguf")

class Test_failed:
    def test_sum(self): assert 1 == 2, "the sum is wrong"
    def test_setup(self, broken): ...
    def test_teardown(self, removed): ...
    def test_teardown_after_a_download(self, removed, model_path): ...
    def test_download_in_teardown(self, uploaded): ...
    def test_other_class_of_that_name(self): raise OfflineModeIsEnabled("not the Hub's")
    def test_other_error_of_the_hub(self): raise hub.EntryNotFoundError("no such file")
    def test_no_network(self): raise ConnectionError("refused")
    def test_words(self): raise RuntimeError("Cannot reach https://huggingface.co/a: offline mode is enabled")
    def test_assertion_while_handling(self):
        try:
            from_pretrained()
        except hub.OfflineModeIsEnabled:
            assert 1 == 2, "the fallback is wrong"
    def test_error_from_none(self):
        try:
            from_pretrained()
        except hub.OfflineModeIsEnabled:
            raise LookupError("no fallback") from None
    @pytest.mark.xfail(strict=True, reason="expected")
    def test_unexpected_pass(self): ...

class Test_skipped:
    @pytest.mark.skip(reason="upstream says so")
    def test_mark(self): ...
    def test_call(self):
        try:
            from_pretrained()
        except ConnectionError:
            pytest.skip("no network")
    @pytest.mark.xfail(reason="known")
    def test_known_failure(self): from_pretrained()
"""
"""Each class is named after the expected outcome of its tests."""
REASONS = {
    "test_fixture": "Cannot reach https://huggingface.co/a/b/resolve/main/c.gguf",
    "test_shared_again": "Cannot reach https://huggingface.co/a/b/resolve/main/shared.gguf",
    "test_request": "Cannot reach https://huggingface.co/api/models/a/b",
    "test_subclass": "3 of 5 files are missing",
    "test_sum": "AssertionError: the sum is wrong",
    "test_setup": "KeyError: 'no such fixture value'",
    "test_teardown_after_a_download": "RuntimeError: not removed",
    "test_other_error_of_the_hub": "huggingface_hub.EntryNotFoundError: no such file",
    "test_assertion_while_handling": "AssertionError: the fallback is wrong",
    "test_unexpected_pass": "[XPASS(strict)] expected",
    "test_mark": "upstream says so",
    "test_call": "no network",
    "test_known_failure": "known",
}


@pytest.fixture(name="python", scope="module")
def _python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this environment's pytest, a ``llama_cpp`` of one line and a Hub that is offline."""
    folder = tmp_path_factory.mktemp("environment")
    python, site = bare_environment(folder)
    (site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (site / "llama_cpp.py").write_text('__version__ = "0.3.36"\n', encoding="utf-8")
    (site / "huggingface_hub.py").write_text(HUB, encoding="utf-8")
    return python


@dataclass(frozen=True)
class Archive:
    """A source distribution with the given members below its single folder."""

    path: Path

    def write(self, **members: str) -> Path:
        content = {
            "llama_cpp/__init__.py": "raise ImportError('the sources were imported')",
            "vendor/llama.cpp/models/ggml-vocab-llama-spm.gguf": "GGUF",
            "vendor/llama.cpp/models/ggml-vocab-unused.gguf": "GGUF",
            **{f"tests/{name}.py": text for name, text in members.items()},
        }
        with tarfile.open(self.path, "w:gz") as tar:
            for name, text in content.items():
                member = tarfile.TarInfo(f"llama_cpp_python-0.3.36/{name}")
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
        return self.path


@pytest.fixture(name="archive")
def _archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "llama_cpp_python-0.3.36.tar.gz")


def run(python: Path, archive: Path, folder: Path) -> Recorded:
    return upstream_tests.run_suite(python, upstream_tests.unpack(archive, folder), log=folder / "log")


def test_only_tests_that_the_hub_refused_are_left_out(
    python: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    done = run(python, archive.write(test_llama=SUITE), tmp_path)
    noted = {"failed": done.failed, "skipped": done.skipped, "left_out": done.left_out}
    ended = dict.fromkeys(done.passed, "passed") | {one.id: key for key, ones in noted.items() for one in ones}
    assert len(ended) == done.collected == SUITE.count("def test_")
    assert {name: outcome for name, outcome in ended.items() if f"::Test_{outcome}" not in name} == {}
    said = {one.id.rpartition("::")[2]: one.reason for ones in noted.values() for one in ones}
    assert {name: said[name] for name in REASONS} == REASONS
    assert done.package is not None
    assert done.package.is_relative_to(python.parent.parent)
    models = tmp_path / "suite" / upstream_tests.MODELS
    assert [path.name for path in models.iterdir()] == ["ggml-vocab-llama-spm.gguf"]


def test_a_suite_of_downloading_tests_only_has_no_passed_test(python: Path, archive: Archive, tmp_path: Path) -> None:
    source = "import huggingface_hub\ndef test_it(): huggingface_hub.request('a')\n"
    done = run(python, archive.write(test_a=source), tmp_path)
    assert ([test.id for test in done.left_out], done.collected) == (["tests/test_a.py::test_it"], 1)


def test_a_package_that_cannot_be_imported_fails_every_test(python: Path, archive: Archive, tmp_path: Path) -> None:
    source = "import sys\nsys.modules['llama_cpp'] = None\ndef test_it(): ...\n"
    done = run(python, archive.write(test_a=source), tmp_path)
    assert done.package is None
    assert [test.reason.partition(":")[0] for test in done.failed] == ["ModuleNotFoundError"]


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("test_a", "import no_such_module", "could not be collected: tests/test_a.py: .*no_such_module"),
        ("test_a", "import huggingface_hub as h\nh.request('a')", "could not be collected: tests/test_a.py: .*Cannot"),
        ("conftest", "import no_such_module", "could not be collected: .*no_such_module"),
        ("test_a", "import os\ndef test_it(): os.abort()", "stopped early; pytest was ended by signal 6"),
        ("test_a", "import pytest\ndef test_it(): pytest.exit('enough')", "stopped early; pytest ended with status 2"),
    ],
)
def test_a_suite_that_stops_early_is_an_error(
    python: Path, archive: Archive, tmp_path: Path, file: str, source: str, message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        run(python, archive.write(**{file: source}), tmp_path)
    assert caught.value.log == tmp_path / "log"


def test_an_archive_without_a_vocabulary_of_the_tests_is_refused(archive: Archive, tmp_path: Path) -> None:
    path = archive.write(test_a='MODEL = "ggml-vocab-gone.gguf"')
    with pytest.raises(LockError, match=r"has no vendor/llama.cpp/models/ggml-vocab-gone.gguf"):
        upstream_tests.unpack(path, tmp_path)


def test_a_wheel_of_another_version_is_not_tested(archive: Archive, tmp_path: Path) -> None:
    wheel = wheels.write(tmp_path, {}, wheels.wheel_name("linux_x86_64"))
    file = LockedFile(name="llama-cpp-python", version="0.3.35", filename="a.tar.gz", sha256="0" * 64, size=1)
    with pytest.raises(SettingsError, match=r"whose version is 0\.3\.35"):
        upstream_tests.run(
            wheel,
            SourceLock(file=file),
            archive.write(),
            wheels_folder=tmp_path,
            layout=Layout(checkout=PACKAGE.parent, work_root=tmp_path),
            console=Console(terminal=False),
        )
