"""What `nox -s clean` frees is made again, with the same bytes: the miniature with real compilers."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest

from build_config.system.console import Console
from build_config.tasks import clean as task
from build_config.tasks.clean.choice import Limits
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

    (shop.layout.state / "usage.json").chmod(0o644)  # it was counted
    done = task.clean(request, layout, Console(terminal=False))
    assert {"units", "object cache", "build trees", "staged sources"} <= {item.kind for item in done.freed}
    assert not shop.layout.store.exists() or not [*shop.layout.store.rglob("*")]

    (second,) = shop.build(shop.specs()[0])
    assert second.files == first.files
    assert shop.compiled("core") > 0
