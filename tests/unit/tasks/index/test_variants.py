"""The index of the variant wheels: the portable wheel, the variants, and the file about their labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from build_config.errors import PublishedError
from build_config.system.console import Console
from build_config.system.layout import PACKAGE
from build_config.tasks import recommend
from build_config.tasks.index import pages as rendered
from build_config.tasks.index import rules, update
from build_config.tasks.index.catalogue import Catalogue, make
from build_config.tasks.publish import PublishRequest, publish
from tests.support.indexed import PORTABLE, TAG, House, assert_whole, contents, facts, pages

if TYPE_CHECKING:
    from pathlib import Path

LABELS = "llama_cpp_python-0.3.36+cu130-variants.json"
VARIANT = f"llama_cpp_python-0.3.36+cu130-{TAG}-cu130_sm89.whl"
SECOND = VARIANT.replace("cu130-py3", "cu130-1-py3")
PLAIN = f"llama_cpp_python-{PORTABLE}-{TAG}.whl"


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> House:
    """A house with a portable wheel, one for 8.9, and its variant."""
    house = House(tmp_path / "checkout")
    house.build(PORTABLE)
    house.variant(house.build())
    return house


def share(house: House, **request: object) -> tuple[Path, ...]:
    return publish(PublishRequest(**request), house.layout, Console())  # type: ignore[arg-type]


def listed(house: House, name: str = "variants") -> dict[str, str | None]:
    """The files on the page of one index, and why they are yanked."""
    page = next(page for index, page, _ in pages(house.index) if index == name)
    return {each.filename: each.yanked_reason for each in page.packages}


def labels(house: House) -> set[str]:
    return set(json.loads((house.index / "variants" / "llama-cpp-python" / LABELS).read_bytes())["variants"])


def test_variants_have_an_index_of_their_own_next_to_the_portable_wheel(house: House) -> None:
    share(house)
    assert list(listed(house)) == [PLAIN, VARIANT, LABELS]
    assert list(listed(house, "cu130")) == [PLAIN], "pip reads this one"
    for _, as_html, as_json in pages(house.index):
        assert facts(as_html) == facts(as_json)
    assert_whole(house.index)
    assert (house.index / "variants" / "llama-cpp-python" / LABELS).read_bytes() == (
        house.layout.variants / LABELS
    ).read_bytes(), "the wheelhouse and the index say the same"


def test_the_labels_are_written_before_the_page_that_has_them(house: House) -> None:
    share(house)
    known = update.current(house.index, Console())
    names = [name for name in rendered.render(known) if name.startswith("variants/llama-cpp-python/")]
    assert names[0].endswith(LABELS)
    assert len(names) == 3


def test_an_index_that_is_made_again_is_the_same(house: House) -> None:
    share(house)
    before = contents(house.index)
    house.write()
    assert contents(house.index) == before
    (house.index / "index.json").unlink()
    house.write()
    assert contents(house.index) == before


def test_without_variants_there_is_no_such_index(house: House, tmp_path: Path) -> None:
    share(house, folders=(house.layout.wheelhouse,), to=tmp_path / "index")
    assert (tmp_path / "index" / "variants").is_dir(), "the wheelhouse has variants below it"
    other = House(tmp_path / "other")
    other.build(PORTABLE)
    share(other)
    assert not (other.index / "variants").exists()


def test_variants_of_other_machines_go_into_the_folder_for_them(house: House, tmp_path: Path) -> None:
    other = House(tmp_path / "other")
    published = share(other, folders=(house.layout.wheelhouse,))
    assert {path.relative_to(other.layout.wheelhouse).as_posix() for path in published} == {
        PLAIN,
        f"llama_cpp_python-0.3.36+cu130.sm89-{TAG}.whl",
        f"variants/{VARIANT}",
    }
    assert (other.layout.variants / LABELS).read_bytes() == (house.layout.variants / LABELS).read_bytes()


def test_a_missing_portable_wheel_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    house = House(tmp_path / "checkout")
    house.variant(house.build())
    share(house)
    said = "variants/ has no portable wheel 0.3.36+cu130"
    assert said in capsys.readouterr().out
    house.build(PORTABLE)
    share(house)
    assert said not in capsys.readouterr().out


def test_other_bytes_under_its_name_are_refused_and_superseded_under_a_build_tag(house: House) -> None:
    share(house)
    before = contents(house.index)
    house.variant(house.build(content="other"))
    with pytest.raises(PublishedError):
        share(house, folders=(house.layout.variants,))
    assert contents(house.index) == before
    share(house, folders=(house.layout.variants,), to=house.index, supersede=VARIANT, reason="a fault")
    assert listed(house) == {PLAIN: None, SECOND: None, VARIANT: "a fault", LABELS: None}
    assert_whole(house.index)
    record = json.loads((house.index / "files" / f"{SECOND}.record.json").read_bytes())
    assert (record["wheel"], record["variant_of"]["wheel"]) == (SECOND, f"llama_cpp_python-0.3.36+cu130.sm89-{TAG}.whl")


def test_the_newest_versions_of_each_cuda_are_kept(house: House) -> None:
    house.variant(house.build("0.3.37+cu130.sm86"), house.build("0.3.36+cu129.sm61"))
    share(house, keep=1)
    old = "an older release: this index keeps 1"
    assert {name.partition("-py3")[0]: reason for name, reason in listed(house).items() if "_sm" in name} == {
        "llama_cpp_python-0.3.37+cu130": None,
        "llama_cpp_python-0.3.36+cu130": old,
        "llama_cpp_python-0.3.36+cu129": None,
    }
    share(house, keep=1, delete=True)
    assert VARIANT not in listed(house)
    assert_whole(house.index)


def test_the_index_goes_with_its_last_wheel(house: House) -> None:
    share(house)

    def without_variants(known: Catalogue) -> rules.Change:
        kept = tuple(entry for entry in known.wheels if entry.label is None)
        gone = next(entry for entry in known.wheels if entry.label is not None)
        return rules.Change(catalogue=make(kept, None), removed=rules.belongings(gone))

    update.change(house.index, Console(), without_variants)
    assert not (house.index / "variants").exists()
    assert_whole(house.index)


def test_the_page_for_people_has_the_line_for_uv_and_no_variant_in_its_table(house: House) -> None:
    house.write(base_url="https://example.org/whl/")
    page = (house.index / "index.html").read_text(encoding="utf-8")
    line = "uv pip install --index https://example.org/whl/variants/ --preview-features wheel-variants llama-cpp-python"
    assert line in page
    assert line in (PACKAGE.parent / "docs" / "installing.md").read_text(encoding="utf-8")
    section = page.partition('aria-labelledby="variants"')[2]
    assert section.count('<a class="file"') == 1, "the portable wheel is listed above"
    assert "a preview" in section
    table = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert "variants" not in table


def test_doctor_reads_the_catalogue_of_a_folder(house: House) -> None:
    share(house)
    option, found = recommend.read(str(house.index))
    assert option[0] == "--find-links"
    root = house.index.as_uri()
    assert {each.file_name: each.index for each in found} == {
        PLAIN: f"{root}/cu130/",
        f"llama_cpp_python-0.3.36+cu130.sm89-{TAG}.whl": f"{root}/cu130-sm89/",
        VARIANT: f"{root}/variants/",
    }
    variant = next(each for each in found if each.label is not None)
    assert [str(arch) for shard in variant.shards for arch in shard.archs] == ["89-real"]
    assert (variant.portable, variant.verdict) == (False, "simulated-device-verified")
    assert variant.address == f"{root}/files/{VARIANT.replace('+', '%2B')}"
    update.change(house.index, Console(), lambda known: rules.yank(known, (VARIANT,), "a fault"))
    _, found = recommend.read(str(house.index))
    assert [each.file_name for each in found if each.yanked] == [VARIANT]


def test_doctor_reads_the_page_where_the_catalogue_is_of_a_later_version(house: House) -> None:
    share(house)
    path = house.index / "index.json"
    later = {**json.loads(path.read_bytes()), "something": "new"}
    path.write_text(json.dumps(later), encoding="utf-8")
    _, found = recommend.read(str(house.index))
    assert VARIANT in {each.file_name for each in found}
    assert {each.index for each in found} == {""}, "the page for people says it to people only"
