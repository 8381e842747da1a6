"""The commands: each reads its options, calls one task, and shows the result.

Errors pass through: ``__main__`` turns them into exit codes. A command itself ends with status 1 if it succeeded and
the answer is no.
"""

from __future__ import annotations

from build_config.commands import build, ci, gpu, machine, share, wheel
from build_config.commands.app import app

__all__ = ["app", "build", "ci", "gpu", "machine", "share", "wheel"]
