"""An index in storage with S3's API: publishing, real clients, publishers that are stopped or come at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import requests

from build_config.errors import PublishedError, SettingsError, VerificationError
from build_config.system import storage
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks.index import rules, update
from build_config.tasks.index.catalogue import Catalogue
from build_config.tasks.index.whole import verify_index
from build_config.tasks.publish import PublishRequest, publish
from tests.integration.conftest import bare_environment, run
from tests.support import bucket, client_environment, indexed
from tests.support.indexed import SM89, TAG, House

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

NAME = f"llama_cpp_python-{SM89}-{TAG}.whl"
SM86 = "0.3.36+cu130.sm86"
SM89_ALONE = f"llama-cpp-python=={SM89}"


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bucket.Server]:
    with bucket.serve(tmp_path_factory.mktemp("storage")) as server:
        yield server


@pytest.fixture(name="place")
def _place(server: bucket.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    return server.place()


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> House:
    house = House(tmp_path / "house")
    house.build()
    return house


def to(place: str) -> PublishRequest:
    return PublishRequest(to=storage.writer(place))


def in_a_folder(house: House, folder: Path) -> dict[str, bytes]:
    """The same wheels, published in a folder."""
    publish(PublishRequest(to=folder), house.layout, Console())
    return indexed.contents(folder)


def test_storage_has_the_files_of_a_folder(place: str, house: House, tmp_path: Path) -> None:
    (published,) = publish(to(place), house.layout, Console())
    assert published.name == NAME
    assert bucket.contents(place) == in_a_folder(house, tmp_path / "folder")
    assert not publish(to(place), house.layout, Console()), "nothing is new"
    house.build(SM86)
    (published,) = publish(to(place), house.layout, Console())
    assert published.name == NAME.replace("sm89", "sm86")
    assert bucket.contents(place) == in_a_folder(house, tmp_path / "folder")


def test_types_and_times_of_caches(server: bucket.Server, place: str, house: House) -> None:
    publish(to(place), house.layout, Console())
    update.change(storage.writer(place), Console(), lambda known: rules.yank(known, (NAME,), "a fault"))

    def headers(name: str) -> tuple[str, str]:
        answer = requests.get(f"{server.website(place)}/{name}", timeout=30)
        assert answer.status_code == 200, name
        return answer.headers["Content-Type"], answer.headers["Cache-Control"]

    pages, files = "max-age=600", "public, max-age=31536000, immutable"
    page, wheel = "cu130-sm89/llama-cpp-python", f"files/{NAME.replace('+', '%2B')}"
    assert headers("index.html") == ("text/html; charset=utf-8", pages)
    assert headers("index.json") == ("application/json", pages)
    assert headers(f"{page}/index.html") == ("text/html; charset=utf-8", pages)
    assert headers(f"{page}/index.json") == ("application/vnd.pypi.simple.v1+json", pages)
    assert headers(wheel) == ("application/octet-stream", files)
    assert headers(f"{wheel}.metadata") == ("text/plain; charset=utf-8", files)
    assert headers(f"{wheel}.record.json") == ("application/json", files)
    assert headers(f"{wheel}.yanked.json") == ("application/json", pages), "a yank can be taken back"


def test_pip_and_uv_install_from_it(server: bucket.Server, place: str, house: House, tmp_path: Path) -> None:
    publish(to(place), house.layout, Console())
    house.build("0.3.37+cu130.sm89", "newer")
    publish(to(place), house.layout, Console())
    page = f"{server.website(place)}/cu130-sm89/"
    python, _ = bare_environment(tmp_path / "environment")
    variables = client_environment.clean_variables({"UV_NO_CACHE": "1", "UV_NO_CONFIG": "1"})
    pip = (sys.executable, "-m", "pip", "--isolated", "--python", python, "install", "--no-cache-dir", "--no-deps")
    uv = (sys.executable, "-m", "uv", "pip", "install", "--python", python, "--no-deps", "--reinstall")
    direct = f"{page}llama-cpp-python/index.html"
    for command, version in (
        ((*pip, "--index-url", page, "llama-cpp-python"), "0.3.37+cu130.sm89 newer"),
        ((*uv, "--no-index", "--find-links", direct, SM89_ALONE), f"{SM89} first"),
        ((*uv, "--default-index", page, "llama-cpp-python"), "0.3.37+cu130.sm89 newer"),
        # Without a server that answers for folders, the page itself can be named.
        ((*pip, "--force-reinstall", "--no-index", "--find-links", direct, SM89_ALONE), f"{SM89} first"),
    ):
        completed = run(*command, env=variables)
        assert completed.returncode == 0, completed.stderr
        code = "import llama_cpp; print(llama_cpp.__version__, llama_cpp.content)"
        assert run(python, "-I", "-c", code).stdout.strip() == version


def command_line(house: House, place: str) -> list[str]:
    """A publisher as a process, which takes its wheels from a folder."""
    return [sys.executable, "-m", "build_config", "publish", str(house.layout.wheelhouse), "--to", place]


WRITES = 11
"""Of a second publication: five files, the catalogue, four pages for installers, one for people."""


class StoppedError(Exception):
    """The publisher ends here."""


def assert_nothing_is_lost(place: str, folder: Path) -> None:
    for name, content in bucket.contents(place).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    indexed.assert_whole(folder)
    assert NAME in indexed.listed(folder)


def test_a_second_publication_that_stops_at_any_write_is_finished_by_the_same_call(
    server: bucket.Server, place: str, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(to(place), house.layout, Console())
    first = bucket.contents(place)
    house.build(SM86)
    expected = in_a_folder(house, tmp_path / "folder")
    put = storage.Bucket._put
    left = 0

    def counted(self: storage.Bucket, *arguments: object) -> None:
        nonlocal left
        if left == 0:
            raise StoppedError
        left -= 1
        put(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(storage.Bucket, "_put", counted)
    for number in range(WRITES):
        left, again = WRITES * 2, server.place()
        for name, content in first.items():
            storage.writer(again).write(name, content, {})
        left = number
        with pytest.raises(StoppedError):
            publish(to(again), house.layout, Console())
        assert_nothing_is_lost(again, tmp_path / str(number))
        left = WRITES
        publish(to(again), house.layout, Console())
        assert bucket.contents(again) == expected, number
    assert left == WRITES - 1, "at the last point, only the last page was missing"


@pytest.mark.parametrize("writes", [3, 8])
def test_a_second_publication_that_is_killed_is_finished_by_the_same_command(
    server: bucket.Server, place: str, house: House, tmp_path: Path, writes: int
) -> None:
    publish(to(place), house.layout, Console())
    house.build(SM86)
    server.control(f"hold/{writes}")
    with subprocess.Popen(command_line(house, place), cwd=PACKAGE.parent, stdout=subprocess.DEVNULL) as process:
        try:
            server.wait_for_writer()
        finally:
            process.send_signal(signal.SIGKILL)
    server.control("release")
    assert_nothing_is_lost(place, tmp_path / "copy")

    completed = run(*command_line(house, place), cwd=PACKAGE.parent)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert bucket.contents(place) == in_a_folder(house, tmp_path / "folder")


def test_other_bytes_under_a_published_name_are_refused(place: str, house: House) -> None:
    publish(to(place), house.layout, Console())
    before = bucket.contents(place)
    house.build(content="second")
    with pytest.raises(PublishedError, match="other bytes"):
        publish(to(place), house.layout, Console())
    assert bucket.contents(place) == before


def test_a_file_of_another_publisher_is_never_replaced(place: str, house: House) -> None:
    target = storage.writer(place)
    publish(to(place), house.layout, Console())
    before = bucket.contents(place)
    name = house.build(SM86).name
    assert target.create(f"files/{name}", b"of somebody else", {})
    with pytest.raises(PublishedError, match=r"sm86.* is there with other bytes"):
        publish(to(place), house.layout, Console())
    after = bucket.contents(place)
    assert after.pop(f"files/{name}") == b"of somebody else"
    assert {name: content for name, content in after.items() if name in before} == before


def test_two_publishers_at_once_lose_nothing(place: str, house: House, tmp_path: Path) -> None:
    """The second one publishes while the first one has read the catalogue and not yet written it."""
    other = House(tmp_path / "other")
    other.build(SM86)
    asked = 0

    def first(known: Catalogue) -> rules.Change:
        nonlocal asked
        asked += 1
        if asked == 1:
            publish(to(place), other.layout, Console())
        return rules.add(known, tuple(update.own_wheels(house.layout, Console())))

    update.change(storage.writer(place), Console(), first)
    assert asked == 2
    house.build(SM86)
    assert bucket.contents(place) == in_a_folder(house, tmp_path / "folder")


def test_pages_of_an_older_catalogue_are_written_again(
    place: str, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other publisher does all its work between the catalogue and the pages of the first."""
    other = House(tmp_path / "other")
    other.build(SM86)
    replace = storage.Bucket.replace
    came: list[str] = []

    def then_the_other(self: storage.Bucket, *arguments: object) -> bool:
        done = replace(self, *arguments)  # type: ignore[arg-type]
        if not came:
            came.append("the other")
            publish(to(place), other.layout, Console())
        return done

    monkeypatch.setattr(storage.Bucket, "replace", then_the_other)
    publish(to(place), house.layout, Console())
    house.build(SM86)
    assert bucket.contents(place) == in_a_folder(house, tmp_path / "folder")


def test_a_lost_catalogue_is_made_again(place: str, house: House) -> None:
    publish(to(place), house.layout, Console())
    house.build(SM86)
    publish(to(place), house.layout, Console())
    before = bucket.contents(place)
    storage.writer(place).remove(["index.json"])
    publish(to(place), house.layout, Console())
    assert bucket.contents(place) == before


def test_yanks_limits_and_pages_made_again(place: str, house: House) -> None:
    target = storage.writer(place)
    publish(to(place), house.layout, Console())
    house.build("0.3.37+cu130.sm89", "newer")
    publish(PublishRequest(to=target, keep=1), house.layout, Console())
    assert f"files/{NAME}.yanked.json" in bucket.contents(place)
    update.write(house.layout, Console(), out=target, base_url="https://example.org/whl/")
    catalogue = json.loads(bucket.contents(place)["index.json"])
    assert catalogue["base_url"] == "https://example.org/whl/"
    assert [bool(each["yanked"]) for each in catalogue["wheels"]] == [False, True]
    publish(PublishRequest(to=target, keep=1, delete=True), house.layout, Console())
    assert not [name for name in bucket.contents(place) if NAME in name]


def test_an_index_that_has_no_wheel_any_more_has_no_page(place: str, house: House) -> None:
    publish(to(place), house.layout, Console())
    update.change(storage.writer(place), Console(), lambda _: rules.Change(catalogue=Catalogue()))
    assert not [name for name in bucket.contents(place) if name.startswith("cu130")]


def test_no_secret_is_written_or_said(server: bucket.Server, place: str, house: House) -> None:
    completed = run(*command_line(house, place), cwd=PACKAGE.parent)
    assert completed.returncode == 0, completed.stderr
    said = completed.stdout + completed.stderr
    variables = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    failed = run(*command_line(house, f"{place}x"), cwd=PACKAGE.parent, env=variables)
    assert failed.returncode == 14, failed.stdout + failed.stderr
    said += failed.stdout + failed.stderr
    for text in (said, *(content.decode(errors="replace") for content in bucket.contents(place).values())):
        assert bucket.SECRET not in text
        assert "AKIATEST" not in text
    assert "AWS4-HMAC-SHA256" in server.control("log"), "the requests were signed with it"
    with pytest.raises(SettingsError, match="must not contain credentials") as caught:
        storage.writer(f"s3://AKIATEST:{bucket.SECRET}@shared/whl")
    assert bucket.SECRET not in str(caught.value)


def test_an_index_begins_with_another_one(server: bucket.Server, place: str, house: House, tmp_path: Path) -> None:
    """As for a site that is replaced as a whole."""
    publish(to(place), house.layout, Console())
    collected = House(tmp_path / "other")
    collected.build(SM86)
    folder = tmp_path / "site"
    start = storage.reader(server.website(place))
    request = PublishRequest(folders=(collected.layout.wheelhouse,), to=folder, start=start)
    publish(request, collected.layout, Console())
    house.build(SM86)
    assert indexed.contents(folder) == in_a_folder(house, tmp_path / "folder")
    with pytest.raises(SettingsError, match="has wheels already"):
        publish(request, collected.layout, Console())
    nowhere = storage.reader(server.website(server.place()))
    publish(PublishRequest(to=tmp_path / "new", start=nowhere), house.layout, Console())
    indexed.assert_whole(tmp_path / "new")


def test_a_whole_index_is_verified_in_storage_and_over_http(server: bucket.Server, place: str, house: House) -> None:
    publish(to(place), house.layout, Console())
    layout = Layout(checkout=PACKAGE.parent, work_root=house.folder / "none")
    for address in (place, server.website(place)):
        verify_index(address, layout, Console())
    storage.writer(place).write(f"files/{NAME}.record.json", b"{}", {})
    for address in (place, server.website(place)):
        with pytest.raises(VerificationError, match="record-unreadable"):
            verify_index(address, layout, Console())
    with pytest.raises(VerificationError, match="not the catalogue of an index"):
        verify_index(f"{server.website(place)}/cu130-sm89", layout, Console())
