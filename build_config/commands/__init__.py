"""What the command line offers: each command reads its options, calls one step, and shows what came of it.

Errors pass through: ``__main__`` turns them into exit codes. A command ends with status 1 of its own accord where it
did what it was asked to, and the answer is no.
"""

from __future__ import annotations

from build_config.commands import build, ci, machine, wheel
from build_config.commands.app import app

__all__ = ["app", "build", "ci", "machine", "wheel"]
