"""Names of kernels as a reader knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.system import processes

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 120


def readable(names: Sequence[str], demangler: str | None) -> tuple[str, ...]:
    """The names without parameters, by c++filt; as they are where it is missing or fails. Shortened, in any case."""
    plain = list(names)
    if demangler is not None and names:
        try:
            done = processes.capture(demangler, "--no-params", *names)
        except CommandError:
            done = None
        if done is not None and done.returncode == 0 and len(lines := done.output.splitlines()) == len(names):
            plain = lines
    return tuple(name if len(name) <= LONGEST else f"{name[:LONGEST]}…" for name in plain)
