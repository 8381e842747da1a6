# ruff: noqa: INP001  # a module of llama_cpp in the finished wheel, not of the pipeline
"""Has the backends loaded when one is first needed: ``import llama_cpp`` starts nothing.

CUDA cannot be used in a process that was forked after it started, and servers import before they fork. The first
``Llama()``, ``cuda_status()`` or low-level call that may need a backend loads them. Imported at the end of the
package's ``__init__``. Standard library only; works on Python 3.8 and later.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
import threading
from typing import Any

from ._cuda_loader import CudaStatus, load_safely, log_safely

_NEED_NO_BACKEND = re.compile(
    r"llama_(log_(set|get)|max_\w+|supports_(mmap|mlock)|\w+_default_params|version|time_us|backend_free"
    r"|flash_attn_type_name|model_meta_key_str|split_(path|prefix))"
)
"""Functions that upstream calls while it is imported or when a process ends, and those that return constants."""

_FORKED = (
    "CUDA was started before this process was forked, and a forked process cannot use it: call Llama() and "
    "cuda_status() only after the fork, or start processes with multiprocessing's method spawn."
)


class _Backends:
    """The backends of this process, loaded once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._status: CudaStatus | None = None
        self._complete = False
        self._process = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._release)

    def _release(self) -> None:
        """Another thread of the parent may hold the lock; it does not exist in a forked process."""
        self._lock = threading.RLock()

    def load(self) -> CudaStatus:
        """Load the backends if nothing has needed them yet; the result.

        A log handler may ask for the status, so it is kept before anything is logged. Other threads wait for the log:
        upstream discards what is printed while it makes a ``Llama``.
        """
        if not self._complete or self._status is None:
            with self._lock:
                if self._status is None:  # no other thread was faster
                    self._process = os.getpid()
                    self._status, messages = load_safely()
                    log_safely(messages)
                self._complete = True
        return self._status

    @property
    def lost_by_fork(self) -> bool:
        """Whether CUDA was started in the process from which this one was forked: here every call of it fails."""
        return self._status is not None and self._status.loaded and self._process != os.getpid()


_BACKENDS = _Backends()


def cuda_status() -> CudaStatus:
    """Say whether CUDA is in use. Loads the backends if nothing has needed them yet; decided once in each process."""
    status = _BACKENDS.load()
    if not _BACKENDS.lost_by_fork:
        return status
    return CudaStatus(loaded=False, devices=status.devices, covered_archs=status.covered_archs, reason=_FORKED)


def _load_before(package: Any) -> None:
    """Make ``Llama`` and every low-level function that may need a backend load the backends first.

    Upstream's functions are objects of ctypes, of a class that each library has for itself. Until the backends are
    loaded they have a derived class, and keep their identity and their C types. ``Llama`` keeps its check for a fork:
    without it llama.cpp would end the process.
    """
    native = package.llama_cpp._lib  # noqa: SLF001  # upstream has no public name for the library
    plain = native._FuncPtr  # noqa: SLF001  # nor ctypes for the class of its functions

    def load() -> None:
        _BACKENDS.load()
        native._FuncPtr = plain  # noqa: SLF001
        for function in vars(native).copy().values():
            if isinstance(function, FirstCall):
                function.__class__ = plain

    class FirstCall(plain):  # type: ignore[misc,valid-type]
        """A function that loads the backends before it runs."""

        _flags_, _restype_ = plain._flags_, plain._restype_  # ctypes takes them from no base class

        def __call__(self, *arguments: Any, **named: Any) -> Any:
            if not _NEED_NO_BACKEND.fullmatch(getattr(self, "__name__", "")):  # _FuncPtr(...) itself gives no name
                load()
            return plain.__call__(self, *arguments, **named)

    native._FuncPtr = FirstCall  # noqa: SLF001  # for functions that upstream or a user names later
    for function in vars(native).copy().values():
        if isinstance(function, plain):
            function.__class__ = FirstCall

    make = package.Llama.__init__

    @functools.wraps(make)
    def checked(self: Any, *arguments: Any, **named: Any) -> None:
        load()  # here, and not in the first low-level call: upstream discards what that one prints
        if _BACKENDS.lost_by_fork:
            self.close = lambda: None  # __del__ calls it, and nothing is open
            raise RuntimeError(_FORKED)
        make(self, *arguments, **named)

    package.Llama.__init__ = checked


try:
    _load_before(sys.modules[__package__])
except Exception as problem:  # noqa: BLE001  # nothing in here may keep anybody from importing llama_cpp
    logging.getLogger("llama_cpp.cuda").debug("CUDA starts with the import: %r", problem)
    _BACKENDS.load()
