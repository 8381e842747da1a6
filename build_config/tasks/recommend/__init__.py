"""Which wheel of an index fits a machine, why the others do not, and how to get one: facts in, a recommendation out."""

from __future__ import annotations

from build_config.tasks.recommend.cards import table
from build_config.tasks.recommend.reading import read
from build_config.tasks.recommend.recommendation import Assessment, Recommendation, recommend
from build_config.tasks.recommend.report import text
from build_config.tasks.recommend.wheels import Candidate, Index, candidate

__all__ = ["Assessment", "Candidate", "Index", "Recommendation", "candidate", "read", "recommend", "table", "text"]
