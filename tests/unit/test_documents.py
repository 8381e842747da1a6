"""What the documents say of options, cards, sessions, exit codes and files is what there is."""

from __future__ import annotations

import ast
import re

import pytest
import typer.main

from build_config import archs, errors
from build_config.commands import app
from build_config.errors import PipelineError
from build_config.system.layout import PACKAGE

pytestmark = pytest.mark.unit

CHECKOUT = PACKAGE.parent
DOCUMENTS = (*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md"), CHECKOUT / "wheelhouse" / "README.md")
TEXT = {path.relative_to(CHECKOUT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
README = TEXT["README.md"]


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_troubleshooting_lists_every_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| \S", TEXT["docs/troubleshooting.md"], re.MULTILINE)

    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PipelineError)]
    assert [(int(code), name) for code, name in rows] == sorted((cls.exit_code, cls.__name__) for cls in classes)


def test_readme_lists_every_option_of_the_main_job() -> None:
    build = typer.main.get_group(app).commands["build"]
    options = {name for parameter in build.params for name in parameter.opts} - {"--help"}

    assert set(re.findall(r"^\| `(--[a-z-]+)", section("Options"), re.MULTILINE)) == options


def test_readme_names_cards_and_the_option_that_builds_for_them() -> None:
    table = section("Which card, which driver, what to pass")
    rows = re.findall(r"^\| ([^|]+) \| (\d+\.\d) \| `--arch (\d+)`", table, re.MULTILINE)

    assert len(rows) >= 7
    for cards, capability, option in rows:
        (shard,) = archs.resolve(option, cuda_release="13.0", gpus=()).shards
        assert [arch.capability for arch in shard.archs] == [capability]
        assert cards == archs.card_names(capability)
    assert f"driver {archs.oldest_driver('13.0')} or later" in table


def test_readme_script_is_the_one_that_ci_runs() -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    assert script in (CHECKOUT / "ci" / "install_from_wheelhouse.sh").read_text(encoding="utf-8")


def test_every_session_that_is_named_exists() -> None:
    tree = ast.parse((CHECKOUT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    sessions |= {name.replace("_", "-") for name in sessions}

    for name, text in TEXT.items():
        for called in re.findall(r"nox -s ((?:[a-z_-]*[a-z] ?)+)", text):
            words = [word for word in called.split() if not word.startswith("-")]
            assert words[0] in sessions, f"{name} names the session {words[0]}"


@pytest.mark.parametrize("name", TEXT)
def test_links_lead_to_something(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT[name]):
        file, _, anchor = target.partition("#")
        path = (CHECKOUT / name).parent / file if file else CHECKOUT / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
