"""The package's own command line: ``python check_gpu.pyz``. The only module here that prints and exits.

The status is 0 if a GPU is used or there is nothing to fix, 1 if there is something to fix, and 2 for a wrong option.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from check_gpu import collect, diagnosis, log_stream, report, running

if TYPE_CHECKING:
    from check_gpu.facts import Facts
    from check_gpu.result import Diagnosis

SIGNALLED = 128
"""With the number of the signal, the status after Ctrl-C or ``kill``, as in a shell.

By then, the processes that were running have been killed.
"""
MODEL = "tiny.gguf"
"""The model inside the one file, next to this module."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print the answer, and return the status."""
    try:
        return _check(arguments)
    except KeyboardInterrupt as request:
        return SIGNALLED + (request.args[0] if request.args else signal.SIGINT)


def _check(arguments: Sequence[str] | None) -> int:
    command_line = parser()
    options = command_line.parse_args(arguments)
    if options.pid is not None:
        if problem := running.problem(options.pid):
            command_line.error(problem)
    elif options.model is None and options.log is None and not _has_model():
        command_line.error("this copy has no model inside: name one with --model, or use check_gpu.pyz")
    for option, why_not in (("model", _unreadable), ("log", log_stream.problem)):
        file = getattr(options, option)
        if file is not None and (problem := why_not(file)):
            command_line.error(f"--{option}: {problem}")
    request = collect.Request(
        python=options.python,
        model=options.model,
        log=options.log,
        pid=options.pid,
        n_gpu_layers=options.n_gpu_layers,
        n_ctx=options.n_ctx,
        timeout=options.timeout,
    )
    try:
        facts = collect.collect(request, _write_model)
    except OSError as error:
        if options.log is None:
            raise
        command_line.error(f"--log: {options.log} cannot be read: {error.strerror}")
    answer = diagnosis.diagnose(facts)
    _print(facts, answer, as_json=options.json)
    return 0 if answer.well else 1


def _print(facts: Facts, answer: Diagnosis, *, as_json: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Paths and messages in a log can have characters that the terminal cannot print.
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_json:
        sys.stdout.write(json.dumps(report.document(facts, answer), indent=2) + "\n")
    else:
        colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        sys.stdout.write(report.text(facts, answer, colours=colours) + "\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    options = argparse.ArgumentParser(
        prog="check_gpu",
        description="Says whether an installed llama-cpp-python uses the GPU, and if not, why and what fixes it.",
        epilog="status: 0 the GPU is used or there is nothing to fix; 1 there is something to fix",
    )
    options.add_argument("--python", default=sys.executable, help="the interpreter to check; default: this one")
    options.add_argument("--model", type=Path, help="a GGUF file to load; default: the built-in tiny model")
    instead = options.add_mutually_exclusive_group()
    instead.add_argument(
        "--log", type=Path, help="judge this log of llama.cpp, - for standard input; examine and load nothing"
    )
    instead.add_argument("--pid", type=int, help="look at this running program instead; Linux only")
    options.add_argument("--n-gpu-layers", type=int, default=-1, help="as for Llama(); default: all layers")
    options.add_argument("--n-ctx", type=int, default=512, help="as for Llama(); default: 512")
    options.add_argument("--timeout", type=float, default=300.0, help="seconds for loading the model; default: 300")
    options.add_argument("--json", action="store_true", help="one JSON document, for programs")
    return options


def _unreadable(file: Path) -> str | None:
    """Say why a file cannot be read; ``None`` if it can."""
    try:
        if not file.is_file():
            return f"there is no file {file}"
        with file.open("rb"):
            return None
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"


def _has_model() -> bool:
    """Whether this is the one file; the sources alone contain no model."""
    try:
        return pkgutil.get_data(__package__ or "", MODEL) is not None
    except OSError:
        return False


def _write_model(path: Path) -> Path:
    """Copy the model of the one file to ``path``, where another process can open it, and return ``path``."""
    content = pkgutil.get_data(__package__ or "", MODEL)
    assert content is not None  # noqa: S101  # for the type checker: loaders of zip files have it
    path.write_bytes(content)
    return path


if __name__ == "__main__":
    sys.exit(main())
