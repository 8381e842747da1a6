"""Upstream's tests in miniature, with a real pytest in an environment of its own."""

from __future__ import annotations

import io
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import LockError, SettingsError, ValidationError
from build_config.model import LockedFile, SourceLock
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks import upstream_tests
from tests.support import wheels

if TYPE_CHECKING:
    from build_config.tasks.upstream_tests import SuiteRun

pytestmark = pytest.mark.integration

TEST_LLAMA = """
from pathlib import Path
import os, pytest, llama_cpp
from hub import hf_hub_download

MODEL = "./vendor/llama.cpp/models/ggml-vocab-llama-spm.gguf"

@pytest.fixture
def model_path():
    return hf_hub_download("a", "b")

@pytest.fixture
def written(tmp_path):
    return tmp_path

def test_vocabulary():
    assert Path(MODEL).read_bytes() == b"GGUF"

def test_version():
    assert llama_cpp.__version__ == "0.3.36"

def test_version_of_model(model_path):
    pass

@pytest.mark.parametrize(("name", "flag"), (("model_path", True), ("written", False)))
def test_names(request, name, flag):
    request.getfixturevalue(name)

def test_offline():
    assert os.environ["HF_HUB_OFFLINE"] == "1" and "PYTEST_ADDOPTS" not in os.environ
    assert not Path(os.environ["HF_HOME"]).exists()

@pytest.mark.skip(reason="upstream says so")
def test_skipped():
    pass
"""
FAILING = """
def test_broken():
    assert 1 == 2, "the sum is wrong"

def test_hidden_download(request):
    request.getfixturevalue("model" + "_path")
"""
HUB = "def hf_hub_download(*_):\n    raise OSError('went out')\n"


@pytest.fixture(name="python", scope="module")
def _python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this one's pytest and a ``llama_cpp`` of one line."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=sys.platform != "win32")
    site = next((folder / "lib").glob("python*")) / "site-packages"
    (site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (site / "llama_cpp.py").write_text('__version__ = "0.3.36"\n', encoding="utf-8")
    return folder / "bin" / "python"


@dataclass(frozen=True)
class Archive:
    """A source distribution with the given members below its one folder."""

    path: Path

    def write(self, **members: str) -> Path:
        content = {
            "llama_cpp/__init__.py": "raise ImportError('the sources were imported')",
            "tests/hub.py": HUB,
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


def run(python: Path, archive: Path, folder: Path) -> SuiteRun:
    return upstream_tests.run_suite(python, upstream_tests.unpack(archive, folder), log=folder / "log")


def test_all_but_the_downloading_tests_run_with_the_installed_package(
    python: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    done = run(python, archive.write(test_llama=TEST_LLAMA), tmp_path)
    assert done.outcomes.failed == ()
    assert done.outcomes.passed == (
        "tests/test_llama.py::test_vocabulary",
        "tests/test_llama.py::test_version",
        "tests/test_llama.py::test_names[written-False]",
        "tests/test_llama.py::test_offline",
    )
    assert [(one.id, one.reason) for one in done.left_out] == [
        ("tests/test_llama.py::test_version_of_model", "model_path -> hf_hub_download"),
        ("tests/test_llama.py::test_names[model_path-True]", "model_path -> hf_hub_download"),
    ]
    assert [one.id for one in done.outcomes.skipped] == ["tests/test_llama.py::test_skipped"]
    assert done.outcomes.package is not None
    assert done.outcomes.package.is_relative_to(python.parent.parent)
    models = tmp_path / "suite" / upstream_tests.MODELS
    assert [path.name for path in models.iterdir()] == ["ggml-vocab-llama-spm.gguf"]


def test_failures_are_told_and_a_download_that_was_not_seen_is_one(
    python: Path, archive: Archive, tmp_path: Path
) -> None:
    done = run(python, archive.write(test_llama=TEST_LLAMA + FAILING), tmp_path)
    assert {one.id: one.reason for one in done.outcomes.failed} == {
        "tests/test_llama.py::test_broken": "AssertionError: the sum is wrong",
        "tests/test_llama.py::test_hidden_download": "OSError: went out",
    }


def test_only_downloading_tests_is_nothing_run(python: Path, archive: Archive, tmp_path: Path) -> None:
    source = "from hub import hf_hub_download\ndef test_it(): hf_hub_download()\n"
    done = run(python, archive.write(test_a=source), tmp_path)
    assert (done.outcomes.passed, done.outcomes.failed) == ((), ())
    assert len(done.left_out) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module\ndef test_it(): ...", "could not be collected: .*no_such_module"),
        ("import os\ndef test_it(): os.abort()", "broke off; pytest was ended by signal 6"),
        ("import pytest\ndef test_it(): pytest.exit('enough')", "broke off; pytest ended with status 2"),
    ],
)
def test_a_suite_that_breaks_off_is_an_error(
    python: Path, archive: Archive, tmp_path: Path, source: str, message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        run(python, archive.write(test_a=source), tmp_path)
    assert caught.value.log == tmp_path / "log"


def test_an_archive_without_what_the_tests_name_is_refused(archive: Archive, tmp_path: Path) -> None:
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
