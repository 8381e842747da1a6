"""Control flow, and the end of a program (PTX ISA 9.0, 9.7.12 and 9.7.19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import joined, table

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form, Use

ENDS = frozenset({"bra", "brx", "ret", "exit", "trap"})
"""Instructions after which a basic block ends."""


def _brx(use: Use) -> str:
    index, targets = use.operands
    cases = " ".join(f"case {number}: goto {label};" for number, label in enumerate(targets.elements))
    return f'switch ({index.text}) {{ {cases} default: ptx_trap(thread, "brx.idx: no such branch target"); }}'


def _call(_: Use) -> str:
    raise NotImplementedError("the translator writes calls: it knows the functions of the module")


FORMS: tuple[Form, ...] = joined(
    (
        table(
            "9.7.12 Control Flow Instructions",
            ("bra{.uni}", "label", lambda use: f"goto {use.operands[0].text};"),
            ("brx.idx{.uni}", "u32 table", _brx),
            ("ret{.uni}", "", lambda _: "return;"),
            ("call{.uni}", "arguments name arguments", _call),
            ("call{.uni}", "name arguments", _call),
            ("call{.uni}", "name", _call),
        ),
        table(
            "9.7.19 Miscellaneous Instructions",
            ("trap", "", lambda _: 'ptx_trap(thread, "trap");'),
            ("nanosleep.u32", "u32", lambda _: "ptx_pause(thread);"),
        ),
        table(
            "9.7.13.13 Parallel Synchronization and Communication Instructions: griddepcontrol",
            ("griddepcontrol.<action>", "", lambda _: ";"),  # one launch ends before the next one begins
            action="launch_dependents wait",
        ),
    )
)
