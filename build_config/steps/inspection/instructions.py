"""Find instructions that not every x86-64 processor has, by disassembling.

An "illegal instruction" on an older machine is the fault that users of such wheels report most. Code for newer
processors belongs only in the CPU variants, of which ggml selects one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.steps.inspection.contents import NotRunError, check_each, error
from build_config.steps.inspection.libraries import cpu_variant
from build_config.system import processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.reports import Finding
    from build_config.steps.inspection.contents import Subject

BASELINE_VARIANT = "libggml-cpu-x64.so"
SECONDS_ALLOWED = 300.0
# Every mnemonic with a leading "v" is VEX or EVEX coded, except segment checks and virtualisation. AMX and most of BMI
# are VEX coded without a "v".
_VEX = re.compile(
    r"""
    \t (?: \{ \w+ \} [ ] )?                                     # {vex}, {evex}: how objdump tells two codings apart
    (?: v (?! er[rw]\b | m(?: call | clear | func | gexit | launch | load | mcall | ptrld | ptrst | read | resume
                             | run | save | write | xoff | xon )[lq]?\b )
      | (?: andn | bextr | blsi | blsmsk | blsr | bzhi | mulx | pdep | pext | rorx | sarx | shlx | shrx )[lq]?\b
      | (?: ldtilecfg | sttilecfg | tile\w+ | tdp\w+ )\b
      | .* % (?: [yz]mm | k[0-7]\b )
    )
    """,
    re.VERBOSE,
)


@dataclass(slots=True)
class Scan:
    """Counts of a disassembly: all instructions, those that are VEX or EVEX coded, and the first of the latter."""

    instructions: int = 0
    vex: int = 0
    example: str = ""

    def line(self, text: str) -> None:
        """Take one line of ``objdump -d --no-show-raw-insn``: ``   1a2b:<tab>vmovaps %ymm0,%ymm1``."""
        if ":\t" not in text:
            return
        self.instructions += 1
        if _VEX.search(text):
            self.vex += 1
            self.example = self.example or " ".join(text.split())


def check_instructions(subject: Subject) -> Iterator[Finding]:
    """Only CPU variants above the baseline contain AVX or other VEX and EVEX coded instructions."""

    def check(name: str) -> Iterator[Finding]:
        base = PurePosixPath(name).name
        if cpu_variant(base, subject.platform) and base != BASELINE_VARIANT:
            return
        found = disassemble(subject.objdump, subject.extracted(name))
        if found.vex:
            count = f"{found.vex} instructions that older processors lack"
            yield error("avx-instruction", f"{name} contains {count}, first {found.example!r}")

    return check_each((name for name, _ in subject.own_libraries()), check)


def disassemble(objdump: str, library: Path) -> Scan:
    """Scan the code of a library, line by line. Raises ``NotRunError`` if objdump fails or shows nothing."""
    scan = Scan()
    command = processes.Command(argv=(objdump, "-d", "--no-show-raw-insn", str(library)), changes={"LC_ALL": "C"})
    try:
        processes.run(command, timeout=SECONDS_ALLOWED, on_line=scan.line)
    except CommandError as reason:
        message = f"{library.name} could not be disassembled (is binutils installed?): {reason.message}"
        raise NotRunError(message) from reason
    if not scan.instructions:
        raise NotRunError(f"{objdump} showed no instruction of {library.name}")
    return scan
