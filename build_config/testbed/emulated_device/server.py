"""Gives kernels to a process on the emulated GPU: it asks for each by name when it launches it first."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Protocol

from build_config.errors import PipelineError
from build_config.system import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

GRACE = 0.2
"""Seconds for an answer that is nearly ready; Ctrl-C must stop a run within two."""
_REQUEST = 65536


class KernelSource(Protocol):
    """Where kernels come from."""

    def library(self, name: str) -> Path:
        """The shared library of a kernel; raises ``PipelineError`` with the reason if there is none."""


@contextlib.contextmanager
def serve(kernels: Mapping[int, KernelSource], folder: Path) -> Iterator[Path]:
    """Answer on a socket in ``folder`` during the block; ``kernels`` are those of each architecture's number.

    Each request has a thread of its own: several processes may ask at once.

    A request is a line: the number and the mangled name. The answer is ``library`` and a path, or a reason.
    """
    path = folder / "kernels.socket"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=_answer_all, args=(server, kernels), daemon=True)
        thread.start()
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):  # wakes the thread up; without a connection it is an error
                server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=GRACE)
            if thread.is_alive():  # the block was interrupted while a kernel was being made
                processes.stop_children()
                thread.join()
            path.unlink()


def _answer_all(server: socket.socket, kernels: Mapping[int, KernelSource]) -> None:
    threads: list[threading.Thread] = []
    with contextlib.suppress(OSError):  # the end
        while True:
            connection, _ = server.accept()
            threads.append(threading.Thread(target=_answer_one, args=(connection, kernels), daemon=True))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _answer_one(connection: socket.socket, kernels: Mapping[int, KernelSource]) -> None:
    with connection, contextlib.suppress(OSError):  # the process that asked may have ended
        number, _, name = connection.recv(_REQUEST).decode().strip().partition(" ")
        connection.sendall(_answer(kernels, number, name).encode())


def _answer(kernels: Mapping[int, KernelSource], number: str, name: str) -> str:
    if not number.isdecimal() or int(number) not in kernels:
        return f"there is no PTX for sm_{number}"
    try:
        return f"library {kernels[int(number)].library(name)}"
    except PipelineError as error:
        return error.message.replace("\n", " ")[:_REQUEST]
