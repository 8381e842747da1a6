"""The compiler launcher: its environment, its server, its hits."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_config.errors import CommandError
from build_config.model import Program
from build_config.system import jsonio, platforms, processes, usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import PlatformName
    from build_config.system.layout import Layout

SCCACHE_FAILED = "sccache: encountered fatal error"
CACHE_SIZE = "20G"
SERVER_TIMEOUT = 30.0
"""Seconds for the cache's own quick commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSession:
    """A launcher that is ready for use. ``environment`` is the complete environment of every compiler call."""

    launcher: Program | None
    environment: Mapping[str, str]

    def uses(self) -> usage.Uses:
        """Hits and look-ups since the session began; 0 without a launcher, or if the launcher does not answer."""
        nothing = usage.Uses(hits=0, asked=0)
        if self.launcher is None:
            return nothing
        sccache = _is_sccache(self.launcher)
        try:
            answer = self._call(*(("--show-stats", "--stats-format", "json") if sccache else ("--print-stats",)))
        except CommandError:  # too slow, on a machine that is very busy: no reason to lose a build
            return nothing
        parse = parse_sccache if sccache else parse_ccache
        try:
            return parse(answer.output) if answer.returncode == 0 else nothing
        except ValueError:  # it answers in another form: no reason to lose a build, either
            return nothing

    def forget_sources(self, output: str) -> bool:
        """Delete sccache's index of sources if a compiler's ``output`` says that sccache itself failed.

        A damaged entry of it ends every compilation of its file, however often it is tried (seen with 0.16); a damaged
        object is only compiled again. Returns whether there was something to delete, so that it is worth another try.
        """
        folder = Path(self.environment.get("SCCACHE_DIR", ""), "preprocessor")
        if SCCACHE_FAILED not in output or "SCCACHE_DIR" not in self.environment or not folder.is_dir():
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def _call(self, *arguments: str) -> processes.Completed:
        if self.launcher is None:  # pragma: no cover - callers checked
            raise AssertionError
        return processes.capture(
            str(self.launcher.path), *arguments, environment=self.environment, timeout=SERVER_TIMEOUT
        )


@contextlib.contextmanager
def session(launcher: Program | None, layout: Layout, environment: Mapping[str, str]) -> Iterator[CacheSession]:
    """Prepare the launcher for compilers in ``environment``; afterwards, no server is left running.

    The server runs from our own copy of the launcher, and its socket is a file in the work root, so it never conflicts
    with another project's server. The server of a killed run is stopped first, with the compilers that it runs.
    """
    ready = CacheSession(launcher=launcher, environment={**environment, **_variables(launcher, layout)})
    if launcher is None:
        yield ready
        return
    layout.object_cache.mkdir(parents=True, exist_ok=True)
    if not _is_sccache(launcher):
        ready._call("--zero-stats")  # noqa: SLF001  # the module's own class
        yield ready
        usage.count(layout, usage.OBJECT_CACHE, ready.uses())
        return
    processes.stop_program(launcher.path)
    _socket(layout).unlink(missing_ok=True)
    started = ready._call("--start-server")  # noqa: SLF001
    if started.returncode != 0:
        processes.raise_for(started)
    try:
        yield ready
    except BaseException:
        # The server runs the compilers, and would let them finish although nobody waits for the result.
        processes.stop_program(launcher.path)
        raise
    usage.count(layout, usage.OBJECT_CACHE, ready.uses())
    try:
        ready._call("--stop-server")  # noqa: SLF001
    except CommandError:
        processes.stop_program(launcher.path)


def parse_sccache(text: str) -> usage.Uses:
    """The uses in ``sccache --show-stats --stats-format json``. Raises ``ValueError`` for anything else."""
    try:
        stats: dict[str, Any] = json.loads(text)["stats"]
        hits, misses = (
            sum(int(count) for count in stats.get(name, {}).get("counts", {}).values())
            for name in ("cache_hits", "cache_misses")
        )
    except (*jsonio.NOT_JSON, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not the statistics of sccache: {error}") from error
    return usage.Uses(hits=hits, asked=hits + misses)


def parse_ccache(text: str) -> usage.Uses:
    """The uses in ``ccache --print-stats``: a name, a tab, a number on each line."""
    counts = dict(line.split("\t") for line in text.splitlines() if line.count("\t") == 1)
    hits = sum(int(counts.get(name, "0")) for name in ("direct_cache_hit", "preprocessed_cache_hit"))
    return usage.Uses(hits=hits, asked=hits + int(counts.get("cache_miss", "0")))


def _is_sccache(launcher: Program) -> bool:
    return launcher.path.stem == "sccache"


def _socket(layout: Layout) -> Path:
    return layout.work_root / "sccache.sock"


def _server(layout: Layout, platform: PlatformName) -> dict[str, str]:
    """Where the server listens: a file in the work root; on Windows, which has no such sockets, a port that is free.

    At a fixed port the server of another build may listen, or one that has just ended may still hold it.
    """
    if platforms.of(platform).has_unix_sockets:
        return {"SCCACHE_SERVER_UDS": str(_socket(layout))}
    with socket.create_server(("127.0.0.1", 0)) as free:
        return {"SCCACHE_SERVER_PORT": str(free.getsockname()[1])}


def _variables(launcher: Program | None, layout: Layout) -> dict[str, str]:
    if launcher is None:
        return {}
    if _is_sccache(launcher):
        return {
            "SCCACHE_DIR": str(layout.object_cache / "sccache"),
            "SCCACHE_CACHE_SIZE": CACHE_SIZE,
            **_server(layout, platforms.HERE.name),
            "SCCACHE_IDLE_TIMEOUT": "600",
            # A fixed configuration: the user's own sccache file must not affect the build.
            "SCCACHE_CONF": str(layout.object_cache / "sccache.toml"),
        }
    return {
        "CCACHE_DIR": str(layout.object_cache / "ccache"),
        "CCACHE_MAXSIZE": CACHE_SIZE,
        # The text of a file does not depend on when it is compiled (ggml uses no __TIME__ in its results).
        "CCACHE_SLOPPINESS": "time_macros",
    }
