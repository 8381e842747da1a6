"""The rules of docs/architecture.md, checked on the source text: who may import whom, start a process, print, exit."""

import ast
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from build_config import errors
from build_config.errors import PipelineError
from build_config.system import platforms
from build_config.system.layout import PACKAGE

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"check_gpu", "build_backend"}),  # stand alone: one travels as a file, one runs before the environment
    frozenset({"model", "errors", "reports", "archs"}),
    frozenset({"system", "formats"}),
    frozenset({"testbed"}),
    frozenset({"steps"}),
    frozenset({"inputs", "plan", "pipeline"}),
    frozenset({"tasks"}),
    frozenset({"commands"}),
    frozenset({"__main__"}),
)
"""A module imports only from its own layer and those before it."""
STEPS = ("locks", "sources", "toolchain", "units", "wheel", "inspection", "validation", "wheelhouse")
"""No step imports another one."""

CHILDREN = frozenset(
    {
        "build_config.steps.validation.device_checks",
        "build_config.steps.validation.probe",
        "build_config.tasks.bench.child",
        "build_config.tasks.gpu_kit.gpu_tests",
        "build_config.tasks.gpu_kit.report_text",
        "build_config.tasks.gpu_kit.run",
        "build_config.tasks.gpu_kit.surroundings",
        "build_config.tasks.reproduce.enter",
        "build_config.tasks.upstream_tests.recorder",
        "build_config.testbed.model_data",
        *(f"check_gpu.children.{name}" for name in ("driver", "find", "libraries", "load", "usage")),
    }
)
"""Run alone, in the clean environment or a user's: they write down what they see and import nothing of this project."""

STARTS_PROCESSES = frozenset({"subprocess", "multiprocessing", "pty", "os.system", "os.popen", "os.fork", "os.execv"})
PRINTS = frozenset({"print", "rich", "sys.stdout", "sys.stderr", "typer.echo", "typer.secho"})
EXITS = frozenset({"sys.exit", "SystemExit", "typer.Exit", "os._exit", "exit", "quit"})


PLATFORM_NAMES = frozenset({*platforms.PLATFORMS, "win32", "linux", "nt", "posix"})
SYSTEMS = frozenset({"sys.platform", "os.name"})
NOT_ON_WINDOWS = frozenset({"curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "termios", "tty"})
"""Modules of Python's library that its builds for Windows do not have."""


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, what it imports of this project, and which outside names it uses.

    ``tells_apart`` is what it decides by a platform's name, or by Python's; ``needs`` is what its import needs.
    """

    name: str
    imports: frozenset[str]
    uses: frozenset[str]
    tells_apart: frozenset[str]
    needs: frozenset[str]

    @property
    def layer(self) -> int:
        return layer(self.name)


def layer(name: str) -> int:
    member = name.removeprefix("build_config.").partition(".")[0]
    return next(number for number, members in enumerate(LAYERS) if member in members)


def step(name: str) -> str | None:
    parts = name.split(".")
    return parts[2] if parts[:2] == ["build_config", "steps"] and len(parts) > 2 else None


def read(path: Path) -> Module:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    imports: set[str] = set()
    uses: set[str] = set()
    compares: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
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
            case ast.Compare() | ast.MatchValue() if _names_a_platform(node):
                compares.add(ast.unparse(node))
            case _:
                pass
    outside = {part for imported in imports for part in (imported, imported.partition(".")[0])}
    own = frozenset(imported for imported in imports if imported.startswith(("build_config.", "check_gpu.")))
    return Module(
        name=name,
        imports=own,
        uses=frozenset(uses | outside),
        tells_apart=frozenset(compares | uses & SYSTEMS),
        needs=frozenset(alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names),
    )


def _names_a_platform(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Constant) and part.value in PLATFORM_NAMES for part in ast.walk(node))


MODULES = tuple(
    read(path)
    for folder in (PACKAGE, PACKAGE.parent / "check_gpu")
    for path in sorted(folder.rglob("*.py"))
    if "wheel_project" not in path.parts  # goes into the wheel
    and path != PACKAGE / "__init__.py"
)


def users(names: frozenset[str]) -> set[str]:
    return {module.name.removeprefix("build_config.") for module in MODULES if module.uses & names} - {
        name.removeprefix("build_config.") for name in CHILDREN
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_imports_go_one_way(module: Module) -> None:
    for imported in module.imports:
        assert layer(imported) <= module.layer, f"{module.name} must not import {imported}"
        if step(module.name) is not None:
            assert step(imported) in {None, step(module.name)}, f"{module.name} must not import another step"


def test_the_steps_are_those_of_the_folder() -> None:
    assert {name for module in MODULES if (name := step(module.name))} == set(STEPS)


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {module.name for module in MODULES}
    owners = {one: one if one in names else one.rpartition(".")[0] for module in MODULES for one in module.imports}
    waiting = {module.name: {owners[one] for one in module.imports} & names - {module.name} for module in MODULES}
    while free := {name for name, needed in waiting.items() if not needed}:
        waiting = {name: needed - free for name, needed in waiting.items() if name not in free}
    assert not waiting


def test_check_gpu_imports_nothing_of_the_rest() -> None:
    alone = [module for module in MODULES if module.name.partition(".")[0] == "check_gpu"]
    assert alone
    assert not [one for module in alone for one in module.imports if one.startswith("build_config.")]


def test_only_one_module_starts_processes() -> None:
    assert users(STARTS_PROCESSES) == {"system.processes", "build_backend", "check_gpu.process"}


def test_only_the_console_prints() -> None:
    assert users(PRINTS) == {"system.console", "check_gpu.__main__"}


def test_only_the_command_line_exits() -> None:
    commands = {"commands.build", "commands.machine", "commands.wheel"}  # end with status 1 if the answer is no
    assert users(EXITS) == {*commands, "__main__", "build_backend", "check_gpu.__main__"}


def test_what_differs_between_platforms_is_asked_of_them() -> None:
    """A comparison with a name says neither why nor what a third platform would do."""
    alone = ("check_gpu.", "build_config.build_backend", "build_config.system.platforms")
    found = {
        module.name: module.tells_apart
        for module in MODULES
        if module.tells_apart
        and not module.name.startswith(alone)
        and module.name not in CHILDREN  # they run in another environment and import nothing of this one
        and "windows" not in module.name.split(".")
    }
    assert not found


def test_every_module_can_be_imported_on_every_system() -> None:
    """A command imports the modules of all others, so one ``import pwd`` would end each of them on Windows."""
    needed = {module.name: module.needs & NOT_ON_WINDOWS for module in MODULES if module.needs & NOT_ON_WINDOWS}
    assert not needed
    for module in MODULES:
        importlib.import_module(module.name)


def test_the_build_backend_needs_the_standard_library_alone() -> None:
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
    assert imported <= sys.stdlib_module_names


def test_what_runs_in_the_clean_environment_imports_nothing_of_this_project() -> None:
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
