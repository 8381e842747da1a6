"""Make ``check_gpu.pyz``: the package ``check_gpu`` and a tiny model as one file for Python 3.8 or later."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import check_gpu
from build_config.errors import PackagingError
from build_config.formats import wheelfile
from build_config.testbed import synthetic_model
from check_gpu.__main__ import MODEL

NAME = "check_gpu.pyz"
CHECK_GPU = Path(check_gpu.__file__).resolve().parent

_INTERPRETER = b"#!/usr/bin/env python3\n"
_MODE = 0o644
# In the grammar of every Python, so an old one reports its version instead of a syntax error.
_START = """\
import sys

if sys.version_info < (3, 8):
    sys.exit("check_gpu needs Python 3.8 or later, this is " + sys.version.split()[0])

from check_gpu.__main__ import main

sys.exit(main())
"""


def make(path: Path) -> Path:
    """Write the file to ``path`` atomically. The same sources give the same bytes. Raises ``PackagingError``."""
    members = {"__main__.py": _START.encode()}
    for source in sorted(CHECK_GPU.rglob("*.py")):
        members[f"check_gpu/{source.relative_to(CHECK_GPU).as_posix()}"] = source.read_bytes()
    with tempfile.TemporaryDirectory(prefix="check-gpu-file-") as folder:
        members[f"check_gpu/{MODEL}"] = synthetic_model.write(Path(folder) / MODEL).read_bytes()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(_INTERPRETER)
            with zipfile.ZipFile(file, "w") as archive:
                for name in sorted(members):
                    _add(archive, name, members[name])
        partial.chmod(0o755)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PackagingError(f"{path} cannot be written: {error}", remedy="pass another path") from error
    return path


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a member that depends only on its name and content, not on time, system or version of zlib."""
    member = zipfile.ZipInfo(name, date_time=wheelfile.TIMESTAMP)
    member.create_system = 3  # Unix
    member.external_attr = _MODE << 16
    archive.writestr(member, content, compress_type=zipfile.ZIP_STORED)
