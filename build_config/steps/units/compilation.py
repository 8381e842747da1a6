"""Configure and build the units that the store lacks, under one progress bar."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import BuildError, ConfigureError, InterruptedRunError, StepResultError
from build_config.model import Toolchain
from build_config.steps.units import cmake, object_cache, progress, sandbox, store, system_headers
from build_config.system import jsonio, platforms, processes, usage
from build_config.system.console import Console
from build_config.system.layout import Layout

if TYPE_CHECKING:
    from build_config.model import BuildUnit, SystemHeaders
    from build_config.steps.units.spec import UnitSpec
    from build_config.system.console import ProgressBar

CACHE_QUERY_INTERVAL = 15.0
"""Seconds between queries of the object cache."""
NINJA_INTERRUPTED = "ninja: build stopped: interrupted by user."
HEADERS_NAMED = 3
SECONDS = "seconds.json"
"""The file below the state folder with the seconds of earlier steps."""
_FAILED = re.compile(r"^FAILED: (?:\[code=\d+\] )?(?P<output>\S+)")
_ERROR = re.compile(r"(?:\berror\b|\bundefined reference\b|ld returned|catastrophic error)", re.IGNORECASE)


def build_units(
    specs: tuple[UnitSpec, ...], toolchain: Toolchain, layout: Layout, console: Console, *, jobs: int
) -> tuple[BuildUnit, ...]:
    """Take every unit from the store, or build it if the store lacks it.

    Raises ``ConfigureError``, ``BuildError`` (the first error of the first failing file), ``DiskFullError``, or
    ``InterruptedRunError``. Finished objects are kept, and the next run continues from them.
    """
    found = {spec.name: store.find(spec, layout) for spec in specs}
    missing = [spec for spec in specs if found[spec.name] is None]
    for spec in specs:
        if found[spec.name] is not None:
            console.note(f"unit {spec.name}: unchanged, taken from the store ({spec.key.digest[:12]})")
    usage.count(layout, usage.UNIT_STORE, usage.Uses(hits=len(specs) - len(missing), asked=len(specs)))
    if missing:
        isolation = sandbox.isolation()
        console.note(f"network of the compilers: {isolation.description}")
        environment = _environment(toolchain, layout)
        with object_cache.session(toolchain.launcher, layout, environment) as cache:
            builder = _Builder(
                toolchain=toolchain, layout=layout, console=console, cache=cache, isolation=isolation, jobs=jobs
            )
            found |= {unit.name: unit for unit in builder.build(missing)}
    built = tuple(unit for spec in specs if (unit := found[spec.name]) is not None)
    for unit in built:
        if unit.headers is not None and unit.headers.unexpected:
            named = ", ".join(map(str, unit.headers.unexpected[:HEADERS_NAMED]))
            console.warn(
                f"unit {unit.name} was compiled with headers that are neither locked nor part of the compiler or the C"
                f" library, {len(unit.headers.unexpected)} in all ({named}): without them, the same inputs may give"
                " other bytes"
            )
    return built


def _environment(toolchain: Toolchain, layout: Layout) -> dict[str, str]:
    """The complete environment of the compilers; the folders that it names are created."""
    platform = platforms.of(toolchain.platform)
    if platform.uses_msvc:
        for folder in ("tmp", "home"):
            (layout.work_root / folder).mkdir(parents=True, exist_ok=True)
        toolkit = platform.toolkit_variables(toolchain.cuda.root)
        return sandbox.windows_environment(toolchain.host, toolkit, layout, os.environ)
    path = sandbox.tool_folder(toolchain.host, layout, os.environ, cuda=toolchain.cuda.programs)
    return sandbox.environment(path, layout)


def collect(build: Path, names: tuple[str, ...], folders: tuple[str, ...]) -> None:
    """Copy a unit's libraries to the first folder from the others, if CMake has put them there."""
    target = build / folders[0]
    for name in names:
        for folder in folders[1:]:
            if (build / folder / name).is_file():
                target.mkdir(exist_ok=True)
                shutil.copyfile(build / folder / name, target / name)


def first_error(output: str) -> str:
    """The first failing file and its first error, from Ninja's output; else the last lines."""
    lines = output.splitlines()
    for index, line in enumerate(lines):
        failed = _FAILED.match(line)
        if failed is None:
            continue
        for candidate in lines[index + 1 :]:
            # The line after FAILED is the command itself, which may hold the word "error" in an option.
            if _ERROR.search(candidate) and " -c " not in candidate and " -o " not in candidate:
                return f"{failed['output']}:\n  {candidate.strip()}"
        return "\n  ".join([f"{failed['output']}:", *lines[index + 1 :][-10:]])
    return "\n".join(lines[-10:])


def cmake_error(output: str) -> str:
    """CMake's first error with the indented text below it; else the last lines."""
    lines = output.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("CMake Error"):
            block = itertools.takewhile(lambda text: text.startswith(" ") or not text, lines[index + 1 :])
            return "\n".join(f"  {text.strip()}" for text in (line, *block) if text.strip())
    return "\n".join(lines[-10:])


@dataclass(slots=True, kw_only=True)
class _Builder:
    """One build of the missing units."""

    toolchain: Toolchain
    layout: Layout
    console: Console
    cache: object_cache.CacheSession
    isolation: sandbox.Isolation
    jobs: int
    asked: float = 0.0
    hits: str = ""

    def build(self, specs: list[UnitSpec]) -> list[BuildUnit]:
        """Configure all, then build one after another under one bar."""
        pending: dict[str, tuple[str, ...]] = {}
        for spec in specs:
            processes.stop_strays(self._folder(spec))
            self._configure(spec)
            pending[spec.name] = self._pending(spec)
        steps = tuple(step for spec in specs for step in pending[spec.name])
        estimate = progress.Estimate(steps, _read_weights(self.layout), self.jobs)
        names = ", ".join(f"{spec.name} ({len(pending[spec.name])} steps)" for spec in specs)
        self.console.note(f"building {names}, {self.jobs} at once; logs in {self.layout.logs}")
        built = []
        launcher = self.toolchain.launcher
        with self.console.progress("building", estimate.total) as bar:
            for spec in specs:
                self._ninja(spec, estimate, bar)
                _keep_weights(self.layout, self._folder(spec) / ".ninja_log")
                collect(self._folder(spec), spec.expected, platforms.of(self.toolchain.platform).output_folders)
                built.append(
                    store.keep(
                        spec,
                        self._folder(spec) / "unit",
                        self.layout,
                        network=self.isolation.description,
                        headers=self._headers(spec),
                        launcher="none" if launcher is None else launcher.described,
                    )
                )
        return built

    def _folder(self, spec: UnitSpec) -> Path:
        return self.layout.build / spec.name

    def _log(self, spec: UnitSpec, what: str) -> Path:
        return self.layout.logs / f"{what}-{spec.name}.log"

    def _configure(self, spec: UnitSpec) -> None:
        """Run CMake. The cache of an earlier configuration is discarded if one of its inputs has changed."""
        folder = self._folder(spec)
        stamp = folder / "configured.json"
        entries = spec.entries | cmake.launcher_entries(self.toolchain, cuda=spec.shard is not None)
        digest = hashlib.sha256(json.dumps([entries, spec.key.inputs]).encode()).hexdigest()
        same = stamp.is_file() and stamp.read_text(encoding="utf-8") == digest
        stamp.unlink(missing_ok=True)
        argv = cmake.configure_arguments(
            self.toolchain, self.layout.staged / "wheel_project", folder, entries, fresh=not same
        )
        log = self._log(spec, "configure")
        log.unlink(missing_ok=True)
        done = processes.run(
            processes.Command(argv=(*self.isolation.prefix, *argv), environment=self.cache.environment, log=log),
            check=False,
        )
        if done.returncode != 0:
            _raise_if_disk_full(done)
            raise ConfigureError(f"CMake could not configure unit {spec.name}:\n{cmake_error(done.output)}", log=log)
        stamp.write_text(digest, encoding="utf-8")

    def _pending(self, spec: UnitSpec) -> tuple[str, ...]:
        argv = cmake.build_arguments(self.toolchain, self._folder(spec), jobs=self.jobs, dry_run=True)
        done = processes.run(processes.Command(argv=argv, environment=self.cache.environment))
        parsed = map(progress.parse_line, done.output.splitlines())
        return tuple(output for output in parsed if output is not None)

    def _ninja(self, spec: UnitSpec, estimate: progress.Estimate, bar: ProgressBar) -> None:
        log = self._log(spec, "build")
        log.unlink(missing_ok=True)
        current = ""

        def show() -> None:
            hits = self._cache_note()
            bar.update(estimate.finished, eta=estimate.eta(time.monotonic()), note=f"{spec.name}: {current}{hits}")

        def line(text: str) -> None:
            finished = progress.parse_line(text)
            if finished is not None:
                estimate.finish(finished)
                show()

        def tick(pid: int) -> None:
            nonlocal current
            sources = (progress.source_of(arguments) for arguments in processes.running_arguments(pid))
            current = ", ".join(dict.fromkeys(source for source in sources if source)) or current
            show()

        ninja = cmake.build_arguments(self.toolchain, self._folder(spec), jobs=self.jobs)
        command = processes.Command(argv=(*self.isolation.prefix, *ninja), environment=self.cache.environment, log=log)
        done = processes.run(command, check=False, on_line=line, on_tick=tick)
        if done.returncode != 0 and self.cache.forget_sources(done.output):
            self.console.warn("the object cache is damaged: its index of sources was deleted, and the build goes on")
            done = processes.run(command, check=False, on_line=line, on_tick=tick)
        if done.returncode != 0 and NINJA_INTERRUPTED in done.output:  # it received the signal, this process did not
            raise InterruptedRunError(f"Stopped in unit {spec.name}. Finished files are kept.", log=log)
        if done.returncode != 0:
            _raise_if_disk_full(done)
            message = f"unit {spec.name} does not compile. The first error is in {first_error(done.output)}"
            remedy = "fix the error and run the same command again: finished files are kept"
            raise BuildError(message, remedy=remedy, log=log)

    def _headers(self, spec: UnitSpec) -> SystemHeaders:
        folder, cuda = self._folder(spec), self.toolchain.cuda
        argv = cmake.headers_arguments(self.toolchain, folder)
        listing: list[str] = []  # a hundred thousand lines: more than the runner keeps
        processes.run(processes.Command(argv=argv, environment=self.cache.environment), on_line=listing.append)
        visual_studio = (Path(part) for part in self.cache.environment.get("INCLUDE", "").split(";") if part)
        return system_headers.describe(
            system_headers.parse(listing, folder),
            self.layout,
            inputs=(cuda.root,),
            expected=(cuda.include, *visual_studio),
        )

    def _cache_note(self) -> str:
        """The cache hits, queried only every few seconds: each query starts a process."""
        now = time.monotonic()
        if now - self.asked >= CACHE_QUERY_INTERVAL:
            self.asked = now
            hits = self.cache.uses().hits
            self.hits = f"; {hits} cache hits" if hits else ""
        return self.hits


def _raise_if_disk_full(done: processes.Completed) -> None:
    if processes.says_disk_full(done.output):
        processes.raise_for(done)


def _read_weights(layout: Layout) -> dict[str, float]:
    """Expected seconds of each step: the shipped ones, overridden by those measured on this machine."""
    shipped = tomllib.loads((layout.data / "weights.toml").read_text(encoding="utf-8"))["seconds"]
    return {name: float(value) for name, value in shipped.items()} | _measured_weights(layout)


def _keep_weights(layout: Layout, ninja_log: Path) -> None:
    """Save how long each step took here. The longest time is kept: a cache hit says nothing about compiling."""
    known = _measured_weights(layout)
    for output, seconds in progress.parse_ninja_log(ninja_log.read_text(encoding="utf-8")).items():
        known[output] = max(known.get(output, 0.0), round(seconds, 2))
    jsonio.write(layout.state / SECONDS, known)


def _measured_weights(layout: Layout) -> dict[str, float]:
    try:
        return jsonio.read(layout.state / SECONDS, dict[str, float])
    except StepResultError:
        return {}
