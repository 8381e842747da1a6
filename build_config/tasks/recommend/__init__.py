"""Which wheel of an index fits a machine, why the others do not, and how to get one: facts in, a recommendation out."""

from __future__ import annotations

from build_config.tasks.recommend.advice import Recommendation, recommend, text
from build_config.tasks.recommend.gpu_table import table
from build_config.tasks.recommend.judge import Interpreter
from build_config.tasks.recommend.wheels import Candidate, candidate, read

__all__ = ["Candidate", "Interpreter", "Recommendation", "candidate", "read", "recommend", "table", "text"]
