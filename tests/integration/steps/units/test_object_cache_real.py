"""The object cache's server: a build is not lost because the server is slow."""

from pathlib import Path

import pytest

from build_config.model import Program
from build_config.steps.units import object_cache
from build_config.system.layout import Layout
from build_config.system.usage import Uses

pytestmark = pytest.mark.integration

SLOW = """#!/bin/sh
echo "$1" >> "$0.calls"
case "$1" in --show-stats | --stop-server) exec sleep 60 ;; esac
"""


def test_a_server_that_does_not_answer_in_time_ends_no_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "SERVER_TIMEOUT", 1.0)
    program = tmp_path / "sccache"
    program.write_text(SLOW, encoding="utf-8")
    program.chmod(0o755)
    layout = Layout(checkout=tmp_path, work_root=tmp_path / "root")
    with object_cache.session(
        Program(path=program, version="0.16.0", found_via="test"), layout, {"PATH": "/usr/bin:/bin"}
    ) as session:
        assert session.uses() == Uses(hits=0, asked=0)
    calls = Path(f"{program}.calls").read_text(encoding="utf-8").split()
    assert calls == ["--start-server", "--show-stats", "--show-stats", "--stop-server"]
