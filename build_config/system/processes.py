"""The only module that starts processes: log file, environment, output lines, interruption.

No shell is ever involved: a command is a tuple of arguments.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from build_config.errors import CommandError, DiskFullError, InterruptedRunError
from check_gpu import shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TAIL_LINES = 4000
INTERRUPT_GRACE = 1.0
"""Seconds a program gets to stop by itself after Ctrl-C before it is killed: the whole run must stop within two."""
BEAT = 0.25
"""Seconds between two checks of the clock while a program is silent."""
LINGER = 1.0
"""Seconds to wait for more output of a program that has ended: a server that it started may keep the pipe open."""
GONE = (psutil.Error, OSError)
"""The errors of psutil for a process that ends meanwhile: on Windows some are the system's own (seen under Wine)."""
NO_SPACE = ("No space left on device", "Disk quota exceeded", "not enough space on the disk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program call.

    ``environment`` is the complete environment, or ``None`` for the current one; ``changes`` is applied on top of it
    (``None`` removes a variable) and is what the log shows.
    """

    argv: tuple[str, ...]
    cwd: Path | None = None
    environment: Mapping[str, str] | None = None
    changes: Mapping[str, str | None] = field(default_factory=dict)
    log: Path | None = None

    def full_environment(self) -> dict[str, str]:
        """The environment that the program gets."""
        base = dict(os.environ if self.environment is None else self.environment)
        for name, value in self.changes.items():
            if value is None:
                base.pop(name, None)
            else:
                base[name] = value
        return base

    def __str__(self) -> str:
        """The call as a user would type it, with the changed variables in front."""
        changed = (shell.setting(name, value) for name, value in self.changes.items() if value is not None)
        return "".join(changed) + shell.quote(self.argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A finished program.

    ``output`` is the end of standard output and error together (at most ``TAIL_LINES`` lines).
    ``seconds`` is wall time.
    """

    command: Command
    returncode: int
    output: str
    seconds: float

    @property
    def ending(self) -> str:
        """How it ended, as the predicate of a sentence."""
        if self.returncode >= 0:
            return f"ended with status {self.returncode}"
        description = signal.strsignal(-self.returncode) or "unknown"
        return f"was ended by signal {-self.returncode} ({description})"

    @property
    def last_words(self) -> str:
        """The last five lines that are not blank, in one line."""
        return " | ".join([line for line in self.output.splitlines() if line.strip()][-5:])


def run(
    command: Command,
    *,
    check: bool = True,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
    on_tick: Callable[[int], None] | None = None,
) -> Completed:
    """Run a program to its end, line by line.

    ``on_line`` gets each line of output; ``on_tick`` gets the process id about twice a second. The log file holds the
    call and everything that was printed. Ctrl-C stops the program and everything it started.

    Raises ``CommandError`` if ``check`` and the status is not 0, or on ``timeout`` (seconds); ``DiskFullError`` if a
    failed program reports a full disk; ``InterruptedRunError`` on Ctrl-C.
    """
    start = time.monotonic()
    tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
    with _open_log(command) as log:
        try:
            process = subprocess.Popen(  # noqa: S603  # argument list, no shell; this is the one place
                command.argv,
                cwd=command.cwd,
                env=command.full_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise CommandError(f"{command.argv[0]} could not be started: {error.strerror}") from error
        try:
            for line in _lines(process, start, timeout, on_tick):
                tail.append(line)
                if log is not None:
                    log.write(line + "\n")
                if on_line is not None:
                    on_line(line)
            returncode = process.wait()
        except KeyboardInterrupt as interrupt:
            _stop_tree(process)
            message = "Stopped. Finished files are kept; the same command continues from here."
            raise InterruptedRunError(message, log=command.log) from interrupt
        except TimeoutError as error:
            _stop_tree(process)
            message = f"{command.argv[0]} did not end within {timeout:.0f} s and was stopped"
            raise CommandError(message, log=command.log) from error
        except BaseException:
            _stop_tree(process)
            raise
    completed = Completed(
        command=command, returncode=returncode, output="\n".join(tail), seconds=time.monotonic() - start
    )
    if check and returncode != 0:
        raise_for(completed)
    return completed


def raise_for(completed: Completed) -> None:
    """Raise the error of a failed program: ``DiskFullError`` if it reports a full disk, else ``CommandError``."""
    log = completed.command.log
    if says_disk_full(completed.output):
        message = f"The disk is full: {completed.command.argv[0]} could not write. Finished files are kept."
        remedy = "free some space (nox -s doctor says how much is needed), then run the same command again"
        raise DiskFullError(message, remedy=remedy, log=log)
    last = [line for line in completed.output.splitlines() if line.strip()][-15:]
    raise CommandError("\n".join([f"{completed.command} ended with status {completed.returncode}", *last]), log=log)


def says_disk_full(output: str) -> bool:
    """Whether a program's output says that the disk is full, or the user's quota."""
    lowered = output.lower()
    return any(sign.lower() in lowered for sign in NO_SPACE)


def capture(*argv: str, timeout: float = 60.0, environment: Mapping[str, str] | None = None) -> Completed:
    """Run a quick query program and return its output; the caller judges a non-zero status."""
    return run(Command(argv=argv, environment=environment), check=False, timeout=timeout)


def running_arguments(pid: int) -> Iterator[tuple[str, ...]]:
    """The argument lists of the direct children of a process: what a build tool is running at the moment."""
    with contextlib.suppress(*GONE):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(*GONE):
                yield tuple(child.cmdline())


def stop_children() -> None:
    """Stop every process that this one started, with all that those started: threads may still wait for some."""
    with contextlib.suppress(*GONE):
        _kill(psutil.Process().children(recursive=True))


def stop_program(path: Path) -> int:
    """Stop every process that runs this executable file, with all processes that it started; return their number.

    For our own copy of a program with a server: the processes of a server are not our children.
    """
    family: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(*GONE):
            if process.pid != os.getpid() and Path(process.exe()) == path and _is_ours(process, "exe", path):
                family += [process, *process.children(recursive=True)]
    _kill(family)
    return len(family)


def stop_strays(folder: Path) -> int:
    """Stop processes of this user that still work inside ``folder``; return their number.

    The compilers of a killed build keep running: Ninja gives each a process group of its own. They would write object
    files during the next build.
    """
    strays = []
    me = os.getpid()
    for process in psutil.process_iter():
        with contextlib.suppress(*GONE):
            where = Path(process.cwd())
            inside = where == folder or folder in where.parents
            if process.pid != me and inside and _is_ours(process, "cwd", where):
                strays.append(process)
    _kill(strays)
    return len(strays)


def is_in_use(folder: Path) -> bool:
    """Whether a process works in ``folder``, runs a program of it, or names it in its command."""
    for process in psutil.process_iter():
        for ask in (process.cmdline, process.exe, process.cwd):
            with contextlib.suppress(*GONE):
                answer = ask()
                if str(folder) in (answer if isinstance(answer, str) else "\n".join(answer)):
                    return True
    return False


def _is_ours(process: psutil.Process, link: str, path: Path) -> bool:
    """Whether ``path`` is the same file or folder for that process as for us.

    A build in a container or in a mount namespace (``nox -s reproduce``) has other files at the same paths.
    """
    theirs = Path("/proc", str(process.pid), link)
    return not Path("/proc").is_dir() or theirs.samefile(path)


@contextlib.contextmanager
def _open_log(command: Command) -> Iterator[IO[str] | None]:
    if command.log is None:
        yield None
        return
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("a", encoding="utf-8", buffering=1) as log:
        log.write(f"$ {command}\n")
        yield log


def _lines(
    process: subprocess.Popen[str], start: float, timeout: float | None, on_tick: Callable[[int], None] | None
) -> Iterator[str]:
    """Yield lines as they come; watch the clock and tick in between."""
    next_tick = start
    for line in _beats(process):
        now = time.monotonic()
        if timeout is not None and now - start > timeout:
            raise TimeoutError
        if on_tick is not None and now >= next_tick:
            on_tick(process.pid)
            next_tick = now + 0.5
        if line is not None:
            yield line


def _beats(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Yield each line, and ``None`` after a beat without one, until the program has ended.

    A thread reads, so that a silent program cannot block Ctrl-C.
    """
    stream = process.stdout
    if stream is None:  # pragma: no cover - Popen was asked for a pipe
        raise AssertionError
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        with stream:
            for line in stream:
                lines.put(line.rstrip("\r\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    ended: float | None = None
    while True:
        try:
            line = lines.get(timeout=BEAT)
        except queue.Empty:
            yield None
            if process.poll() is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > LINGER:
                    return
            continue
        if line is None:
            break
        yield line
    while True:  # it closed its output, so it has nearly always ended
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=BEAT)
            return
        yield None


def _stop_tree(process: subprocess.Popen[str]) -> None:
    """Interrupt a process and everything below it, then kill the processes that are left."""
    with contextlib.suppress(*GONE):
        family = _suspended(psutil.Process(process.pid))
        for member in family:
            for act in (member.terminate, member.resume):
                with contextlib.suppress(*GONE):
                    act()
        _kill(_still_running(family, INTERRUPT_GRACE))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=INTERRUPT_GRACE)


def _suspended(root: psutil.Process) -> list[psutil.Process]:
    """A process and everything below it, suspended: a process that runs on could start another one unseen."""
    family: list[psutil.Process] = []
    found = [root]
    while found:
        for member in found:
            with contextlib.suppress(*GONE):
                member.suspend()
        family += found
        found = [member for member in root.children(recursive=True) if member not in family]
    return family


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(*GONE):
            process.kill()
    _still_running(processes, INTERRUPT_GRACE)


def _still_running(processes: list[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait until all have ended, at most ``timeout`` seconds; return those that have not.

    A zombie has ended. ``psutil.wait_procs`` waits for it too, without success in a container that reaps none.
    """
    deadline = time.monotonic() + timeout
    while True:
        running = [process for process in processes if _runs(process)]
        if not running or time.monotonic() > deadline:
            return running
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except GONE:
        return False
