from __future__ import annotations

import json
from typing import Any

import pytest

from ci import workflow_expressions as expressions
from ci.workflow_expressions import ExpressionError

pytestmark = pytest.mark.unit

CONTEXT: dict[str, Any] = {
    "inputs": {"arch": "89", "empty": "", "none": None},
    "matrix": {"id": "core", "number": 3},
    "needs": {"wheel": {"result": "success"}, "card": {"result": "skipped"}},
    "github": {"ref": "refs/tags/v1"},
}
FUNCTIONS: dict[str, Any] = {
    "success": lambda: True,
    "cancelled": lambda: False,
    "fromJSON": json.loads,
    "startsWith": lambda text, prefix: text.startswith(prefix),
}


def value(text: str) -> Any:
    return expressions.Expression(text, CONTEXT, FUNCTIONS).value()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inputs.arch", "89"),
        ("inputs.missing.deeper", None),
        ("'it''s'", "it's"),
        ("matrix.number == 3", True),
        ("inputs.arch != '[]'", True),
        ("inputs.none == ''", True),
        ("'A' == 'a'", True),
        ("true && 'x' || 'y'", "x"),
        ("inputs.empty || 'y'", "y"),
        ("false || false && true", False),
        ("!(true && false)", True),
        ("!cancelled() && needs.wheel.result == 'success' && needs.card.result != 'failure'", True),
        ("startsWith(github.ref, 'refs/tags/')", True),
        ("fromJSON('[1, 2]')", [1, 2]),
    ],
)
def test_what_an_expression_gives(text: str, expected: object) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    "text", ["secrets.key", "toJSON(inputs)", "inputs.arch ==", "1 2", "'open", "a[0]", "(true", "success(", "== 1", ""]
)
def test_what_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        value(text)


def test_texts_are_filled_in_wherever_they_are_and_a_whole_one_keeps_its_type() -> None:
    given = {"name": "unit-${{ matrix.id }}-${{ matrix.number }}", "include": "${{ fromJSON('[1]') }}", "n": 1}
    filled = expressions.substitute([given, "${{ inputs.none }}!"], CONTEXT, FUNCTIONS)
    assert filled == [{"name": "unit-core-3", "include": [1], "n": 1}, "!"]


@pytest.mark.parametrize(
    ("text", "good", "expected"),
    [
        ("needs.card.result == 'skipped'", True, True),
        ("needs.card.result == 'skipped'", False, False),
        ("${{ !cancelled() && needs.card.result == 'skipped' }}", False, True),
        ("success()", False, False),
    ],
)
def test_a_condition_asks_for_success_unless_it_asks_by_itself(text: str, *, good: bool, expected: bool) -> None:
    assert expressions.condition(text, CONTEXT, FUNCTIONS | {"success": lambda: good}) is expected
