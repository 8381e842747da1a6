"""A PTX file: its functions and variables by name. Bodies stay text until a kernel is translated."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from build_config.testbed.emulated_device.ptx_parser import TokenReader
from build_config.testbed.emulated_device.ptx_source import PtxSource
from build_config.testbed.emulated_device.ptx_tree import Function, Variable

# To the brace, semicolon or comment that ends or interrupts a statement; a comment of a line, one of several lines.
_HEAD = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STATEMENT = re.compile(r"(?:[^;{/]+|//[^\n]*|/\*.*?\*/|/)*", re.DOTALL)
_LINE_DIRECTIVES = (".version", ".target", ".address_size", ".file", ".loc")
_FUNCTION = re.compile(r"\.(?:entry|func)\b")
_LIMITS = (".maxntid", ".reqntid", ".minnctapersm", ".maxnreg", ".maxnctapersm", ".reqnctapercluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A PTX file."""

    source: PtxSource
    functions: Mapping[str, Function]
    variables: Mapping[str, Variable]


def read_module(text: str, file: str) -> Module:
    """Find the functions and variables of a PTX file; raises ``PtxError`` for what cannot be a part of one."""
    source = PtxSource(file, text)
    try:
        return _read(source, text)
    except (ValueError, IndexError, RecursionError) as error:
        raise source.error(0, f"the file is malformed: {error}") from error


def _read(source: PtxSource, text: str) -> Module:
    functions: dict[str, Function] = {}
    variables: dict[str, Variable] = {}
    offset = _blank_end(text, 0)
    while offset < len(text):
        if text.startswith(_LINE_DIRECTIVES, offset):
            end = text.find("\n", offset)
            end = len(text) if end < 0 else end
            words = re.split(r"[\s,]+", text[offset:end].strip())
            if words[0] == ".address_size" and words[1] != "64":
                raise source.error(offset, f"addresses of {words[1]} bits are not supported")
        elif text.startswith(".section", offset):  # DWARF
            end = source.closing_brace(text.index("{", offset)) + 1
        else:
            match = _STATEMENT.match(text, offset)
            end = match.end() if match else offset
            if end >= len(text):
                raise source.error(offset, "the text ends within a declaration")
            if _FUNCTION.search(text, offset, end):
                function, end = _function(source, offset, end)
                if function.name not in functions or function.body:  # a declaration may stand in front
                    functions[function.name] = function
            else:
                variable, end = _variable(source, offset, end)
                variables[variable.name] = variable
        offset = _blank_end(text, end)
    return Module(source=source, functions=functions, variables=variables)


def _blank_end(text: str, offset: int) -> int:
    match = _HEAD.match(text, offset)
    return match.end() if match else offset


def _variable(source: PtxSource, start: int, end: int) -> tuple[Variable, int]:
    """A variable of the module and the offset behind its semicolon."""
    initial = None
    equals = source.text.find("=", start, end)
    variable = TokenReader(source, start, end if equals < 0 else equals).variable()
    if source.text[end] == "{":
        closing = source.closing_brace(end)
        initial = (end + 1, closing)
        end = source.text.index(";", closing)
    elif equals >= 0:
        initial = (equals + 1, end)
    return variable._replace(initial=initial), end + 1


def _function(source: PtxSource, start: int, end: int) -> tuple[Function, int]:
    """A function and the offset behind its body."""
    reader = TokenReader(source, start, end)
    while (token := reader.take()).text not in (".entry", ".func"):
        if token.kind != "directive":
            raise reader.unexpected(token, "'.entry' or '.func'")
    kernel = token.text == ".entry"
    results = _parameters(reader) if reader.peek().text == "(" else ()
    name = reader.kind("word")
    parameters = _parameters(reader) if not reader.at_end and reader.peek().text == "(" else ()
    max_threads = 0
    while not reader.at_end:
        directive = reader.take()
        if directive.text in (".maxntid", ".reqntid"):
            max_threads = math.prod(_numbers(reader))
        elif directive.text in _LIMITS:
            _numbers(reader)
        elif directive.text == ".pragma":
            reader.kind("string")
        elif directive.text != ".noreturn":
            raise source.error(directive.offset, f"directive {directive.text} of a function is not known")
    body = None
    if source.text[end] == "{":
        closing = source.closing_brace(end)
        body = (end + 1, closing)
        end = closing
    function = Function(
        name=name.text,
        kernel=kernel,
        parameters=parameters,
        results=results,
        max_threads=max_threads,
        body=body,
        offset=name.offset,
    )
    return function, end + 1


def _numbers(reader: TokenReader) -> list[int]:
    numbers = [reader.number()]
    while reader.accept(","):
        numbers.append(reader.number())
    return numbers


def _parameters(reader: TokenReader) -> tuple[Variable, ...]:
    reader.expect("(")
    parameters: list[Variable] = []
    while not reader.accept(")"):
        parameters.append(reader.variable())
        if not reader.accept(","):
            reader.expect(")")
            break
    return tuple(parameters)
