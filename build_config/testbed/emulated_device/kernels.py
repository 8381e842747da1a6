"""The kernels of a wheel as shared libraries for this machine: from PTX to C to machine code, kept by digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
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
    """The kernels of one shard for one architecture, as libraries in ``folder`` that ``cc`` compiles."""

    code: ShardCode
    files: PtxFiles
    folder: Path
    cc: str
    translate: Callable[[PtxFile, str], str] = field(default_factory=Translator)
    facts: dict[str, KernelFacts] = field(default_factory=dict)
    _made: dict[int, PtxFile] = field(default_factory=dict)
    _libraries: dict[str, Path] = field(default_factory=dict)

    def library(self, name: str) -> Path:
        """The shared library of a kernel, which defines ``ptx_image``. Raises ``PipelineError`` with the reason."""
        if name in self._libraries:
            return self._libraries[name]
        source, identical = None, False
        try:
            number = self.number(name)
            ptx = self.ptx(number)
            source, identical = ptx.source, ptx.cubin == self.code.cubins[number]
            path = self.compile(self.translate(ptx, name), name)
        except PipelineError as error:
            self.facts[name] = KernelFacts(name=name, source=source, identical=identical, refused=error.message)
            raise
        self.facts[name] = KernelFacts(name=name, source=source, identical=identical)
        self._libraries[name] = path
        return path

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
        if number not in self._made:
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
            run(Command(argv=argv), timeout=SECONDS_ALLOWED)
        except CommandError as error:
            raise ValidationError(f"the translation of {name} does not compile: {error.message}") from error
        return partial.replace(library)
