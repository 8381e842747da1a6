"""pip and a published folder: it takes our wheel, from the folder and from the page, and checks the digest."""

from __future__ import annotations

import os
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from build_config.steps.wheelhouse import publication
from tests.integration.conftest import run
from tests.support import publishable

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.integration


def wheel_bytes(tmp_path: Path, version: str) -> bytes:
    """A wheel that pip accepts, with its version as the only content."""
    path = tmp_path / "made.whl"
    info = f"llama_cpp_python-{version}.dist-info"
    files = {
        "llama_cpp/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path.read_bytes()


def publish(tmp_path: Path, version: str) -> Path:
    """Publish a wheel of this version; returns the folder."""
    made = publishable.make(tmp_path / "store", wheel_bytes(tmp_path, version), version, tag="py3-none-any")
    return publication.publish(*made, tmp_path / "wheelhouse").parent


def pip_install(tmp_path: Path, find_links: str | Path, requirement: str) -> subprocess.CompletedProcess[str]:
    """Install with nothing of the user's own pip settings and no index."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    options = ["--no-index", "--no-cache-dir", "--find-links", str(find_links), "--target", str(tmp_path / "site")]
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return run(sys.executable, "-m", "pip", "install", *options, requirement, env=environment)


def installed(tmp_path: Path) -> str:
    return (tmp_path / "site" / "llama_cpp" / "__init__.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "requirement", ["llama-cpp-python", "llama-cpp-python==0.3.36", "llama-cpp-python==0.3.36+cu130.sm89"]
)
def test_pip_prefers_our_wheel_to_the_plain_one_of_the_same_version(tmp_path: Path, requirement: str) -> None:
    publish(tmp_path, "0.3.36")
    publish(tmp_path, "0.3.35+cu130.sm89")
    folder = publish(tmp_path, "0.3.36+cu130.sm89")

    completed = pip_install(tmp_path, folder, requirement)

    assert completed.returncode == 0, completed.stderr
    assert installed(tmp_path) == "__version__ = '0.3.36+cu130.sm89'\n"


def test_pip_installs_from_the_page_and_refuses_other_bytes(tmp_path: Path) -> None:
    folder = publish(tmp_path, "0.3.36+cu130.sm89")
    page = (folder / publication.PAGE).as_uri()

    completed = pip_install(tmp_path, page, "llama-cpp-python")
    assert completed.returncode == 0, completed.stderr
    assert "cu130.sm89" in installed(tmp_path)

    (wheel,) = folder.glob("*.whl")
    wheel.write_bytes(wheel_bytes(tmp_path, "0.3.36+cu130.sm89") + b"\0")
    refused = pip_install(tmp_path, page, "llama-cpp-python")
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def test_pip_overlooks_a_half_written_wheel(tmp_path: Path) -> None:
    folder = publish(tmp_path, "0.3.36+cu130.sm89")
    (folder / ".llama_cpp_python-0.3.37+cu130.sm89-py3-none-any.whl.x.part").write_bytes(b"half")

    completed = pip_install(tmp_path, folder, "llama-cpp-python")

    assert completed.returncode == 0, completed.stderr
    assert "0.3.36+cu130.sm89" in installed(tmp_path)
