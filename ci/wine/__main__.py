"""Commands of ``nox -s wine``, ``nox -s tests-wine`` and ``nox -s lock-wine``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from build_config.errors import PipelineError
from build_config.system import processes
from build_config.system.console import Console
from build_config.system.layout import PACKAGE
from ci import wine
from ci.wine import packages
from ci.wine.windows import PYTHON, Prefix

CHECKOUT = PACKAGE.parent
NO_TESTS = 5
"""pytest's status if it has selected none."""
REST = {"allow_interspersed_args": False, "ignore_unknown_options": True}
"""What follows the options is for another program."""

Cache = Annotated[Path, typer.Option("--wine-cache", help="The folder of Wine and Windows' Python.")]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(context_settings=REST)
def run(command: Annotated[list[str], typer.Argument()], cache: Cache = wine.CACHE) -> None:
    """Run a Windows program under Wine, in this folder: ``python script.py``."""
    console = Console()
    try:
        with wine.provide(cache.absolute(), console).prefix() as prefix:
            status = _show(prefix.command(*command), console)
    except wine.UnavailableError as error:
        console.error(str(error))
        raise typer.Exit(1) from error
    raise typer.Exit(status)


@app.command(name="tests", context_settings=REST)
def run_tests(
    arguments: Annotated[list[str] | None, typer.Argument(help="Options of pytest.")] = None,
    require: Annotated[bool, typer.Option("--require-wine", help="Without Wine, fail.")] = False,  # noqa: FBT002
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what takes minutes.")] = False,  # noqa: FBT002
    cache: Cache = wine.CACHE,
) -> None:
    """Run the unit tests with Windows' Python under Wine, then the tests that start Windows programs."""
    console, given = Console(), arguments or []
    try:
        windows = wine.provide(cache.absolute(), console)
    except wine.UnavailableError as error:
        if require:
            console.error(str(error))
            raise typer.Exit(1) from error
        console.note(f"skipped: {error}")
        return
    with windows.prefix() as prefix, console.step("unit", "The unit tests, with Windows' Python"):
        in_windows = _show(_unit_tests(prefix, given), console)
    with console.step("wine", "The tests of the pipeline with Windows programs"):
        # In two words, pytest would take the folder for one with tests, and look for its settings there.
        marked = "wine and not long" if quick else "wine"
        options = ("-m", marked, f"--wine-cache={cache.absolute()}", "-n", "logical", "--dist", "loadscope")
        argv = (sys.executable, "-m", "pytest", *options, *given)
        in_linux = _show(processes.Command(argv=argv, cwd=CHECKOUT), console)
    statuses = {in_windows, in_linux} - {0}
    raise typer.Exit(max(statuses if statuses == {NO_TESTS} else statuses - {NO_TESTS}, default=0))


@app.command()
def lock() -> None:
    """Lock the newest packages of Debian."""
    packages.refresh(Console())


def _unit_tests(prefix: Prefix, arguments: list[str]) -> processes.Command:
    """Pytest under Windows' Python. It leaves nothing in the checkout, where Linux' Python has its own files."""
    options = ("-m", "unit", "-p", "no:cacheprovider", "-n", "logical", "--dist", "loadfile")
    changes = {"PYTHONPYCACHEPREFIX": r"C:\pycache", "PYTHONUTF8": "1", "CI": "true"}
    return prefix.command(str(PYTHON), "-m", "pytest", *options, *arguments, folder=CHECKOUT, changes=changes)


def _show(command: processes.Command, console: Console) -> int:
    """Run a command, print its lines, and return its status."""
    return processes.run(command, check=False, on_line=console.raw).returncode


def main() -> NoReturn:
    """Run a command. An error of the pipeline is a message and its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM then stops what was started, too
    try:
        app()
    except PipelineError as error:
        Console().error(str(error))
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
