"""The server: which form of a page it sends, what it lets caches keep, and what it hides."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette

from build_config.errors import SettingsError
from build_config.system.console import Console
from build_config.tasks.index.serve import application, serve
from tests.support.indexed import House

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "/cu130-sm89/llama-cpp-python/"
AS_JSON, AS_HTML = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html"
PIP = f"{AS_JSON}, {AS_HTML}; q=0.1, text/html; q=0.01"
UV = f"{AS_JSON}, {AS_HTML};q=0.2, text/html;q=0.01"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(name="house", scope="module")
def _house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("served"))
    house.build()
    house.write()
    return house


@dataclass(frozen=True)
class Client:
    """Asks the application without a network."""

    app: Starlette

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, f"http://test{path}", headers=headers)

        return asyncio.run(ask())


@pytest.fixture(name="client", scope="module")
def _client(house: House) -> Client:
    return Client(application(house.index))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (PIP, AS_JSON),
        (UV, AS_JSON),
        (AS_JSON, AS_JSON),
        (AS_HTML, AS_HTML),
        (BROWSER, "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        (f"{AS_HTML};q=0.5, {AS_JSON};q=0.2", AS_HTML),
    ],
)
@pytest.mark.parametrize("path", [PAGE, "/cu130-sm89/"])
def test_a_client_gets_the_form_that_it_asks_for(client: Client, path: str, accept: str, kind: str) -> None:
    answer = client.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.text.startswith("{" if "json" in kind else "<!DOCTYPE html>")
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("accept", ["application/xml", "text/html;q=much"])
def test_a_form_that_does_not_exist_is_not_acceptable(client: Client, accept: str) -> None:
    assert client.get(PAGE, headers={"Accept": accept}).status_code == 406


def test_the_root_is_for_people_and_its_catalogue_for_programs(client: Client) -> None:
    assert "<h1>llama-cpp-python with CUDA</h1>" in client.get("/", headers={"Accept": PIP}).text
    assert client.get("/index.json").json()["wheels"]


def test_a_page_is_asked_for_again_and_sent_only_if_it_has_changed(client: Client, house: House) -> None:
    first = client.get(PAGE, headers={"Accept": PIP})
    again = {"Accept": PIP, "If-None-Match": first.headers["etag"]}
    assert first.headers["cache-control"] == "no-cache"
    unchanged = client.get(PAGE, headers=again)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert client.get(PAGE, headers={**again, "Accept": BROWSER}).status_code == 200, "the other form is another page"
    house.build("0.3.37+cu130.sm89")
    house.write()
    assert "0.3.37" in client.get(PAGE, headers=again).text


def test_files_are_kept_for_ever_and_can_be_read_in_parts(client: Client, house: House) -> None:
    wheel = next((house.index / "files").glob("*.whl"))
    url = f"/files/{wheel.name.replace('+', '%2B')}"
    answer = client.get(url)
    assert answer.content == wheel.read_bytes()
    assert "immutable" in answer.headers["cache-control"]
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, wheel.read_bytes()[10:20])
    assert client.get(url, method="HEAD").headers["content-length"] == str(wheel.stat().st_size)


def test_a_folder_without_its_slash_leads_to_the_page(client: Client) -> None:
    answer = client.get("/cu130-sm89/llama-cpp-python")
    assert (answer.status_code, answer.headers["location"]) == (307, PAGE)


@pytest.mark.parametrize(
    "path",
    [
        "/.lock",
        "/files/.hidden.part",
        "/files/",
        "/cu130-sm89/numpy/",
        "/cu130-sm89/other",
        "/files/../../README.md",
        "/files/%2e%2e/%2e%2e/secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/cu130-sm89/%2e%2e/%2e%2e/secret",
        "//etc/passwd",
        "/C:/secret",
    ],
)
def test_nothing_else_is_served(client: Client, house: House, path: str) -> None:
    (house.index / "files" / ".hidden.part").write_bytes(b"half")
    (house.index.parent / "secret").write_bytes(b"secret")
    assert client.get(path).status_code == 404


def test_only_an_index_is_served_and_a_taken_port_is_said(house: House, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not an index"):
        serve(tmp_path, Console(), host="127.0.0.1", port=0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="cannot be used"):
        serve(house.index, Console(), host="127.0.0.1", port=taken.getsockname()[1])
