"""The tables of instructions, a module for each family of the PTX ISA. What is not in them is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions import (
    comparison,
    control,
    conversion,
    floating,
    half,
    integer,
    logic,
    matrix,
    movement,
    synchronisation,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_config.testbed.emulated_device.instructions.form import Form

FAMILIES = (comparison, control, conversion, floating, half, integer, logic, matrix, movement, synchronisation)


def _by_root() -> dict[str, tuple[Form, ...]]:
    found: dict[str, list[Form]] = {}
    for family in FAMILIES:
        for form in family.FORMS:
            roots = form.choices.get("function", "").split() if form.syntax[0] == "<" else ()
            for root in roots or (form.syntax.partition(".")[0].partition("{")[0],):
                found.setdefault(root, []).append(form)
    return {root: tuple(forms) for root, forms in found.items()}


FORMS: Mapping[str, tuple[Form, ...]] = _by_root()
"""The forms by the first part of the opcode."""
