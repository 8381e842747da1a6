"""The commands that share wheels, as a user calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from build_config.commands import app
from build_config.errors import SettingsError
from tests.support.indexed import PORTABLE, House, assert_whole, listed, pages

if TYPE_CHECKING:
    from pathlib import Path


def call(*arguments: object) -> None:
    app(list(map(str, arguments)), standalone_mode=False)


def yanked(index: Path) -> dict[str, str | None]:
    return {each.filename: each.yanked_reason for _, page, _ in pages(index) for each in page.packages}


def test_publish_yank_and_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = tmp_path / "index"
    house = House(tmp_path / "job")
    first = house.build()
    call("publish", house.layout.wheelhouse, "--to", index)
    assert f"published  {first.name}" in capsys.readouterr().out
    call("yank", house.layout.wheelhouse / first.name, "--reason", "a fault", "--to", index)
    assert yanked(index) == {first.name: "a fault"}
    capsys.readouterr()
    call("yank", first.name, "--undo", "--to", index)
    assert f"{first.name}: not yanked any more" in capsys.readouterr().out
    assert yanked(index) == {first.name: None}

    house.build(content="other")
    call("publish", house.layout.wheelhouse, "--to", index, "--supersede", first.name, "--reason", "another fault")
    newer = house.build("0.3.37+cu130.sm89")
    call("publish", house.layout.wheelhouse, "--to", index, "--keep", 1)
    superseding = first.name.replace("-py3", "-1-py3")
    old = "an older release: this index keeps 1"
    assert yanked(index) == {first.name: "another fault", superseding: old, newer.name: None}
    call("publish", house.layout.wheelhouse, "--to", index, "--keep", 1, "--delete")
    assert listed(index) == {newer.name}
    assert_whole(index)


@pytest.mark.parametrize("options", [(), ("--undo", "--reason", "a fault")])
def test_a_yank_needs_a_reason_or_undo(tmp_path: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="--reason"):
        call("yank", "wheel.whl", "--to", tmp_path, *options)


def test_nothing_to_publish_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="there is no wheel"):
        call("publish", tmp_path / "empty", "--to", tmp_path / "index")


def test_two_folders_give_one_index(tmp_path: Path) -> None:
    one, two = House(tmp_path / "one"), House(tmp_path / "two")
    names = {one.build().name, two.build(PORTABLE).name}
    call("publish", one.layout.wheelhouse, two.layout.wheelhouse, "--to", tmp_path / "index")
    assert listed(tmp_path / "index") == names
