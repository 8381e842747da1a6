"""The table of cards: what each needs, and what serves it. Made from ``data/cuda_architectures.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config import archs
from build_config.system.layout import PACKAGE
from build_config.tasks.recommend.building import LOCKED_CUDA

if TYPE_CHECKING:
    from build_config.model import CudaArch

HEADER = (
    "card",
    "generation",
    "compute capability",
    "oldest driver",
    "CUDA",
    "shard",
    "in the portable wheel",
    "option",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRow:
    """The cards of one compute capability. ``None`` where there is nothing: no wheel for them can be built."""

    cards: str
    generation: str
    capability: str
    driver: str | None
    cuda: str
    shard: str | None
    portable: str | None
    option: str | None

    def cells(self) -> tuple[str, ...]:
        """As the table has them."""
        return (
            self.cards,
            self.generation,
            self.capability,
            self.driver or "",
            self.cuda,
            f"`{self.shard}`" if self.shard else "",
            self.portable or "",
            f"`{self.option}`" if self.option else "not covered",
        )


def rows() -> tuple[CardRow, ...]:
    """All cards that are known, the newest first."""
    data = tomllib.loads((PACKAGE / "data" / "cuda_architectures.toml").read_text(encoding="utf-8"))
    generations: dict[str, str] = data["generations"]
    elsewhere: list[str] = data["another_processor"]["capabilities"]
    return tuple(
        _row(capability, cards, generations[capability], another_processor=capability in elsewhere)
        for capability, cards in reversed(archs.known_cards().items())
    )


def table() -> str:
    """The table in Markdown."""
    lines = [HEADER, tuple("---" for _ in HEADER), *(row.cells() for row in rows())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(capability: str, cards: str, generation: str, *, another_processor: bool) -> CardRow:
    number = archs.from_capability(capability).number
    able = [series for series in archs.known_series() if series.builds_for(number)]
    locked = archs.toolkit_series(LOCKED_CUDA)
    series = locked if locked in able else able[-1]
    if another_processor:
        return CardRow(
            cards=cards,
            generation=generation,
            capability=capability,
            driver=None,
            cuda="another processor than x86-64",
            shard=None,
            portable=None,
            option=None,
        )
    (shard,) = archs.resolve(str(number), cuda_release=series.since, gpus=()).shards
    return CardRow(
        cards=cards,
        generation=generation,
        capability=capability,
        driver=str(series.driver_compatible),
        cuda=f"{series.since}, locked" if series is locked else f"{series.since} at the newest, to be installed",
        shard=shard.name,
        portable=_portable(series.portable, capability),
        option=f"--arch {number}" if series is locked else f"--arch {number} --cuda {series.since}",
    )


def _portable(shards: tuple[tuple[CudaArch, ...], ...], capability: str) -> str | None:
    """How the portable wheel of the same CUDA serves a card."""
    ways = [archs.covers(shard, capability) for shard in shards]
    return "yes" if "cubin" in ways else "by PTX" if "ptx" in ways else "no"
