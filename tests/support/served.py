"""Servers of an index as processes, and another package index that has the same project as source distributions."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

from build_config.model import DISTRIBUTION
from build_config.system.layout import PACKAGE
from tests.support import local_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CPU_BUILD = "compiled for the CPU"
BACKEND = f"""
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "llama_cpp_python-VERSION-py3-none-any.whl"
    info = "llama_cpp_python-VERSION.dist-info"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("llama_cpp/__init__.py", "content = {CPU_BUILD!r}")
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {DISTRIBUTION}\\nVersion: VERSION\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name
"""


def source_distribution(version: str) -> tuple[str, bytes]:
    """The name and the bytes of a source distribution whose wheel says ``CPU_BUILD``."""
    folder = f"llama_cpp_python-{version}"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {DISTRIBUTION}\nVersion: {version}\nRequires-Python: >=3.8\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{DISTRIBUTION}"\nversion = "{version}"\nrequires-python = ">=3.8"\n',
        "backend.py": BACKEND.replace("VERSION", version),
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return f"{folder}.tar.gz", archive.getvalue()


@contextlib.contextmanager
def other_index(*versions: str) -> Iterator[str]:
    """An index in the place of PyPI; yields its address."""
    with local_index.serve() as index:
        index.files.update(map(source_distribution, versions))
        yield index.url


@contextlib.contextmanager
def server(folder: Path, kind: str) -> Iterator[str]:
    """Serve an index: ``http.server`` sends its files, ``serve`` is the project's own; yields the address."""
    commands = {
        "http.server": ("http.server", "--bind", "127.0.0.1", "--directory", folder, "0"),
        "serve": ("build_config", "serve", folder, "--port", "0"),
    }
    command = [sys.executable, "-u", "-m", *map(str, commands[kind])]
    with subprocess.Popen(
        command, cwd=PACKAGE.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", said)
        try:
            assert found, said
            yield found[0]
        finally:
            process.terminate()
