"""The device code in each shard, as NVIDIA's cuobjdump lists it."""

from __future__ import annotations

import collections
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.steps.inspection.contents import NotRunError, check_each, error
from build_config.system import processes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from build_config.model import CudaArch, Program
    from build_config.reports import Finding
    from build_config.steps.inspection.contents import Subject

SECONDS_ALLOWED = 300.0
NOTHING_INSIDE = "does not contain device code"
_ENTRY = re.compile(r"(?:ELF|PTX) file +\d+: .*\.sm_(?P<arch>\d+[af]?)\.(?P<kind>cubin|ptx)")


def parse_listing(lines: Iterable[str]) -> collections.Counter[str]:
    """How often each architecture is listed: ``sm_89`` for a cubin, ``compute_90`` for PTX."""
    entries = (match for line in lines if (match := _ENTRY.fullmatch(line.strip())))
    return collections.Counter(f"{'sm' if m['kind'] == 'cubin' else 'compute'}_{m['arch']}" for m in entries)


def check_device_code(subject: Subject) -> Iterator[Finding]:
    """Each declared shard contains device code for exactly the declared architectures, equally often for each."""
    cuobjdump = subject.cuobjdump
    if cuobjdump is None:
        raise NotRunError("cuobjdump, which lists the device code, is missing; the locked toolkit contains it")
    shards = {subject.platform.library(f"ggml-cuda-{shard.name}"): shard for shard in subject.declaration.shards}

    def check(name: str) -> Iterator[Finding]:
        shard = shards.get(PurePosixPath(name).name)
        if shard is not None:
            yield from judge(name, shard.archs, list_device_code(cuobjdump, subject.extracted(name)))

    return check_each(subject.libraries, check)


def judge(name: str, archs: tuple[CudaArch, ...], found: collections.Counter[str]) -> Iterator[Finding]:
    """Compare the device code of a shard with the declaration."""
    declared = {arch.name for arch in archs}
    for arch in sorted(declared - found.keys()):
        yield error("device-code-missing", f"{name} is declared for {arch}, but contains no code for it")
    for arch in sorted(found.keys() - declared):
        yield error("device-code-undeclared", f"{name} contains code for {arch}, which is not declared")
    counts = {arch: found[arch] for arch in sorted(declared & found.keys())}
    if len({*counts.values()}) > 1:
        listed = ", ".join(f"{arch}: {count}" for arch, count in counts.items())
        yield error("device-code-uneven", f"{name} was not compiled for the same architectures throughout ({listed})")


def list_device_code(cuobjdump: Program, library: Path) -> collections.Counter[str]:
    """Count the output of ``--list-elf`` and ``--list-ptx``. Raises ``NotRunError`` if cuobjdump fails."""
    found: collections.Counter[str] = collections.Counter()
    for option in ("--list-elf", "--list-ptx"):
        lines: list[str] = []
        command = processes.Command(argv=(str(cuobjdump.path), option, str(library)))
        try:
            done = processes.run(command, check=False, timeout=SECONDS_ALLOWED, on_line=lines.append)
        except CommandError as reason:
            raise NotRunError(reason.message) from reason
        if done.returncode != 0 and NOTHING_INSIDE not in done.output:
            raise NotRunError(f"cuobjdump {option} failed on {library.name}: {done.output.strip()}")
        found += parse_listing(lines)
    return found
