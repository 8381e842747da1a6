"""Differences as lines for a human."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.tasks.reproduce.difference.result import DifferenceKind, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from build_config.tasks.reproduce.difference.result import Difference

LINES = 24
NAMED = 3
"""How many members are named in a line."""
OF_A_KIND = 5
"""How many lines there are of one kind of difference before the others get their turn."""


def explain(differences: Sequence[Difference], lines: int = LINES) -> tuple[str, ...]:
    """At most ``lines`` lines and one that counts the rest, the most telling first.

    Members of which the same is true share a line. The file of diffoscope is named in any case.
    """
    members: dict[tuple[DifferenceKind, str], list[str]] = {}
    for difference in differences:
        members.setdefault((difference.kind, difference.detail), []).append(difference.member)
    rank = {kind: number for number, kind in enumerate(DifferenceKind)}
    keys = sorted(members, key=lambda key: rank[key[0]])
    closing = [key for key in keys if key[0] is DifferenceKind.DIFFOSCOPE]
    shown = [
        key
        for number, key in enumerate(keys)
        if key not in closing and sum(other[0] is key[0] for other in keys[:number]) < OF_A_KIND
    ][:lines]
    rest = [key for key in keys if key not in shown and key not in closing]
    told = [f"{listed(tuple(members[key][:NAMED]), len(members[key]))}: {key[1]}" for key in shown]
    if rest:
        kinds = {kind: sum(key[0] is kind for key in rest) for kind, _ in rest}
        counted = ", ".join(f"{count} of kind {kind}" for kind, count in kinds.items())
        told.append(f"and {len(rest)} more: {counted}")
    return (*told, *(key[1] for key in closing))
