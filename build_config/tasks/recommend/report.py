"""A recommendation in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.tasks.recommend.recommendation import Recommendation


def text(answer: Recommendation) -> str:
    """The whole of it: the machine, the wheel and how to get it, what to do first, why not the others."""
    return "\n".join(_lines(answer))


def _lines(answer: Recommendation) -> Iterator[str]:
    yield from (f"here: {line}" for line in answer.machine)
    yield ""
    if answer.chosen is not None:
        wheel = answer.chosen.candidate
        yield f"take: {wheel.file_name}"
        yield f"      computes on {answer.chosen.use}" + (f"; verdict {wheel.verdict}" if wheel.verdict else "")
        yield f"      {answer.pip}"
    else:
        yield "None of the wheels there is for this machine." if answer.others else "There is no wheel there."
    yield from answer.advice
    if answer.build is not None:
        yield f"build: {answer.build}"
    if answer.others:
        yield ""
        yield "the others:"
    for other in answer.others:
        yield f"  {other.candidate.file_name}"
        yield f"    {other.reason or 'fits too, and is older, larger or slower to start'}"
