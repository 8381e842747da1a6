"""A kit with a small wheel in place of a finished one: it runs to its end, and says what failed or was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from build_config.formats import build_facts
from build_config.system.console import Console
from build_config.system.layout import Layout
from build_config.tasks.gpu_kit import contents, run
from tests.support import factories, wheels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration
REQUIRES = "Requires-Dist: typing-extensions>=4.5.0\nRequires-Dist: jinja2>=2.11.3\n"


@pytest.fixture(name="layout", scope="module")
def _layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = tmp_path_factory.mktemp("gpu-kit")
    return Layout(checkout=folder / "checkout", work_root=folder / "root")


@pytest.fixture(name="kit", scope="module")
def _kit(layout: Layout) -> Path:
    """A kit of a wheel whose package cannot be imported."""
    members = wheels.contents({})
    members[build_facts.MEMBER] = build_facts.text(factories.build_facts("89")).encode()
    metadata = f"{wheels.DIST_INFO}/METADATA"
    members[metadata] = members[metadata].rstrip() + b"\n" + REQUIRES.encode()
    layout.wheelhouse.mkdir(parents=True)
    wheels.write(layout.wheelhouse, members)
    return contents.make(layout.checkout.parent / "kit", layout, Console(terminal=False), arch="89")


@pytest.fixture(name="moved")
def _moved(kit: Path, tmp_path: Path) -> Iterator[Path]:
    """The kit at another place, as after a copy; nobody may write into it."""
    folder = shutil.copytree(kit, tmp_path / "a folder" / "kit")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


def start(kit: Path, out: Path, python: str = sys.executable) -> subprocess.Popen[str]:
    """Start the run in an empty folder, with its own folder for temporary files."""
    temporary = out.parent / "tmp"
    temporary.mkdir()
    return subprocess.Popen(
        [python, str(kit / "run.py"), "--out", str(out), "--quick"],
        cwd=temporary,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def test_the_folder_is_complete(kit: Path, layout: Layout) -> None:
    description = json.loads((kit / "kit.json").read_text(encoding="utf-8"))
    packed = {path.relative_to(kit).as_posix(): path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    del packed["kit.json"]
    assert description["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in packed.items()}
    (wheel,) = layout.wheelhouse.glob("*.whl")
    assert packed[f"wheels/{wheel.name}"] == wheel.read_bytes()
    for name in ("jinja2", "markupsafe", "diskcache", "typing_extensions", "cuda_pathfinder"):
        assert [file for file in packed if file.startswith(f"wheels/{name}-")], name
    assert sum(map(len, packed.values())) - len(wheel.read_bytes()) < 5_000_000
    text = b"".join(data for name, data in packed.items() if not name.startswith("wheels/"))
    assert str(layout.checkout.parent).encode() not in text, "it names no folder of this machine"


def test_the_python_wheels_are_fetched_once(kit: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    (wheel,) = layout.wheelhouse.glob("*.whl")
    found = contents.provide_dependencies(wheel, layout, Console(terminal=False))
    assert {path.name for path in found} < {path.name for path in (kit / "wheels").iterdir()}


def test_a_part_that_fails_keeps_no_other_from_running(moved: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    process = start(moved, out)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    report = read(out)
    assert list(report["parts"]) == list(run.PARTS)
    assert [name for name, part in report["parts"].items() if part["failed"] is None] == ["models"]
    assert "No module named 'llama_cpp.llama_cpp'" in report["parts"]["scenarios"]["failed"] + said
    assert set(report["evidence"]["tests"]["result"]["tests"].values()) != {None}
    for number, name in enumerate(run.PARTS, 1):
        assert f"[{number}/{len(run.PARTS)}] {name}" in said
    assert said.strip().endswith("FAILED: check_gpu, scenarios, comparison, bench, tests")
    text = (out / "report.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in run.PARTS)
    assert "llama_cpp" in (out / "log.txt").read_text(encoding="utf-8")
    assert str(tmp_path) not in json.dumps(report["evidence"]["tests"])
    assert not any((tmp_path / "tmp").iterdir())


def test_a_stopped_run_leaves_a_report_of_what_was_done(moved: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    process = start(moved, out)
    assert process.stdout is not None
    for line in process.stdout:
        if "] models" in line:
            time.sleep(0.5)  # its process writes now
            process.send_signal(signal.SIGTERM)
            break
    said, _ = process.communicate(timeout=60)
    assert process.returncode == run.INTERRUPTED
    assert "stopped: the report has the parts that were finished" in said
    report = read(out)
    assert report["interrupted"] is True
    assert list(report["parts"]) == ["check_gpu"]
    assert "STOPPED" in (out / "report.md").read_text(encoding="utf-8")
    assert not any((tmp_path / "tmp").iterdir())


def test_without_numpy_the_remedy_is_named(moved: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    process = start(moved, tmp_path / "report", str(environment / "bin" / "python"))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "numpy cannot be imported by" in said
    assert "install it there (pip install numpy)" in said
    assert not (tmp_path / "report" / "report.json").exists()
