"""A name that was published keeps its bytes: what a publication, a supersession, a yank and a limit do to an index."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import TYPE_CHECKING

import pytest

from build_config.errors import PublishedError, SettingsError, VerificationError
from build_config.formats import wheelfile
from build_config.reports import BuildRecord, Verdict
from build_config.steps.wheelhouse import publication, signature, statement
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.tasks.index import rules, update
from build_config.tasks.index.catalogue import Catalogue
from build_config.tasks.publish import PublishRequest, publish
from tests.support import attested
from tests.support.indexed import PORTABLE, SM89, TAG, House, assert_whole, contents, facts, listed, pages

if TYPE_CHECKING:
    from pathlib import Path

    from pypi_simple import DistributionPackage

NAME = f"llama_cpp_python-{SM89}-{TAG}.whl"
SECOND = f"llama_cpp_python-{SM89}-1-{TAG}.whl"
THIRD = f"llama_cpp_python-{SM89}-2-{TAG}.whl"


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> House:
    """A house with one published wheel."""
    house = House(tmp_path / "checkout")
    house.build()
    share(house)
    return house


def share(house: House, **request: object) -> tuple[Path, ...]:
    return publish(PublishRequest(**request), house.layout, Console())  # type: ignore[arg-type]


def in_index(house: House, name: str) -> attested.House:
    """A published wheel with the files next to it, to be verified."""
    wheel = house.index / "files" / name
    return attested.House(wheel=wheel, record=jsonio.read(publication.record_path(wheel), BuildRecord))


def links(house: House, index: str = "cu130-sm89") -> dict[str, DistributionPackage]:
    page = next(page for name, page, _ in pages(house.index) if name == index)
    return {each.filename: each for each in page.packages}


def test_equal_bytes_are_no_change(house: House) -> None:
    before = contents(house.index)
    house.build()
    assert share(house) == ()
    assert contents(house.index) == before


def test_other_bytes_under_a_published_name_are_refused_and_nothing_changes(house: House) -> None:
    house.build(content="other")
    house.build(PORTABLE)
    before = contents(house.index)
    for attempt in (share, House.write):
        with pytest.raises(PublishedError, match="keeps its bytes") as refused:
            attempt(house)
        assert f"nox -s publish -- --supersede {NAME} --reason TEXT" in str(refused.value)
    assert contents(house.index) == before, "all or none: the other wheel is not published either"


def test_wheels_of_other_jobs_do_not_replace_those_of_the_wheelhouse_if_they_are_refused(
    house: House, tmp_path: Path
) -> None:
    other = House(tmp_path / "job")
    other.build(content="other")
    before = contents(house.layout.wheelhouse)
    with pytest.raises(PublishedError):
        share(house, folders=(other.layout.wheelhouse,))
    assert contents(house.layout.wheelhouse) == before


def test_wheels_of_other_jobs_go_into_the_wheelhouse_and_the_index_or_only_where_they_are_told(
    house: House, tmp_path: Path
) -> None:
    other = House(tmp_path / "job")
    portable = other.build(PORTABLE)
    elsewhere = tmp_path / "elsewhere"
    (published,) = share(house, folders=(other.layout.wheelhouse,), to=elsewhere)
    assert published == elsewhere / "files" / portable.name
    assert listed(elsewhere) == {portable.name}
    assert not (house.layout.wheelhouse / portable.name).exists()
    (published,) = share(house, folders=(other.layout.wheelhouse,))
    assert published == house.layout.wheelhouse / portable.name
    assert listed(house.index) == {portable.name, NAME}


def test_a_superseding_wheel_gets_a_build_tag_and_the_old_one_is_yanked(house: House) -> None:
    new = house.build(content="other")
    (published,) = share(house, supersede=NAME, reason="wrong results")
    assert published == house.index / "files" / SECOND
    found = links(house)
    assert {name: each.yanked_reason for name, each in found.items()} == {NAME: "wrong results", SECOND: None}
    assert found[SECOND].digests["sha256"] == hashlib.sha256(new.read_bytes()).hexdigest(), "not built again"
    assert in_index(house, SECOND).verify(None).passed, "its record and statement are about the new name"
    assert_whole(house.index)
    before = contents(house.index)
    share(house)
    house.write()
    assert contents(house.index) == before, "the wheelhouse still has it under the plain name"


def test_a_third_wheel_supersedes_both(house: House) -> None:
    for content, reason in (("second", "first fault"), ("third", "second fault")):
        house.build(content=content)
        share(house, supersede=f"wheelhouse/{NAME}", reason=reason)
    assert {name: each.yanked_reason for name, each in links(house).items()} == {
        NAME: "first fault",
        SECOND: "second fault",
        THIRD: None,
    }


def test_the_first_bytes_again_stay_yanked(house: House) -> None:
    house.build(content="other")
    share(house, supersede=NAME, reason="a fault")
    house.build()
    share(house)
    assert links(house)[NAME].yanked_reason == "a fault"


@pytest.mark.parametrize("name", [NAME, "llama_cpp_python-0.3.99-py3-none-any.whl"])
def test_a_supersession_of_what_is_not_replaced_is_an_error(house: House, name: str) -> None:
    before = contents(house.index)
    with pytest.raises(SettingsError, match="none of these wheels"):
        share(house, supersede=name, reason="a fault")
    assert contents(house.index) == before


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"supersede": NAME}, "belong together"),
        ({"reason": "text"}, "belong together"),
        ({"delete": True}, "--keep"),
    ],
)
def test_options_that_need_one_another(house: House, request_: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        share(house, **request_)


def test_a_signature_about_the_old_name_is_left_out_or_made_again(tmp_path: Path) -> None:
    _, public = signature.make_keys(tmp_path / "keys")
    (private,) = (path for path in (tmp_path / "keys").iterdir() if path != public)
    key = signature.read_private_key(private)
    house = House(tmp_path / "checkout")
    house.build()
    share(house)
    house.build(content="second", key=key)
    share(house, supersede=NAME, reason="a fault")
    assert not statement.envelope_path(house.index / "files" / SECOND).exists()
    house.build(content="third", key=key)
    share(house, supersede=NAME, reason="a fault", sign_key=private)
    assert in_index(house, THIRD).verify(key).passed


BETTER = [{"verdict": Verdict.GPU_VERIFIED}, {"verdict": Verdict.EMULATED_DEVICE_VERIFIED}, {"key": attested.KEY}]


@pytest.mark.parametrize("better", BETTER, ids=["gpu", "emulated", "signed"])
def test_better_evidence_of_the_same_bytes_is_added_and_that_which_was_published_stays(
    house: House, better: dict[str, object]
) -> None:
    before = contents(house.index / "files")
    house.build(**better)  # type: ignore[arg-type]
    share(house)
    after = contents(house.index / "files")
    assert before.items() <= after.items()
    added = after.keys() - before.keys()
    assert {f"{NAME}.2.record.json", f"{NAME}.2.intoto.json"} <= added
    assert (f"{NAME}.2.intoto.dsse.json" in added) == ("key" in better)
    (entry,) = json.loads((house.index / "index.json").read_text(encoding="utf-8"))["wheels"]
    assert entry["record"] == f"{NAME}.2.record.json"
    assert f"{NAME}.2.record.json".replace("+", "%2B") in (house.index / "index.html").read_text(encoding="utf-8")
    house.build()
    share(house)
    assert contents(house.index / "files") == after, "weaker evidence is no change"


def test_a_wheel_that_does_not_match_its_record_is_refused(house: House) -> None:
    wheel = house.build(PORTABLE)
    record = publication.record_path(wheel)
    record.write_text(record.read_text(encoding="utf-8").replace("simulated-device", "gpu"), encoding="utf-8")
    before = contents(house.index)
    with pytest.raises(VerificationError, match=re.escape(wheel.name)):
        share(house)
    assert contents(house.index) == before


def test_a_signature_can_be_required(house: House, tmp_path: Path) -> None:
    _, public = signature.make_keys(tmp_path / "keys")
    house.build(PORTABLE)
    with pytest.raises(VerificationError, match="not signed"):
        share(house, keys=signature.read_keys((public,)))


def test_a_wheel_that_was_built_from_another_commit_can_be_published(house: House) -> None:
    """Its locks differ from those of this checkout, which says nothing against it."""
    wheel = house.build(PORTABLE)
    known = jsonio.read(publication.record_path(wheel), BuildRecord)
    record = dataclasses.replace(known, locks=(("requirements.txt", "0" * 64),))
    built = wheelfile.read(house.folder / "store" / wheel.name)
    publication.publish(built, record, record.inspection, record.validation, house.layout.wheelhouse)
    share(house)
    assert wheel.name in listed(house.index)


# ------------------------------------------------------------------------------------------------------ yank and keep


def yank(house: House, *names: str, reason: str = "a fault") -> None:
    update.change(house.index, Console(), lambda known: rules.yank(known, names, reason))


def test_a_yank_can_be_taken_back(house: House) -> None:
    before = contents(house.index)
    yank(house, NAME)
    ((_, as_html, as_json),) = pages(house.index)
    assert facts(as_html) == facts(as_json)
    assert links(house)[NAME].yanked_reason == "a fault"
    update.change(house.index, Console(), lambda known: rules.unyank(known, (NAME,)))
    assert contents(house.index) == before


@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [("other.whl", "a fault", "not in the index"), (NAME, "", "one line"), (NAME, "two\nlines", "one line")],
)
def test_a_yank_that_makes_no_sense(house: House, name: str, reason: str, said: str) -> None:
    before = contents(house.index)
    with pytest.raises(SettingsError, match=said):
        yank(house, name, reason=reason)
    assert contents(house.index) == before


@pytest.fixture(name="releases")
def _releases(house: House) -> House:
    """Releases 0.3.7, 0.3.10 and 0.3.36 for 8.9, one of them for Windows, too; an old portable one."""
    for version in ("0.3.10+cu130.sm89", "0.3.7+cu130.sm89", "0.3.7+cu130"):
        house.build(version)
    house.build("0.3.7+cu130.sm89", tag="py3-none-win_amd64")
    return house


def test_keep_yanks_older_versions_of_each_index_and_platform(releases: House) -> None:
    share(releases, keep=2)
    yanked = {name for name, each in links(releases).items() if each.is_yanked}
    assert yanked == {f"llama_cpp_python-0.3.7+cu130.sm89-{TAG}.whl"}, "0.3.10 is newer than 0.3.7; Windows has one"
    assert not any(each.is_yanked for each in links(releases, "cu130").values())
    assert all((releases.index / "files" / name).is_file() for name in links(releases)), "nothing is deleted"
    before = contents(releases.index)
    share(releases, keep=2)
    assert contents(releases.index) == before


def test_keep_deletes_only_when_told(releases: House) -> None:
    share(releases, keep=1, delete=True)
    assert set(links(releases)) == {NAME, "llama_cpp_python-0.3.7+cu130.sm89-py3-none-win_amd64.whl"}
    left = {path.name for path in (releases.index / "files").iterdir()}
    assert not [name for name in left if "0.3.10" in name or f"0.3.7+cu130.sm89-{TAG}" in name]
    assert_whole(releases.index)


def test_an_index_that_lost_its_last_wheel_is_gone(house: House) -> None:
    update.change(house.index, Console(), lambda known: rules.limit(known, 0, delete=True))
    assert not (house.index / "cu130-sm89").exists()


def test_folders_of_others_stay(house: House) -> None:
    other = house.index / "custom"
    other.mkdir()
    share(house)
    assert other.is_dir()


def test_a_build_that_has_a_published_name_with_other_bytes_is_told_the_command(house: House) -> None:
    assert rules.conflict(Catalogue(), NAME, "0" * 64) is None
    known = jsonio.read(house.index / "index.json", Catalogue)
    assert rules.conflict(known, NAME, known.wheels[0].sha256) is None
    command = rules.conflict(known, NAME, "0" * 64)
    assert command == f"nox -s publish -- --supersede {NAME} --reason TEXT"
    house.build(content="other")
    share(house, supersede=NAME, reason="a fault")
    known = jsonio.read(house.index / "index.json", Catalogue)
    other = known.find(SECOND)
    assert other is not None
    assert rules.conflict(known, NAME, other.sha256) is None, "published already, under a build tag"
