"""The kernels of a wheel as shared libraries for this machine: from PTX to C to machine code, kept by digest."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, PipelineError, ValidationError
from build_config.system import machine
from build_config.system.processes import Command, run
from build_config.testbed.emulated_device import ptx_module, translation
from build_config.testbed.emulated_device.ptx_files import PtxFile, PtxFiles
from build_config.testbed.emulated_device.ptx_source import PtxError
from build_config.testbed.emulated_device.shard_code import ShardCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.testbed.emulated_device.ptx_module import Module

HERE = Path(__file__).parent
OPTIONS = ("-O1", "-w", "-march=native", *translation.CFLAGS, "-fPIC", "-shared")
SECONDS_ALLOWED = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFacts:
    """How a kernel of the wheel became code for this machine.

    ``source`` is the compiled file, ``identical`` whether ptxas turns its PTX into the cubin that is in the wheel.
    ``refused`` is why there is no code.
    """

    name: str
    source: str | None = None
    identical: bool = False
    refused: str | None = None


class Translator:
    """Turns a kernel of a PTX file into C; each file is read once."""

    def __init__(self) -> None:
        self._modules: dict[Path, Module] = {}

    def __call__(self, ptx: PtxFile, name: str) -> str:
        """Raises ``ValidationError`` with the place of whatever is not known in it."""
        try:
            if ptx.path not in self._modules:
                self._modules[ptx.path] = ptx_module.read_module(ptx.path.read_text(encoding="utf-8"), ptx.source)
            return translation.translate(self._modules[ptx.path], name).source
        except PtxError as error:
            raise ValidationError(str(error)) from error


@dataclass(slots=True, kw_only=True)
class Kernels:
    """The kernels of one shard for one architecture, as libraries in ``folder`` that ``cc`` compiles.

    Several threads may ask for kernels at once. ``seconds`` is what was spent on PTX, translation and compilation.
    """

    code: ShardCode
    files: PtxFiles
    folder: Path
    cc: str
    translate: Callable[[PtxFile, str], str] = field(default_factory=Translator)
    facts: dict[str, KernelFacts] = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _made: dict[int, PtxFile] = field(default_factory=dict)
    _libraries: dict[str, Path] = field(default_factory=dict)
    _locks: dict[Hashable, threading.RLock] = field(default_factory=dict)

    def library(self, name: str) -> Path:
        """The shared library of a kernel, which defines ``ptx_image``. Raises ``PipelineError`` with the reason."""
        with self._alone(name):
            if name in self._libraries:
                return self._libraries[name]
            try:
                facts, number = self.identity(name), self.number(name)
                if not facts.identical:
                    raise ValidationError(f"the PTX of {facts.source} is not that of the wheel's cubin")
                with self._alone(number), self._timed("translation"):
                    text = self.translate(self.ptx(number), name)
                path = self.compile(text, name)
            except PipelineError as error:
                known = self.facts.get(name, KernelFacts(name=name))
                self.facts[name] = dataclasses.replace(known, refused=error.message)
                raise
            self.facts[name] = facts
            self._libraries[name] = path
            return path

    def identity(self, name: str) -> KernelFacts:
        """The origin of a kernel: its source, and whether its PTX is that of the wheel's cubin."""
        if name not in self.facts:
            number = self.number(name)
            ptx = self.ptx(number)
            identical = ptx.cubin == self.code.cubins[number]
            self.facts[name] = KernelFacts(name=name, source=ptx.source, identical=identical)
        return self.facts[name]

    def number(self, name: str) -> int:
        """The place of the compiled file that contains a kernel."""
        if len(self.files.sources) != len(self.code.cubins):
            counts = f"{len(self.code.cubins)} cubins, its build has {len(self.files.sources)} CUDA files"
            raise ValidationError(f"the shard has {counts}: it is not of this build")
        if name not in self.code.kernels:
            raise ValidationError(f"the machine code for {self.code.arch} does not contain {name}")
        return self.code.kernels[name]

    def ptx(self, number: int) -> PtxFile:
        """The PTX of a compiled file."""
        with self._alone(number):
            if number not in self._made:
                with self._timed("PTX"):
                    self._made[number] = self.files.make(number)
            return self._made[number]

    def compile(self, text: str, name: str) -> Path:
        """The library of a kernel in C, kept for this model of processor: it may have instructions that others lack."""
        headers = (path.read_bytes() for path in sorted(HERE.glob("ptx_*.h")))
        parts = (text.encode(), *headers, " ".join((self.cc, *OPTIONS, machine.cpu_model())).encode())
        key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
        library = self.folder / f"{key}.so"
        if library.is_file():
            return library
        self.folder.mkdir(parents=True, exist_ok=True)
        c_file, partial = self.folder / f"{key}.c", self.folder / f"{key}.{os.getpid()}"
        c_file.write_text(text, encoding="utf-8")
        argv = (self.cc, *OPTIONS, "-I", str(HERE), str(c_file), "-o", str(partial), "-lm")
        try:
            with self._timed("compilation"):
                run(Command(argv=argv), timeout=SECONDS_ALLOWED)
        except CommandError as error:
            raise ValidationError(f"the translation of {name} does not compile: {error.message}") from error
        return partial.replace(library)

    def _alone(self, key: Hashable) -> threading.RLock:
        """The lock of a kernel or of a file: what two processes ask for at once is made once."""
        return self._locks.setdefault(key, threading.RLock())

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] += round(time.monotonic() - start, 3)
