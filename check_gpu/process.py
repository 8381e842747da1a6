"""Runs a script in a separate process and says how it ended. The only module here that starts processes.

A driver that hangs or a library that crashes its process is a result like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence

if TYPE_CHECKING:
    from pathlib import Path

KILL_WAIT = 5.0
"""Seconds to wait for a killed process to end. If a driver holds it in the kernel, it may never end."""

_LOOK = 0.2  # seconds between two looks at the requests to end
_WORDS = {"SIGILL": "illegal instruction", "SIGSEGV": "segmentation fault", "SIGABRT": "aborted", "SIGKILL": "killed"}
_WINDOWS_STATUS = {
    0xC0000005: ("SIGSEGV", "access violation"),
    0xC000001D: ("SIGILL", "illegal instruction"),
    0xC0000409: ("SIGABRT", "aborted"),
}


@dataclass(frozen=True)
class EndedProcess:
    """The end and the output of a process.

    ``objects`` are the JSON objects of its result, in order. ``how`` describes its end in plain words, and is ``None``
    for status 0; ``signal`` is like ``SIGILL``. ``output`` contains the lines that it printed.
    """

    objects: tuple[dict[str, Any], ...]
    how: str | None
    signal: str | None
    output: tuple[str, ...]

    @property
    def merged(self) -> dict[str, Any]:
        """All objects as one; a later value replaces an earlier one unless it is ``None``."""
        return {key: value for found in self.objects for key, value in found.items() if value is not None}


def run(
    python: str,
    script: str,
    arguments: Sequence[str],
    folder: Path,
    *,
    timeout: float,
    changes: Mapping[str, str] | None = None,
) -> EndedProcess:
    """Run ``children/<script>.py`` under ``python`` in ``folder``; ``timeout`` is in seconds.

    Raises ``OSError`` if ``python`` cannot be started. If this process is interrupted or asked to end, it kills the
    other one first, and then raises ``KeyboardInterrupt`` with the number of the signal, if that is not of Ctrl-C.
    """
    source = pkgutil.get_data(__package__, f"children/{script}.py")
    assert source is not None  # noqa: S101  # for the type checker: loaders of files and of zip files have it
    place = folder / f"{script}-child"
    place.mkdir()
    file, result, output = place / f"{script}.py", place / "result.jsonl", place / "output.txt"
    file.write_bytes(source)
    command = [python, str(file), str(result), *arguments]
    with output.open("wb") as stream, _requests_to_end() as requests:
        process = subprocess.Popen(  # noqa: S603  # an interpreter that the user named, and our own script
            command,
            cwd=str(place),
            env={**os.environ, **(changes or {})},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=sys.platform != "win32",
        )
        try:
            status = _wait(process, timeout, requests)
        finally:
            _end(process)
    how, name = (f"no answer within {timeout:.0f} seconds", None) if status is None else describe(status)
    return EndedProcess(
        objects=tuple(_objects(result)),
        how=how,
        signal=name,
        output=tuple(output.read_text(encoding="utf-8", errors="replace").splitlines()),
    )


def describe(status: int) -> tuple[str | None, str | None]:
    """Describe the end of a process in plain words, and name its signal."""
    if status == 0:
        return None, None
    known = _WINDOWS_STATUS.get(status & 0xFFFFFFFF)  # Python gives them with and without a sign
    if known is not None:
        return f"its process was ended by the system ({known[1]})", known[0]
    if status > 0:
        return f"its process ended with status {status}", None
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"its process was ended by {name}" + (f" ({_WORDS[name]})" if name in _WORDS else ""), name


@contextlib.contextmanager
def _requests_to_end() -> Iterator[list[int]]:
    """Note Ctrl-C and the signals of ``kill`` and of a closed terminal, and follow them only after the block.

    The other process has a session of its own, so it gets none of them. An exception between its start and the
    statement that kills it would leave it running.
    """
    requests: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python gives signals to no other thread
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in {signal.SIG_IGN, None}:
                before[number] = signal.signal(number, lambda number, _frame: requests.append(number))
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in requests:
            if callable(before[number]):
                before[number](number, None)
            raise KeyboardInterrupt(number)


def _wait(process: subprocess.Popen[bytes], timeout: float, requests: Sequence[int]) -> int | None:
    """Wait for the status of a process; ``None`` if it still runs after ``timeout`` seconds or a request to end."""
    until = time.monotonic() + timeout
    while not requests and (left := until - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(left, _LOOK))
    return process.poll()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process if it still runs, with the processes that it started."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_WAIT)


def _objects(result: Path) -> list[dict[str, Any]]:
    """Parse the complete lines; a crash may have cut the last."""
    found = []
    if result.exists():
        for line in result.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found
