"""uv takes the variant wheel of the GPU and its driver; other clients take the portable wheel or refuse the page."""

from __future__ import annotations

import shlex
import shutil
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli_w

from build_config.model import Driver, GpuDevice, Machine
from build_config.system.console import Console
from build_config.tasks import recommend
from build_config.tasks.index import rules, snippets, update
from build_config.tasks.publish import PublishRequest, publish
from tests.support import client_environment, nvidia_smi
from tests.support.client_environment import Environment
from tests.support.indexed import PORTABLE, TAG, House
from tests.support.served import server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

SHARDS = ("sm75", "sm86", "sm89", "sm90", "sm120a", "sm86x120a")
CONTENT = "import llama_cpp; print(llama_cpp.content)"


@dataclass(frozen=True)
class Shop:
    """A published index with variants, served by both kinds of server, and uv."""

    house: House
    url: str
    installers: Environment
    folder: Path

    def target(self) -> Environment:
        environment = Environment(self.folder / "target")
        venv.create(environment.folder, with_pip=False, symlinks=True)
        return environment

    def variables(self, environment: Environment, *capabilities: str, driver: str = "580.65.06") -> dict[str, str]:
        """The environment of uv on a machine with these GPUs."""
        programs = self.folder / "programs"
        nvidia_smi.write(programs, capabilities, driver)
        return {
            "PATH": str(programs),
            "HOME": str(self.folder),
            "UV_NO_CACHE": "1",
            "UV_PYTHON": str(environment.python),
            "VIRTUAL_ENV": str(environment.folder),
        }

    def installed(self, *capabilities: str, driver: str = "580.65.06") -> str:
        """Which wheel the line of the page installs."""
        target = self.target()
        line = snippets.of_variants(f"{self.url}variants/").text
        self.run(line, self.variables(target, *capabilities, driver=driver))
        return content(target)

    def run(self, line: str, variables: dict[str, str]) -> str:
        program, *arguments = shlex.split(line)
        return client_environment.run(
            self.installers.program(program), *arguments, variables=variables, cwd=self.folder
        )


def content(environment: Environment) -> str:
    return client_environment.run(environment.python, "-I", "-c", CONTENT).strip()


@pytest.fixture(name="house", scope="module")
def _house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("published"))
    house.build(PORTABLE, "portable")
    house.variant(*(house.build(f"{PORTABLE}.{shard}", shard) for shard in SHARDS))
    house.write()
    return house


@pytest.fixture(name="url", scope="module", params=["http.server", "serve"])
def _url(request: pytest.FixtureRequest, house: House) -> Iterator[str]:
    with server(house.index, request.param) as url:
        yield url


@pytest.fixture(name="shop")
def _shop(house: House, url: str, installers: Environment, tmp_path: Path) -> Shop:
    return Shop(house=house, url=url, installers=installers, folder=tmp_path)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (("7.5",), "sm75"),
        (("8.6",), "sm86"),
        (("8.9",), "sm89"),
        (("9.0",), "sm90"),
        (("12.0",), "sm120a"),
        ((), "portable"),
        (("8.0",), "portable"),
        (("10.0",), "portable"),
        (("8.6", "12.0"), "sm120a"),
        (("12.0", "8.6"), "sm120a"),
        (("8.6", "8.9"), "sm89"),
    ],
    ids=lambda value: "+".join(value) or "no GPU" if isinstance(value, tuple) else None,
)
def test_uv_takes_the_wheel_of_the_highest_gpu(shop: Shop, capabilities: tuple[str, ...], expected: str) -> None:
    """Of several that fit equally, the one whose label is first as text."""
    assert shop.installed(*capabilities) == expected


def test_with_an_older_driver_uv_takes_the_portable_wheel(shop: Shop) -> None:
    assert shop.installed("8.9", driver="570.86.10") == "portable"


def test_a_shard_for_two_kinds_of_gpus_is_taken_if_its_label_is_first(installers: Environment, tmp_path: Path) -> None:
    house = House(tmp_path / "published")
    house.variant(*(house.build(f"{PORTABLE}.{shard}", shard) for shard in ("sm89", "sm86x89")))
    house.write()
    with server(house.index, "http.server") as url:
        shop = Shop(house=house, url=url, installers=installers, folder=tmp_path)
        assert shop.installed("8.6", "8.9") == "sm86x89"


def test_uv_in_other_ways(shop: Shop) -> None:
    target = shop.target()
    variables = shop.variables(target, "8.9")
    index = f"--index {shop.url}variants/"
    flag = "--preview-features wheel-variants"
    script = f"-c '{CONTENT}'"
    assert (
        shop.run(f"uv run --no-project --with llama-cpp-python {index} {flag} python {script}", variables) == "sm89\n"
    )
    inline = f"""# /// script
# dependencies = ["llama-cpp-python"]
# [[tool.uv.index]]
# url = "{shop.url}variants/"
# ///
{CONTENT}
"""
    (shop.folder / "script.py").write_text(inline, encoding="utf-8")
    assert shop.run(f"uv run {flag} --script script.py", variables) == "sm89\n"


@pytest.mark.parametrize("line", ["uv pip install", "pip install --only-binary llama-cpp-python"])
def test_clients_without_variants_take_the_portable_wheel(shop: Shop, line: str) -> None:
    target = shop.target()
    variables = shop.variables(target, "8.9")
    index = f"{shop.url}variants/"
    if line.startswith("uv"):
        shop.run(f"{line} --index {index} llama-cpp-python", variables)
    else:
        command = (shop.installers.python, "-I", "-m", "pip", "--python", target.python)
        settings = {**variables, "PIP_NO_CACHE_DIR": "1", "PIP_INDEX_URL": index}
        client_environment.run(*command, *line.split()[1:], "llama-cpp-python", variables=settings)
    assert content(target) == "portable"


def test_a_project_of_uv_takes_the_portable_wheel(shop: Shop) -> None:
    version = "{}.{}".format(*sys.version_info)
    index = {"name": "llama-cuda", "url": f"{shop.url}variants/", "explicit": True}
    project = {"name": "app", "version": "1", "requires-python": f"=={version}.*", "dependencies": ["llama-cpp-python"]}
    uv = {"index": [index], "sources": {"llama-cpp-python": {"index": "llama-cuda"}}}
    (shop.folder / "pyproject.toml").write_text(tomli_w.dumps({"project": project, "tool": {"uv": uv}}))
    shop.run("uv sync --preview-features wheel-variants", shop.variables(shop.target(), "8.9"))
    assert content(Environment(shop.folder / ".venv")) == "portable"


def test_what_uv_installs_can_be_checked_and_removed(shop: Shop) -> None:
    target = shop.target()
    line = snippets.of_variants(f"{shop.url}variants/").text
    variables = shop.variables(target, "8.9")
    shop.run(line, variables)
    assert shop.run("uv pip freeze", variables) == "llama-cpp-python==0.3.36+cu130\n"
    shop.run("uv pip check", variables)
    shop.run("uv pip uninstall llama-cpp-python", variables)
    assert not list((target.folder / "lib").rglob("llama_cpp*"))


def on(*capabilities: str) -> Machine:
    gpus = tuple(
        GpuDevice(index=number, name="NVIDIA GPU", capability=capability, memory=24 << 30)
        for number, capability in enumerate(capabilities)
    )
    driver = Driver(version="580.65.06", cuda="13.0")
    return Machine(system="Linux x86_64", cpu="x86-64", cores=8, glibc="2.36", driver=driver, gpus=gpus)


@pytest.mark.parametrize("kind", ["ordinary wheels, uv", "ordinary wheels, pip", "variant wheels, uv"])
@pytest.mark.parametrize("capabilities", [("8.9",), ("8.6", "12.0")], ids="+".join)
def test_the_recommended_line_installs_the_recommended_wheel(
    shop: Shop, capabilities: tuple[str, ...], kind: str
) -> None:
    """The one that uses all GPUs, from the catalogue; by its own choice uv takes the variant for the highest alone."""
    option, candidates = recommend.read(shop.url)
    if kind.startswith("variant"):
        candidates = tuple(each for each in candidates if each.label is not None or each.portable)
    uv = kind.endswith("uv")
    python = recommend.Interpreter(version="3.11", tags=frozenset({TAG}), uv=uv)
    answer = recommend.recommend(on(*capabilities), python, candidates, option)
    assert answer.chosen is not None
    assert (answer.chosen.candidate.label is not None) is kind.startswith("variant")
    target = shop.target()
    variables = shop.variables(target, *capabilities)
    if uv:
        assert answer.uv is not None
        shop.run(answer.uv.replace("--python python", f"--python {target.python}"), variables)
        assert answer.variants is not None
    else:
        assert answer.pip is not None
        assert (answer.uv, answer.variants) == (None, None)
        command = (shop.installers.python, "-I", "-m", "pip", "--python", target.python)
        settings = {**variables, "PIP_NO_CACHE_DIR": "1", "PIP_INDEX_URL": f"{shop.url}none/"}
        client_environment.run(*command, *shlex.split(answer.pip)[3:], variables=settings)
    assert content(target) == ("sm89" if capabilities == ("8.9",) else "sm86x120a")


def test_a_yanked_variant_is_not_taken_and_a_superseding_one_is(installers: Environment, tmp_path: Path) -> None:
    house = House(tmp_path / "published")
    house.build(PORTABLE, "portable")
    (first,) = house.variant(house.build(content="first"))
    house.write()
    with server(house.index, "http.server") as url:
        shop = Shop(house=house, url=url, installers=installers, folder=tmp_path)
        update.change(house.index, Console(), lambda known: rules.yank(known, (first.name,), "a fault"))
        assert shop.installed("8.9") == "portable"
        update.change(house.index, Console(), lambda known: rules.unyank(known, (first.name,)))
        house.variant(house.build(content="second"))
        request = PublishRequest(
            folders=(house.layout.variants,), to=house.index, supersede=first.name, reason="a fault"
        )
        publish(request, house.layout, Console())
        shutil.rmtree(tmp_path / "target")
        assert shop.installed("8.9") == "second"
