"""The rules of docs/architecture.md, checked on the source text: who may import whom, start a process, print, exit."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from build_config import errors
from build_config.errors import PipelineError
from build_config.layout import PACKAGE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"check_gpu"}),  # stands alone: it travels as one file
    frozenset({"build_backend"}),  # as well: it runs before the locked environment is there, and makes it
    frozenset({"model", "errors"}),
    frozenset({"reports"}),
    frozenset({"platforms"}),
    frozenset({"layout", "runner", "console", "jsonio"}),
    frozenset(
        {
            "archives",
            "archs",
            "bomfile",
            "clean_environment",
            "compiler_cache",
            "dsse",
            "fetch",
            "headers",
            "hermetic",
            "intoto",
            "machine",
            "progress",
            "redaction",
            "settings",
            "synthetic_model",
            "wheelfile",
            "workroot",
        }
    ),
    frozenset({"cmake"}),
    frozenset({"units"}),
    frozenset(
        {
            "bench",
            "check_gpu_file",
            "compilation",
            "conda",
            "difference",
            "handover",
            "index",
            "inspection",
            "lock",
            "matrix",
            "provenance",
            "repair",
            "reproduction",
            "sbom",
            "sources",
            "toolchain",
            "upstream_tests",
            "validation",
            "verification",
            "wheel",
        }
    ),
    frozenset({"choosing", "evidence", "provision"}),
    frozenset({"doctor", "pipeline"}),
    frozenset({"reproduce", "trials"}),
    frozenset({"commands"}),
    frozenset({"__main__"}),
)
"""A module imports only from layers before its own; a package is one member, free inside itself."""

CHILDREN = frozenset(
    {
        "bench.child",
        *(f"check_gpu.children.{name}" for name in ("driver", "find", "libraries", "load")),
        "reproduction.enter",
        "upstream_tests.recorder",
        "validation.device_checks",
        "validation.probe",
    }
)
"""Run alone, in the clean environment or a user's: they write down what they see and import nothing of this package."""

STANDS_ALONE = "check_gpu"
"""Cannot use the runner and the console, as it travels without them: it has one module for each of their rights."""

STARTS_PROCESSES = frozenset({"subprocess", "multiprocessing", "pty", "os.system", "os.popen", "os.fork", "os.execv"})
PRINTS = frozenset({"print", "rich", "sys.stdout", "sys.stderr", "typer.echo", "typer.secho"})
EXITS = frozenset({"sys.exit", "SystemExit", "typer.Exit", "os._exit", "exit", "quit"})


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name below ``build_config``, what it imports, and which outside names it uses."""

    name: str
    imports: frozenset[str]
    uses: frozenset[str]

    @property
    def member(self) -> str:
        return self.name.partition(".")[0]


def read(path: Path) -> Module:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    imports: set[str] = set()
    uses: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                imports.update(alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                imports.update(f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                pytest.fail(f"{name} has a relative import")
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                uses.add(f"{owner}.{attribute}")
            case ast.Name(id=used):
                uses.add(used)
            case _:
                pass
    outside = {part for imported in imports for part in (imported, imported.partition(".")[0])}
    return Module(
        name=name,
        imports=frozenset(
            imported.removeprefix("build_config.") for imported in imports if imported.startswith("build_config.")
        ),
        uses=frozenset(uses | outside),
    )


MODULES = tuple(
    read(path)
    for path in sorted(PACKAGE.rglob("*.py"))
    if "wheel_project" not in path.parts
    and path != PACKAGE / "__init__.py"  # what goes into the wheel is no part of us
)


def users(names: frozenset[str]) -> set[str]:
    return {module.name for module in MODULES if module.uses & names} - CHILDREN


def layer(member: str) -> int:
    return next(number for number, members in enumerate(LAYERS) if member in members)


def test_the_table_of_layers_is_that_of_the_package() -> None:
    assert {module.member for module in MODULES} == frozenset().union(*LAYERS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_imports_go_one_way(module: Module) -> None:
    for imported in module.imports:
        member = imported.partition(".")[0]
        if member != module.member:
            assert layer(member) < layer(module.member), f"{module.name} must not import {imported}"


def test_only_the_runner_starts_processes() -> None:
    assert users(STARTS_PROCESSES) == {"runner", "build_backend", f"{STANDS_ALONE}.child"}


def test_only_the_console_prints() -> None:
    assert users(PRINTS) == {"console", f"{STANDS_ALONE}.__main__"}


def test_only_the_command_line_exits() -> None:
    commands = {"commands.checking", "commands.surroundings"}  # end with status 1 where the answer is no
    assert users(EXITS) == {*commands, "__main__", "build_backend", f"{STANDS_ALONE}.__main__"}


def test_the_build_backend_needs_the_standard_library_alone() -> None:
    (backend,) = (module for module in MODULES if module.name == "build_backend")
    outside = {node.partition(".")[0] for node in backend.imports}
    source = ast.parse((PACKAGE / "build_backend.py").read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(source)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not outside
    assert imported <= sys.stdlib_module_names


def test_what_runs_in_the_clean_environment_imports_nothing_of_this_package() -> None:
    children = {module.name: module.imports for module in MODULES if module.name in CHILDREN}
    assert children == dict.fromkeys(CHILDREN, frozenset())


# ----------------------------------------------------------------------------------------------------------- errors


def all_errors() -> list[type[PipelineError]]:
    """Every error class, at any depth."""
    found: list[type[PipelineError]] = []
    classes = [PipelineError]
    while classes:
        found.extend(classes)
        classes = [subclass for cls in classes for subclass in cls.__subclasses__()]
    return found


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = {cls: cls.__dict__.get("exit_code") for cls in all_errors()}

    assert len(codes) > 10
    assert None not in codes.values(), "inherited from its base"
    assert len(set(codes.values())) == len(codes)
    assert not {0, 2} & set(codes.values()), "success, and what typer says for a wrong option"
    assert all(isinstance(code, int) and 0 < code < 256 for code in codes.values())


def test_every_error_is_defined_and_explained_in_errors() -> None:
    assert all(cls.__module__ == errors.__name__ and cls.__doc__ for cls in all_errors())
