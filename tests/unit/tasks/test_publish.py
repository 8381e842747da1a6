"""The last job of a workflow: wheels of other jobs are published in the wheelhouse, all or none."""

import shutil
from pathlib import Path

import pytest

from build_config.errors import SettingsError, VerificationError
from build_config.steps.wheelhouse import publication, statement
from build_config.system.console import Console
from build_config.system.layout import Layout
from build_config.tasks import publish
from build_config.tasks.publish import PublishRequest
from tests.support import attested, wheels

CONTENTS = wheels.contents


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    """This project's locks, and the test's own wheelhouse."""
    return Layout(checkout=tmp_path / "checkout", work_root=tmp_path / "none")


def test_a_verified_wheel_is_published_with_the_files_next_to_it(tmp_path: Path, layout: Layout) -> None:
    house = attested.publish(tmp_path / "job")
    (published,) = publish.publish(PublishRequest(folders=(house.wheel.parent,)), layout, Console())
    assert published == layout.wheelhouse / house.wheel.name
    arrived = attested.House(wheel=published, record=house.record)
    for name, path in house.files().items():
        assert arrived.files()[name].read_bytes() == path.read_bytes()
    assert arrived.verify().passed
    assert published.name in (layout.wheelhouse / publication.PAGE).read_text(encoding="utf-8")


def test_wheels_of_several_jobs_are_published_and_earlier_ones_stay(tmp_path: Path, layout: Layout) -> None:
    house = attested.publish(tmp_path / "job")
    for name in ("one", "two"):
        shutil.copytree(house.wheel.parent, tmp_path / "collected" / name)
    for _ in range(2):
        (published,) = publish.publish(PublishRequest(folders=(tmp_path / "collected",)), layout, Console())
        assert published.name == house.wheel.name
    publish.publish(PublishRequest(folders=(layout.wheelhouse,)), layout, Console())
    assert attested.House(wheel=layout.wheelhouse / house.wheel.name, record=house.record).verify().passed


@pytest.mark.parametrize("corrupted", ["wheel", "record", "statement", "envelope"])
def test_if_one_wheel_does_not_match_its_record_none_is_published(
    tmp_path: Path, layout: Layout, corrupted: str
) -> None:
    good, house = (attested.publish(tmp_path / name) for name in ("good", "corrupted"))
    path = house.files()[corrupted]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(VerificationError):
        publish.publish(PublishRequest(folders=(good.wheel.parent, house.wheel.parent)), layout, Console())
    assert not layout.wheelhouse.exists()


def test_a_wheel_without_its_record_is_refused(tmp_path: Path, layout: Layout) -> None:
    house = attested.publish(tmp_path / "job")
    publication.record_path(house.wheel).unlink()
    with pytest.raises(VerificationError, match="record"):
        publish.publish(PublishRequest(folders=(house.wheel.parent,)), layout, Console())


def test_two_different_wheels_of_one_name_are_refused(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = attested.publish(tmp_path / "one")
    monkeypatch.setattr(wheels, "contents", lambda libraries: CONTENTS({**libraries, "libmtmd.so": b"x"}))
    two = attested.publish(tmp_path / "two")
    with pytest.raises(VerificationError, match="twice"):
        publish.publish(PublishRequest(folders=(one.wheel.parent, two.wheel.parent)), layout, Console())
    assert not layout.wheelhouse.exists()


def test_an_unsigned_wheel_stays_unsigned(tmp_path: Path, layout: Layout) -> None:
    house = attested.publish(tmp_path / "job", key=None)
    (published,) = publish.publish(PublishRequest(folders=(house.wheel.parent,)), layout, Console())
    assert not statement.envelope_path(published).exists()


def test_a_folder_without_a_wheel_is_an_error(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(SettingsError, match="no wheel"):
        publish.publish(PublishRequest(folders=(tmp_path,)), layout, Console())
