"""What `nox -s clean` frees is made again, with the same bytes: the miniature with real compilers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from build_config.errors import ReproductionError
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.system.layout import PACKAGE
from build_config.tasks import clean as task
from build_config.tasks.clean.choice import Limits
from build_config.tasks.reproduce import second_build
from tests.support import factories
from tests.support.workshop import workshop

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.model import CudaToolkit

pytestmark = pytest.mark.integration


def test_what_was_freed_is_built_again_with_the_same_bytes(
    toolkit: CudaToolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    shop = workshop(tmp_path / "w", toolkit, "sccache")
    core = shop.specs()[0]
    (first,) = shop.build(core)
    shop.layout.lock_file.touch()
    layout = factories.layout(shop.layout.work_root, tmp_path / "checkout")
    request = task.CleanRequest(limits=Limits(older_than=0.0), yes=True)

    assert (shop.layout.state / "usage.json").is_file()
    done = task.clean(request, layout, Console(terminal=False))
    assert {"units", "object cache", "build trees", "staged sources"} <= {item.kind for item in done.freed}
    assert not shop.layout.store.exists() or not [*shop.layout.store.rglob("*")]

    (second,) = shop.build(shop.specs()[0])
    assert second.files == first.files
    assert shop.compiled("core") > 0


def test_what_is_mounted_inside_a_folder_stays(tmp_path: Path) -> None:
    """A bind mount of this file system has the same device as its surroundings."""
    try:
        namespaces = second_build.namespaces()
    except ReproductionError as error:
        pytest.skip(error.message)
    root, mine, temporary = (tmp_path / name for name in ("root", "mine", "temporary"))
    for folder in (mine, temporary, root / "build" / "sm89" / "mounted", root / "build" / "core"):
        folder.mkdir(parents=True)
    for file in (root / "lock", mine / "thesis.txt"):
        file.touch()
    described = {
        "binds": [[str(mine), str(root / "build" / "sm89" / "mounted")]],
        "memory_folders": [],
        "hostname": "here",
        "uid": os.getuid(),
        "gid": os.getgid(),
        "umask": 0o022,
        "folder": str(tmp_path),
        "command": (
            sys.executable,
            "-m",
            "build_config",
            "clean",
            "--older-than",
            "0h",
            "--yes",
            f"--work-root={root}",
        ),
        "environment": {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "TMPDIR": str(temporary)},
    }
    jsonio.write(tmp_path / "environment.json", described)
    argv = (*namespaces, sys.executable, "-I", second_build.entry_script(), str(tmp_path / "environment.json"))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a mounted file system" in done.stdout
    assert (mine / "thesis.txt").is_file()
    assert not (root / "build" / "core").exists()
