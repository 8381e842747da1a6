"""Device code as it was before it was compressed.

cuobjdump unpacks each entry from a file of its own: in a library it would end at the first damaged one.
"""

from __future__ import annotations

import contextlib
import re
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.system import processes
from check_gpu import device_code

if TYPE_CHECKING:
    from build_config.tasks.reproduce.difference.result import Tools

SECONDS_ALLOWED = 120.0
_FAT_BINARY = struct.Struct("<IHHQ")
_UNPACKED_SIZE_AT, _OPTIONS_AT = 56, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """An entry of a fat binary, with its contents as they are stored. Two are equal wherever they stand.

    ``arch`` is ``sm_89`` for a cubin, ``compute_89`` for PTX. ``unpacked_size`` is 0 when it is not compressed.
    """

    label: str = field(compare=False)
    arch: str
    suffix: str
    header: bytes
    stored: bytes
    unpacked_size: int
    options: str


def read(section: bytes) -> tuple[Code, ...]:
    """The entries of a section. Raises ``check_gpu.elf.UnreadableError``."""
    return tuple(_code(entry, section[entry.offset : entry.offset + entry.size]) for entry in device_code.read(section))


def _code(entry: device_code.Entry, stored: bytes) -> Code:
    number, _, kind = entry.architecture.partition("-")
    arch, name = (f"sm_{number}", "cubin") if kind == "real" else (f"compute_{number}", "PTX")
    texts = re.findall(rb"[\x20-\x7e]{4,}", entry.header[_OPTIONS_AT:])
    return Code(
        label=f"fat binary {entry.binary + 1}, {name} for {arch}",
        arch=arch,
        suffix=name.lower(),
        header=entry.header,
        stored=stored,
        unpacked_size=int.from_bytes(entry.header[_UNPACKED_SIZE_AT:_OPTIONS_AT], "little"),
        options=" ".join(text.decode().strip() for text in texts) or "none",
    )


def unpack(code: Code, tools: Tools) -> bytes | None:
    """The contents; ``None`` if they are compressed and cuobjdump is missing or cannot unpack them."""
    if not code.unpacked_size or tools.cuobjdump is None:
        return None if code.unpacked_size else code.stored
    tools.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="device-code-", dir=tools.folder) as name:
        folder, body = Path(name), code.header + code.stored
        (folder / "code.fatbin").write_bytes(_FAT_BINARY.pack(0xBA55ED50, 1, _FAT_BINARY.size, len(body)) + body)
        option = "--extract-elf" if code.suffix == "cubin" else "--extract-ptx"
        command = processes.Command(argv=(str(tools.cuobjdump.path), option, "all", "code.fatbin"), cwd=folder)
        with contextlib.suppress(CommandError):
            processes.run(command, check=False, timeout=SECONDS_ALLOWED)
        contents = [path.read_bytes() for path in folder.glob(f"*.{code.suffix}")]
    # Whole, as the header says; PTX ends with a zero inside.
    return next((each for each in contents if len(each) in (code.unpacked_size, code.unpacked_size - 1)), None)
