"""The numbers of hits are sums over days, and nothing that goes wrong with them ends a build."""

from pathlib import Path

import pytest

from build_config.system import jsonio, usage
from build_config.system.layout import Layout
from build_config.system.usage import Usage, Uses
from tests.support import factories


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    return factories.layout(tmp_path)


def test_uses_are_added(layout: Layout) -> None:
    for uses in (Uses(hits=1, asked=2), Uses(hits=3, asked=3), Uses(hits=0, asked=0)):
        usage.count(layout, usage.UNIT_STORE, uses)
    usage.count(layout, usage.OBJECT_CACHE, Uses(hits=5, asked=9))
    found = {one.what: (one.hits, one.asked) for one in usage.summary(layout)}
    assert found == {usage.UNIT_STORE: (4, 5), usage.OBJECT_CACHE: (5, 9)}


def test_nothing_is_written_for_no_use(layout: Layout) -> None:
    usage.count(layout, usage.UNIT_STORE, Uses(hits=0, asked=0))
    assert not layout.state.exists()
    assert usage.summary(layout) == ()


@pytest.mark.parametrize("text", ["", "[]", '{"2026-11-29": 5}', '{"2026-11-29": {"unit store": {"hits": 1}}}'])
def test_a_damaged_file_is_replaced(layout: Layout, text: str) -> None:
    layout.state.mkdir(parents=True)
    (layout.state / "usage.json").write_text(text, encoding="utf-8")
    usage.count(layout, usage.UNIT_STORE, Uses(hits=1, asked=1))
    (one,) = usage.summary(layout)
    assert one == Usage(what=usage.UNIT_STORE, since=one.since, hits=1, asked=1)


def test_a_full_disk_only_loses_the_numbers(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jsonio, "write", full)
    usage.count(layout, usage.UNIT_STORE, Uses(hits=1, asked=1))
    assert usage.summary(layout) == ()
