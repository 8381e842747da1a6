"""The command line: ``python -m build_config STEP``. The only place that turns errors into exit codes."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from typer.exceptions import TyperException

from build_config.commands import app
from build_config.errors import InterruptedRunError, PipelineError, SettingsError
from build_config.system.console import Console

if TYPE_CHECKING:
    from types import FrameType


def main() -> NoReturn:
    """Run the command; turn an error into a message and an exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        status = app(standalone_mode=False)
    except PipelineError as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail(InterruptedRunError("Stopped. Finished files are kept; the same command continues from here."))
    except TyperException as error:
        _fail(SettingsError(error.format_message(), remedy="nox -s SESSION -- --help lists the options"))
    sys.exit(status if isinstance(status, int) else 0)


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    """Treat SIGTERM like Ctrl-C: the same clean end."""
    raise KeyboardInterrupt


def _fail(error: PipelineError) -> NoReturn:
    Console().error(f"{error}\n(exit code {error.exit_code})")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
