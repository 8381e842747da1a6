"""Device code as it was before it was compressed. What was not is read as it is; the rest is cuobjdump's.

Each entry is put into a file of its own: in a library cuobjdump ends at the first that it cannot unpack, and with that
one damaged entry would hide all behind it.
"""

from __future__ import annotations

import contextlib
import re
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.system import processes
from check_gpu import device_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from build_config.model import Program
    from build_config.tasks.reproduce.difference.result import Tools

SECONDS_ALLOWED = 120.0
_FAT_BINARY = struct.Struct("<IHHQ")
_MAGIC, _VERSION = 0xBA55ED50, 1
_UNPACKED_SIZE = struct.Struct("<Q")
_UNPACKED_SIZE_AT = 56
_OPTIONS_AT = 64
_FUNCTION = re.compile(r"\s*Function (?P<name>\S+):")
_REGISTERS = re.compile(r"\s*REG:(?P<count>\d+) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """An entry of a fat binary, with its contents as they are stored."""

    entry: device_code.Entry
    stored: bytes

    @property
    def arch(self) -> str:
        """The architecture as NVIDIA's programs call it: ``sm_89`` for a cubin, ``compute_89`` for PTX."""
        number, _, kind = self.entry.architecture.partition("-")
        return f"sm_{number}" if kind == "real" else f"compute_{number}"

    @property
    def suffix(self) -> str:
        """``cubin`` or ``ptx``."""
        return "cubin" if self.arch.startswith("sm_") else "ptx"

    @property
    def unpacked_size(self) -> int:
        """In bytes; 0 when it is not compressed."""
        if len(self.entry.header) < _OPTIONS_AT:
            return 0
        size: int = _UNPACKED_SIZE.unpack_from(self.entry.header, _UNPACKED_SIZE_AT)[0]
        return size

    @property
    def options(self) -> str:
        """What is written down for a later compilation of PTX, and for cubins in the header; mostly nothing."""
        texts = re.findall(rb"[\x20-\x7e]{4,}", self.entry.header[_OPTIONS_AT:])
        return " ".join(text.decode().strip() for text in texts)

    def __str__(self) -> str:
        """Which one it is, for a reader."""
        kind = "cubin" if self.suffix == "cubin" else "PTX"
        return f"fat binary {self.entry.binary + 1}, {kind} for {self.arch}"


def read(section: bytes) -> tuple[Code, ...]:
    """The entries of a section. Raises ``check_gpu.elf.UnreadableError``."""
    return tuple(
        Code(entry=entry, stored=section[entry.offset : entry.offset + entry.size])
        for entry in device_code.read(section)
    )


def unpack(code: Code, tools: Tools) -> bytes | None:
    """The contents, ``None`` where they are compressed and cuobjdump is missing or cannot unpack them."""
    if not code.unpacked_size:
        return code.stored
    if tools.cuobjdump is None:
        return None
    body = code.entry.header + code.stored
    option = "--extract-elf" if code.suffix == "cubin" else "--extract-ptx"
    with _folder(tools) as folder:
        (folder / "code.fatbin").write_bytes(_FAT_BINARY.pack(_MAGIC, _VERSION, _FAT_BINARY.size, len(body)) + body)
        _run(tools.cuobjdump, option, "all", "code.fatbin", folder=folder)
        contents = [path.read_bytes() for path in folder.glob(f"*.{code.suffix}")]
    # Whole, as the header says; PTX ends with a zero inside.
    return next((each for each in contents if len(each) in (code.unpacked_size, code.unpacked_size - 1)), None)


def registers(cubin: bytes, tools: Tools) -> Mapping[str, int]:
    """How many registers each kernel takes, as cuobjdump says; empty without it."""
    counts: dict[str, int] = {}
    if tools.cuobjdump is None:
        return counts
    with _folder(tools) as folder:
        (folder / "code.cubin").write_bytes(cubin)
        lines = _run(tools.cuobjdump, "--dump-resource-usage", "code.cubin", folder=folder)
    name = None
    for line in lines:
        if (function := _FUNCTION.match(line)) is not None:
            name = function["name"]
        elif name is not None and (used := _REGISTERS.match(line)) is not None:
            counts[name] = int(used["count"])
    return counts


@contextlib.contextmanager
def _folder(tools: Tools) -> Iterator[Path]:
    """An empty folder that goes away."""
    tools.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="device-code-", dir=tools.folder) as folder:
        yield Path(folder)


def _run(cuobjdump: Program, *arguments: str, folder: Path) -> list[str]:
    """The lines that it prints. What it could not do shows in what it leaves behind."""
    lines: list[str] = []
    command = processes.Command(argv=(str(cuobjdump.path), *arguments), cwd=folder)
    try:
        processes.run(command, check=False, timeout=SECONDS_ALLOWED, on_line=lines.append)
    except CommandError:
        return []
    return lines
