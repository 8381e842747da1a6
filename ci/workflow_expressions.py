"""GitHub's expressions, as far as our workflows use them: names, literals, comparison, logic, and a few functions.

What is not known here is an error, so a workflow cannot use more than a rehearsal understands.
https://docs.github.com/en/actions/reference/workflows-and-actions/expressions
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+)|(?P<name>[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*)"
    r"|(?P<operator>==|!=|&&|\|\||[!(),]))"
)
_PLACE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_LITERALS = {"true": True, "false": False, "null": None}
STATUS_FUNCTIONS = frozenset({"always", "cancelled", "failure", "success"})


class ExpressionError(Exception):
    """An expression is malformed, or uses something that is not known here."""


class Expression:
    """One expression, read from left to right: ``||`` binds least, then ``&&``, comparison, ``!``."""

    def __init__(self, text: str, context: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> None:
        self._text = text
        self._context = context
        self._functions = functions
        self._tokens = _tokens(text)

    def value(self) -> Any:
        """What the expression gives. Raises ``ExpressionError``."""
        found = self._either()
        if self._tokens:
            raise ExpressionError(f"{self._text!r}: {self._tokens[0][1]!r} is not expected")
        return found

    def _either(self) -> Any:
        left = self._both()
        while self._took("||"):
            right = self._both()
            left = left if truth(left) else right
        return left

    def _both(self) -> Any:
        left = self._compared()
        while self._took("&&"):
            right = self._compared()
            left = right if truth(left) else left
        return left

    def _compared(self) -> Any:
        left = self._single()
        for operator, equal in (("==", True), ("!=", False)):
            if self._took(operator):
                return _same(left, self._single()) is equal
        return left

    def _single(self) -> Any:
        if self._took("!"):
            return not truth(self._single())
        if self._took("("):
            found = self._either()
            self._expect(")")
            return found
        if not self._tokens:
            raise ExpressionError(f"{self._text!r} ends too early")
        kind, token = self._tokens.pop(0)
        if kind == "text":
            return token[1:-1].replace("''", "'")
        if kind == "number":
            return int(token)
        if kind == "operator":
            raise ExpressionError(f"{self._text!r}: {token!r} is not expected")
        if self._took("("):
            return self._called(token)
        return _LITERALS[token] if token in _LITERALS else self._looked_up(token)

    def _called(self, name: str) -> Any:
        if name not in self._functions:
            raise ExpressionError(f"{self._text!r}: the function {name} is not known here")
        arguments = []
        while not self._took(")"):
            arguments.append(self._either())
            if not self._took(","):
                self._expect(")")
                break
        return self._functions[name](*arguments)

    def _looked_up(self, name: str) -> Any:
        first, *rest = name.split(".")
        if first not in self._context:
            raise ExpressionError(f"{self._text!r}: {first} is not known here")
        found = self._context[first]
        for part in rest:  # what is not there is null, as with GitHub
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def _took(self, operator: str) -> bool:
        if self._tokens and self._tokens[0] == ("operator", operator):
            self._tokens.pop(0)
            return True
        return False

    def _expect(self, operator: str) -> None:
        if not self._took(operator):
            raise ExpressionError(f"{self._text!r}: {operator!r} is missing")


def truth(value: Any) -> bool:
    """Whether a value counts as true: everything but false, null, 0 and the empty text."""
    return value not in (False, None, 0, "")


def substitute(value: Any, context: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """Every ``${{ }}`` in a text, or in all texts of a list or mapping, replaced by what it gives.

    A text that is one expression and nothing else becomes its value, of whatever type.
    """
    if isinstance(value, dict):
        return {key: substitute(each, context, functions) for key, each in value.items()}
    if isinstance(value, list):
        return [substitute(each, context, functions) for each in value]
    if not isinstance(value, str):
        return value
    whole = _PLACE.fullmatch(value.strip())
    if whole is not None and value.count("${{") == 1:
        return Expression(whole[1], context, functions).value()
    return _PLACE.sub(lambda place: as_text(Expression(place[1], context, functions).value()), value)


def condition(text: str, context: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> bool:
    """The value of an ``if``: with ``success()`` before it, unless it asks for the status by itself."""
    whole = _PLACE.fullmatch(text.strip())
    inner = whole[1] if whole is not None else text
    asks = {token for kind, token in _tokens(inner) if kind == "name"} & STATUS_FUNCTIONS
    return (bool(asks) or functions["success"]()) and truth(Expression(inner, context, functions).value())


def as_text(value: Any) -> str:
    """A value in the middle of a text: null is empty, true is ``true``."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, bool | dict | list) else str(value)


def _same(left: Any, right: Any) -> bool:
    """GitHub's equality: texts without regard to case, null like the empty text."""
    left, right = ("" if value is None else value for value in (left, right))
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold()
    return bool(left == right)


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"{text!r}: {text[position:].strip()[:20]!r} is not understood")
        kind = str(match.lastgroup)
        found.append((kind, match[kind]))
        position = match.end()
    return found
