"""The pages of an index: one for each CUDA and shard set, in two forms, with everything that installers can use."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from build_config.errors import SettingsError, VerificationError
from build_config.reports import Verdict
from build_config.system.console import Console
from build_config.system.layout import PACKAGE
from build_config.tasks.index import people, rules, snippets, update
from build_config.tasks.index.catalogue import Catalogue
from build_config.tasks.recommend import wheels
from tests.support.indexed import PORTABLE, SM89, House, assert_whole, contents, facts, listed, pages

if TYPE_CHECKING:
    from pathlib import Path

NASTY = 'broken: "sm_89" <b>& more</b>'


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> House:
    return House(tmp_path / "checkout")


def test_each_cuda_and_shard_set_has_an_index_with_its_wheels_only(house: House) -> None:
    names = {
        "cu130": house.build(PORTABLE).name,
        "cu130-sm89": house.build().name,
        "cu130-sm86-sm89": house.build("0.3.36+cu130.sm86.sm89").name,
        "cu124-sm75x89": house.build("0.3.36+cu124.sm75x89").name,
    }
    index = house.write()
    found = {name: {each.filename for each in html_page.packages} for name, html_page, _ in pages(index)}
    assert found == {folder: {name} for folder, name in names.items()}
    assert_whole(index)
    for folder in names:
        assert 'href="llama-cpp-python/"' in (index / folder / "index.html").read_text(encoding="utf-8")


def test_a_link_has_digest_pythons_metadata_size_and_time(house: House) -> None:
    wheel = house.build()
    index = house.write()
    ((_, as_html, as_json),) = pages(index)
    for each in (as_html.packages[0], as_json.packages[0]):
        assert each.digests == {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
        assert each.requires_python == ">=3.8,<4"
        metadata = (index / "files" / f"{wheel.name}.metadata").read_bytes()
        assert each.metadata_digests == {"sha256": hashlib.sha256(metadata).hexdigest()}
        assert b"Version: 0.3.36+cu130.sm89" in metadata
    assert as_json.packages[0].size == wheel.stat().st_size
    assert str(as_json.packages[0].upload_time) == "2026-11-27 12:00:00+00:00", "the time in the record"
    page = (index / "cu130-sm89" / "llama-cpp-python" / "index.html").read_text(encoding="utf-8")
    assert 'href="../../files/llama_cpp_python-0.3.36%2Bcu130.sm89-' in page
    assert "data-core-metadata=" in page


def test_both_forms_say_the_same_of_a_yank_with_any_reason(house: House) -> None:
    old, new = house.build("0.3.35+cu130.sm89").name, house.build().name
    index = house.write()
    update.change(index, Console(), lambda known: rules.yank(known, (old,), NASTY))
    ((_, as_html, as_json),) = pages(index)
    assert facts(as_html) == facts(as_json)
    assert {each.filename: each.yanked_reason for each in as_json.packages} == {new: None, old: NASTY}
    people_page = (index / "index.html").read_text(encoding="utf-8")
    assert html.escape(NASTY).replace("&quot;", "&#34;") in people_page
    assert NASTY not in people_page
    _, candidates = wheels.read(str(index))
    assert {each.file_name: each.yanked for each in candidates} == {new: False, old: True}, "a page of links, too"


def test_the_same_wheels_give_the_same_bytes_in_whatever_order_they_came(tmp_path: Path) -> None:
    versions = [SM89, "0.3.35+cu130.sm89", "0.3.9+cu130.sm89", PORTABLE, "0.3.36+cu124.sm61"]
    made = []
    for name, order in (("one", versions), ("two", versions[::-1])):
        house = House(tmp_path / name)
        for version in order:
            house.build(version)
            house.write()
        made.append(contents(house.index))
    whole = House(tmp_path / "whole")
    for version in versions:
        whole.build(version)
    assert made[0] == made[1] == contents(whole.write())
    newest = [
        each.filename for each in next(page for name, page, _ in pages(whole.index) if name == "cu130-sm89").packages
    ]
    assert [name.split("-")[1] for name in newest] == [SM89, "0.3.35+cu130.sm89", "0.3.9+cu130.sm89"]


def test_a_lost_catalogue_is_made_again_from_the_files_with_its_yanks_and_evidence(house: House) -> None:
    house.build(PORTABLE)
    wheel = house.build()
    index = house.write()
    update.change(index, Console(), lambda known: rules.yank(known, (wheel.name,), "a reason"))
    house.build(verdict=Verdict.GPU_VERIFIED)
    before = contents(house.write())
    (index / "index.json").write_text("{damaged", encoding="utf-8")
    shutil.rmtree(index / "cu130")
    update.change(index, Console(), lambda known: rules.Change(catalogue=known))
    assert contents(index) == before
    assert f"{wheel.name}.2.record.json" in before["index.json"].decode()


def test_an_address_stays_until_it_is_changed(house: House) -> None:
    house.build()
    house.write(base_url="https://example.org/whl/")
    house.build(PORTABLE)
    page = (house.write() / "index.html").read_text(encoding="utf-8")
    assert "https://example.org/whl/cu130-sm89/" in page
    assert people.ADDRESS not in page
    with pytest.raises(SettingsError, match="not an address"):
        house.write(base_url="example.org")


@pytest.mark.parametrize("suffix", ["", ".metadata", ".record.json"])
def test_a_published_file_that_was_changed_is_found(house: House, suffix: str) -> None:
    wheel = house.build()
    index = house.write()
    path = index / "files" / f"{wheel.name}{suffix}"
    path.write_bytes(path.read_bytes() + b" ")  # a space: of the record, the same facts
    before = contents(index)
    with pytest.raises(VerificationError, match=re.escape(wheel.name)):
        house.write()
    assert contents(index) == before


def test_wheels_of_others_in_the_wheelhouse_are_left_out(house: House) -> None:
    ours = house.build()
    shutil.copy2(ours, ours.with_name("llama_cpp_python-0.3.36-py3-none-any.whl"))
    shutil.copy2(ours, ours.with_name("numpy-2.0+cu130-py3-none-any.whl"))
    assert listed(house.write()) == {ours.name}


def test_a_wheel_of_ours_without_its_record_is_refused(house: House) -> None:
    wheel = house.build()
    wheel.with_name(f"{wheel.name}.record.json").unlink()
    with pytest.raises(VerificationError, match="no readable record"):
        house.write()


# ------------------------------------------------------------------------------------------------- the page for people


def test_the_page_for_people_says_what_is_known_of_each_wheel(house: House) -> None:
    wheel = house.build(PORTABLE, verdict=Verdict.GPU_VERIFIED)
    page = (house.write() / "index.html").read_text(encoding="utf-8")
    for said in (
        "ran on a real GPU",
        "glibc 2.17 or later",
        "sm_89",
        "2026-11-27",
        f"{wheel.stat().st_size / 1e6:.1f} MB",
    ):
        assert said in page
    for suffix in ("", ".record.json", ".intoto.json", ".cdx.json"):
        assert f'href="files/{wheel.name.replace("+", "%2B")}{suffix}"' in page
    row = next(row for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if "RTX 40" in row)
    assert '<a href="#cu130">' in row
    assert 'id="cu130"' in page
    assert 'data-search="GTX 10' in page, "GPUs without a wheel are named, too"


def test_the_page_for_people_has_words_for_each_verdict_of_a_published_wheel() -> None:
    assert people.VERDICTS.keys() == set(Verdict) - {Verdict.FAILED}


def test_the_smallest_wheel_for_a_gpu_is_named_first(house: House) -> None:
    for version in (PORTABLE, "0.3.36+cu130.sm86.sm89", SM89, "0.3.36+cu124.sm89"):
        house.build(version)
    index = house.write()
    yanked = house.build("0.3.36+cu130.sm89.sm90").name
    house.write()
    update.change(index, Console(), lambda known: rules.yank(known, (yanked,), "a fault"))
    page = (index / "index.html").read_text(encoding="utf-8")
    row = next(row for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if "RTX 40" in row)
    assert re.findall(r'href="#([\w-]+)"', row) == ["cu130-sm89", "cu130-sm86-sm89", "cu130", "cu124-sm89"]


def test_the_page_has_the_lines_for_every_client(house: House) -> None:
    house.build()
    page = (house.write(base_url="https://example.org/whl") / "index.html").read_text(encoding="utf-8")
    for snippet in snippets.snippets("https://example.org/whl/cu130-sm89/"):
        assert f"<code>{html.escape(snippet.text).replace('&quot;', '&#34;')}</code>" in page


def test_the_page_asks_nobody_and_runs_nothing_but_its_own_script(house: House) -> None:
    house.build()
    page = (house.write() / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href|action)\s*=\s*[\"']?\s*(?:https?:)?//", page)
    assert not re.findall(r"url\(|@import|<(?:iframe|img|object|embed|form|link rel=\"stylesheet)", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    for element in ("style", "script"):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{element}-src &#39;sha256-{digest}&#39;" in policy[1].replace("'", "&#39;")
    assert policy[1].startswith("default-src 'none'")
    assert not re.findall(r"\son\w+=|style=", page), "the policy would forbid them"


def test_an_empty_index_says_so() -> None:
    assert "There is no wheel here yet" in people.page(Catalogue())


def test_the_blocks_of_the_document_are_the_lines_of_the_page() -> None:
    document = (PACKAGE.parent / "docs" / "installing.md").read_text(encoding="utf-8")
    blocks = set(re.findall(r"```\w*\n(.*?)\n```", document, re.DOTALL))
    wanted = {snippet.text for snippet in snippets.snippets("https://example.org/whl/cu130-sm89/")}
    assert wanted <= blocks


def test_the_catalogue_is_json_for_programs(house: House) -> None:
    wheel = house.build()
    data = json.loads((house.write() / "index.json").read_text(encoding="utf-8"))
    (entry,) = data["wheels"]
    assert (entry["file"], entry["verdict"], entry["archs"]) == (wheel.name, "simulated-device-verified", ["89-real"])
