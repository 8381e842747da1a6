"""Which of upstream's tests download a model, read from their source text: nothing is imported, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DOWNLOADERS = frozenset({"hf_hub_download", "snapshot_download", "from_pretrained"})
"""The first two are huggingface_hub's; the third is what llama-cpp-python makes of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Definition:
    """A function, a method or a variable of a module.

    ``name`` is that of pytest's ids: ``function``, ``Class::method``. ``mentions`` are names as they are written
    (``helper``, ``self.helper``, ``module.helper``), ``strings`` the texts in it. ``requests`` are the fixtures it asks
    for; with ``by_name`` it asks for others, too, whose names are computed. ``fixture`` is the name that it has itself
    as a fixture.
    """

    file: str
    name: str
    mentions: frozenset[str]
    strings: frozenset[str] = frozenset()
    requests: frozenset[str] = frozenset()
    by_name: bool = False
    fixture: str | None = None
    autouse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suite:
    """All definitions, by file and name. ``imports`` are (file, name there) -> (module, name in it or ``None``)."""

    definitions: Mapping[tuple[str, str], _Definition]
    imports: Mapping[tuple[str, str], tuple[str, str | None]]


def left_out(ids: Iterable[str], sources: Mapping[str, str]) -> dict[str, str]:
    """The tests that download something, each with the chain of calls that leads there.

    ``ids`` are pytest's (``tests/test_a.py::test_b[c]``), ``sources`` the texts of the test files by their names in
    these ids. A chain goes through fixtures, those asked for by a name among a test's parameters included, and through
    helper functions. What cannot be seen here (a fixture whose computed name is no parameter's, a base class in another
    file) is not left out, so that it fails without a network instead of passing for tested.
    """
    suite = _read(sources)
    reasons = {}
    for test in ids:
        address, _, parameters = test.partition("[")
        file, _, name = address.partition("::")
        definition = suite.definitions.get((file, name))
        if definition is not None:
            # Fixtures are identifiers, so a dash in an id is never part of one.
            chain = _chain(definition, suite, frozenset(parameters.removesuffix("]").split("-")), set())
            if chain is not None:
                reasons[test] = " -> ".join(chain)
    return reasons


def _chain(
    definition: _Definition, suite: _Suite, parameters: frozenset[str], seen: set[_Definition]
) -> tuple[str, ...] | None:
    """The names from ``definition`` to a downloader, itself not among them; ``None`` when none is reached."""
    for mention in sorted(definition.mentions):
        if called := DOWNLOADERS & {mention.rpartition(".")[2], _original(definition.file, mention, suite)}:
            return (min(called),)
    for following in _followers(definition, suite, parameters):
        if following not in seen:
            seen.add(following)
            chain = _chain(following, suite, parameters, seen)
            if chain is not None:
                return (following.fixture or following.name, *chain)
    return None


def _followers(definition: _Definition, suite: _Suite, parameters: frozenset[str]) -> Iterator[_Definition]:
    fixtures = _visible_fixtures(definition.file, suite)
    wanted = definition.requests | {name for name, fixture in fixtures.items() if fixture.autouse}
    if definition.by_name:
        wanted |= parameters | definition.strings
    for name in sorted(wanted & fixtures.keys()):
        if fixtures[name] != definition:
            yield fixtures[name]
    owner = definition.name.rpartition("::")[0]
    for mention in sorted(definition.mentions):
        first, _, last = mention.rpartition(".")
        places: tuple[tuple[str, str], ...]
        if first in {"self", "cls"} and owner:
            places = ((definition.file, f"{owner}::{last}"),)
        elif first:
            places = tuple((file, last) for file in _files_of(definition.file, first, suite))
        else:
            places = ((definition.file, mention), *_imported(definition.file, mention, suite))
        for place in places:
            if place in suite.definitions and suite.definitions[place].fixture is None:
                yield suite.definitions[place]


def _original(file: str, mention: str, suite: _Suite) -> str | None:
    """The name under which an imported thing is defined."""
    module, name = suite.imports.get((file, mention), ("", None))
    return name if module else None


def _imported(file: str, mention: str, suite: _Suite) -> Iterator[tuple[str, str]]:
    module, name = suite.imports.get((file, mention), ("", None))
    if name is not None:
        yield from ((other, name) for other in _named(module, suite))


def _files_of(file: str, mention: str, suite: _Suite) -> Iterator[str]:
    module, name = suite.imports.get((file, mention), ("", None))
    if module:
        yield from _named(module if name is None else name, suite)


def _named(module: str, suite: _Suite) -> Iterator[str]:
    """The files of the suite that ``import module`` can mean: pytest puts their folders on the path."""
    stem = module.rpartition(".")[2]
    yield from sorted({file for file, _ in suite.definitions if PurePosixPath(file).stem == stem})


def _visible_fixtures(file: str, suite: _Suite) -> dict[str, _Definition]:
    """By name: those of the file hide those of ``conftest.py`` beside it, which hide those of the folders above."""
    folders = [*reversed(PurePosixPath(file).parents)]
    files = [*(str(folder / "conftest.py") for folder in folders), file]
    return {
        definition.fixture: definition
        for place in dict.fromkeys(files)
        for definition in suite.definitions.values()
        if definition.file == place and definition.fixture is not None
    }


# -------------------------------------------------------------------------------------------------------- reading


def _read(sources: Mapping[str, str]) -> _Suite:
    definitions: dict[tuple[str, str], _Definition] = {}
    imports: dict[tuple[str, str], tuple[str, str | None]] = {}
    for file, text in sources.items():
        tree = ast.parse(text, filename=file)
        marks = _requested_by_marks(_values(tree, "pytestmark"))
        for definition in _definitions(file, tree.body, "", marks):
            definitions[file, definition.name] = definition
        for node in ast.walk(tree):
            match node:
                case ast.Import(names=names):
                    for alias in names:
                        imports[file, alias.asname or alias.name] = (alias.name, None)
                case ast.ImportFrom(module=module, names=names):
                    for alias in names:
                        imports[file, alias.asname or alias.name] = (module or ".", alias.name)
                case _:
                    pass
    return _Suite(definitions=definitions, imports=imports)


def _definitions(file: str, body: list[ast.stmt], prefix: str, marks: frozenset[str]) -> Iterator[_Definition]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield _function(file, node, prefix, marks)
            case ast.ClassDef():
                inner = marks | _requested_by_marks([*node.decorator_list, *_values(node, "pytestmark")])
                yield from _definitions(file, node.body, f"{prefix}{node.name}::", inner)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                yield _Definition(file=file, name=prefix + name, mentions=_mentions([value]))
            case _:
                pass


def _function(
    file: str, node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str, marks: frozenset[str]
) -> _Definition:
    parametrized = {
        name.strip()
        for call in _calls(node.decorator_list, "parametrize")
        if not any(keyword.arg == "indirect" for keyword in call.keywords)
        for name in ",".join(_texts(call.args[:1])).split(",")
    }
    arguments = {argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    looked_up = _calls(node.body, "getfixturevalue")
    fixture = next((one for one in node.decorator_list if _last_name(one) == "fixture"), None)
    keywords = {word.arg: word.value for word in fixture.keywords} if isinstance(fixture, ast.Call) else {}
    own_name = next(_texts([keywords["name"]]), node.name) if "name" in keywords else node.name
    return _Definition(
        file=file,
        name=prefix + node.name,
        mentions=_mentions(node.body),
        strings=frozenset(_texts(node.body)),
        requests=frozenset(
            (arguments - parametrized)
            | marks
            | _requested_by_marks(node.decorator_list)
            | set(_texts(argument for call in looked_up for argument in call.args))
        ),
        by_name=any(not isinstance(argument, ast.Constant) for call in looked_up for argument in call.args),
        fixture=own_name if fixture is not None else None,
        autouse=isinstance(value := keywords.get("autouse"), ast.Constant) and value.value is True,
    )


def _requested_by_marks(decorators: Iterable[ast.AST]) -> frozenset[str]:
    return frozenset(_texts(argument for call in _calls(decorators, "usefixtures") for argument in call.args))


def _values(node: ast.Module | ast.ClassDef, name: str) -> list[ast.expr]:
    return [
        statement.value
        for statement in node.body
        if isinstance(statement, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
    ]


def _calls(nodes: Iterable[ast.AST], name: str) -> list[ast.Call]:
    return [
        inner for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Call) and _last_name(inner) == name
    ]


def _last_name(node: ast.AST) -> str | None:
    """``fixture`` for ``pytest.fixture``, ``fixture`` and calls of either."""
    match node:
        case ast.Call(func=function):
            return _last_name(function)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return None


def _mentions(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Names, and attributes: ``helper``, ``module.helper``, and ``.attribute`` where its owner has no name."""
    found = set()
    for node in nodes:
        for inner in ast.walk(node):
            match inner:
                case ast.Name(id=name):
                    found.add(name)
                case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                    found.add(f"{owner}.{attribute}")
                case ast.Attribute(attr=attribute):
                    found.add(f".{attribute}")
                case _:
                    pass
    return frozenset(found)


def _texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield inner.value
