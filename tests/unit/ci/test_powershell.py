"""What Windows users type and run is PowerShell by its grammar.

Neither PyPI nor Debian has PowerShell itself: what a command does only Windows can show.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Parser

from build_config.system.layout import PACKAGE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

CHECKOUT = PACKAGE.parent
PARSER = Parser(Language(tree_sitter_powershell.language()))
DOCUMENTS = ("README.md", *(path.relative_to(CHECKOUT).as_posix() for path in sorted(CHECKOUT.glob("docs/*.md"))))
BLOCKS = [
    (name, block)
    for name in DOCUMENTS
    for block in re.findall(r"```powershell\n(.*?)```", (CHECKOUT / name).read_text(encoding="utf-8"), re.DOTALL)
]
LINES = [pytest.param(line, id=f"{name}: {line}") for name, block in BLOCKS for line in block.splitlines()]
SCRIPTS = sorted(CHECKOUT.glob("ci/**/*.ps1"))


def is_powershell(text: str) -> bool:
    # The grammar takes two dashes alone for an operator. PowerShell takes them for an argument, as if they were quoted.
    return not PARSER.parse(text.replace(" -- ", " '--' ").encode()).root_node.has_error


def test_there_is_something_to_read() -> None:
    assert {name for name, _ in BLOCKS} >= {"docs/windows.md"}
    assert SCRIPTS


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_a_document_is_powershell(line: str) -> None:
    assert is_powershell(f"{line}\n")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("added", [' "', " (", " |", " }", " | | x"])
def test_a_damaged_line_is_found(line: str, added: str) -> None:
    assert not is_powershell(f"{line}{added}\n")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_powershell_and_loses_that_with_a_brace(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert is_powershell(text)
    lines = text.splitlines(keepends=True)
    code = [number for number, line in enumerate(lines) if not line.startswith("#")]
    for number in (number for number in code if re.search(r"[{}]", lines[number])):
        damaged = re.sub(r"[{}]", "", lines[number], count=1)
        assert not is_powershell("".join([*lines[:number], damaged, *lines[number + 1 :]])), lines[number]
