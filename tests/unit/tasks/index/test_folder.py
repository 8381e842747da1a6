"""An index is whole at every moment: whoever stops, wherever, leaves no broken page and no missing file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import SettingsError, StepResultError
from build_config.system.console import Console
from build_config.tasks.index import folder, rules, update
from build_config.tasks.index.folder import NewFile
from tests.support import systems
from tests.support.indexed import PORTABLE, SM89, TAG, House, assert_whole, contents, listed

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = f"llama_cpp_python-{SM89}-{TAG}.whl"
NEW = f"llama_cpp_python-{SM89}-1-{TAG}.whl"


def test_a_stop_before_any_change_leaves_the_index_whole_and_the_same_call_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop at the first rename or removal, then at the second, and so on until one run goes through."""
    prepared = House(tmp_path / "prepared")
    prepared.build()
    prepared.write()
    prepared.build(content="other")
    prepared.build(PORTABLE)
    offered = tuple(update.own_wheels(prepared.layout, Console()))
    supersede = rules.Supersede(name=OLD, reason="a fault")

    def publish(house: House) -> None:
        update.change(house.index, Console(), lambda known: rules.add(known, offered, supersede=supersede))

    changes = stop_at = 0

    def stopping(real: Callable[..., object]) -> Callable[..., object]:
        def changed(path: Path, *arguments: object, **named: object) -> object:
            nonlocal changes
            changes += 1
            if changes == stop_at:
                raise KeyboardInterrupt
            return real(path, *arguments, **named)

        return changed

    results = []
    finished = False
    while not finished:
        stop_at += 1
        house = House(tmp_path / str(stop_at))
        shutil.copytree(prepared.index, house.index)
        changes = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stopping(Path.replace))
            patch.setattr(Path, "unlink", stopping(Path.unlink))
            try:
                publish(house)
                finished = True
            except KeyboardInterrupt:
                assert_whole(house.index)
                assert OLD in listed(house.index), "nothing that was published is lost"
        publish(house)
        assert_whole(house.index)
        results.append(contents(house.index))
        assert not list(house.index.rglob(".*.part"))
        shutil.rmtree(house.folder)
    assert stop_at > 15
    assert all(result == results[-1] for result in results)
    assert {f"files/{OLD}", f"files/{NEW}", "cu130/llama-cpp-python/index.html"} <= results[-1].keys()


def test_the_folder_of_an_index_is_never_there_without_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m http.server` would send a list of the files in it."""
    house = House(tmp_path / "checkout")
    house.build()
    house.build(PORTABLE)
    looked = 0

    def looking(real: Callable[..., object]) -> Callable[..., object]:
        def changed(path: Path, *arguments: object, **named: object) -> object:
            nonlocal looked
            made = real(path, *arguments, **named)
            looked += 1
            assert all((page / "llama-cpp-python" / "index.html").is_file() for page in house.index.glob("cu*/"))
            assert all((page / "index.html").is_file() for page in house.index.glob("cu*/"))
            return made

        return changed

    for owner, name in ((Path, "mkdir"), (Path, "replace"), (os, "unlink"), (os, "rmdir")):
        monkeypatch.setattr(owner, name, looking(getattr(owner, name)))
    house.write()
    assert listed(house.index) != set()
    update.change(house.index, Console(), lambda known: rules.limit(known, 0, delete=True))
    assert not list(house.index.glob("cu*/"))
    assert looked > 20


def test_files_that_a_killed_publisher_left_are_removed_or_listed(tmp_path: Path) -> None:
    house = House(tmp_path / "checkout")
    wheel = house.build()
    index = house.write()
    before = contents(index)
    (index / "files" / f".{wheel.name}.xyz.part").write_bytes(b"half")
    (index / "cu130-sm89" / ".index.html.abc.part").write_bytes(b"half")
    (index / ".cu130.part").mkdir()
    (index / ".cu130.part" / "index.html").write_bytes(b"half")
    (index / "index.json").unlink()
    update.change(index, Console(), lambda known: rules.Change(catalogue=known))
    assert contents(index) == before
    assert not list(index.rglob(".*.part"))


def test_a_wheel_that_changes_while_it_is_published_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"changed since it was read")
    (tmp_path / "files").mkdir()
    good = NewFile(name="good", source=b"content")
    with pytest.raises(StepResultError, match="changed while"):
        folder.place(tmp_path, (good, NewFile(name="new", source=source, sha256="0" * 64)))
    assert not list((tmp_path / "files").iterdir()), "all or none"


def test_an_unchanged_page_is_not_written_again(tmp_path: Path) -> None:
    pages = {"index.json": b"{}", "cu130/index.html": b"old"}
    assert folder.write_pages(tmp_path, pages) == ("index.json", "cu130/index.html")
    assert folder.write_pages(tmp_path, pages | {"cu130/index.html": b"new"}) == ("cu130/index.html",)
    assert (tmp_path / "cu130" / "index.html").read_bytes() == b"new"
    assert (tmp_path / "index.json").stat().st_mode & 0o777 == systems.mode(0o644)


def test_a_folder_that_cannot_be_an_index_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(SettingsError, match="cannot be used as an index"), folder.locked(tmp_path / "file", Console()):
        pass


def test_a_missing_file_is_said_and_no_longer_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    house = House(tmp_path / "checkout")
    wheel = house.build()
    kept = house.build(PORTABLE)
    index = house.write()
    (index / "files" / wheel.name).unlink()
    wheel.unlink()
    house.write()
    assert f"{wheel.name} was published and is missing" in capsys.readouterr().out
    assert listed(index) == {kept.name}
