"""ELF files written section by section, for tests that change one detail."""

import dataclasses
import struct
from pathlib import Path

from build_config.tasks.reproduce.difference import DifferenceKind, libraries
from build_config.tasks.reproduce.difference.result import Tools

PROGBITS, STRTAB, NOTE, DYNSYM, DYNAMIC = 1, 3, 7, 11, 6
FUNC, OBJECT = 2, 1


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    content: bytes
    kind: int = PROGBITS
    address: int = 0
    link: str = ""


def elf_file(*parts: Part) -> bytes:
    """An ELF file of these sections, each after the end of the previous one."""
    everything = [Part("", b""), *parts, Part(".shstrtab", b"", STRTAB)]
    strings = b"\0".join(part.name.encode() for part in everything) + b"\0"
    everything[-1] = dataclasses.replace(everything[-1], content=strings)
    body, table, name = bytearray(64), b"", 0
    numbers = {part.name: number for number, part in enumerate(everything)}
    for part in everything:
        body += bytes(-len(body) % 8)
        where = (part.address, len(body), len(part.content), numbers[part.link])
        kind = part.kind if part.name else 0
        table += struct.pack("<IIQQQQIIQQ", name, kind, 0, *where, 0, 8, 24 if kind == DYNSYM else 0)
        name += len(part.name) + 1
        body += part.content
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = (ident, 3, 62, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(everything), len(everything) - 1)
    body[:64] = struct.pack("<16sHHIQQQIHHHHHH", *head)
    return bytes(body) + table


def symbols(*entries: tuple[str, int, int, int, int], table: str = ".dynsym") -> tuple[Part, Part]:
    """``(name, kind, section number, value, size)`` each."""
    strings, rows = b"\0", bytes(24)
    for name, kind, section, value, size in entries:
        rows += struct.pack("<IBBHQQ", len(strings), kind, 0, section, value, size)
        strings += name.encode() + b"\0"
    return Part(table, rows, DYNSYM, link=".dynstr"), Part(".dynstr", strings, STRTAB)


def dynamic(*entries: tuple[int, str]) -> tuple[Part, Part]:
    strings, rows = b"\0", b""
    for tag, value in entries:
        rows += struct.pack("<qQ", tag, len(strings))
        strings += value.encode() + b"\0"
    return Part(".dynamic", rows + bytes(16), DYNAMIC, link=".dynnames"), Part(".dynnames", strings, STRTAB)


def build_id(digits: str) -> Part:
    return Part(".note.gnu.build-id", struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes.fromhex(digits), NOTE)


TEXT = Part(".text", bytes(range(256)) * 4, address=0x1000)
FUNCTIONS = symbols(("first", FUNC, 1, 0x1000, 0x100), ("second", FUNC, 1, 0x1100, 0x80))


def library_differences(tmp_path: Path, first: bytes, second: bytes) -> list[tuple[DifferenceKind, str]]:
    tools = Tools(cuobjdump=None, demangler=None, folder=tmp_path)
    return list(libraries.compare(first, second, tools))


def changed_at(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
