"""Build one unit again and again inside the second environment, compare it with the stored one, keep the results."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from typing import TYPE_CHECKING

from build_config import inputs, pipeline
from build_config.errors import PipelineError
from build_config.plan import BuildRequest, resolve
from build_config.reports import BuildRecord
from build_config.steps.units import compilation
from build_config.steps.units.spec import shard_spec
from build_config.system import jsonio, machine
from build_config.tasks.reproduce import difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from build_config.model import BuildUnit
    from build_config.steps.units.spec import UnitSpec
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.tasks.reproduce.difference import Difference

CUDA = "13.0"
Seen = tuple[bool, tuple[str, ...]]
"""Whether a step detected something, and its report."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The result for one input. ``named`` are the expected names in the report, ``said`` is the report."""

    what: str
    caught: bool
    named: tuple[str, ...]
    said: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it was detected and the report contains every expected name."""
        return self.caught and all(any(name in line for line in self.said) for name in self.named)


class Bench:
    """One unit inside the second environment, built again and again and compared with the stored one."""

    def __init__(self, arch: str, given: Path, layout: Layout, console: Console) -> None:
        self.layout, self.console, self.given = layout, console, given
        self.results: list[Shown] = []
        request = BuildRequest(arch=arch, cuda=CUDA, launcher="sccache")
        self.plan = resolve(request, machine.describe(), layout)
        self.name = f"sm{arch}"
        compiled = pipeline.compile_units(self.plan, console, only=(self.name,))
        self.tree, self.chain = compiled.tree, compiled.toolchain
        (self.first,) = compiled.units
        (self.shard,) = compiled.shards
        self.spec = self.spec_for(inputs.stage_wheel_project(layout)[0])
        (self.published,) = (given / "wheelhouse").glob(f"*.{self.name}-*.whl")
        self.record = self.published.with_name(f"{self.published.name}.record.json")
        folders = (
            given / "store" / self.name / key.digest[:32] / "lib" for key in jsonio.read(self.record, BuildRecord).units
        )
        self.reference = next(folder for folder in folders if folder.is_dir())

    def stage(self) -> None:
        """Stage the locked sources again."""
        inputs.provide_sources(self.plan.locks.source, self.layout, self.console, llama_cpp=None)

    def spec_for(self, project_digest: str) -> UnitSpec:
        """The specification of the unit with that digest of our CMake project."""
        return shard_spec(self.plan.settings, self.tree, self.layout, self.chain, project_digest, self.shard)

    def build(self) -> BuildUnit:
        """Build the unit from the staged files, whatever its key is; the previous one is deleted."""
        shutil.rmtree(self.layout.store, ignore_errors=True)
        (unit,) = compilation.build_units((self.spec,), self.chain, self.layout, self.console, jobs=self.plan.jobs)
        return unit

    def differences(self, reference: Path | None = None) -> tuple[Difference, ...]:
        """Build the unit, and compare it with the stored one, or the one in ``reference``."""
        return self.compare(self.build(), reference)

    def compare(self, unit: BuildUnit, reference: Path | None = None) -> tuple[Difference, ...]:
        """The differences between a unit and the stored one, or the one in ``reference``."""
        first, work = reference or self.reference, self.layout.work_root / "differences"
        return difference.compare_folders(first, unit.folder, cuobjdump=self.chain.cuobjdump, folder=work)

    def expect_equal(
        self, what: str, build: Callable[[], BuildUnit], reference: Path | None = None, started: float | None = None
    ) -> None:
        """Expect that ``build`` gives the bytes of the stored unit, or of the one in ``reference``."""

        def step() -> Seen:
            unit = build()
            equal = tuple(f"equal: {file.sha256}" for file in unit.files)
            return True, difference.explain(self.compare(unit, reference)) or equal

        self.expect(what, ("equal: ",), step, started)

    def expect_different(
        self, what: str, named: tuple[str, ...], compare: Callable[[], tuple[Difference, ...]]
    ) -> None:
        """Expect a difference whose explanation contains ``named``."""

        def step() -> Seen:
            found = compare()
            return bool(found), difference.explain(found)

        self.expect(what, named, step)

    def expect_another_key(self, what: str, named: tuple[str, ...], respecify: Callable[[], UnitSpec]) -> None:
        """Expect that the unit has another key, and that the inputs which change it are ``named``."""

        def step() -> Seen:
            before, after = dict(self.spec.key.inputs), dict(respecify().key.inputs)
            changed = tuple(f"another key, by {name}" for name in sorted(after) if after[name] != before.get(name))
            return bool(changed), changed

        self.expect(f"{what}: the unit's key", named, step)

    def expect_refused(self, what: str, named: tuple[str, ...], attempt: Callable[[], object]) -> None:
        """Expect that a step of the pipeline refuses its input."""

        def step() -> Seen:
            try:
                attempt()
            except PipelineError as error:
                return True, (f"{type(error).__name__}: {error.message}",)
            return False, ("it was accepted",)

        self.expect(what, named, step)

    def expect(self, what: str, named: tuple[str, ...], step: Callable[[], Seen], started: float | None = None) -> None:
        """Run ``step``, then print its result and keep it, with the seconds since ``started``, by default since now."""
        started = time.monotonic() if started is None else started
        caught, said = step()
        shown = Shown(what=what, caught=caught, named=named, said=said, seconds=round(time.monotonic() - started, 1))
        self.results.append(shown)
        self.console.note(f"{'as expected' if shown.passed else 'NOT AS EXPECTED'}: {what}")
        for line in said:
            self.console.note(f"  {line}")


@contextlib.contextmanager
def edited(file: Path, old: str, new: str) -> Iterator[None]:
    """Replace text in a file; restore it after the block."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(old, new), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")
