"""The tables of instructions and the C that they name: what a table lets pass must compile."""

from __future__ import annotations

import itertools
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config.testbed import emulated_device
from build_config.testbed.emulated_device.instructions import FORMS
from build_config.testbed.emulated_device.instructions.form import Operand, Use
from build_config.testbed.emulated_device.translation import CFLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from build_config.testbed.emulated_device.instructions.form import Form

pytestmark = pytest.mark.integration

HINTS = frozenset({"cop", "eviction", "prefetch", "scope"})
"""Modifiers that change nothing in the C."""
HEADERS = '#include "ptx_runtime.h"\n#include "ptx_instructions.h"\n#include "ptx_warp.h"\n'


def opcodes(form: Form) -> Iterator[str]:
    """Every opcode that has a form, without its optional hints."""
    parts = re.split(r"(<\w+(?:=\w+)?>|\{[^}]*\})", form.syntax)
    for chosen in itertools.product(*(tuple(_choices(form, part)) for part in parts)):
        yield "".join(chosen)


def _choices(form: Form, part: str) -> Iterator[str]:
    if part.startswith("{"):
        yield ""
        if part[3:-2] not in HINTS:  # {.<scope>}
            for inner in itertools.product(*(_choices(form, one) for one in re.split(r"(<.*>)", part[1:-1]))):
                yield "".join(inner)
    elif match := re.fullmatch(r"<(\w+)(?:=(\w+))?>", part):
        yield from form.choices[match[2] or match[1]].split()
    else:
        yield part


def functions(form: Form, opcode: str) -> set[str]:
    """The functions that the C of an instruction calls."""
    modifiers = form.match(opcode)
    assert modifiers is not None, opcode
    operands = tuple(
        Operand("x", ("x",) * max(spec.count, 2) if spec.count or spec.kind == "table" else (), 32)
        for spec in form.specs(modifiers)
    )
    code = form.emit(Use(modifiers, operands))
    return set(re.findall(r"\bptx_\w+(?=\()|(?<=thread, )ptx_\w+", code))


def test_every_known_instruction_calls_functions_that_exist(tmp_path: Path) -> None:
    needed: dict[str, str] = {}
    for root, forms in FORMS.items():
        for form in forms if root != "call" else ():  # the translator writes calls
            for opcode in opcodes(form):
                needed |= dict.fromkeys(functions(form, opcode), opcode)
    assert len(needed) > 800
    taken = "".join(f"    (void *) {name},\n" for name in sorted(needed))
    source = tmp_path / "all.c"
    source.write_text(f"enum {{ ptx_static_shared = 0 }};\n{HEADERS}void * all[] = {{\n{taken}}};\n", encoding="utf-8")
    argv = ("gcc", *CFLAGS, f"-I{emulated_device.HERE}", "-fsyntax-only", str(source))
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stderr
    missing = sorted(name for name in needed if re.search(rf"\b{name}\b.* undeclared", said))
    assert {name: needed[name] for name in missing} == {}
    assert said == ""
