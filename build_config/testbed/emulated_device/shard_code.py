"""The machine code in a shard: its cubins with their digests and kernels, in the order in which they were linked."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile

from build_config.errors import CommandError, ValidationError
from build_config.model import CudaArch
from build_config.system.files import file_sha256
from build_config.system.processes import Command, run

if TYPE_CHECKING:
    from collections.abc import Iterator


SECONDS_ALLOWED = 300.0
_CODE = ".text."


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCode:
    """The cubins of a shard for one architecture.

    ``cubins`` are their SHA-256 in the order of the library, which is that of the compiled files; ``kernels`` gives the
    place in it for each mangled name.
    """

    arch: CudaArch
    cubins: tuple[str, ...]
    kernels: Mapping[str, int]


def read(library: Path, arch: CudaArch, cuobjdump: Path) -> ShardCode:
    """Extract the cubins of ``library`` for ``arch``. Raises ``ValidationError`` if there are none."""
    with tempfile.TemporaryDirectory(prefix="cubins-") as name:
        folder = Path(name)
        command = Command(argv=(str(cuobjdump), "--extract-elf", "all", str(library)), cwd=folder)
        try:
            run(command, timeout=SECONDS_ALLOWED)
        except CommandError as error:
            raise ValidationError(f"cuobjdump cannot read {library.name}: {error.message}") from error
        # A.7.sm_89.cubin is the seventh; the number counts all architectures.
        suffix = re.compile(rf"\.(\d+)\.{re.escape(arch.name)}\.cubin")
        numbered = {int(match[1]): path for path in folder.iterdir() if (match := suffix.search(path.name))}
        cubins: list[str] = []
        kernels: dict[str, int] = {}
        for place, number in enumerate(sorted(numbered)):
            cubins.append(file_sha256(numbered[number]))
            kernels |= dict.fromkeys(_kernels(numbered[number]), place)
    if not cubins:
        raise ValidationError(f"{library.name} contains no machine code for {arch}")
    return ShardCode(arch=arch, cubins=tuple(cubins), kernels=kernels)


def _kernels(cubin: Path) -> Iterator[str]:
    """The kernels of a cubin: the sections of its global functions that have constants, where parameters are."""
    with cubin.open("rb") as file:
        names = [section.name for section in ELFFile(file).iter_sections()]
    constants = {name.partition(".constant0.")[2] for name in names}
    for name in names:
        if name.startswith(_CODE) and name.removeprefix(_CODE) in constants:
            yield name.removeprefix(_CODE)
