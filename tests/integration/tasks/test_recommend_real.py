"""Reads which wheels there are, from real folders, pages and servers; and runs the command."""

from __future__ import annotations

import functools
import http.server
import json
import shlex
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from build_config.errors import NetworkError, SettingsError
from build_config.formats import build_facts
from build_config.system import network
from build_config.system.layout import PACKAGE
from build_config.tasks import recommend
from tests.integration.conftest import run
from tests.support import attested, local_index, wheels

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.local_index import LocalIndex

pytestmark = pytest.mark.integration

NAME = "llama_cpp_python-0.3.36+cu130.sm89-py3-none-manylinux_2_35_x86_64.whl"
PAGE = f"""<!DOCTYPE html><html><body>
<a href="{NAME.replace("+", "%2B")}#sha256={"0" * 64}" data-requires-python="&gt;=3.8">{NAME}</a>
<a href="llama_cpp_python-0.3.36.tar.gz">sources</a> <a href="numpy-2.0-py3-none-any.whl">another</a>
<a href="{NAME.replace("+", "%2B").replace("89", "75")}" data-yanked="broken">withdrawn</a>
</body></html>"""


@pytest.fixture(name="server")
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIndex]:
    monkeypatch.setattr(network, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with local_index.serve() as index:
        yield index


def test_a_folder_is_read_with_the_records_that_are_about_its_wheels(tmp_path: Path) -> None:
    house = attested.publish(tmp_path)
    option, (found,) = recommend.read(str(house.wheel.parent))
    assert option == ("--find-links", str(house.wheel.parent))
    assert (found.file_name, found.verdict) == (house.wheel.name, "cpu-fallback-verified")
    assert found.shards == house.record.shards


def test_a_record_about_other_bytes_is_not_believed(tmp_path: Path) -> None:
    house = attested.publish(tmp_path)
    house.wheel.write_bytes(house.wheel.read_bytes() + b"more")
    _, (found,) = recommend.read(str(house.wheel.parent))
    assert found.verdict is None


def test_a_wheel_without_a_record_is_read_by_its_name(tmp_path: Path) -> None:
    wheels.write(tmp_path, wheels.contents({}), NAME)
    _, (found,) = recommend.read(str(tmp_path))
    assert (found.cuda, found.verdict, [shard.name for shard in found.shards]) == ("13.0", None, ["sm89"])


def test_a_page_of_links_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    option, found = recommend.read(str(tmp_path / "index.html"))
    assert option == ("--find-links", str(tmp_path / "index.html"))
    assert [(each.file_name, each.requires_python, each.yanked) for each in found] == [
        (NAME, ">=3.8", False),
        (NAME.replace("89", "75"), "", True),
    ]


def test_a_package_index_is_asked_for_the_project(server: LocalIndex) -> None:
    server.files[NAME] = b"a wheel that nobody fetches"
    option, (found,) = recommend.read(server.url)
    assert (option, found.file_name) == (("--extra-index-url", server.url), NAME)
    assert server.ranges == [], "a file was fetched"


def test_an_address_that_is_no_package_index_is_a_page_of_links(server: LocalIndex) -> None:
    server.files["page.html"] = PAGE.encode()
    url = server.url.replace("simple/", "files/page.html")
    option, found = recommend.read(url)
    assert option == ("--find-links", url)
    assert [each.file_name for each in found] == [NAME, NAME.replace("89", "75")]


# The layout of upstream's index: https://abetlen.github.io/llama-cpp-python/whl/cu124/
UPSTREAM = "https://github.com/abetlen/llama-cpp-python/releases/download/v0.3.4-cu124"
UPSTREAM_NAMES = [f"llama_cpp_python-0.3.4-cp311-cp311-{platform}.whl" for platform in ("linux_x86_64", "win_amd64")]
UPSTREAM_ROOT = '<!DOCTYPE html><html><body><a href="llama-cpp-python/">llama-cpp-python</a><br></body></html>'
UPSTREAM_PAGE = f"""<!DOCTYPE html><html><body><h1>Links for llama-cpp-python</h1>
<a href="{UPSTREAM}/{UPSTREAM_NAMES[0]}">{UPSTREAM_NAMES[0]}</a><br>
<a href="{UPSTREAM}/{UPSTREAM_NAMES[1]}">Windows</a><br>
<a href="numpy-2.0-py3-none-any.whl">{NAME}</a> <a href="{UPSTREAM}/">{NAME}</a> <a>{NAME}</a>
</body></html>"""


def write_upstreams_index(folder: Path) -> Path:
    (folder / "llama-cpp-python").mkdir(parents=True)
    (folder / "index.html").write_text(UPSTREAM_ROOT)
    (folder / "llama-cpp-python" / "index.html").write_text(UPSTREAM_PAGE)
    return folder


class Static(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Like a bucket, which does not tell what is missing from what is forbidden."""
        super().send_error(403 if code == 404 else code, message, explain)


@pytest.mark.parametrize("part", ["whl/cu124", "whl/cu124/", "whl/cu124/llama-cpp-python/"])
def test_upstreams_index_is_read_from_a_static_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    write_upstreams_index(tmp_path / "whl" / "cu124")
    monkeypatch.setattr(network, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    serve = functools.partial(Static, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{part}"
        option, found = recommend.read(url)
        server.shutdown()
    project = part.endswith("llama-cpp-python/")
    assert option == ("--find-links" if project else "--extra-index-url", url)
    assert [each.file_name for each in found] == UPSTREAM_NAMES
    assert {(each.cuda, each.needs_driver) for each in found} == {(None, True)}


def test_a_copy_of_upstreams_index_is_read_from_a_folder(tmp_path: Path) -> None:
    folder = write_upstreams_index(tmp_path / "with a space")
    option, found = recommend.read(str(folder))
    assert option == ("--extra-index-url", folder.as_uri())
    assert [each.file_name for each in found] == UPSTREAM_NAMES
    option, found = recommend.read(str(folder / "llama-cpp-python"))
    assert option == ("--find-links", str(folder / "llama-cpp-python"))
    assert [each.file_name for each in found] == UPSTREAM_NAMES
    target = ["--no-deps", "--no-index", "--target", str(tmp_path / "site"), "--dry-run", "llama-cpp-python"]
    (folder / "llama-cpp-python" / "index.html").write_text(f'<a href="{NAME}">{NAME}</a>')
    wheels.write(folder / "llama-cpp-python", wheels.contents({}), NAME)
    option, _ = recommend.read(str(folder))
    installed = run(sys.executable, "-m", "pip", "install", *option, *(word for word in target if word != "--no-index"))
    assert installed.returncode == 0, installed.stderr


@pytest.mark.parametrize("links", [f'<a href="{NAME.replace("+", "%2B")}">here</a>', f'<a href="x.whl">{NAME}</a>'])
def test_the_address_of_a_link_counts_and_not_its_text(tmp_path: Path, links: str) -> None:
    (tmp_path / "page.html").write_text(links)
    _, found = recommend.read(str(tmp_path / "page.html"))
    assert [each.file_name for each in found] == ([NAME] if "here" in links else [])


def test_a_plain_cuda_version_is_ours_only_if_the_wheel_describes_its_build(tmp_path: Path) -> None:
    name = NAME.replace(".sm89", "")
    wheels.write(tmp_path, wheels.contents({}), name)
    _, (found,) = recommend.read(str(tmp_path))
    assert (found.cuda, found.portable, found.needs_driver) == (None, False, True)
    wheels.write(tmp_path, wheels.contents({}) | {build_facts.MEMBER: b"{}"}, name)
    _, (found,) = recommend.read(str(tmp_path))
    assert (found.cuda, found.portable, found.needs_driver) == ("13.0", True, False)


def test_an_address_with_nothing_behind_it_and_one_that_nobody_answers_are_named(server: LocalIndex) -> None:
    for url in (server.url.replace("simple", "files/none"), "http://127.0.0.1:1/"):
        with pytest.raises(NetworkError, match="--index http://127") as failure:
            recommend.read(url)
        assert "check the address" in str(failure.value.remedy)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        recommend.read(str(tmp_path / "nowhere"))


def doctor(*options: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "build_config", "doctor", *options, cwd=PACKAGE.parent)


def test_the_command_names_the_wheel_and_the_line_for_pip_which_pip_takes(tmp_path: Path) -> None:
    house = attested.publish(tmp_path)
    done = doctor("--recommend", "--index", str(house.wheel.parent), "--json")
    answer = json.loads(done.stdout)
    if not answer["machine"][-1].startswith("no NVIDIA GPU"):
        pytest.skip("the recommendation depends on the GPU")
    assert done.returncode == 0, done.stderr
    assert answer["chosen"]["candidate"]["file_name"] == house.wheel.name
    pip = shlex.split(answer["pip"])[1:]
    target = ["--no-deps", "--no-index", "--target", str(tmp_path / "site")]
    installed = run(sys.executable, *pip, *target)
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "site" / "llama_cpp").is_dir()


def test_the_command_ends_with_1_if_there_is_nothing_to_take(tmp_path: Path) -> None:
    done = doctor("--recommend", "--index", str(tmp_path))
    assert done.returncode == 1
    assert "There is no wheel there." in done.stdout


@pytest.mark.parametrize("option", ["--gpus", "--cards"])
def test_the_command_prints_the_table_of_the_page(option: str) -> None:
    assert doctor(option).stdout.strip() in (PACKAGE.parent / "docs" / "choosing.md").read_text(encoding="utf-8")
